"""Options as people type them: near misses, variables of the environment, escapes, the Tab key, the list of runs."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from click.shell_completion import ShellComplete
from tqdm.utils import disp_len

from charlm.cli import COMMANDS, cli, main
from charlm.cli.generate import _typed
from charlm.cli.listing import described, row, table
from charlm.drafts import drafting
from charlm.errors import spelled
from charlm.runs import Run

ROOT = Path(__file__).parent.parent
SHIPPED = next((ROOT / "models").glob("*/config.json")).parent


@pytest.fixture
def charlm(monkeypatch, capsys):
    """Runs the command line in this process: (exit code, standard output, standard error)."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("charlm.cli.open_streams", lambda: None)  # this process' own streams are pytest's
    monkeypatch.setattr(os, "dup2", lambda *descriptors: None)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

    def run(*words, **env):
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["charlm", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def models(tmp_path):
    """A folder with a good run, one with a wide name, a damaged one, one without a checkpoint, and something else."""
    folder = tmp_path / "models"
    for name in ("good", "日本語のモデルの名前"):
        shutil.copytree(SHIPPED, folder / name)
    shutil.copytree(SHIPPED, folder / "damaged")
    weights = next((folder / "damaged").rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    shutil.copytree(SHIPPED, folder / "empty", ignore=shutil.ignore_patterns("step-*"))
    shutil.copytree(SHIPPED, folder / "foreign", ignore=shutil.ignore_patterns("step-*"))
    (folder / "foreign" / "config.json").write_text("[]")
    (folder / "notes").mkdir()
    return folder


@pytest.mark.parametrize(
    ("place", "code", "says"),
    [("loop/out", 2, "no such directory"), ("x" * 300, 1, "File name too long"), ("x" * 300 + "/out.keras", 1, "")],
    ids=["loop", "long", "long folder"],
)
def test_a_place_that_no_file_can_have_is_one_line(charlm, tmp_path, place, code, says):
    (tmp_path / "loop").symlink_to("loop")
    ended, _, err = charlm("export", "--model", SHIPPED, tmp_path / place)
    assert (ended, err.count("\n")) == (code, 1)
    assert err.startswith(f"charlm: {tmp_path}/")
    assert says in err
    assert "unexpectedly" not in err


def test_charlm_alone_prints_its_help_in_lines(charlm):
    code, out, err = charlm()
    assert (code, out) == (2, "")
    assert len(err.splitlines()) > 20
    assert max(map(len, err.splitlines())) <= 90
    assert err.startswith("Usage: ")


@pytest.mark.parametrize(
    "words", [["-h"], ["--help"], ["help"], *([name, "-h"] for name in COMMANDS), ["help", "train"]]
)
def test_every_command_has_help(charlm, words):
    code, out, err = charlm(*words)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: ")
    assert len(out.splitlines()) > 5


def test_version(charlm):
    assert charlm("--version")[1].startswith("charlm ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "No such command 'trian'; did you mean train?"),
        (["train", "x", "--lane", "5"], "--lanes"),
        (["train", "x", "--cell", "ltsm"], "did you mean lstm?"),
        (["train", "x", "--preset", "smal"], "did you mean small?"),
        (["info", "--models", ROOT / "models", "--model", SHIPPED.name[:-1]], f"did you mean {SHIPPED.name}?"),
    ],
)
def test_a_near_miss_is_told_what_was_meant(charlm, words, says):
    code, out, err = charlm(*words)
    assert (code in (2, 5), out) == (True, "")
    assert says in err
    assert len(err.splitlines()) == 1


def test_a_wrong_variable_is_named_not_the_option(charlm, tmp_path):
    (tmp_path / "text.txt").write_text("It was the best of times. " * 99)
    for value in ("x", "0"):
        code, _, err = charlm("train", tmp_path / "text.txt", CHARLM_TRAIN_UNITS=value)
        assert code == 2
        assert "CHARLM_TRAIN_UNITS" in err
        assert "--units" not in err


def test_a_misspelt_variable_is_warned_of(charlm, caplog, models):
    there = {"CHARLM_RUNS_MODEL": "x", "CHARLM_MODELS": "x", "CHARLM_TRAIN_UNITS": "5", "CHARLM_CACHE": "x"}
    assert charlm("runs", "--models", models, **there)[0] == 0
    for name in ("CHARLM_RUNS_MODEL", "CHARLM_MODELS"):
        assert f"{name}: charlm runs has no such option; did you mean CHARLM_RUNS_MODELS?" in caplog.text
    assert len(caplog.records) == 2


def test_a_stop_text_with_a_blank_in_the_environment_is_one_text():
    command = cli.get_command(None, "generate")
    os.environ["CHARLM_GENERATE_STOP"] = "zzz block"
    try:
        context = command.make_context("generate", [])
    finally:
        del os.environ["CHARLM_GENERATE_STOP"]
    assert context.params["sample__stop"] == ("zzz block",)


def test_a_backslash_and_an_n_are_a_line_end_when_asked_for_and_warned_of_otherwise(caplog):
    assert _typed(r"A\nB\t\\n", "prompt", True) == "A\nB\t\\n"
    assert not caplog.records
    with spelled(lambda setting, value=None: "--" + setting.rpartition(".")[2]):
        assert _typed(r"\n", "sample.stop", False) == r"\n"
    assert "--stop '\\n': " in caplog.text
    assert "--escapes" in caplog.text


def test_the_tab_key_completes_commands_runs_and_checkpoints(models):
    def completed(*words, incomplete=""):
        shell = ShellComplete(cli, {}, "charlm", "_CHARLM_COMPLETE")
        return [item.value for item in shell.get_completions(list(words), incomplete)]

    assert completed(incomplete="tr") == ["train", "translate"]
    assert completed("generate", "--models", str(models), "--model", incomplete="g") == ["good"]
    assert "damaged" in completed("train", "--models", str(models), "--name")
    step = next((SHIPPED / "checkpoints").iterdir()).name.removeprefix("step-").lstrip("0")
    found = completed("info", "--models", str(models), "--model", "good", "--checkpoint")
    assert found == ["best", "last", step]
    for model in (models / "good", models.absolute() / "good", "[go*", "none"):
        found = completed("generate", "--models", str(models), "--model", str(model), "--checkpoint")
        assert found == ["best", "last", *[step] * (model in (models / "good", models.absolute() / "good"))]
    assert step in completed("generate", "--models", str(models), "--checkpoint")
    assert completed("train", "--cell", incomplete="g") == ["gru"]
    assert "--lanes" in completed("train", incomplete="--la")
    assert "bash_source" in cli.help


def test_charlm_runs_lists_what_there_is_and_says_what_is_damaged(charlm, models):
    code, out, err = charlm("runs", "--models", models)
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines.keys() == {"NAME", "good", "日本語のモデルの名前", "damaged", "empty", "foreign"}
    assert "damaged" in lines["damaged"].removeprefix("damaged")
    assert "damaged" in lines["foreign"]
    assert "untrained" in lines["empty"]
    assert "lstm" in lines["good"]
    assert "MB" in lines["good"]
    assert "bits/char" in lines["good"]
    listed = [json.loads(line) for line in charlm("runs", "--models", models, "--json")[1].splitlines()]
    about = next(one for one in listed if one["name"] == "good")
    assert 1 < about["bits_per_char"] < 3
    assert about["bytes"] > 100_000
    assert about["state"] == "published"
    assert "unfinished" not in lines["good"]
    assert next(one for one in listed if one["name"] == "damaged")["why"].endswith("has changed since it was written")


def test_no_runs_yet_says_how_to_train_one(charlm, tmp_path):
    code, out, err = charlm("runs", "--models", tmp_path)
    assert (code, out) == (0, "")
    assert "charlm train TEXT" in err


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_list_of_runs_keeps_to_the_width_of_the_terminal(models, width):
    rows = [row(described(Run(path.parent))) for path in models.glob("*/config.json")]
    lines = table(rows, width)
    assert max(map(disp_len, lines)) <= width
    assert all("SCORE" in line for line in lines[:1])
    assert ("TEXT" in lines[0]) == (width == 200)


def test_charlm_cache_says_where_ids_are_and_clears_them(charlm, tmp_path):
    (tmp_path / "ids").mkdir()
    (tmp_path / "ids" / "a.npy").write_bytes(bytes(1500))
    code, out, err = charlm("cache", CHARLM_CACHE=str(tmp_path))
    assert (code, err) == (0, "")
    assert str(tmp_path / "ids") in out
    assert "1 files, 1.50kB" in out
    (tmp_path / "ids" / "b.npy.77").write_bytes(bytes(500))  # of a process that was killed while it wrote
    assert json.loads(charlm("cache", "--clear", "--json")[1]) == {
        "path": str(tmp_path / "ids"),
        "files": 2,
        "bytes": 2000,
        "cleared": True,
    }
    assert not list((tmp_path / "ids").iterdir())
    assert "0 files" in charlm("cache")[1]


def test_charlm_cache_clears_nothing_that_a_process_is_writing(charlm, tmp_path, monkeypatch):
    place = tmp_path / "ids" / "a.npy"
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path))
    (tmp_path / "ids").mkdir()
    for name in (".b.npy", ".b.starts.npy", ".b.npy.json"):  # of one that was killed
        (tmp_path / "ids" / name).write_bytes(bytes(100))
    for _ in range(2):  # the second makes its own
        with drafting({place: "u1", place.with_suffix(".starts.npy"): "i8"}) as draft, drafting({place: "u1"}) as own:
            for one in (*draft.arrays, *own.arrays):
                one.append(np.arange(5, dtype="u1"))
            draft.save(5)
            report = json.loads(charlm("cache", "--clear", "--json")[1])
        assert [path.name for path in (tmp_path / "ids").iterdir() if path.name.startswith(".")] == []
        assert np.load(place).tolist() == [0, 1, 2, 3, 4]
    assert report["files"] == 2  # those of the first time


WORDS = {
    "evaluate": [],
    "generate": ["--prompt", ""],
    "export": ["out"],
    "serve": [],
    "info": [],
    "tokenize": ["text"],
    "translate": [],
}
WORDS |= {"forecast": []}


@pytest.mark.parametrize("name", WORDS)
def test_a_model_that_is_not_there_is_said_before_tensorflow_starts(charlm, tmp_path, monkeypatch, name):
    monkeypatch.setattr("charlm.machine.start_tensorflow", lambda **_: pytest.fail("waits for TensorFlow"))
    code, out, err = charlm(name, *WORDS[name], "--models", tmp_path, "--model", "nobody")
    assert (code, out) == (5, "")
    assert "nobody: no such model" in err
    assert "no such model" in charlm(name, *WORDS[name], "--models", tmp_path, "--model", "n" * 300)[2]


def test_a_wrong_number_of_values_leads_to_the_commands_own_help(charlm):
    code, _, err = charlm("train", "corpus.txt", "--split", "0.5", "0.5")
    assert (code, err) == (2, "charlm: Option '--split' requires 3 arguments. (see: charlm train --help)\n")


def test_every_command_that_reads_a_model_is_tried_with_one_that_is_not_there():
    assert {name for name in COMMANDS if any(o.name == "model" for o in cli.get_command(None, name).params)} == {*WORDS}
