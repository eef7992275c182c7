"""What the documents say is true of the program: commands parse, options are explained, links lead somewhere."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from charlm.cli import COMMANDS, cli
from charlm.presets import PRESETS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md"), *ROOT.glob("models/*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def commands(page):
    """Every charlm command line in a page's code blocks."""
    for line in page.read_text("utf-8").splitlines():
        found = re.match(r"(?:    |\$ )*(?:.*\| )?charlm( .*)?$", line)
        if found and not re.search(r"[─▶]|: ", line):
            yield found[1] or ""


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_parse(page):
    for line in commands(page):
        words = shlex.split(line.replace(" ...", " corpus.txt"), comments=True)
        words = [word for word in words if word not in ("|", "<")]
        with click.Context(cli, **cli.context_settings) as ctx:
            name, command, rest = cli.resolve_command(ctx, words) if words[0] in COMMANDS else (None, cli, words)
            assert command is not None, f"{page.name}: charlm{line}"
            if name:
                command.make_context(name, rest, parent=ctx, resilient_parsing=False)


def test_the_readme_shows_every_command():
    readme = (ROOT / "README.md").read_text("utf-8")
    for name in COMMANDS:
        assert f"`charlm {name}" in readme, name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name):
    command = cli.get_command(click.Context(cli, **cli.context_settings), name)
    assert len(command.help) > 40
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_and_named_files_exist(page):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:docs|tests|benchmarks|charlm)/[\w/.-]+\.\w+)`", text):
        assert (ROOT / path).exists(), path


def test_every_promise_of_security_names_tests_that_are_there():
    rows = re.findall(r"^\| .+ \| `(tests/\w+\.py)(?:::(\w+))?` \|$", (ROOT / "SECURITY.md").read_text("utf-8"), re.M)
    assert len(rows) == (ROOT / "SECURITY.md").read_text("utf-8").count("\n| ") - 1
    for file, name in rows:
        assert f"def {name or 'test_'}" in (ROOT / file).read_text("utf-8"), f"{file}::{name}"


def test_the_tables_of_modules_name_every_module():
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for path in [*ROOT.glob("charlm/*.py"), *ROOT.glob("charlm/serve/*.py")]:
        assert f"`{path.name}`" in page or path.name.startswith("__"), path


def test_make_targets_that_pages_name_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for page in PAGES:
        for target in re.findall(r"`make ([\w-]+)", page.read_text("utf-8")):
            assert target in targets, f"{page.name}: make {target}"


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    """On a small text: what the page shows is the interface, not how long it takes."""
    readme = (ROOT / "README.md").read_text("utf-8")
    code = re.findall(r"```python\n(.*?)```", readme, re.S)[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path))
    Path("corpus.txt").write_text("It was the best of times, it was the worst of times, " * 400)
    exec(code.replace("minutes=2", "steps=5, units=16"), {})


def test_make_demo_says_what_it_downloads_and_how_long_it_takes(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"))
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # `make test` has them
    command = ["make", "-n", "demo"]
    shown = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, check=True).stdout
    first = shown.splitlines()[0]
    for said in ("0.7 GB to download", "2.2 GB on the disk", "minutes"):
        assert said in first
    assert "two minutes" in shown.splitlines()[-3]


def test_the_table_of_presets_says_the_networks_that_they_are():
    rows = re.findall(
        r"^\| `(\w+)` \| LSTM (\d+) × (\d+)(?:.*?dropout ([\d.]+))?", (ROOT / "README.md").read_text("utf-8"), re.M
    )
    assert {"tiny", "small", "medium", "large", "pairs", "enwik8"} <= {name for name, *_ in rows}
    for name, units, layers, dropout in rows:
        network = PRESETS[name].tables["model"]
        assert (network["units"], network["layers"]) == (int(units), int(layers))
        assert not dropout or network["dropout"] == float(dropout)
