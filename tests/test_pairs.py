"""Pairs of strings: their files, the alignment, the layouts, the errors."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.errors import DataError, ModelError
from charlm.pairs.alignment import LONGEST_CHUNK, Alignment
from charlm.pairs.alphabet import DRAWN, NEXT, START, Layout, PairAlphabet, sizes_of
from charlm.pairs.metrics import accuracy, edits
from charlm.pairs.records import PARTS, parts_of, records_of
from charlm.pairs.table import Pair, escaped, read_pairs, unescaped

LAYOUTS = [Layout("whole"), Layout("reversed"), Layout("aligned", 0), Layout("aligned", 2), Layout("aligned", 9)]
PAIRS = [Pair("abba", "A BB A"), Pair("ab", "A B"), Pair("ba", "B A"), Pair("aab", ""), Pair("b", "B A B A B")]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
rows = st.lists(st.tuples(st.text("abc\t\\\n\réß猫", min_size=1, max_size=5), texts), min_size=1, max_size=8)


# ---- files


@given(rows)
def test_pairs_that_are_written_are_read(pairs):
    text = "".join(f"{escaped(source)}\t{escaped(target)}\n" for source, target in pairs)
    pieces = [text[n : n + 3] for n in range(0, len(text), 3)]
    assert list(read_pairs(pieces, "file")) == pairs


def test_line_ends_of_another_system_empty_lines_and_a_missing_last_end_are_taken():
    assert list(read_pairs(["a\tb\r\n\r\n\nc\td"], "file")) == [("a", "b"), ("c", "d")]


def test_a_backslash_before_another_character_stands_for_itself():
    assert unescaped(r"C:\home \t \\t") == "C:\\home \t \\t"


BAD = {
    "a\tb\nab\n": r"file, line 2: no tab between source and target; inside a field a tab is written \t",
    "a\tb\tc\n": r"file, line 1: 2 tabs, not one",
    "a\tb\n\n\tb\n": "file, line 3: the source is empty",
    "one two\n": "file, line 1: no tab",
}


@pytest.mark.parametrize(("text", "said"), BAD.items())
def test_a_line_that_is_no_pair_is_named(text, said):
    with pytest.raises(DataError) as refused:
        list(read_pairs([text], "file"))
    assert str(refused.value).startswith(said)


@given(st.text(st.sampled_from("ab\t\n\r\\ é\0"), max_size=40))
def test_whatever_a_file_holds_it_is_pairs_or_refused_with_a_line(text):
    try:
        found = len(list(read_pairs([text], "file")))
    except DataError as error:
        found = str(error).partition(",")[0]
    assert found in ("file", sum(bool(line.removesuffix("\r")) for line in text.split("\n")))


@given(st.lists(st.tuples(st.text("abcdef", min_size=1, max_size=3), st.text("xy", max_size=2)), max_size=60))
def test_every_pair_is_in_one_part_and_a_source_in_no_two(pairs):
    pairs = [Pair(*pair) for pair in pairs]
    parts = parts_of(pairs, (0.6, 0.2, 0.2))
    assert sorted(pair for name in PARTS for pair in parts[name]) == sorted(pairs)
    sources = [{pair.source for pair in parts[name]} for name in PARTS]
    assert not any(one & other for one, other in itertools.combinations(sources, 2))
    assert parts["all"] == pairs


# ---- the alignment


def alignments(n, m):
    """All ways for n source symbols to write m target symbols, by the sizes of chunks."""
    return [sizes for sizes in itertools.product(range(LONGEST_CHUNK + 1), repeat=n) if sum(sizes) == m]


def chances_of(alignment, source, target, sizes):
    """The chance of each chunk of one alignment of the first pair."""
    ends = np.cumsum(sizes)
    return [alignment.chances[s, alignment.chunk[0, end, k]] for s, end, k in zip(source, ends, sizes, strict=True)]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=4), st.data())
@settings(max_examples=40, deadline=None)
def test_expectation_and_best_alignment_are_those_of_all_alignments(source, data):
    target = data.draw(st.lists(st.integers(0, 1), max_size=min(6, 3 * len(source))))
    alignment = Alignment([np.array(source)], [np.array(target, np.int64)], 3, 1)
    rng = np.random.default_rng(len(target))
    alignment.chances = rng.random(alignment.chances.shape)
    ways = {
        sizes: np.prod(chances_of(alignment, source, target, sizes)) for sizes in alignments(len(source), len(target))
    }
    expected = np.zeros_like(alignment.chances)
    for sizes, chance in ways.items():
        for s, end, k in zip(source, np.cumsum(sizes), sizes, strict=True):
            expected[s, alignment.chunk[0, end, k]] += chance / sum(ways.values())
    np.testing.assert_allclose(alignment._expected(), expected, atol=1e-9)
    best = max(ways.values())
    assert ways[tuple(alignment.chunk_sizes()[0])] == pytest.approx(best)
    assert alignment.nats() == pytest.approx(-np.log(best))


def test_what_each_letter_writes_is_learnt():
    writes = {0: [0], 1: [1, 2], 2: [], 3: [3]}
    rng = np.random.default_rng(0)
    sources = [rng.integers(0, 4, rng.integers(2, 8)) for _ in range(300)]
    targets = [np.array([t for s in source for t in writes[int(s)]], np.int64) for source in sources]
    alignment = Alignment(sources, targets, 4, 300)
    before = alignment.nats()
    alignment.learn()
    assert alignment.nats() < before
    right = [
        sizes == [len(writes[int(s)]) for s in source]
        for source, sizes in zip(sources, alignment.chunk_sizes(), strict=True)
    ]
    assert np.mean(right) > 0.97


def test_pairs_that_are_not_learnt_from_change_nothing():
    known = [np.array([0, 1]), np.array([1, 0])]
    alone = Alignment(known, known, 2, 2)
    among = Alignment([*known, np.array([0, 0, 1])], [*known, np.array([1, 1])], 2, 2)
    for one in (alone, among):
        one.learn()
    assert among.chunk_sizes()[:2] == alone.chunk_sizes()


# ---- layouts


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_record_is_its_script_with_the_target_where_it_is_drawn(layout):
    alphabet = PairAlphabet.learnt(PAIRS, layout)
    for pair, sizes in zip(PAIRS, sizes_of(alphabet, PAIRS, len(PAIRS)), strict=True):
        ids, scored = alphabet.record(pair, sizes)
        assert alphabet.text(ids[scored].tolist()) == pair.target
        script = alphabet.script(pair.source)
        assert (ids[~scored] == script[script != DRAWN]).all()
        assert (ids[scored] == NEXT).sum() == (script == DRAWN).sum() == len(sizes)
        assert ids[0] == START


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_an_alphabet_is_what_its_file_says(layout, tmp_path):
    alphabet = PairAlphabet.learnt(PAIRS, layout)
    alphabet.save(tmp_path)
    again = PairAlphabet.load(tmp_path)
    assert again.fingerprint == alphabet.fingerprint
    assert (again.script("abxb") == alphabet.script("abxb")).all()
    for damage in (b"{}", alphabet.content()[:-2], alphabet.content().replace(b'"most"', b'"least"'), b"[" * 10**5):
        (tmp_path / "pairs.json").write_bytes(damage)
        with pytest.raises(ModelError, match=r"pairs\.json"):
            PairAlphabet.load(tmp_path)


def test_a_source_is_read_from_its_end_and_seen_as_far_ahead_as_the_layout_says():
    alphabet = PairAlphabet.learnt([Pair("abc", "x"), Pair("cba", "y")], Layout("aligned", 2))
    a, b, c = (int(n) + 3 for n in alphabet.source_symbols("abc"))
    ahead, edge = 4, 2
    first, second = [c + ahead, b + ahead, a, DRAWN], [edge, c + ahead, b, DRAWN]
    whole = [START, c + ahead, b + ahead, a + ahead, *first, *second, edge, edge, c, DRAWN]
    assert alphabet.script("abc").tolist() == whole
    assert alphabet.script("a").tolist() == [START, a + ahead, edge, edge, a, DRAWN]
    assert alphabet.script("").tolist() == [START]


def test_characters_of_one_source_alone_and_new_ones_are_unknown():
    alphabet = PairAlphabet.learnt([Pair("ab", "x"), Pair("abq", "x")], Layout())
    assert alphabet.unseen("abqz") == "qz"
    assert alphabet.source_symbols("aq").tolist() == [1, 0]


def test_targets_of_few_words_are_taken_word_by_word_and_others_by_character():
    assert PairAlphabet.learnt(PAIRS, Layout()).words
    sentences = [Pair("a", f"word{n} other{n}") for n in range(200)]
    assert not PairAlphabet.learnt(sentences, Layout()).words


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_only_targets_count_and_each_pair_is_a_record(layout):
    alphabet = PairAlphabet.learnt(PAIRS, layout)
    train, valid = records_of(alphabet, PAIRS[:3], PAIRS[3:])
    assert len(train.starts) + 1 == 3
    assert (train.ids[[0, *train.starts]] == START).all()
    drawn = {NEXT, *range(alphabet.targets, alphabet.vocabulary)}
    assert {*train.ids[train.scored].tolist()} <= drawn
    places = sum(len(pair.source) if layout.form == "aligned" else 1 for pair in PAIRS[3:])
    assert len(train.ids) == sum(alphabet.symbols(pair) for pair in PAIRS[:3])
    assert valid.predicted == places + sum(len(pair.target.split()) for pair in PAIRS[3:])


# ---- errors


@given(st.text("ab", max_size=5), st.text("ab", max_size=5), st.text("ab", max_size=5))
def test_edits_are_a_distance(a, b, c):
    assert (edits(a, b) == 0) == (a == b)
    assert edits(a, b) == edits(b, a)
    assert edits(a, c) <= edits(a, b) + edits(b, c)
    assert abs(len(a) - len(b)) <= edits(a, b) <= max(len(a), len(b))


def test_a_target_is_right_if_it_is_one_of_those_wanted():
    pairs = [Pair("a", "x y"), Pair("a", "x z"), Pair("b", "p q r s")]
    found = accuracy({"a": "x z", "b": "p q s"}, pairs)
    assert found == (0.5, 1 / 6, 2 / 10)
