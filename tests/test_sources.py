"""What a folder or a pattern means where systems and programs, charlm among them, have left their own files."""

import subprocess
import sys
from pathlib import Path, PosixPath

import pytest

from charlm.corpus import open_corpus
from charlm.errors import DataError, UsageError
from charlm.files import EXPORT_TITLE
from charlm.reading import Reading
from charlm.session import Request, open_session
from charlm.sources import resolve

CARD = f"# saved\n\n{EXPORT_TITLE} 0.1.0 as `onnx`.\n"
PROGRAMS = {
    "models/a-1/config.json": "{}",
    "models/a-1/checkpoints/step-00000001/progress.json": "{}",
    "mailed/MANIFEST.json": "{}",
    "mailed/weights.safetensors": "weights",
    "saved/saved_model.pb": "graph",
    "saved/README.md": CARD,
    "onnx/README.md": CARD,
    "onnx/ids.json": "{}",
    "model.html": "<!doctype html>",
    "model.html.md": CARD,
    "venv/pyvenv.cfg": "home = /usr/bin",
    "venv/lib/six.py": "import sys",
    "web/node_modules/left-pad/index.js": "pad()",
    "tool/__pycache__/notes.txt": "cached",
    "cache/CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55",
}
SYSTEMS = {"desktop.ini": "[.ShellClassInfo]", "Icon\r": "", "a.txt~": "an older a", "docs/._c.md": "Mac OS X"}
PERSON = {"a.txt": "A text.\n" * 400, "docs/c.md": "Another.\n" * 90, "models/README.md": "What lies here.\n"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, content in {**PROGRAMS, **SYSTEMS, **PERSON}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))
    return tmp_path


def names(sources):
    return [str(file) for file in sources.files]


def test_what_systems_and_programs_made_below_a_folder_is_no_text_to_learn_from(folder):
    sources = resolve(["."])
    assert names(sources) == sorted(PERSON)
    left_out = {str(path): what for path, what in sources.left_out}
    assert left_out.keys() == {*SYSTEMS, "picture.png", "models/a-1", "mailed", "saved", "onnx", "model.html"} - {
        "docs/._c.md"
    } | {"model.html.md", "venv", "web/node_modules", "tool/__pycache__", "cache"}
    assert left_out["models/a-1"] == "a run"
    assert left_out["model.html"] == left_out["onnx"] == "an export"


def test_a_pattern_leaves_out_what_a_folder_does(folder):
    assert names(resolve(["**/*.md"])) == ["docs/c.md", "models/README.md"]
    assert names(resolve(["**/*.txt", "*.ht*", "docs/*"])) == ["a.txt", "docs/c.md"]


def test_what_is_named_is_read_whatever_it_is(folder):
    files = ["model.html", "desktop.ini", "venv/lib/six.py"]
    assert names(resolve(files)) == files
    assert names(resolve(["models/a-1/*.json"])) == ["models/a-1/config.json"]
    assert names(resolve(["venv"])) == ["venv/lib/six.py", "venv/pyvenv.cfg"]


def test_a_folder_of_runs_alone_adds_nothing_to_other_texts_and_is_no_text_by_itself(folder):
    (folder / "models/README.md").unlink()
    assert names(resolve(["a.txt", "models"])) == ["a.txt"]  # what a shell makes of `*`
    with pytest.raises(DataError, match="models: all that is there was made by programs"):
        resolve(["models"])
    with pytest.raises(DataError, match="made by programs"):
        resolve(["models/*/*.json"])


def test_the_log_that_the_command_writes_is_not_its_corpus(folder):
    code = "from charlm.sources import resolve; print(*resolve(['.', '*.log']).files)"
    for streams in ({"stdout": "out.log"}, {"stderr": "err.log"}):
        (name, log) = next(iter(streams.items()))
        with (folder / log).open("w") as file:
            file.write("an earlier line\n")
            file.flush()
            pipes = {"stdout": subprocess.PIPE, name: file}
            result = subprocess.run([sys.executable, "-c", code], check=True, text=True, **pipes)
        said = result.stdout or (folder / log).read_text()
        assert "a.txt" in said
        assert log not in said.split()


def test_a_folder_is_listed_in_time_that_grows_with_its_files(tmp_path, monkeypatch):
    for n in range(200):
        (tmp_path / f"{n}.txt").write_text("text")
    hashed, of = [], Path.__hash__
    monkeypatch.setattr(Path, "__hash__", lambda path: hashed.append(path) or of(path))
    monkeypatch.setattr(PosixPath, "__hash__", lambda path: hashed.append(path) or of(path))
    assert len(resolve([str(tmp_path)], Reading()).files) == 200
    assert len(hashed) < 20 * 200


def test_training_says_which_files_it_took(folder):
    for name in ("models", "mailed", "saved", "onnx", "cache", "web", "tool", "desktop.ini", "Icon\r", "a.txt~"):
        (folder / name).rename(folder.parent / f"{folder.name}-{name}")
    corpus = open_corpus(["."])
    made = "model.html (an export), model.html.md (an export), venv (a virtual environment)"
    assert str(corpus) == f"2 files, 4,010 characters: a.txt, docs/c.md; left out: {made}; files that are no text: 1"
    assert str(open_corpus(["a.txt"])) == "1 file, 3,200 characters: a.txt"
    many = [f"{n}.txt" for n in range(8)]
    for name in many:
        (folder / name).write_text("some")
    assert str(open_corpus(many)).endswith("32 characters: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 3 more")


BYTES = Reading(errors="surrogateescape")
QUICK = {"model": {"units": 4}, "train": {"lanes": 2, "bptt": 8, "steps": 1}}


def test_training_on_a_folder_twice_reads_the_same_text_and_resumes(folder):
    first, second = (open_session(Request(["."], QUICK, folder / "models")) for _ in range(2))
    assert first.run.path != second.run.path
    assert first.data.corpus.sha256 == second.data.corpus.sha256
    assert first.run.record["corpus"]["files"] == 3
    first.lock.close()
    request = Request([], QUICK, folder / "models", first.run.name, resume=True)
    assert open_session(request).data.corpus.sha256 == first.data.corpus.sha256


def test_a_run_that_learnt_from_what_programs_made_is_still_resumed(folder):
    runs, settings = folder.parent / f"{folder.name}-runs", {**QUICK, "data": {"tokenizer": "byte"}}
    run = open_session(Request(["."], settings, runs, "old")).run
    record, old = run.record, open_corpus(["."], BYTES, everything=True)
    assert old.chars > record["corpus"]["chars"]
    record["corpus"] |= {"sha256": old.sha256, "bytes": old.bytes, "chars": old.chars}
    run.record_again(record)
    request = Request([], {}, runs, "old", resume=True)
    with pytest.raises(UsageError, match="the corpus has changed"):
        open_session(request)
    del record["corpus"]["files"]  # which the first runs do not have
    run.record_again(record)
    assert open_session(request).data.corpus.sha256 == old.sha256
