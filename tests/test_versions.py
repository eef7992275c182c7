"""Versions for TensorFlow Serving: whole, beside each other, with requests that warm them up."""

import shutil
from pathlib import Path

import pytest
from test_export import language_model

from charlm.cli import as_typed, cli
from charlm.errors import CharlmError, UsageError, spelled
from charlm.export import export, parity, savedmodel, warmup


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A small model, whose exports are checked shortly: tests/test_parity.py is about the check."""
    monkeypatch.setattr(savedmodel, "PLAYS", ())
    monkeypatch.setattr(parity, "SYMBOLS", 5)
    return language_model(tmp_path, units=8)


@pytest.fixture
def stubs(monkeypatch):
    """SavedModels of one file."""

    def write(language_model, path):
        path.mkdir()
        (path / "saved_model.pb").touch()

    monkeypatch.setattr(savedmodel, "write", write)
    monkeypatch.setattr(savedmodel, "usage", lambda *_: "")


def test_a_version_says_how_it_is_loaded_and_asked(model, tmp_path):
    export(model, tmp_path / "writer", version=7)
    found = files(tmp_path / "writer/7")
    assert str(warmup.FILE) in found
    card = found["README.md"].decode()
    assert card.startswith("# writer/7\n")
    for said in "`charlm export writer --version N`", 'load("writer/7")', "/v1/models/writer:predict":
        assert said in card


def test_versions_stand_beside_each_other_and_none_is_replaced(model, stubs, tmp_path):
    place = tmp_path / "writer"
    export(model, place, version=7)
    first = files(place / "7")
    export(model, place, version=2**63 - 1)
    assert {path.name for path in place.iterdir()} == {"7", str(2**63 - 1)}
    (place / "0012").mkdir()
    for taken in 7, 12:
        with pytest.raises(UsageError, match=f"has a version {taken}, and none is replaced; its latest is {2**63 - 1}"):
            export(model, place, version=taken)
    assert files(place / "7") == first


def test_a_version_that_another_process_has_put_there_is_not_replaced(model, stubs, tmp_path, monkeypatch):
    place, write = tmp_path / "writer", savedmodel.write

    def overtaken(language_model, path):
        write(language_model, path)
        shutil.copytree(path, place / "1")

    monkeypatch.setattr(savedmodel, "write", overtaken)
    with pytest.raises(CharlmError, match=r"writer/1: cannot be written: Directory not empty; what was there is as"):
        export(model, place, version=1)
    assert files(place) == {"1/saved_model.pb": b""}


def test_a_failed_first_version_leaves_no_folder(model, tmp_path, monkeypatch):
    def failing(language_model, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(savedmodel, "write", failing)
    with pytest.raises(CharlmError, match="No space left"):
        export(model, tmp_path / "writer", version=1)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("writer --version 0", "--version 0: a version is a number from 1 to 9223372036854775807"),
        ("writer --version -1", "--version -1: a version is a number"),
        (f"writer --version {2**63}", f"--version {2**63}: a version is a number"),
        ("writer --version 2 --force", "--force: no version is replaced"),
        ("writer.keras --version 2", "--version 2: keras has no versions; savedmodel has"),
        ("writer --version 2 --format litert", "--version 2: litert has no versions; savedmodel has"),
        ("no/writer --version 2", "no: no such directory"),
        ("file --version 2", "file: --version 2 goes into a directory, and this is none"),
        ("plain --version 2", "plain: is an export itself; --version 2 wants a directory of its own"),
    ],
)
def test_what_can_be_no_version_is_refused_before_any_work(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("plain").mkdir()
    Path("plain/README.md").write_text("# plain\n\nA recurrent language model, exported from charlm 1 as `savedmodel`.")
    with spelled(as_typed), pytest.raises(UsageError) as caught:
        cli.main(["export", *words.split()], standalone_mode=False)
    assert message in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "plain"}
