"""Checkpoints on a real disk: damaged, killed while written, foreign, and as they should be."""

import errno
import fcntl
import hashlib
import itertools
import json
import os
import pickle
import re
import resource
import shutil
import stat
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy
from attacks.headers import sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from charlm.checkpoint import Checkpoint, assign, read_record, to_arrays
from charlm.config import Config, ModelConfig
from charlm.errors import CharlmError, ModelError, UsageError
from charlm.files import cut_half_line, size_of, write_json, write_manifest
from charlm.runs import Run, publish
from charlm.shelf import find_run
from charlm.tokenizers import TOKENIZERS

TOKENIZER = TOKENIZERS["char"].train(lambda: iter(["What is so, is so.\n"]), 0)
CONFIG = Config(model=ModelConfig(units=7, vocabulary=TOKENIZER.vocabulary))
RECORD = {"config": CONFIG.to_dict(), "corpus": {"paths": ["été.txt"]}}
FILES = {"config.json", "tokenizer.json", "weights.safetensors", "training.safetensors", "progress.json"}
ALL = sorted(FILES | {"MANIFEST.json"})


def save(run, step, best=None, tokenizer=TOKENIZER):
    weights = {"embedding": np.arange(40, dtype=np.float32).reshape(5, 8) + step, "bias": np.zeros(3, np.float32)}
    return run.save(step, weights, {"m": np.full(4, -step)}, {"step": step, "best": best}, tokenizer)


def made(path, *steps, best=None):
    run = Run.create(path, RECORD)
    for step in steps:
        save(run, step, best)
    return run


def steps(run):
    """The steps of its checkpoints, all of which are whole."""
    for checkpoint in run.checkpoints():
        checkpoint.verify()
        assert checkpoint.progress()["step"] == checkpoint.step
        assert checkpoint.arrays("weights")["embedding"][0, 0] == checkpoint.step
    return [checkpoint.step for checkpoint in run.checkpoints()]


def seal(checkpoint, files=None):
    """Makes a manifest that agrees with whatever is there, or says `files`, as someone else could."""
    if files is None:
        contents = {f.name: f.read_bytes() for f in checkpoint.path.iterdir() if f.name != "MANIFEST.json"}
        files = {name: {"size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in contents.items()}
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    write_json(checkpoint.path / "MANIFEST.json", {"files": files, "digest": digest})


def damage(checkpoint):
    path = checkpoint.path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


def python(script, *arguments, **environment):
    """A second process that has this module's names."""
    script = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_checkpoint import *\n{script}"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, env={**os.environ, **environment}, text=True, **pipes)


def output(process):
    said = process.communicate()[0]
    assert process.returncode == 0
    return said.splitlines()


@pytest.fixture
def run(tmp_path):
    return made(tmp_path / "models" / "one", 10, 20, 30, best=20)


# ---- what is written is what is read


def test_a_checkpoint_has_all_it_needs(run):
    checkpoint = run.last()
    assert {file.name for file in checkpoint.path.iterdir()} == FILES | {"MANIFEST.json"}
    assert checkpoint.path == run.path / "checkpoints" / "step-00000030"
    assert (checkpoint.config(), checkpoint.record, run.record) == (CONFIG, RECORD, RECORD)
    assert checkpoint.progress() == {"step": 30, "best": 20}


def test_a_checkpoint_is_called_by_its_step_or_as_its_folder(run):
    assert run.pick("20") == run.pick("step-00000020") == run.pick("best")
    for name in ("step-", "step-last", "stp-20", "9" * 5000):
        with pytest.raises(UsageError, match="a checkpoint is best, last or a step"):
            run.pick(name)


def test_a_published_checkpoint_is_whole_without_what_only_resuming_needs(run, tmp_path):
    run.record_again({**RECORD, "corpus": {"paths": ["/home/somebody/été.txt"]}})
    save(run, 20)
    published = publish(run.pick("20"), tmp_path / "elsewhere" / "one")
    shipped = Run(tmp_path / "elsewhere" / "one")
    assert shipped.pick("best") == published
    assert {file.name for file in published.path.iterdir()} == FILES - {"training.safetensors"} | {"MANIFEST.json"}
    assert (shipped.record, published.record, published.config()) == (RECORD, RECORD, CONFIG)
    assert published.arrays("weights")["embedding"][0, 0] == 20
    with pytest.raises(ModelError, match="without its training state"):
        published.arrays("training")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers_round_trip(name, tmp_path):
    tokenizer = TOKENIZERS[name].train(lambda: iter(["What is so, is so.\n" * 20]), 280)
    tables = {"data": {"tokenizer": name}, "model": {"vocabulary": tokenizer.vocabulary}}
    run = Run.create(tmp_path / "run", {"config": Config.from_dict(tables, "").to_dict()})
    assert save(run, 1, tokenizer=tokenizer).tokenizer().fingerprint == tokenizer.fingerprint


def test_arrays_round_trip(tmp_path):
    run = Run.create(tmp_path / "run", RECORD)
    kinds = st.sampled_from([np.float32, np.float64, np.float16, np.int32, np.int64, np.uint8])
    array = arrays(kinds, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))

    @settings(max_examples=50, deadline=None)
    @given(st.dictionaries(st.from_regex(r"[a-z_.0-9]{1,20}", fullmatch=True), array, max_size=4))
    def check(values):
        views = {name: value.T for name, value in values.items()}  # in another order in memory
        checkpoint = run.save(1, to_arrays(values), to_arrays(views), {"best": None}, TOKENIZER)
        checkpoint.verify()
        for name, expected in (("weights", values), ("training", views)):
            found = checkpoint.arrays(name)
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape)
                assert found[key].tobytes() == value.tobytes()

    check()


def test_any_name_of_a_file_can_be_recorded(tmp_path):
    """Linux has file names that are not UTF-8; Python spells their bytes as lone surrogates."""
    record = {**RECORD, "corpus": {"paths": [os.fsdecode(b"caf\xe9.txt")]}}
    run = Run.create(tmp_path / "run", record)
    run.log({"run": os.fsdecode(b"caf\xe9")})
    assert save(run, 1).record == run.record == record
    assert json.loads((run.path / "metrics.jsonl").read_text("utf-8")) == {"run": "caf\udce9"}


def test_weights_are_the_same_bytes_from_any_process(tmp_path):
    script = """
names = {f"layers.{n}.kernel" for n in range(30)}  # in an order that the hash seed decides
weights = {name: np.full((3, int(name.split(".")[1]) + 1), len(name), np.float32) for name in names}
path = Run.create(Path(sys.argv[1]), RECORD).save(1, weights, weights, {"best": None}, TOKENIZER).path
print(list(names)[0], *(hashlib.sha256((path / file).read_bytes()).hexdigest() for file in sorted(FILES)), sep="\\n")
"""
    (first, *one), (second, *two) = (output(python(script, tmp_path / seed, PYTHONHASHSEED=seed)) for seed in "12")
    assert first != second
    assert one == two


# ---- damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint for tests that leave it as it was."""
    return made(tmp_path_factory.mktemp("whole") / "run", 10).last()


def refused(checkpoint):
    with pytest.raises(ModelError, match="damaged") as caught:
        checkpoint.verify()
    return caught.value.exit_code == 5


@contextmanager
def kept(*files):
    """Puts files back as they were."""
    contents = [file.read_bytes() for file in files]
    try:
        yield contents
    finally:
        for file, content in zip(files, contents, strict=True):
            file.write_bytes(content)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_changed_bit_or_length_of_a_file_is_noticed(whole, data):
    file = whole.path / data.draw(st.sampled_from(sorted(FILES)))
    with kept(file) as (content,):
        at = data.draw(st.integers(0, len(content) - 1))
        flipped = bytearray(content)
        flipped[at] ^= 1 << data.draw(st.integers(0, 7))
        for bad in (bytes(flipped), content[:at], content + b"\0"):
            file.write_bytes(bad)
            assert refused(whole)
    whole.verify()


def test_every_changed_bit_and_length_of_the_manifest_is_noticed(whole):
    file = whole.path / "MANIFEST.json"
    with kept(file) as (content,):
        for at in range(len(content)):
            flipped = [content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :] for bit in range(8)]
            for bad in (*flipped, content[:at]):
                file.write_bytes(bad)
                assert refused(whole), (at, bad[at:])


@pytest.mark.parametrize("name", ALL)
def test_a_missing_or_unreadable_file_is_noticed(whole, name):
    with kept(whole.path / name):
        (whole.path / name).unlink()
        assert refused(whole)
        (whole.path / name).mkdir()  # it is there, and cannot be read
        try:
            assert refused(whole)
        finally:
            (whole.path / name).rmdir()


@pytest.mark.parametrize("names", list(itertools.combinations(ALL, 2)), ids=" and ".join)
def test_two_files_swapped_are_noticed(whole, names):
    files = [whole.path / name for name in names]
    with kept(*files) as contents:
        for file, content in zip(files, reversed(contents), strict=True):
            file.write_bytes(content)
        assert refused(whole)


def test_an_added_file_is_noticed(run):
    checkpoint = run.last()
    (checkpoint.path / "model.pkl").touch()
    assert refused(checkpoint)


@pytest.mark.parametrize(
    ("gone", "new", "says"),
    [
        (["weights.safetensors"], [], "weights.safetensors"),
        (["weights.safetensors"], ["a", "z"], "a, weights.safetensors, z"),
        (
            [],
            [f"file-{n}" for n in range(2000, 1000, -1)],
            "file-1001, file-1002, file-1003, file-1004, file-1005 and 995 more",
        ),
        ([], [".DS_Store", "b\x1b"], r"b\x1b"),
    ],
    ids=["missing", "both", "many", "escaped"],
)
def test_the_first_names_that_are_missing_or_added_are_told(run, gone, new, says):
    checkpoint = run.last()
    for name in gone:
        (checkpoint.path / name).unlink()
    for name in new:
        (checkpoint.path / name).touch()
    with pytest.raises(ModelError) as caught:
        checkpoint.verify()
    assert str(caught.value) == f"{checkpoint.path}: is damaged: missing or added: {says}"


def test_the_size_of_a_folder_counts_what_is_below_it_and_follows_no_link_to_a_folder(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    for place, size in (("x", 1), ("a/y", 20), ("a/b/z", 300)):
        (tmp_path / place).write_bytes(bytes(size))
    (tmp_path / "a/b/up").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to("nothing")
    assert size_of(tmp_path) == 321
    (tmp_path / "to-y").symlink_to("a/y")
    assert size_of(tmp_path) == 341


def test_what_is_gone_before_it_is_counted_has_no_size(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_bytes(bytes(5))
    (tmp_path / "c").write_bytes(bytes(7))
    scandir = os.scandir

    def then_gone(folder):
        if str(folder).endswith("/a"):
            shutil.rmtree(folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", then_gone)
    assert size_of(tmp_path) == 7


def test_the_last_whole_one_is_taken_and_the_damaged_are_warned_of(run, caplog):
    for checkpoint, expected in zip(reversed(run.checkpoints()), (30, 20, 10), strict=True):
        caplog.clear()
        assert run.last().step == run.pick("last").step == expected
        assert len(caplog.records) == 2 * (30 - expected) // 10
        assert all("damaged" in r.message and r.levelname == "WARNING" for r in caplog.records)
        damage(checkpoint)
    with pytest.raises(ModelError, match="damaged"):
        run.last()


def test_a_save_after_damage_is_kept(run):
    """Whoever goes on from 10 because 20, 30 and 40 are damaged has 11 afterwards."""
    save(run, 40, best=10)
    for checkpoint in run.checkpoints()[-3:]:
        damage(checkpoint)
    assert run.last().step == 10
    assert save(run, 11, best=10).path.is_dir()
    assert run.last().step == 11


# ---- what systems leave, and what people do with folders

LEFT = [".DS_Store", "._weights.safetensors", "Thumbs.db", "desktop.ini", ".nfs000000000123", "Icon\r", ".directory"]
LEFT += [
    "config.json~",
    "~$config.json",
    "weights.safetensors:Zone.Identifier",
    ".fuse_hidden0001",
    ".~lock.config.json#",
]


def test_files_that_systems_leave_do_not_damage_a_checkpoint(run, caplog):
    for name in LEFT:
        for place in (run.last().path, run.path / "checkpoints", run.path, run.path.parent):
            (place / name).write_bytes(b"\0Mac OS X")
    (run.last().path / "@eaDir").mkdir()
    assert steps(run) == [10, 20, 30]
    assert find_run(None, run.path.parent).last().step == 30
    assert not caplog.records
    run.record_again({**RECORD, "corpus": {"paths": ["a.txt"]}})
    published = publish(save(run, 40), run.path.parent / "published")
    assert not {file.name for file in published.path.iterdir()} & {*LEFT}
    (run.last().path / "model.pkl").touch()
    assert refused(run.checkpoints()[-1])


def test_a_file_manager_that_looks_into_a_checkpoint_while_it_is_written_does_not_damage_it(run, monkeypatch):
    def looked_at(folder, **facts):
        (folder / ".DS_Store").touch()
        write_manifest(folder, **facts)

    monkeypatch.setattr("charlm.runs.write_manifest", looked_at)
    place = save(run, 40).path
    (place / ".DS_Store").write_bytes(b"looked at again")
    assert run.last().step == 40


@pytest.mark.parametrize("name", ["step-00000040 copy", "step-00000040 (1)", "step-00000040.zip", "._step-00000040"])
def test_a_copy_beside_the_checkpoints_is_none(run, name):
    shutil.copytree(run.last().path, run.path / "checkpoints" / name)
    (run.path / "checkpoints" / "step-00000050").touch()  # what a sync folder leaves of one that is elsewhere
    assert steps(run) == [10, 20, 30]


def test_open_files_on_a_network_disk_do_not_end_a_run(run, monkeypatch):
    """NFS keeps a removed file that somebody has open as `.nfs…`, and its folder with it."""
    real = os.rmdir

    def rmdir(path, *arguments, **options):
        if "step-" in str(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        real(path, *arguments, **options)

    monkeypatch.setattr(os, "rmdir", rmdir)
    for step in (40, 40, 50, 60):
        save(run, step, best=20)
    assert steps(run) == [20, 40, 50, 60]


@pytest.mark.parametrize("call", ["fsync of a folder", "lock"])
def test_a_disk_that_lacks_a_feature_of_local_ones_is_good_enough(run, monkeypatch, caplog, call):
    def unsupported(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    if call == "lock":
        monkeypatch.setattr(fcntl, "flock", unsupported)
        run.lock().close()
        assert "cannot be locked here" in caplog.text
    else:
        real = os.fsync
        monkeypatch.setattr(os, "fsync", lambda f: unsupported() if stat.S_ISDIR(os.fstat(f).st_mode) else real(f))
        save(run, 40)
        assert run.last().step == 40


@pytest.mark.parametrize("name", ["MANIFEST.json", "progress.json"])
def test_converted_line_ends_are_named_with_the_way_out(whole, name):
    with kept(whole.path / name) as (content,):
        (whole.path / name).write_bytes(content.replace(b"\n", b"\r\n"))
        with pytest.raises(ModelError, match=rf"{name} were turned into CRLF; .*git clone -c core\.autocrlf=false"):
            whole.verify()


def test_a_clone_with_windows_line_ends_loads_the_shipped_model(tmp_path):
    root = Path(__file__).parent.parent
    if shutil.which("git") is None:
        pytest.skip("git is not installed")

    def git(*words):
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)

    git("init", "there")
    shutil.copytree(root / "models" / "kjv-small", tmp_path / "there" / "models" / "kjv-small")
    shutil.copy(root / "Makefile", tmp_path / "there")
    shutil.copy(root / ".gitattributes", tmp_path / "there")
    git("-C", "there", "add", ".")
    git("-C", "there", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-m", "all")
    git("clone", "-c", "core.autocrlf=true", "there", "here")
    assert b"\r" not in (tmp_path / "here" / "Makefile").read_bytes()
    find_run(None, tmp_path / "here" / "models").pick("best").verify()


def test_a_checkpoint_that_was_copied_out_alone_is_a_model(run, tmp_path):
    for which, place in (("last", tmp_path / "mailed"), ("10", tmp_path / "models" / "moved")):
        shutil.copytree(run.pick(which).path, place)
        found = find_run(str(place), tmp_path / "nowhere")
        assert found.pick("best").progress()["step"] == found.last().step == found.checkpoints()[0].step
        assert (found.name, found.last().run_name) == (place.name, place.name)
    assert find_run(str(run.last().path), tmp_path).last() == run.last()


def test_a_run_may_be_renamed_linked_and_called_a_dot(run, monkeypatch):
    renamed = run.path.rename(run.path.with_name("renamed"))
    (run.path.parent / "link").symlink_to("renamed")
    assert find_run("link", run.path.parent).last().step == 30
    monkeypatch.chdir(renamed)
    assert find_run(".", Path("models")).name == "renamed"
    assert find_run(".", Path("models")).last().run_name == "renamed"


# ---- which one


def test_best_last_and_by_step(run):
    save(run, 40, best=20)
    assert [run.pick(which).step for which in ("best", "last", "20", "30")] == [20, 40, 20, 30]
    with pytest.raises(ModelError, match="no checkpoint of step 10; there are 20, 30, 40"):
        run.pick("10")
    save(run, 50, best=None)
    assert run.pick("best").step == 50


def test_a_damaged_best_is_replaced_by_the_last_with_a_warning_but_a_damaged_step_is_not(run, caplog):
    save(run, 40, best=20)
    damage(run.pick("20"))
    assert run.pick("best").step == 40
    assert "damaged" in caplog.text
    with pytest.raises(ModelError, match="damaged"):
        run.pick("20")


def test_what_is_not_there_is_refused(run):
    with pytest.raises(CharlmError, match="newest"):
        run.pick("newest")
    new = made(run.path.with_name("new"))
    assert new.last() is None
    with pytest.raises(ModelError, match="no checkpoint yet"):
        new.pick("best")


def test_a_newer_checkpoint_without_a_score_is_said(run, caplog):
    step = run.checkpoints()[-1].step
    weights = {"w": np.zeros(2, np.float32)}
    run.save(step + 1, weights, {}, {"best": step, "scored": step}, run.last().tokenizer())
    assert run.pick("best").step == step
    assert f"step {step + 1} has no score yet" in caplog.text


def test_the_last_three_and_the_best_are_kept(tmp_path):
    run, best = Run.create(tmp_path / "run", RECORD), None
    for step in range(1, 13):
        best = step if step in (2, 3, 8) else best
        save(run, step, best)
        assert steps(run) == sorted({*range(max(1, step - 2), step + 1), *([best] if best else [])})


# ---- a save that does not come to its end

KILLED = """
import shutil, signal

def save_killed_at(n):
    try:
        calls = itertools.count()
        def hook(event, _):  # before every opening, making, renaming, listing and removing of a file or a folder
            if event.split(".")[0] in ("open", "os", "shutil") and next(calls) == n:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        save(copy, step, best=20)
        os._exit(0)
    finally:
        os._exit(1)

before, step, copy = Path(sys.argv[1]), int(sys.argv[2]), Run(Path(sys.argv[3]))
status = -signal.SIGKILL
for n in itertools.takewhile(lambda _: status == -signal.SIGKILL, itertools.count()):
    shutil.copytree(before, copy.path)
    child = os.fork() or save_killed_at(n)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = [copy.last().step, copy.pick("best").step]
    save(copy, 50, best=20)
    print(json.dumps([*found, steps(copy), [str(left) for left in copy.path.glob("checkpoints/.*")]]))
    shutil.rmtree(copy.path)
sys.exit(status)
"""


def killed_saves(run, step):
    """For every moment to be killed in: last and best step; after another save: steps and left-over files."""
    said = [json.loads(line) for line in output(python(KILLED, run.path, step, run.path.with_name("copy")))]
    assert len(said) > 20
    assert all(left == [] for *_, left in said)
    assert all(best == 20 for _, best, *_ in said)
    return said


def test_a_killed_save_leaves_the_one_before_or_the_new_one(run):
    said = killed_saves(run, 40)
    last = [last for last, *_ in said]
    assert set(last) == {30, 40}
    assert last == sorted(last)
    assert all(after == ([20, 30, 40, 50] if last == 40 else [20, 30, 50]) for last, _, after, _ in said)


@pytest.mark.parametrize("end", ["99.before", "charlm-before"])
def test_a_checkpoint_that_was_moved_aside_by_a_killed_save_is_put_back(run, end):
    place = run.last().path
    aside = place.with_name(f".{place.name}.{end}")
    place.rename(aside)
    run.lock().close()
    assert steps(run) == [10, 20, 30]
    place.rename(aside)
    save(run, 40, best=20)
    assert steps(run) == [20, 30, 40]
    damage(Checkpoint(place.rename(aside), 30))
    run.lock().close()
    assert steps(run) == [20, 40]
    assert not list(run.path.glob("checkpoints/.*"))


def test_a_line_of_the_log_that_was_half_written_is_cut_off(run):
    log = run.path / "metrics.jsonl"
    for whole, half in itertools.product((b"", b'{"a": 1}\n'), (b"", b'{"b')):
        log.write_bytes(whole + half)
        run.lock().close()
        assert log.read_bytes() == whole


def test_a_save_takes_the_place_of_a_damaged_one(run):
    damage(run.last())
    save(run, 30, best=20)
    assert steps(run) == [10, 20, 30]


def test_a_file_that_may_not_grow_is_an_error_of_ours(run):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        with pytest.raises(CharlmError, match="File too large"):
            save(run, 40)
        with pytest.raises(CharlmError, match="File too large"):
            run.record_again({**RECORD, "more": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert steps(run) == [10, 20, 30]
    assert run.record == RECORD


# ---- what is not ours


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"3", b"null", b'{"a": ', b"\xff\xfe{}", b"[" * 100_000, b"1" * 5000], ids=lambda c: c[:8]
)
def test_json_that_is_no_object_is_refused(run, content):
    for path, read in (
        (run.last().path / "progress.json", run.checkpoints()[-1].progress),
        (run.last().path / "MANIFEST.json", run.checkpoints()[-1].verify),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=re.escape(str(path))):
            read()


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"format": 2}', None, "a character"], ids=str)
def test_a_damaged_record_of_a_run_is_its_last_checkpoints(run, content, caplog):
    path = run.path / "config.json"
    run.record_again({**RECORD, "format": 2})
    save(run, 40)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b"char", b"bhar") if content == "a character" else content)
    assert run.record == {**RECORD, "format": 2}
    assert re.search(r"config\.json: .*; the record of step 40 is taken", caplog.text)
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(ModelError, match=re.escape(str(path))):
        _ = run.record


@pytest.mark.parametrize(
    "content", [{"record": 5}, {"corpus": {"from": 3}}, {"from": {"corpus": []}}, {"corpus": {"versions": 1}}], ids=str
)
def test_a_table_of_a_record_is_looked_for_in_its_place_alone(tmp_path, content):
    deep = '{"record": ' * 400 + "1" + "}" * 400
    for text in (json.dumps({**content, "format": 1}), deep):
        (tmp_path / "config.json").write_text(text)
        read = read_record(tmp_path / "config.json")
        assert read == json.loads(text)


def test_the_standing_of_a_stranger_is_read_as_one(run):
    checkpoint = run.last()
    write_json(checkpoint.path / "progress.json", {**checkpoint.progress(), "scored": "x"})
    (checkpoint.path / "MANIFEST.json").unlink()
    write_manifest(checkpoint.path)
    with pytest.raises(ModelError, match="scored"):
        run.pick("best")


@pytest.mark.parametrize("key", ["more", "layers.0.more", "layers.0.kernel2", "layers.7.kernel"])
def test_an_array_that_no_network_has_is_refused_before_it_is_read(tmp_path, key):
    model = ModelConfig(units=4, vocabulary=3)
    shapes = {"embedding": (3, 4), "bias": (3,), "projection": (4, 3)}
    shapes |= {f"layers.{n}.kernel": (4, 16) for n in range(model.layers)}
    (tmp_path / "weights.safetensors").write_bytes(
        safetensors.numpy.save({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    )
    checkpoint = Checkpoint(tmp_path, 1)
    checkpoint.check_shapes(model)
    sparse(tmp_path / "weights.safetensors", key, 8)
    with pytest.raises(ModelError, match=r"no array of|layers; config"):
        checkpoint.check_shapes(model)


def test_an_array_that_no_training_has_is_refused_before_it_is_read(run):
    checkpoint = run.last()
    weights = {"embedding": np.zeros((3, 4), np.float32)}
    (checkpoint.path / "weights.safetensors").write_bytes(safetensors.numpy.save(weights))
    checkpoint.check_training()
    sparse(checkpoint.path / "training.safetensors", "optimizer.more", 8)
    with pytest.raises(ModelError, match="no array of such a training"):
        checkpoint.check_training()


def test_a_run_whose_name_another_has_taken_is_left_alone(run, tmp_path):
    with run.lock():
        run.path.rename(tmp_path / "moved")
        other = made(run.path, 10, 20)
        with other.lock():
            before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
            for act in (lambda: save(run, 40), lambda: run.log({"event": "stepped"}), lambda: run.record_again(RECORD)):
                with pytest.raises(CharlmError, match="another run has taken this name"):
                    act()
        assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("whole", [0, 1, 3])
@pytest.mark.parametrize("half", [0, 1, 10, (1 << 20) + 5, 1 << 21])
def test_a_half_written_line_is_cut_off_however_long_it_is(tmp_path, whole, half):
    file, lines = tmp_path / "log", b'{"a": 1}\n' * whole
    file.write_bytes(lines + b"x" * half)
    cut_half_line(file)
    assert file.read_bytes() == lines
    cut_half_line(tmp_path / "none")


def test_huge_json_is_refused_unread(run):
    checkpoint = run.last()
    for name, read in (
        ("MANIFEST", checkpoint.verify),
        ("progress", checkpoint.progress),
        ("config", checkpoint.config),
    ):
        os.truncate(checkpoint.path / f"{name}.json", 1 << 40)  # sparse
        with pytest.raises(ModelError, match=f"{name}.*larger than"):
            read()


@pytest.mark.parametrize("files", [[], {}, {"config.json": 3}, {"config.json": {}}, {"config.json": {"size": "1"}}])
def test_a_manifest_that_says_nothing_of_the_files_is_refused(run, files):
    checkpoint = run.last()
    seal(checkpoint)
    checkpoint.verify()
    seal(checkpoint, files)
    with pytest.raises(ModelError):
        checkpoint.verify()


@pytest.mark.parametrize("record", [{}, {"config": 3}, {"config": {"model": {"cells": 1}}}, {"config": {"model": []}}])
def test_a_foreign_configuration_is_refused(run, record):
    checkpoint = run.last()
    (checkpoint.path / "config.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match=re.escape(str(checkpoint.path))):
        checkpoint.config()


@pytest.mark.parametrize("number", [3, 0, "1", None, [1]])
def test_a_format_that_this_version_does_not_know_is_refused(run, number):
    run.record_again({**RECORD, "format": number})
    checkpoint = save(run, 40)
    for read in (checkpoint.config, lambda: run.record):
        with pytest.raises(ModelError, match=r"is of format .*; this version of charlm reads 2: install a newer one"):
            read()


def test_progress_without_a_best_is_refused(run):
    (run.last().path / "progress.json").write_text("{}")
    seal(run.checkpoints()[-1])
    with pytest.raises(ModelError):
        run.pick("best")


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def foreign_array(kind, size):
    header = json.dumps({"a": {"dtype": kind, "shape": [1], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def test_a_pickle_is_refused_and_not_run(run, tmp_path):
    checkpoint, sprung = run.last(), tmp_path / "sprung"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        content = pickle.dumps(Trap(sprung), protocol)
        (checkpoint.path / "weights.safetensors").write_bytes(content)
        seal(checkpoint)
        checkpoint.verify()
        with pytest.raises(ModelError, match=r"weights\.safetensors"):
            checkpoint.arrays("weights")
        assert not sprung.exists()
    pickle.loads(content)
    assert sprung.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\3\4", struct.pack("<Q", 1 << 62) + b"{}", foreign_array("BF16", 2), foreign_array("F8_E4M3", 1)],
    ids=["empty", "zip", "huge header", "bfloat16", "float8"],
)
def test_weights_of_another_kind_are_refused(run, content):
    checkpoint = run.last()
    (checkpoint.path / "weights.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.safetensors"):
        checkpoint.arrays("weights")


NETWORK = {"units": 7, "embedding": 4, "layers": 2, "vocabulary": 5}
TIED = {"embedding": (5, 7), "layers.0.kernel": (7, 28), "layers.1.kernel": (7, 28), "bias": (5,)}
SHAPES = {**TIED, "embedding": (5, 4), "layers.0.kernel": (4, 28), "projection": (7, 5)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"units": 100_000}, r"projection is \(7, 5\); config.json says \(100000, 5\)"),
        ({"units": 100_000, "tie": True, "embedding": None}, r"embedding is \(5, 4\); config.json says \(5, 100000\)"),
        ({"embedding": 10**12}, r"embedding is \(5, 4\)"),
        ({"vocabulary": 10**12}, r"embedding is \(5, 4\)"),
        ({"layers": 10**12}, r"has 2 layers; config.json says 1000000000000"),
    ],
)
def test_a_foreign_size_is_refused_from_the_header_before_it_is_allocated(run, change, says):
    def saved(shapes):
        return run.save(40, {name: np.zeros(s) for name, s in shapes.items()}, {}, {"best": None}, TOKENIZER)

    saved(TIED).check_shapes(ModelConfig(**{**NETWORK, "embedding": None}, tie=True))
    checkpoint = saved(SHAPES)
    checkpoint.check_shapes(ModelConfig(**NETWORK))
    with pytest.raises(ModelError, match=says):
        checkpoint.check_shapes(ModelConfig(**{**NETWORK, **change}))


@pytest.mark.parametrize("shape", [(0,), (), (4, 0), (7, 28), (4, 27)])
def test_a_kernel_of_other_layers_is_refused(run, shape):
    shapes = {**SHAPES, "layers.0.kernel": shape}
    checkpoint = run.save(40, {name: np.zeros(s) for name, s in shapes.items()}, {}, {"best": None}, TOKENIZER)
    with pytest.raises(ModelError, match=r"layers\.0\.kernel is .*; config.json says \(4, a multiple of 7\)"):
        checkpoint.check_shapes(ModelConfig(**NETWORK))


def test_arrays_of_another_model_are_refused():
    class Variable:
        shape = (2, 3)

        def assign(self, value):
            self.value = value

    a, fitting = Variable(), np.ones((2, 3))
    assign({"a": a}, {"a": fitting}, Path("here"))
    assert a.value is fitting
    for other, named in (({}, "a"), ({"a": fitting, "b": fitting}, "b"), ({"a": np.ones((3, 2))}, r"\(3, 2\)")):
        with pytest.raises(ModelError, match=f"here.*{named}"):
            assign({"a": a}, other, Path("here"))


# ---- runs


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a second whenever it is asked."""
    ticks = itertools.count(2**31)
    monkeypatch.setattr("charlm.runs.time", SimpleNamespace(time=lambda: next(ticks)))


def test_a_run_is_found_by_path_by_name_or_as_the_one_that_wrote_last(run, clock):
    models = run.path.parent
    made(models / "two", 5)
    made(models / "three")  # has nothing to load yet
    (models / "notes").mkdir()
    save(run, 40)
    assert find_run(str(models / "two"), Path("elsewhere")).path == models / "two"
    assert find_run("two", models).path == models / "two"
    assert find_run("three", models).name == "three"
    assert find_run(None, models).name == "one"
    save(Run(models / "two"), 6)
    assert find_run(None, models).name == "two"


def test_the_newest_run_stays_the_newest_when_the_models_are_copied(run, clock, tmp_path):
    made(run.path.parent / "two", 5)
    save(run, 40)
    shutil.copytree(run.path.parent, tmp_path / "copies", copy_function=shutil.copyfile)
    for name, age in (("one", 100), ("two", 50)):
        for folder in (tmp_path / "copies" / name).rglob("step-*"):
            os.utime(folder, (10**9 - age, 10**9 - age))
    assert find_run(None, tmp_path / "copies").name == "one"


def test_a_published_model_is_never_the_newest_beside_a_run_of_ones_own(run, clock):
    publish(save(run, 40), run.path.parent / "published")
    assert find_run(None, run.path.parent).name == "one"
    shutil.rmtree(run.path)
    made(run.path)  # has nothing to load yet
    assert find_run(None, run.path.parent).name == "published"


def test_a_run_of_before_manifests_had_a_time_has_that_of_its_folder(run):
    checkpoint = run.last()
    seal(checkpoint)
    os.utime(checkpoint.path, (7, 7))
    assert checkpoint.written == 7
    checkpoint.verify()


@pytest.mark.parametrize("name", ["missing", "folder", None])
def test_where_there_is_no_run_says_so(name, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError) as caught:
        find_run(name, tmp_path)
    assert caught.value.exit_code == 5
    with pytest.raises(ModelError):
        find_run(name, tmp_path / "nowhere")


def test_a_run_is_made_once(run):
    with pytest.raises(FileExistsError):
        Run.create(run.path, {})
    assert run.record == RECORD


def test_two_processes_cannot_train_one_run(run):
    script = "lock = Run(Path(sys.argv[1])).lock()\nprint('held', flush=True)\ninput()"
    with python(script, run.path) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CharlmError, match="another process"):
            run.lock()
        assert run.last().step == 30  # reading is free
        holder.kill()
        holder.wait()
    run.lock().close()
    run.lock().close()  # it was given back
