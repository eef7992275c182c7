"""From what a user says to a run: every preset under every way of changing a part of it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from tqdm import tqdm

from charlm.cli import cli
from charlm.errors import CharlmError, UsageError
from charlm.machine import Machine
from charlm.presets import PRESETS
from charlm.session import Request, open_session

TEXT = "It was the best of times, it was the worst of times. " * 2000
CHANGES = {
    "nothing": {},
    "the longest stride of its window": lambda preset: {"train": {"stride": preset["train"]["bptt"]}},
    "a tied embedding as wide as the units": lambda preset: {
        "model": {"embedding": preset["model"]["units"], "tie": True}
    },
    "steps": {"train": {"steps": 5}},
    "epochs": {"train": {"epochs": 1}},
    "another cell": {"model": {"cell": "gru"}},
    "another tokenizer": {"data": {"tokenizer": "char"}},
}


@pytest.fixture(autouse=True)
def text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


@pytest.fixture
def opened(text):
    def opened(settings, preset=None, **request):
        return open_session(Request(["text.txt"], settings, text / "models", preset=preset, **request))

    return opened


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("change", CHANGES)
def test_every_preset_takes_every_change_of_a_part(opened, text, preset, change):
    settings = CHANGES[change]
    settings = settings(PRESETS[preset].on(Machine.here().slow)) if callable(settings) else settings
    if "series" in preset and change != "another tokenizer":
        (text / "text.txt").write_text("y\n" + "".join(f"{n * n % 101}\n" for n in range(2000)))
    if preset == "pairs":
        (text / "text.txt").write_text("".join(f"{n}\t{n * n % 101}\n" for n in range(2000)))
        settings = {**settings, "data": {"form": "whole", **settings.get("data", {})}}
    config = opened(settings, preset).config
    for table, values in settings.items():
        for key, value in values.items():
            assert getattr(getattr(config, table), key) == value
    assert sum(getattr(config.train, length) is not None for length in ("epochs", "steps", "minutes")) == 1


def test_a_preset_on_bytes_reads_what_is_no_text(opened, text):
    (text / "text.txt").write_bytes(bytes(range(256)) * 200)
    assert opened({}, "enwik8").data.tokenizer.name == "byte"


def test_settings_that_no_preset_goes_with_are_refused_before_the_text_is_read(opened, text):
    (text / "text.txt").unlink()
    with pytest.raises(UsageError, match="stride must be at most the window's"):
        opened({"train": {"stride": 100, "bptt": 50}})
    with pytest.raises(UsageError, match="epochs and steps exclude each other"):
        opened({"train": {"steps": 1, "epochs": 1}})
    with pytest.raises(UsageError, match=r"stride must be at most the window's (32|64)"):
        opened({"train": {"stride": 100}}, "small")


def session_of(monkeypatch, words, environment=None, input=None):
    """What the command line would train."""
    found = []

    def stopped(request, *bars):
        found.append(open_session(request, *bars))
        raise UsageError("far enough")

    monkeypatch.setattr("charlm.session.open_session", stopped)
    result = CliRunner(env=environment).invoke(cli, ["train", *words], input=input)
    assert str(result.exception) == "far enough", result.output or result.exception
    return found[0]


def config_of(monkeypatch, words, environment=None, toml=""):
    """The settings that it would train with."""
    Path("run.toml").write_text(toml)
    return session_of(monkeypatch, ["text.txt", "--config", "run.toml", *words], environment).config


def test_a_file_and_a_flag_are_held_against_each_other_and_not_against_the_defaults(monkeypatch):
    config = config_of(monkeypatch, ["--bptt", "128"], toml="[train]\nstride = 100\n")
    assert (config.train.bptt, config.train.k1) == (128, 100)


def test_a_flag_beats_another_length_in_the_environment_and_the_environment_one_in_the_file(monkeypatch):
    environment, toml = {"CHARLM_TRAIN_MINUTES": "5"}, "[train]\nepochs = 2\n"
    train = config_of(monkeypatch, ["--steps", "100"], environment, toml).train
    assert (train.steps, train.minutes, train.epochs) == (100, None, None)
    train = config_of(monkeypatch, [], environment, toml).train
    assert (train.steps, train.minutes, train.epochs) == (None, 5.0, None)


def test_of_two_that_make_a_run_of_one_name_at_a_time_one_makes_it(opened):
    def make(n):
        try:
            with opened({"train": {"steps": 5}}, "tiny", name=f"run-{n // 2}").lock:
                return "made"
        except UsageError as error:
            return str(error).partition(" ")[2]

    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(make, range(10)))
    refused = "exists: add resume=True to go on, or choose another name"
    assert [sorted(pair) for pair in zip(told[::2], told[1::2], strict=True)] == [[refused, "made"]] * 5


def test_a_run_is_held_from_before_it_is_read_until_its_training_ends(opened, text):
    """Who comes late has not read a checkpoint that the other process then goes on from."""
    first = opened({"train": {"steps": 5}}, "tiny", name="run")
    (first.run.path / "config.json").rename(text / "kept")
    (first.run.path / "config.json").write_text("half writ")
    for _ in range(2):  # a refused one does not hold it
        with pytest.raises(CharlmError, match="is being trained by another process"):
            opened({}, name="run", resume=True)
    (text / "kept").rename(first.run.path / "config.json")
    first.lock.close()
    opened({}, name="run", resume=True).lock.close()


def test_a_checkpoint_that_was_copied_out_alone_is_not_resumed_and_not_changed(opened, text):
    (text / "models" / "mailed").mkdir(parents=True)
    for name in ("config.json", "MANIFEST.json"):
        (text / "models" / "mailed" / name).write_text("{}")
    with pytest.raises(UsageError, match="a checkpoint without its run"):
        opened({}, name="mailed", resume=True)
    assert len(list((text / "models" / "mailed").iterdir())) == 2


@pytest.mark.parametrize("name", ["..", ".", ".git", "Thumbs.db", "a/b", ""])
def test_a_name_that_is_no_name_of_a_run_is_refused(opened, name):
    for resume in (False, True):
        with pytest.raises(UsageError, match="name"):
            opened({"train": {"steps": 1}}, name=name, resume=resume)


LATIN, BINARY = "Café déjà vu. ".encode("latin-1") * 400, bytes(range(256)) * 20
READINGS = {
    "latin-1": (["--encoding", "latin-1"], LATIN, LATIN.decode("latin-1")),
    "replace": (["--errors", "replace"], LATIN, LATIN.decode("utf-8", "replace")),
    "bytes": (["--tokenizer", "byte"], BINARY, BINARY.decode("utf-8", "surrogateescape")),
}


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("source", ["folder/text.txt", "folder", "-"])
def test_a_bar_is_over_the_bytes_that_are_read_whatever_they_are_and_wherever_they_lie(monkeypatch, reading, source):
    """A bar that looked at a folder by itself would not find the text that only these settings can read."""
    words, data, text = READINGS[reading]
    Path("folder").mkdir()
    Path("folder/text.txt").write_bytes(data)
    bars = []

    class Shown(tqdm):
        def __init__(self, **options):
            bars.append(self)
            super().__init__(**{**options, "disable": False, "delay": 0})

    monkeypatch.setattr("charlm.cli.bars.tqdm", Shown)
    found = session_of(monkeypatch, [source, *words, "--steps", "5", "--preset", "tiny"], input=data)
    assert "".join(found.data.corpus.pieces()) == text
    learnt = round(0.9 * len(text))
    assert [(bar.desc, bar.unit, bar.total, bar.n) for bar in bars] == [
        ("reading", "B", len(data), len(data)),
        *([("learning symbols", "chars", learnt, learnt)] if reading != "bytes" else []),
        ("encoding", "chars", len(text), len(text)),
    ]
