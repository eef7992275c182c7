"""The guides are true: their commands and programs run, on a small text, and what they list is all there is."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from pydoc_data.topics import topics

import click
import pytest
from click.testing import CliRunner

import charlm
from charlm.cli import cli
from charlm.config import DataConfig, ModelConfig, SampleConfig, TrainConfig
from charlm.questions import ForecastConfig, TranslationConfig

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SMALL = shlex.split("--steps 4 --units 8 --layers 1 --embedding 8 --lanes 2 --bptt 8 --stride 8")
LONG = re.compile(r" --(minutes|epochs|steps|preset|units|layers|embedding|lanes|bptt|stride|length) [\w.]+")
PROSE = "It was the best of times, it was the worst of times, it was the age of wisdom.\n" * 60
PROSE += "".join(f"{topics[name]}\n" for name in ("assignment", "class", "exceptions", "typesmapping"))
SERIES = ("north", 100), ("south", 40)
TABLES = (ModelConfig, DataConfig, TrainConfig, SampleConfig, ForecastConfig, TranslationConfig)


def blocks(name, language):
    """A page's blocks of code that run: those that no comment above says to be tried otherwise."""
    text = (DOCS / name).read_text("utf-8")
    found = re.findall(rf"(<!-- not run here: [^\n]+ -->\n)?```{language}\n(.*?)```", text, re.S)
    return [code for mark, code in found if not mark]


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A folder with a text and a trained run, where the guides' commands are typed."""
    folder = tmp_path_factory.mktemp("guides")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CHARLM_CACHE", str(folder / "cache"))
        patch.setattr("charlm.export.html.PLAYS", ())  # a browser takes its time
        patch.setattr("charlm.export.parity.SYMBOLS", 100)
        patch.setattr("charlm.export.parity.GREEDY", 50)
        Path("corpus.txt").write_text(PROSE)
        Path("other.txt").write_text(PROSE.upper())
        Path("books").mkdir()
        Path("books", "one.txt").write_text(PROSE)
        months = [f"{2019 + n // 12}-{n % 12 + 1:02}-01" for n in range(60)]
        rows = [f"{name},{ds},{size + n % 12}" for name, size in SERIES for n, ds in enumerate(months)]
        Path("sales.csv").write_text("\n".join(["unique_id,ds,y", *rows]))
        Path("pairs.tsv").write_text("".join(f"{n}+{m}\t{n + m}\n" for n in range(12) for m in range(12)))
        Path("sources.txt").write_text("1+1\n\n2+3\n")
        typed("charlm train corpus.txt --name first")
        yield folder


@pytest.fixture
def own_runs(ground):
    """Takes away the runs of a guide, the newest of which other guides' commands would take."""
    before = set(Path("models").iterdir())
    yield
    for run in set(Path("models").iterdir()) - before:
        shutil.rmtree(run)


def typed(line):
    """Runs a command of a guide, training for a moment."""
    words = shlex.split(LONG.sub("", line), comments=True)[1:]
    if words[0] == "train":
        words += ["--steps", "8", *SMALL[2:]] if "--resume" in words else SMALL
    if words[0] == "generate":
        words += ["--length", "20"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, f"{line}: {done.exception!r}"
    return done.output


RUN = ["training.md", "python.md", "leaving.md", "deploy.md", "forecasting.md", "pairs.md"]


def parsed(words):
    """A command of charlm and the context that its words make."""
    with click.Context(cli, **cli.context_settings) as ctx:
        name, command, rest = cli.resolve_command(ctx, words)
        return command, command.make_context(name, rest, parent=ctx)


@pytest.mark.parametrize("name", RUN)
@pytest.mark.usefixtures("own_runs")
def test_every_command_and_program_of_a_guide_runs(ground, name):
    for code in blocks(name, "sh"):
        for line in code.splitlines():
            if line.startswith("charlm "):
                typed(line)
    names = {}
    for code in blocks(name, "python"):
        if name == "leaving.md":
            names = {}  # each is a whole program
        exec(re.sub(r"minutes=[\d.]+", 'steps=4, lanes=2, bptt=8, preset="tiny"', code), names)


def test_every_block_of_a_guide_runs_or_says_why_not():
    for page in DOCS.glob("*.md"):
        text = page.read_text("utf-8")
        for mark, language in re.findall(r"(<!-- not run here: [^\n]+ -->\n)?```([a-z]+)\n.*?```", text, re.S):
            tried = language in ("sh", "python") and page.name in RUN
            assert mark or tried or language in ("nginx", "ini", "dockerfile") or page.name == "bptt.md", page.name


def test_the_lines_for_nginx_are_understood_by_nginx(tmp_path):
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin") or pytest.skip("nginx is not installed")
    pair = [f"{tmp_path}/key.pem", f"{tmp_path}/cert.pem"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=example.com"]
    subprocess.run([*made, "-keyout", pair[0], "-out", pair[1]], check=True, capture_output=True)
    (site,) = re.findall(r"```nginx\n(.*?)```", (DOCS / "deploy.md").read_text("utf-8"), re.S)
    for name, file in zip(("privkey", "fullchain"), pair, strict=True):
        site = re.sub(rf"\S+/{name}\.pem", file, site)
    temporary = "".join(
        f"{kind}_temp_path {tmp_path}; " for kind in ("proxy", "fastcgi", "uwsgi", "scgi", "client_body")
    )
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid; events {{}} http {{ {temporary} {site} }}")
    command = [nginx, "-t", "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-g", f"error_log {tmp_path}/log;"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_unit_for_systemd_is_understood_by_systemd(tmp_path):
    verify = shutil.which("systemd-analyze") or pytest.skip("systemd is not installed")
    (unit,) = blocks("deploy.md", "ini")
    command = re.search(r"(?m)^ExecStart=(.*)$", unit)[1]
    (tmp_path / "charlm.service").write_text(unit.replace(command, "/bin/true"))
    done = subprocess.run([verify, "verify", tmp_path / "charlm.service"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    known = {str(option.envvar) for option in parsed(["serve"])[0].params}
    assert set(re.findall(r"Environment=(\w+)=", unit)) <= known
    assert parsed(shlex.split(command)[1:])[1].info_name == "serve"


def test_the_commands_of_the_dockerfile_are_commands():
    (lines,) = blocks("deploy.md", "dockerfile")
    copied = re.search(r"(?m)^COPY (models/\S+) (/models)/(\S+)$", lines)
    (command,) = re.findall(r"(?m)^CMD (\[.*\])$", lines)
    words = json.loads(command)
    served = parsed(words[1:])[1].params
    assert (words[0], served["model"], str(served["models"])) == ("charlm", copied[3], copied[2])
    (health,) = re.findall(r"HEALTHCHECK .*CMD (\[.*\])", lines)
    compile(json.loads(health)[2], "health", "exec")
    assert f"EXPOSE {served['port']}" in lines
    assert set(re.findall(r"(?m)^[A-Z]+", lines)) <= {"FROM", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}


def test_the_guide_to_python_lists_every_public_name_and_setting():
    text = (DOCS / "python.md").read_text("utf-8")
    for name in charlm.__all__:
        assert f"`{name}" in text or f"`charlm.{name}" in text, name
    for table in TABLES:
        for one in table.settings():
            line = f"| `{one.key}` | {one.entry.partition(': ')[2]} |"
            assert line in text, line
    for name, value in [*vars(charlm.events).items(), *vars(charlm.errors).items()]:
        if isinstance(value, type) and value.__module__ in ("charlm.events", "charlm.errors"):
            assert f"`{name}`" in text, name
    for name in [*charlm.Score.__dataclass_fields__, *vars(charlm.LanguageModel)]:
        assert name.startswith("_") or f"`{name}" in text, name


def test_the_index_lists_every_page():
    index = (DOCS / "index.md").read_text("utf-8")
    for page in DOCS.glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index, page.name


def test_every_message_of_the_page_for_trouble_is_one_that_charlm_says():
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "charlm").rglob("*.py"))
    source = re.sub(r'"\s*\n?\s*f?"', "", source)
    for message in re.findall(r"(?m)^### `(.+)`$", (DOCS / "troubleshooting.md").read_text("utf-8")):
        for part in message.split("…"):
            assert part.strip() in source, message
