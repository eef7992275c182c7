"""Whatever a disk refuses, and whenever power is lost: what was written before is there, or what is new, whole."""

import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from faults import LOSSES, PowerLoss, damages, every_fault
from test_checkpoint import RECORD, made, save, steps

import charlm.export
import charlm.export.card
import charlm.export.parity
from charlm import corpora
from charlm.corpus import open_corpus
from charlm.errors import CharlmError
from charlm.export import Format
from charlm.files import EXPORT_TITLE
from charlm.idcache import cached_records
from charlm.runs import Run, publish
from charlm.tokenizers import TOKENIZERS

TOKENIZER = TOKENIZERS["char"].train(lambda: iter(["ab"]), 0)


def faults(before, act, found):
    """What `found` tells of a folder after each fault; with it the kind, and whether the command came to its end."""
    after = []
    for place, kind, operation, error in every_fault(before, act):
        if kind in LOSSES:
            assert isinstance(error, PowerLoss), (kind, operation)
        elif error is not None:
            assert isinstance(error, CharlmError), (kind, operation, error)
            assert "\n" not in str(error)
            assert ("No space left on device" if kind == "ENOSPC" else "Input/output error") in str(error)
        after.append((kind, error is None, found(place)))
    assert {kind for kind, *_ in after} == {"ENOSPC", "EIO", *LOSSES}
    return after


def assert_old_or_new(after, old, new):
    """Each state is one of the two; the new one if the command said nothing; both are met."""
    assert all(state in (old, new) and (state == new or not done) for _, done, state in after), after
    assert {str(state) for *_, state in after} == {str(old), str(new)}


@pytest.fixture
def place(tmp_path):
    (tmp_path / "all").mkdir()
    return tmp_path / "all"


def test_a_save_leaves_the_checkpoints_before_or_the_new_one(place):
    made(place / "one", 10, 20, 30, best=20)

    def found(after):
        run = Run(after / "one")
        run.lock().close()  # the next start
        assert not list(after.rglob(".*"))
        assert run.record == RECORD
        assert run.pick("best").step == 20
        return steps(run)

    after = faults(place, lambda folder: save(Run(folder / "one"), 40, best=20), found)
    assert len(after) > 100
    assert all(state in ([10, 20, 30], [10, 20, 30, 40], [20, 30, 40]) for *_, state in after)
    assert all(state[-1] == 40 for _, done, state in after if done)


def test_a_save_in_place_of_a_damaged_one_loses_none_that_is_whole(place):
    run = made(place / "one", 10, 20, 30, best=20)
    weights = run.last().path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])

    def found(after):
        run = Run(after / "one")
        run.lock().close()
        assert not list(after.rglob(".*"))
        return run.last().step

    assert_old_or_new(faults(place, lambda folder: save(Run(folder / "one"), 30, best=20), found), 20, 30)


def test_a_record_is_the_old_one_or_the_new_one(place):
    made(place / "one", 10)

    def found(after):
        Run(after / "one").lock().close()
        assert not list(after.rglob(".*"))
        return Run(after / "one").record

    changed = {**RECORD, "more": "é" * 10_000}
    after = faults(place, lambda folder: Run(folder / "one").record_again(changed), found)
    assert_old_or_new(after, RECORD, changed)


def test_every_damage_is_noticed_and_the_checkpoint_before_is_taken(place, caplog):
    run = made(place / "one", 10, 20, 30, best=30)
    run.record_again({**RECORD, "format": 2})
    files = [run.path / "config.json", *sorted(run.last().path.iterdir())]
    for file, what in damages(files, 300, 100):
        caplog.clear()
        of_run = file.parent == run.path
        assert run.pick("best").step == (30 if of_run else 20), (file, what)
        assert run.record["config"] == RECORD["config"], (file, what)
        assert "damaged" in caplog.text, (file, what)
    caplog.clear()
    assert run.pick("best").step == 30
    assert not caplog.text


@pytest.mark.parametrize("way", ["trained", "published"])
def test_a_new_run_is_not_there_or_has_a_record_and_its_checkpoint_is_whole(place, way):
    made(place / "one", 10)

    def act(folder):
        if way == "trained":
            save(Run.create(folder / "two", RECORD), 10)
        else:
            publish(Run(folder / "one").last(), folder / "two")

    def found(after):
        run = Run(after / "two")
        if not (run.path / "config.json").exists():
            return None
        assert run.record == RECORD | ({"corpus": {"paths": ["été.txt"]}})
        last = run.last()
        return last and last.step

    after = faults(place, act, found)
    assert {state for *_, state in after} == {None, 10}
    assert all(state == 10 for _, done, state in after if done)


def test_ids_in_the_cache_are_not_there_or_right(place):
    text = place.parent / "a.txt"
    text.write_text("ab" * 9_000)
    with open_corpus([str(text)]) as corpus:
        bounds, ids = (0, corpus.chars), np.tile(TOKENIZER.encode("ab"), 9_000)

        def found(after):
            again = cached_records(corpus, bounds, TOKENIZER, after).ids
            assert (np.asarray(again) == ids).all()

        assert len(faults(place, lambda folder: cached_records(corpus, bounds, TOKENIZER, folder), found)) > 30


def test_a_corpus_is_not_there_or_whole(place, monkeypatch):
    monkeypatch.setitem(corpora.CORPORA, "pydocs", lambda: iter(["some text\n"] * 2_000))

    def act(folder):
        corpora.write_corpus("pydocs", folder / "new" / "pydocs.txt")

    def found(after):
        file = after / "new" / "pydocs.txt"
        return file.read_text() if file.exists() else None

    assert_old_or_new(faults(place, act, found), None, "some text\n" * 2_000)


def exporter(monkeypatch, suffix):
    """What exports a text as a folder of two files or as a file."""

    def write(model, path):
        if suffix is None:
            path.mkdir()
        for file in [path] if suffix else [path / "network", path / "weights"]:
            file.write_text(model.config)

    one = SimpleNamespace(WEIGHTS="float32", write=write, PLAYS=(), usage=lambda *_: "")
    monkeypatch.setitem(charlm.export.FORMATS, "savedmodel", Format("one", suffix))
    monkeypatch.setattr(charlm.export, "format_of", lambda name: one)
    monkeypatch.setattr(charlm.export, "check_model", lambda config, name: None)
    for name in ("script_of", "Reference"):
        monkeypatch.setattr(charlm.export.parity, name, lambda *_: None)
    monkeypatch.setattr(charlm.export.card, "card", lambda model, *_: f"{EXPORT_TITLE} {model.config}")

    def exported(path, text, **how):
        charlm.export.export(SimpleNamespace(config=text), path, "savedmodel", **how)

    return exported


def read(path, suffix=None):
    """The text of an export, if all of it is there and has the same."""
    files = [path] if suffix else [path / "network", path / "weights"]
    (text,) = {file.read_text() for file in files}
    assert charlm.export.readme(path, "savedmodel").read_text() in (f"{EXPORT_TITLE} old", f"{EXPORT_TITLE} new")
    return text


@pytest.mark.parametrize("suffix", [None, ".one"], ids=["folder", "file"])
def test_an_export_is_the_old_one_or_the_new_one(place, monkeypatch, suffix):
    exported, name, said = exporter(monkeypatch, suffix), f"out{suffix or ''}", {}

    def act(folder):
        try:
            exported(folder / name, "new", force=True)
        except CharlmError as error:
            said[folder] = str(error)
            raise

    def found(after):
        charlm.export.put_back(after / name)  # the next export
        text, about = read(after / name, suffix), charlm.export.readme(after / name, "savedmodel").read_text()
        if line := said.pop(after, ""):
            assert ("what was there is as it was" in line) == (text == "old")
            assert ("stands there, but not safely" in line) == (text == "new")
            assert text == "new" or about.endswith("old")
        return text

    exported(place / name, "old")
    assert_old_or_new(faults(place, act, found), "old", "new")


def test_every_damage_of_an_export_is_noticed(place, monkeypatch):
    exporter(monkeypatch, None)(place / "out", "text")
    check = ["sha256sum", "--check", "--strict", "--status", "SHA256SUMS"]
    assert not subprocess.run(check, cwd=place / "out").returncode
    files = [place / "out" / name for name in ("README.md", "network", "weights")]
    for file, what in damages(files, 150, 50):
        assert subprocess.run(check, cwd=place / "out").returncode, (file, what)


@pytest.mark.parametrize("first", [True, False], ids=["first", "next"])
def test_a_version_is_not_there_or_whole(place, monkeypatch, first):
    exported = exporter(monkeypatch, None)

    def found(after):
        numbers = sorted(path.name for path in after.glob("writer/*") if not path.name.startswith("."))
        return {number: read(after / "writer" / number) for number in numbers}

    before = {} if first else {"7": "old"}
    if not first:
        exported(place / "writer", "old", version=7)
    after = faults(place, lambda folder: exported(folder / "writer", "new", version=8), found)
    assert_old_or_new(after, before, {**before, "8": "new"})
