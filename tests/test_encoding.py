"""Large texts: encoded in parts, by several processes, over several starts, and always to the same ids."""

import errno
import gzip
import itertools
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm import corpus as corpora
from charlm import idcache, pool, reading
from charlm.config import DataConfig
from charlm.corpus import open_corpus
from charlm.dataset import prepare
from charlm.drafts import KEPT_SECONDS, drafting
from charlm.errors import CharlmError, Interrupted
from charlm.idcache import cached_records
from charlm.reading import Reading
from charlm.tokenizers import TOKENIZERS

TEXT = "the fox jumps over the dog.\n\nthe dog sleeps, été 🙂 ▁.\n\n\nthe end\r\n\n" * 8
TOKENIZER = {name: kind.train(lambda: iter([TEXT]), 290) for name, kind in TOKENIZERS.items()}
SOME = settings(max_examples=25, deadline=None)
every = pytest.mark.parametrize("name", TOKENIZERS)


@pytest.fixture
def small(monkeypatch):
    """Parts of a few characters, each kept for another start; lines of more than 16 characters are long."""
    monkeypatch.setattr(reading, "PIECE_BYTES", 13)
    monkeypatch.setattr(corpora, "PART_CHARS", 5)
    monkeypatch.setattr(idcache, "SAVE_CHARS", 20)
    monkeypatch.setattr(TOKENIZERS["sentencepiece"], "LINE_CHARS", 16)


def alone(tokenizer, text, starts, stop):
    """The ids of documents that are encoded one by one, and where they begin."""
    ids = [tokenizer.encode(text[a:b]).tolist() for a, b in itertools.pairwise([0, *starts, stop])]
    return list(itertools.chain(*ids)), list(itertools.accumulate(map(len, ids[:-1])))


@every
@SOME
@given(
    text=st.text(st.sampled_from("ab \n\té世🙂▁"), min_size=1, max_size=120),
    piece=st.integers(1, 40),
    part=st.integers(1, 30),
    begin=st.integers(0, 20),
    starts=st.sets(st.integers(1, 119), max_size=5),
)
def test_ids_do_not_depend_on_where_a_text_is_cut(tmp_path_factory, name, text, piece, part, begin, starts):
    folder, tokenizer = tmp_path_factory.mktemp("cut"), TOKENIZER[name]
    (folder / "a.txt").write_bytes(text.encode())
    begin = min(begin, len(text) - 1)
    starts = sorted(start for start in starts if begin < start < len(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PIECE_BYTES", piece)
        patch.setattr(corpora, "PART_CHARS", part)
        patch.setattr(TOKENIZERS["sentencepiece"], "LINE_CHARS", 7)
        with open_corpus([str(folder / "a.txt")]) as corpus:
            found = cached_records(corpus, (begin, len(text)), tokenizer, folder, starts=np.array(starts, np.int64))
        right = alone(tokenizer, text[begin:], [start - begin for start in starts], len(text) - begin)
    assert (found.ids.tolist(), found.starts.tolist()) == right


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "utf-8-sig", "shift_jis", "iso2022_jp", "utf-7"])
@pytest.mark.parametrize("newlines", ["keep", "normalise"])
def test_a_text_can_be_read_from_any_character(tmp_path, monkeypatch, encoding, newlines):
    monkeypatch.setattr(reading, "PIECE_BYTES", 5)
    text = "日本語 and\r\n日本\rabc\n" * 4
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    corpus = open_corpus([str(tmp_path / "a.txt")] * 2, Reading(encoding, newlines=newlines))
    whole = "".join(corpus.pieces())
    assert len(whole) == corpus.chars
    for start in range(corpus.chars):
        assert "".join(corpus.pieces(start, start + 7)) == whole[start : start + 7]


@every
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_several_processes_give_the_ids_of_one(tmp_path, monkeypatch, name, suffix):
    """They get the text where a file is compressed, and read others themselves; every file is a part."""
    for attribute, value in (
        ((pool, "cores"), lambda: 2),
        ((pool, "ALONE_SECONDS"), 0),
        ((corpora, "PART_CHARS"), 5),
    ):
        monkeypatch.setattr(*attribute, value)
    for n in range(0, len(TEXT), 9):
        (tmp_path / f"{n:03}.txt").write_bytes(TEXT[n : n + 9].encode())
    if suffix:
        (tmp_path / "999.txt.gz").write_bytes(gzip.compress(b""))
    starts = np.array([3, 40, 41, 200], np.int64)
    corpus = open_corpus([str(tmp_path / "*.txt*")])
    found = cached_records(corpus, (0, len(TEXT)), TOKENIZER[name], tmp_path, starts=starts)
    assert (found.ids.tolist(), found.starts.tolist()) == alone(TOKENIZER[name], TEXT, starts.tolist(), len(TEXT))


@every
@pytest.mark.parametrize("how", ["interrupted", "killed", "damaged"])
def test_an_encoding_that_was_stopped_goes_on_where_it_was(tmp_path, small, name, how):
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    corpus, tokenizer, seen = open_corpus([str(tmp_path / "a.txt")]), TOKENIZER[name], []
    starts = np.array([3, 40, 41, 200], np.int64)

    def stop(chars):
        seen.append(chars)
        if sum(seen) > 300:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"of 528 characters are encoded and kept; the same command goes on"):
        cached_records(corpus, (0, len(TEXT)), tokenizer, tmp_path, stop, starts)
    drafts = sorted((tmp_path / "ids").iterdir())
    assert len(drafts) == 3
    if how == "killed":  # while it wrote
        with drafts[0].open("ab") as file:
            file.write(b"half")
    if how == "damaged":
        drafts[0].write_bytes(bytes(drafts[0].stat().st_size))
    again: list[int] = []
    found = cached_records(corpus, (0, len(TEXT)), tokenizer, tmp_path, again.append, starts)
    assert (found.ids.tolist(), found.starts.tolist()) == alone(tokenizer, TEXT, starts.tolist(), len(TEXT))
    assert sum(again) == len(TEXT)
    assert (again[0] > 250) == (how != "damaged")
    assert len(list((tmp_path / "ids").iterdir())) == 2


def test_what_is_kept_for_another_start_is_not_kept_forever(tmp_path, small):
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    corpus, seen = open_corpus([str(tmp_path / "a.txt")]), list[int]()

    def stop(chars):
        seen.append(chars)
        if sum(seen) > 100:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        cached_records(corpus, (0, len(TEXT)), TOKENIZER["byte"], tmp_path, stop)
    drafts = list((tmp_path / "ids").iterdir())
    for draft in drafts:
        os.utime(draft, (0, draft.stat().st_mtime - KEPT_SECONDS - 1))
    cached_records(corpus, (0, len(TEXT)), TOKENIZER["char"], tmp_path)
    assert not any(draft.exists() for draft in drafts)


def test_processes_end_with_ours_and_an_end_of_one_is_said(monkeypatch):
    monkeypatch.setattr(pool, "cores", lambda: 2)
    monkeypatch.setattr(pool, "ALONE_SECONDS", 0)
    values = pool.on_all_cores(os.path.basename, iter(["a/b"] * 50))
    assert next(values) == "b"
    values.close()
    values = pool.on_all_cores(os.kill, iter([]))
    assert list(values) == []
    with pytest.raises(CharlmError, match="ended from outside; start again"):
        list(pool.on_all_cores(os._exit, iter([1] * 3)))


def test_processes_that_cannot_be_started_are_no_cache_that_cannot_be_written(monkeypatch, tmp_path):
    def refuse(*words, **more):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(pool, "cores", lambda: 2)
    monkeypatch.setattr(pool, "ALONE_SECONDS", 0)
    monkeypatch.setattr(os, "pipe", refuse)
    with pytest.raises(CharlmError, match="processes cannot be started: Resource temporarily unavailable"):
        list(pool.on_all_cores(os.path.basename, ["a/b"]))


def test_a_folder_among_the_ids_is_no_draft(tmp_path):
    for name in (".a.npy", ".git"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (0, 0))
    with drafting({tmp_path / "b.npy": "u1"}):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {".a.npy", ".git", "b.npy"}


def test_a_program_that_uses_charlm_is_not_run_again_by_its_processes(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os\nprint('once', flush=True)\nfrom charlm import pool\npool.ALONE_SECONDS = 0\n"
        "pool.cores = lambda: 2\nprint(list(pool.on_all_cores(os.path.basename, ['a/b', 'c/d'])), flush=True)\n"
        "next(pool.on_all_cores(os.path.basename, ['a/b'] * 9))\nos.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("once\n['b', 'd']\n", "", -signal.SIGKILL)


@every
def test_every_pass_over_a_text_shows_how_far_it_is(tmp_path, name):
    (tmp_path / "a.txt").write_text("a line of text\n" * 200)
    seen: dict[str, list[int]] = {}

    def passing(what, chars):
        seen.setdefault(what, [chars])
        return seen[what].append

    with pytest.MonkeyPatch.context() as patch, open_corpus([str(tmp_path / "a.txt")]) as corpus:
        patch.setenv("CHARLM_CACHE", str(tmp_path))
        prepare(corpus, DataConfig(tokenizer=name, vocabulary=280), passing=passing)
    assert [*seen] == (["encoding"] if name == "byte" else ["learning symbols", "encoding"])
    assert sum(seen["encoding"][1:]) == seen["encoding"][0] == 3000
    assert name == "byte" or sum(seen["learning symbols"][1:]) % seen["learning symbols"][0] == 0
