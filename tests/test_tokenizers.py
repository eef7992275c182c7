import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import textwrap
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charlm import idcache
from charlm.corpora import write_corpus
from charlm.corpus import open_corpus
from charlm.errors import CharlmError, DataError, ModelError, UsageError
from charlm.idcache import cache_folder, cached_records
from charlm.tokenizer import StreamDecoder, Tokenizer
from charlm.tokenizers import TOKENIZERS, ByteTokenizer, CharTokenizer, SentencePieceTokenizer, load_alphabet

SAMPLE = (
    "It was a dark and stormy night;\tthe rain fell in torrents,\r\n\r\n  except at occasional intervals.\n"
    "Grüße, 世界! 🙂 café ½ ﬁ <s> </s> <unk> <0x41>\n"
) * 8
ENGLISH = "\n".join(topics[name] for name in sorted(topics))[:30_000]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SHORT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
MANY = settings(max_examples=10_000, deadline=None)
SOME = settings(max_examples=300, deadline=None)


def made(name: str, text: str = SAMPLE + ENGLISH, vocabulary: int = 400) -> Tokenizer:
    return TOKENIZERS[name].train(lambda: iter([text]), vocabulary)


MADE = {name: made(name) for name in TOKENIZERS}
every = pytest.mark.parametrize("tokenizer", MADE.values(), ids=MADE)


def cuts(text: str, at: list[int]) -> list[str]:
    edges = [0, *sorted(i % (len(text) + 1) for i in at), len(text)]
    return [text[i:j] for i, j in pairwise(edges)]


# ---- nothing is lost


@MANY
@given(st.text(st.sampled_from(sorted(set(SAMPLE))), max_size=30))
def test_char_round_trips_its_vocabulary(text):
    ids = MADE["char"].encode(text)
    assert len(ids) == len(text)
    assert MADE["char"].decode(ids) == text


@MANY
@given(st.one_of(SHORT, st.binary(max_size=30).map(lambda b: b.decode("utf-8", "surrogateescape"))))
def test_byte_round_trips_any_text_and_any_bytes(text):
    ids = MADE["byte"].encode(text)
    assert ids.tobytes() == MADE["byte"].decode_bytes(ids) == text.encode("utf-8", "surrogateescape")
    assert MADE["byte"].decode(ids) == text


@MANY
@given(st.one_of(SHORT, st.text(st.sampled_from(sorted({*SAMPLE, "▁"})), max_size=30)))
def test_sentencepiece_round_trips_any_text(text):
    assert MADE["sentencepiece"].decode(MADE["sentencepiece"].encode(text)) == text


@SOME
@given(st.binary())
def test_sentencepiece_round_trips_any_bytes(content):
    ids = MADE["sentencepiece"].encode(content.decode("utf-8", "surrogateescape"))
    assert MADE["sentencepiece"].decode_bytes(ids) == content


@every
@given(text=st.text(st.characters()))
def test_no_str_makes_a_tokenizer_fail(tokenizer, text):
    tokenizer.decode(tokenizer.encode(text))
    tokenizer.unseen(text)


# ---- what every tokenizer keeps to


@every
def test_the_tables_say_how_long_a_text_is(tokenizer):
    ids = tokenizer.encode(SAMPLE)
    assert tokenizer.bytes_per_id[ids].sum() == len(SAMPLE.encode())
    assert tokenizer.chars_per_id[ids].sum() == len(SAMPLE)
    assert tokenizer.bytes_per_id.dtype == tokenizer.chars_per_id.dtype == np.int64
    assert len(tokenizer.id_bytes) == len(tokenizer.bytes_per_id) == len(tokenizer.chars_per_id) == tokenizer.vocabulary


@every
def test_ids_fit_and_none_of_them_is_blocked(tokenizer):
    ids = tokenizer.encode(SAMPLE)
    assert ids.dtype == tokenizer.dtype == (np.uint8 if tokenizer.vocabulary <= 256 else np.uint16)
    assert ids.max() < tokenizer.vocabulary
    assert tokenizer.blocked.dtype == np.int32
    assert not np.isin(ids, tokenizer.blocked).any()
    assert tokenizer.unknown is None or tokenizer.unknown in tokenizer.blocked


@every
def test_no_text_has_no_ids(tokenizer):
    assert tokenizer.encode("").dtype == tokenizer.dtype
    assert (len(tokenizer.encode("")), tokenizer.decode([]), tokenizer.unseen("")) == (0, "", "")


@every
def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [tokenizer.file_name]
    loaded = load_alphabet(tmp_path, tokenizer.name)
    assert type(loaded) is type(tokenizer)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert (loaded.id_bytes, loaded.unknown, loaded.dtype) == (tokenizer.id_bytes, tokenizer.unknown, tokenizer.dtype)
    assert loaded.encode(SAMPLE).tolist() == tokenizer.encode(SAMPLE).tolist()


@every
def test_training_again_gives_the_same(tokenizer):
    pieces = [SAMPLE[:100], SAMPLE[100:], ENGLISH]
    assert type(tokenizer).train(lambda: iter(pieces), 400).fingerprint == tokenizer.fingerprint


def test_fingerprints_tell_vocabularies_and_tokenizers_apart():
    prints = [t.fingerprint for t in MADE.values()]
    prints += [made("char", "ab").fingerprint, made("char", "abc").fingerprint, made("char", "").fingerprint]
    prints += [made("sentencepiece", vocabulary=399).fingerprint]
    assert len(set(prints)) == len(prints)
    assert all(len(bytes.fromhex(p)) == 32 for p in prints)


CHARACTERS = b'{"format": "charlm tokenizer", "version": 1, "tokenizer": "char", "characters": '
JUNK = {
    "empty": b"",
    "junk": b"junk",
    "binary": bytes(range(256)),
    "json": b'{"a": 1}',
    "list": b"[]",
    "deep": b"[" * 100_000,
    "unsorted": CHARACTERS + b'"ba"}',
    "grown past its end": CHARACTERS + b'"ba", "first": 2}',
    "grown by what it had": CHARACTERS + b'"aba", "first": 1}',
    "grown by a word": CHARACTERS + b'"ba", "first": "1"}',
    "twice": CHARACTERS + b'"aa"}',
    "number": CHARACTERS + b"5}",
    "newer": b'{"format": "charlm tokenizer", "version": 2, "tokenizer": "char", "characters": "ab"}',
    "more": b'{"format": "charlm tokenizer", "version": 1, "tokenizer": "byte", "more": 0}',
}


@every
@pytest.mark.parametrize("content", [*JUNK.values(), None], ids=[*JUNK, "large"])
def test_a_file_that_is_no_tokenizer_is_refused_by_name(tokenizer, tmp_path, content):
    path = tmp_path / tokenizer.file_name
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1) if content is None else file.write(content)
    with pytest.raises(ModelError, match=str(path)):
        load_alphabet(tmp_path, tokenizer.name)


@every
def test_half_a_file_and_no_file_are_refused(tokenizer, tmp_path):
    with pytest.raises(ModelError, match="No such file"):
        load_alphabet(tmp_path, tokenizer.name)
    path = tmp_path / tokenizer.file_name
    path.write_bytes(tokenizer.content()[: len(tokenizer.content()) // 2])
    with pytest.raises(ModelError, match=str(path)):
        load_alphabet(tmp_path, tokenizer.name)


@pytest.mark.parametrize(("saved", "loaded"), [("char", "byte"), ("byte", "char")])
def test_one_tokenizer_does_not_load_as_another(tmp_path, saved, loaded):
    MADE[saved].save(tmp_path)
    with pytest.raises(ModelError, match=f"not a {loaded} tokenizer"):
        load_alphabet(tmp_path, loaded)


# ---- streams of text


@every
def test_a_stream_never_shows_half_a_character(tokenizer):
    decoder = StreamDecoder(tokenizer)
    shown = [decoder.feed([i]) for i in tokenizer.encode(SAMPLE)]
    assert "".join(shown) == SAMPLE
    assert decoder.flush() == ""
    assert "\ufffd" not in "".join(shown)


@SOME
@given(st.binary(), st.lists(st.integers(0), max_size=8))
def test_a_stream_shows_invalid_bytes_as_one_decoder_would(content, at):
    decoder = StreamDecoder(MADE["byte"])
    parts = cuts(content.decode("latin-1"), at)
    shown = "".join(decoder.feed(part.encode("latin-1")) for part in parts) + decoder.flush()
    assert shown == content.decode("utf-8", "replace")


def test_a_stream_can_be_flushed_and_used_again():
    decoder = StreamDecoder(MADE["byte"])
    assert (decoder.feed(b"a\xf0\x9f"), decoder.flush(), decoder.feed(b"b")) == ("a", "\ufffd", "b")


# ---- char


def test_char_ids_are_in_the_order_of_code_points():
    tokenizer = CharTokenizer.train(lambda: iter(["ba", "🙂b", "\n"]), 7)
    assert tokenizer.characters == "\nab🙂"
    assert tokenizer.encode("\nab🙂").tolist() == [1, 2, 3, 4]
    assert (tokenizer.vocabulary, tokenizer.unknown, tokenizer.blocked.tolist()) == (5, 0, [0])


def test_char_shows_what_it_does_not_know():
    tokenizer = made("char", "abc")
    assert tokenizer.encode("aXbY世X").tolist() == [1, 0, 2, 0, 0, 0]
    assert tokenizer.unseen("aXbY世X") == "XY世"
    assert tokenizer.decode(tokenizer.encode("aXb")) == "a\ufffdb"


@pytest.mark.parametrize(
    ("characters", "dtype"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16), (65536, np.int32)]
)
def test_char_ids_take_the_smallest_type(characters, dtype):
    vocabulary = "".join(map(chr, range(0x10000, 0x10000 + characters)))
    tokenizer = CharTokenizer(vocabulary)
    assert tokenizer.dtype == dtype
    assert tokenizer.encode(vocabulary).tolist() == list(range(1, characters + 1))


def test_char_takes_bytes_that_were_escaped():
    text = b"a\xff\xe2b".decode("utf-8", "surrogateescape")
    tokenizer = made("char", text)
    assert tokenizer.decode_bytes(tokenizer.encode(text)) == b"a\xff\xe2b"
    assert CharTokenizer.from_content(tokenizer.content()).fingerprint == tokenizer.fingerprint


@SOME
@given(st.lists(SHORT, min_size=2, max_size=4))
def test_char_grows_by_every_text_and_old_ids_stay(texts):
    tokenizer = made("char", texts[0])
    for text in texts[1:]:
        before, tokenizer = tokenizer, tokenizer.grown(lambda text=text: iter([text[:3], text[3:]]))
        assert tokenizer.id_bytes[: before.vocabulary] == before.id_bytes
        assert (tokenizer.unseen(text), tokenizer.blocked.tolist()) == ("", [0])
        assert sorted(tokenizer.characters[before.vocabulary - 1 :]) == sorted(before.unseen(text))
        assert (tokenizer.fingerprint == before.fingerprint) == (not before.unseen(text))
    assert tokenizer.decode(tokenizer.encode("".join(texts))) == "".join(texts)
    loaded = CharTokenizer.from_content(tokenizer.content())
    assert (loaded.id_bytes, loaded.content()) == (tokenizer.id_bytes, tokenizer.content())


def test_a_tokenizer_that_does_not_grow_says_why_and_stays():
    for name in ("byte", "sentencepiece"):
        assert MADE[name].grown(lambda: iter(["Ωμέγα"])) is MADE[name]
        assert MADE[name].fixed
    assert not MADE["char"].fixed


# ---- sentencepiece


def test_sentencepiece_learns_words_and_prints_nothing(capfd):
    tokenizer = made("sentencepiece", ENGLISH + "\0▅▁\udcff\n", 500)
    assert tokenizer.vocabulary == 500
    assert b" the" in tokenizer.id_bytes
    assert len(tokenizer.encode(ENGLISH)) < 0.6 * len(ENGLISH)
    assert capfd.readouterr() == ("", "")


def test_sentencepiece_gives_what_the_text_supports():
    assert 400 < made("sentencepiece", ENGLISH, 1_000_000).vocabulary < 10_000


def test_sentencepiece_says_how_large_a_vocabulary_must_be():
    with pytest.raises(UsageError, match=r"vocabulary 100: .* use \d+ or more") as raised:
        made("sentencepiece", vocabulary=100)
    least = int(str(raised.value).split(" use ")[1].split()[0])
    assert made("sentencepiece", vocabulary=least).vocabulary == least
    with pytest.raises(UsageError, match=f"use {least} or more"):
        made("sentencepiece", vocabulary=least - 1)
    with pytest.raises(UsageError, match="vocabulary 0"):
        made("sentencepiece", vocabulary=0)


def in_a_script(first: int, characters: int, spaces: int, length: int = 30_000) -> str:
    """Characters from `first` on, a few of them often and many of them seldom, as in a text."""
    draw = random.Random(first)
    points = draw.choices(range(first, first + characters), [1 / n for n in range(1, characters + 1)], k=length)
    return "".join(chr(c) + " " * (spaces and n % spaces == 0) + "。\n" * (n % 40 == 0) for n, c in enumerate(points))


CHINESE, KOREAN = in_a_script(0x4E00, 3500, 0), in_a_script(0xAC00, 2300, 3)
MIXED = CHINESE[:15_000] + KOREAN[:15_000] + ENGLISH + "Привет, мир.\n" * 500 + in_a_script(0x3040, 180, 0, 5000)


@pytest.mark.parametrize("vocabulary", [512, 1000])
@pytest.mark.parametrize("text", [CHINESE, KOREAN, MIXED], ids=["Chinese", "Korean", "mixed"])
def test_sentencepiece_with_its_default_vocabulary_works_on_chinese(text, vocabulary):
    tokenizer = made("sentencepiece", text, vocabulary)
    ids = tokenizer.encode(text)
    assert tokenizer.vocabulary == vocabulary
    assert tokenizer.decode(ids) == text
    assert len(ids) < 0.8 * len(text.encode())  # more than bytes
    common = {piece for piece, (i, _) in tokenizer.scored_pieces.items() if len(piece) == 1}
    assert len(common) > (vocabulary - 260) / 2


@pytest.mark.parametrize("text", ["a", "我", "ab", "a" * 500, "Hello.\n", "你好世界。\n", "🙂"])
def test_sentencepiece_takes_the_shortest_texts(text):
    tokenizer = made("sentencepiece", text, 1000)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", ["", "\n\n", "\t\n"])
def test_sentencepiece_needs_something_to_learn_from(text):
    with pytest.raises(DataError, match="nothing to learn"):
        made("sentencepiece", text)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(), min_size=1), TEXT)
@example("00000000", "")  # it has no pieces by itself
@example("01" * 8, "")
def test_sentencepiece_loses_nothing_whatever_it_learned_from(learned, text):
    try:
        tokenizer = SentencePieceTokenizer.train(lambda: iter([learned]), 1000)
    except DataError:
        never_learned = re.compile("[▁▅\ud800-\udfff\n\t\0\r\x1f ]*")  # its own marks, and what has an id in any case
        assert never_learned.fullmatch(learned)
        return
    ids = tokenizer.encode(text + " ▁\n")
    assert tokenizer.decode(ids) == text + " ▁\n"
    assert tokenizer.chars_per_id[ids].sum() == len(text) + 3


def test_sentencepiece_encodes_a_line_whatever_stands_around_it():
    tokenizer = MADE["sentencepiece"]
    alone = [i for line in ENGLISH.split("\n") for i in tokenizer.encode(line + "\n").tolist()]
    assert tokenizer.encode(ENGLISH + "\n").tolist() == alone


def test_sentencepiece_takes_a_very_long_line():
    tokenizer, line = MADE["sentencepiece"], "a stormy night " * 4000
    assert tokenizer.decode(tokenizer.encode(line)) == line


def test_sentencepiece_learns_from_a_share_of_a_long_text(monkeypatch):
    monkeypatch.setattr(SentencePieceTokenizer, "TRAINING_CHARS", 15_000)
    one, other = made("sentencepiece"), made("sentencepiece")
    assert one.fingerprint == other.fingerprint
    monkeypatch.undo()
    assert made("sentencepiece").fingerprint != one.fingerprint


def test_sentencepiece_refuses_a_model_that_would_lose_text(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(ENGLISH.split("\n")),
        model_writer=model,
        vocab_size=400,
        byte_fallback=True,
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    with pytest.raises(ModelError, match="it changes the text"):
        load_alphabet(tmp_path, "sentencepiece")


# ---- the cache of ids


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "corpus.txt").write_bytes(SAMPLE.encode())
    return open_corpus([str(tmp_path / "corpus.txt")])


def cached_ids(*args):
    return cached_records(*args).ids


@every
def test_cached_ids_are_the_ids_and_are_reused(tokenizer, corpus, tmp_path):
    bounds = (7, corpus.chars - 5)
    seen: list[int] = []
    ids = cached_ids(corpus, bounds, tokenizer, tmp_path, seen.append)
    assert ids.tolist() == tokenizer.encode(SAMPLE[7:-5]).tolist()
    assert ids.dtype == tokenizer.dtype
    assert isinstance(ids, np.memmap)
    assert not ids.flags.writeable
    assert sum(seen) == corpus.chars - 12
    [path] = (tmp_path / "ids").iterdir()
    before = path.stat()
    again = cached_ids(corpus, bounds, tokenizer, tmp_path, seen.append)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert (again.tolist(), sum(seen)) == (ids.tolist(), corpus.chars - 12)


@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "junk", "other type", "header"])
def test_a_damaged_cache_file_is_encoded_again(corpus, tmp_path, damage):
    ids = cached_ids(corpus, (0, 500), MADE["char"], tmp_path)
    right = ids.tolist()
    [path] = (tmp_path / "ids").iterdir()
    whole = path.read_bytes()
    other = io.BytesIO()
    np.save(other, np.zeros(500, np.int64))
    content = {
        "cut": whole[:-1],
        "longer": whole + b"\0",
        "empty": b"",
        "junk": b"junk",
        "other type": other.getvalue(),
        "header": whole[:60],
    }[damage]
    path.write_bytes(content)
    assert cached_ids(corpus, (0, 500), MADE["char"], tmp_path).tolist() == right
    assert path.read_bytes() == whole


@pytest.mark.parametrize("change", ["another", "shorter", "longer", "empty"])
def test_a_text_that_changes_between_two_readings_is_refused_and_its_ids_are_not_kept(corpus, tmp_path, change):
    """Its ids would be found again under the digest of the text that it was."""
    ends = {"another": "!", "shorter": "", "longer": SAMPLE[-1:] + "\n"}
    text = "" if change == "empty" else SAMPLE[:-1] + ends[change]
    (tmp_path / "corpus.txt").write_bytes(text.encode())
    with pytest.raises(DataError, match=r"corpus\.txt: changed while it was read; try again when it no longer does"):
        cached_ids(corpus, (0, corpus.chars), MADE["char"], tmp_path)
    assert list((tmp_path / "ids").iterdir()) == []


def test_two_processes_of_one_number_may_encode_the_same_text_at_the_same_time(corpus, tmp_path):
    """As in containers, where every process is number 1, that share a cache."""
    bounds, inner = (0, corpus.chars), []

    def meanwhile(chars):
        if not inner:
            inner.append(0)
            inner.append(cached_ids(corpus, bounds, MADE["char"], tmp_path))

    outer = cached_ids(corpus, bounds, MADE["char"], tmp_path, meanwhile)
    assert outer.tolist() == inner[1].tolist() == MADE["char"].encode(SAMPLE).tolist()
    assert len(list((tmp_path / "ids").iterdir())) == 1


def test_a_cache_file_belongs_to_one_text_one_tokenizer_and_one_range(corpus, tmp_path):
    (tmp_path / "other.txt").write_bytes(SAMPLE.encode()[:-1] + b"!")
    other = open_corpus([str(tmp_path / "other.txt")])
    for text in (corpus, other):
        for tokenizer in (*MADE.values(), made("char", SAMPLE + "X")):
            for bounds in ((0, 100), (0, 101), (1, 101)):
                cached_ids(text, bounds, tokenizer, tmp_path)
    assert len(list((tmp_path / "ids").iterdir())) == 2 * 4 * 3


def test_an_empty_range_has_no_ids_and_no_file(corpus, tmp_path):
    ids = cached_ids(corpus, (100, 100), MADE["char"], tmp_path)
    assert (len(ids), ids.dtype) == (0, MADE["char"].dtype)
    assert not (tmp_path / "ids").exists()


def test_an_interrupted_encoding_leaves_nothing(corpus, tmp_path):
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_ids(corpus, (0, 100), MADE["char"], tmp_path, interrupt)
    assert list((tmp_path / "ids").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(corpus, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CharlmError, match=f"{tmp_path}/file/ids: .*CHARLM_CACHE"):
        cached_ids(corpus, (0, 100), MADE["char"], tmp_path / "file")


@pytest.mark.parametrize("home", ["/dev/null", None])
def test_without_a_home_that_can_be_written_ids_are_kept_in_a_temporary_place(monkeypatch, tmp_path, caplog, home):
    for name in ("CHARLM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def unknown():
        raise RuntimeError("Could not determine home directory.")

    if home is None:
        monkeypatch.setattr(Path, "home", unknown)
    else:
        monkeypatch.setenv("HOME", home)
    idcache._temporary_folder.cache_clear()
    assert cache_folder() == cache_folder() == tmp_path / f"charlm-{os.getuid()}"
    assert cache_folder().stat().st_mode & 0o077 == 0
    assert caplog.text.count("CHARLM_CACHE") == 1
    idcache._temporary_folder.cache_clear()
    cache_folder().chmod(0o777)
    idcache._temporary_folder.cache_clear()
    assert cache_folder() != tmp_path / f"charlm-{os.getuid()}"  # somebody else's trap
    idcache._temporary_folder.cache_clear()


def test_a_home_that_may_not_be_looked_into_is_none(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0)
    program = (
        "import os, sys, tempfile\nfrom charlm import idcache\n"
        "if not os.getuid(): os.setuid(65534)\n"
        "os.environ['HOME'] = sys.argv[1]\nprint(idcache.cache_folder())\n"
    )
    environment = {name: value for name, value in os.environ.items() if not re.match("XDG|CHARLM|HOME|TMP", name)}
    ended = subprocess.run(
        [sys.executable, "-c", program, home / "u"], env=environment, capture_output=True, text=True, check=True
    )
    assert Path(ended.stdout.strip()).name.startswith("charlm-")


def test_the_cache_is_where_the_user_wants_it(monkeypatch, corpus, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("CHARLM_CACHE", raising=False)
    monkeypatch.setattr(idcache, "_may_be_written", lambda place: True)
    assert cache_folder() == Path("/home/u/.cache/charlm")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/charlm")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path("/home/u/Library/Caches/charlm")
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path))
    cached_ids(corpus, (0, 100), MADE["char"])
    assert len(list((tmp_path / "ids").iterdir())) == 1


MEMORY = """
    import sys, threading
    from pathlib import Path
    from charlm.corpus import open_corpus
    from charlm.idcache import cached_records
    from charlm.tokenizers import TOKENIZERS

    def anonymous():
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) / 1024

    def encode(path, name):
        corpus = open_corpus([path])
        tokenizer = TOKENIZERS[name].train(lambda: corpus.pieces(0, 50_000), 400)
        return len(cached_records(corpus, (0, corpus.chars), tokenizer, Path(path).parent).ids)

    def sample():
        while not done.wait(0.002):
            peaks.append(anonymous())

    small, large, name = sys.argv[1:]
    encode(small, name)
    before, peaks, done = anonymous(), [], threading.Event()
    sampler = threading.Thread(target=sample)
    sampler.start()
    count = encode(large, name)
    done.set()
    sampler.join()
    print(count, len(peaks), max(peaks) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "megabytes", "limit"), [("char", 60, 30), ("byte", 60, 30), ("sentencepiece", 10, 60)]
)
def test_encoding_a_large_corpus_takes_little_memory(tmp_path, name, megabytes, limit):
    write_corpus("pydocs", tmp_path / "small.txt")
    small = (tmp_path / "small.txt").read_bytes()
    with (tmp_path / "large.txt").open("wb") as file:
        for _ in range(megabytes * 1_000_000 // len(small)):
            file.write(small)
    command = [sys.executable, "-c", textwrap.dedent(MEMORY), tmp_path / "small.txt", tmp_path / "large.txt", name]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    count, samples, megabytes_more = map(float, child.stdout.split())
    assert count > megabytes * 1e6 / 8
    assert samples > 20
    assert megabytes_more < limit
    assert child.stderr == ""


def test_importing_the_tokenizers_does_not_import_tensorflow():
    code = "import sys, charlm.idcache; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_file_of_a_char_tokenizer_is_plain_json(tmp_path):
    made("char", "aé🙂").save(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text()) == {
        "format": "charlm tokenizer",
        "version": 1,
        "tokenizer": "char",
        "characters": "aé🙂",
    }


def test_byte_has_nothing_to_learn():
    assert ByteTokenizer.train(lambda: iter(()), 5).vocabulary == 256
    assert (ByteTokenizer().unknown, ByteTokenizer().blocked.tolist()) == (None, [])
