"""Sources turned into targets: the search against all targets there are, and the commands."""

import gzip
import itertools
import json
import re

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import charlm
from charlm.cli import cli
from charlm.cli.options import as_typed
from charlm.config import FORM_NAMES, ModelConfig
from charlm.errors import CharlmError, DataError, UsageError, spelled
from charlm.model import build_model
from charlm.pairs.alphabet import NEXT, Layout, PairAlphabet
from charlm.pairs.table import Pair
from charlm.questions import TranslationConfig
from charlm.session import Request, open_session
from charlm.training import Training
from charlm.translation import Translator
from charlm.trial import settled

SOURCES = ["a", "ab", "ba", "bb"]
LAYOUTS = [Layout("whole"), Layout("reversed"), Layout("aligned", 1)]
MOST = 2  # target symbols for a place


def translator_of(layout, cell="lstm"):
    learnt = PairAlphabet.learnt([Pair("ab", "x"), Pair("ba", "y")], layout)
    alphabet = PairAlphabet(layout, learnt.source, learnt.target, learnt.words, MOST)
    model = build_model(ModelConfig(cell=cell, units=12, embedding=6, vocabulary=alphabet.vocabulary), seed=4)
    for weight in model.weights:  # or all targets are as likely
        weight.assign(3 * weight)
    return Translator(model, alphabet)


def nats_of(translator, pair, sizes):
    """-log p of a target that is written so, by the model over the whole record, among what may be drawn."""
    ids, scored = translator.alphabet.record(pair, sizes)
    logits = translator.model(tf.constant(ids[:, None], tf.int32), translator.model.initial_state(1))[0].numpy()[:, 0]
    total, written = 0.0, 0
    for t in np.flatnonzero(scored):
        may = may_follow(translator, written)
        total += np.log(np.exp(logits[t - 1].astype(np.float64))[may].sum()) - logits[t - 1, ids[t]]
        written = 0 if ids[t] == NEXT else written + 1
    return total


def may_follow(translator, written):
    """What may be drawn where so many symbols are written already."""
    allowed = translator._allowed.numpy()
    return allowed & ((np.arange(len(allowed)) == NEXT) | (written < MOST))


def every_target(translator, source):
    """-log p of every target there is, all ways to write it together."""
    alphabet = translator.alphabet
    places = len(source) if alphabet.layout.form == "aligned" else 1
    ways = {}
    for sizes in itertools.product(range(MOST + 1), repeat=places):
        for symbols in itertools.product(alphabet.target, repeat=sum(sizes)):
            pair = Pair(source, "".join(symbols))
            ways.setdefault(pair.target, []).append(-nats_of(translator, pair, sizes))
    return {target: -np.logaddexp.reduce(own) for target, own in ways.items()}


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("cell", ["lstm", "mingru"])
def test_a_wide_beam_finds_every_target_with_its_chance(layout, cell):
    translator = translator_of(layout, cell)
    for source, found in zip(SOURCES, translator.likeliest(SOURCES, 49), strict=True):
        expected = every_target(translator, source)
        assert {one.text for one in found} == set(expected)
        assert sum(np.exp(-one.nats) for one in found) == pytest.approx(1, abs=1e-4)
        for one in found:
            assert one.nats == pytest.approx(expected[one.text], abs=2e-4)
        assert found == sorted(found, key=lambda one: one.cost)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_greedy_search_takes_the_likeliest_symbol_at_each_step(layout):
    translator = translator_of(layout)
    alphabet, model = translator.alphabet, translator.model
    for source, (found,) in zip(SOURCES, translator.likeliest(SOURCES, 1), strict=True):
        ids, drawn = [], []
        for symbol in alphabet.script(source).tolist():
            ids.append(symbol)
            if symbol >= 0:
                continue
            ids.pop()
            for written in range(MOST + 1):
                logits = model(tf.constant(np.array(ids)[:, None], tf.int32), model.initial_state(1))[0][-1, 0].numpy()
                ids.append(int(np.where(may_follow(translator, written), logits, -np.inf).argmax()))
                drawn.append(ids[-1])
                if ids[-1] == NEXT:
                    break
        assert found.text == alphabet.text(drawn)


def test_a_source_is_turned_alone_as_among_others():
    translator = translator_of(LAYOUTS[2])
    longer = [*SOURCES, "abababababababababab", "b" * 40]
    together = translator.likeliest(longer, 4)
    for source, found in zip(longer, together, strict=True):
        (alone,) = translator.likeliest([source], 4)
        assert [one.text for one in alone] == [one.text for one in found]
        assert [one.nats for one in alone] == pytest.approx([one.nats for one in found], abs=1e-3)


def test_targets_are_drawn_as_often_as_they_are_likely():
    translator, source, draws = translator_of(LAYOUTS[0]), "ab", 4000
    expected = {target: np.exp(-nats) for target, nats in every_target(translator, source).items()}
    drawn = translator._found([source] * draws, 1, {}, range(draws), lambda count: None)
    texts = [one.text for (one,) in drawn]
    for target, chance in expected.items():
        assert texts.count(target) / draws == pytest.approx(chance, abs=5 * np.sqrt(0.25 / draws))


def test_the_same_seed_draws_the_same():
    translator = translator_of(LAYOUTS[2])
    draw = [translator.found(SOURCES, TranslationConfig(samples=5, seed=seed)) for seed in (7, 7, 8)]
    assert draw[0] == draw[1] != draw[2]
    assert all(len({one.text for one in found}) == len(found) <= 5 for found in draw[0])


# ---- commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with pairs and a model of them: letters are spelled out, so that much is learnt at once."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abc"), rng.integers(1, 6))) for _ in range(300)]
    lines = [f"{word}\t{word.upper().replace('B', 'BB')}\n" for word in words]
    (folder / "pairs.tsv").write_text("".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small = [
            "--units",
            "32",
            "--embedding",
            "8",
            "--lanes",
            "8",
            "--bptt",
            "16",
            "--dropout",
            "0",
            "--steps",
            "400",
        ]
        done = CliRunner().invoke(cli, ["train", "pairs.tsv", "--pairs", "--form", "aligned", "--name", "m", *small])
        assert done.exit_code == 0, done.exception
        yield folder


@pytest.fixture
def typed(folder, monkeypatch):
    monkeypatch.chdir(folder)

    def typed(*words, given=None):
        return CliRunner().invoke(cli, [*words], input=given)

    return typed


def test_a_line_comes_out_for_each_that_goes_in(typed):
    done = typed("translate", "--model", "m", given="ab\n\ncab\r\nb")
    assert done.output.splitlines() == ["ABB", "", "CABB", "BB"]
    assert done.exit_code == 0


def test_files_are_read_one_after_the_other(typed, folder):
    (folder / "one").write_text("\ufeffa\n")
    (folder / "two").write_text("b\nc\n")
    assert typed("translate", "one", "two", "--model", "m").output.splitlines() == ["A", "BB", "C"]
    wrong = typed("translate", "three", "--model", "m")
    assert isinstance(wrong.exception, UsageError)
    assert str(wrong.exception) == "three: cannot be read: No such file or directory"
    (folder / "four").write_bytes(b"\xef\xbb\xbfab\n" + b"\n" * 20_000 + b"a\xff\n")
    wrong = typed("translate", "four", "--model", "m")
    assert isinstance(wrong.exception, DataError)
    assert str(wrong.exception) == "four: line 20002, byte 1 is not UTF-8"


def test_json_has_the_targets_of_a_source_with_their_costs(typed):
    (line,) = typed("translate", "--model", "m", "--json", given="ab\n").output.splitlines()
    found = json.loads(line)
    assert found["source"] == "ab"
    assert found["targets"][0]["target"] == "ABB"
    assert found["targets"][0]["nats"] < 0.5


def test_a_character_that_was_never_seen_is_said(typed, caplog):
    done = typed("translate", "--model", "m", given="aé\n")
    assert done.exit_code == 0
    assert "the model has never seen 'é'" in caplog.text


def test_evaluate_counts_the_targets_that_are_found(typed):
    found = json.loads(typed("evaluate", "--model", "m", "--json").output)
    assert found["exact_match"] > 0.9
    assert found["char_error_rate"] < 0.1
    assert found["split"] == "valid"


def test_python_takes_one_source_or_several(typed):
    model = charlm.load("m")
    assert model.translate("ab") == "ABB"
    assert model.translate(["ab", "", "c"]) == ["ABB", "", "C"]
    assert (model.translate(""), model.translate([]), model.translate(["", ""], samples=2)) == ("", [], [[""], [""]])
    assert "ABB" in model.translate("ab", samples=3, seed=1)
    with pytest.raises(UsageError, match="sources must be texts, not 3"):
        model.translate(["ab", 3])


REFUSED = [["generate"], ["tokenize", "a"], ["forecast"], ["export", "out"], ["serve"]]


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: words[0])
def test_other_commands_say_what_a_model_of_pairs_is_for(typed, words):
    done = typed(*words, "--model", "m")
    assert isinstance(done.exception, UsageError)
    assert "m: is a model of" in str(done.exception)


FILES = {
    "empty": (b"", 3, "no text in there"),
    "blank lines": (b"\n\n\n", 3, "0 pairs are too few"),
    "one pair": (b"a\tb\n", 3, "pairs are too few"),
    "no tab": (b"a\tb\nab\n", 3, "line 2: no tab"),
    "blanks for tabs": (b"a    b\n", 3, "line 1: no tab"),
    "three columns": (b"a\tb\tc\n", 3, "line 1: 2 tabs, not one"),
    "no source": (b"a\tb\n\tb\n", 3, "line 2: the source is empty"),
    "no target anywhere": (b"a\t\nb\t\nc\t\nd\t\n", 3, "all targets are empty"),
    "UTF-16": ("a\tb\n".encode("utf-16"), 3, "UTF-16"),
    "another encoding": ("é\tb\n".encode("latin-1"), 3, "byte"),
    "semicolons": (b"a;b\nc;d\n", 3, "line 1: no tab"),
    "a picture": (
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        3,
        "looks like a binary file (NUL in its first 8 KB); leave it out",
    ),
    "a NUL in a field": (b"a\0b\tc\nd\te\n", 3, "binary file"),
    "half a gzip": (gzip.compress(b"a\tb\n" * 9)[:12], 3, "binary file"),
    "JSON": (b'{"source": "a", "target": "b"}\n', 3, "line 1: no tab"),
    "a header alone": (b"source\ttarget\n", 3, "1 pairs are too few"),
    "tabs alone": (b"\t\n\t\n", 3, "line 1: the source is empty"),
    "a tab at the end": (b"a\tb\t\n", 3, "line 1: 2 tabs"),
    "a bad line after good ones": (b"a\tb\n" * 1000 + b"c d\n", 3, "line 1001: no tab"),
    "bad after blank lines and CRLF": (b"a\tb\r\n\r\n\r\nc\r\n", 3, "line 4: no tab"),
}


@pytest.mark.parametrize(("content", "code", "said"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_pairs_is_refused_in_a_line_before_anything_is_computed(typed, tmp_path, content, code, said):
    (tmp_path / "bad.tsv").write_bytes(content)
    done = typed("train", str(tmp_path / "bad.tsv"), "--pairs", "--steps", "2", "--models", str(tmp_path / "models"))
    assert isinstance(done.exception, CharlmError)
    assert done.exception.exit_code == code
    assert said in str(done.exception)
    assert "bad.tsv" in str(done.exception) or "too few" in said or "targets" in said
    assert "tokenizer byte" not in str(done.exception)
    assert not (tmp_path / "models").exists()


OPTIONS = {
    "--tokenizer byte": "--pairs must be off unless --tokenizer is char",
    "--split 1 0 0": "name one by --form",
    "--form straight": "whole",
    "--lookahead -1": "--lookahead must be at least 0",
}


@pytest.mark.parametrize(("options", "said"), OPTIONS.items())
def test_an_option_that_goes_with_no_pairs_is_named(typed, options, said, tmp_path):
    with spelled(as_typed):
        done = typed("train", "pairs.tsv", "--pairs", *options.split(), "--models", str(tmp_path))
    assert done.exit_code
    assert said in done.output + str(done.exception)


def test_a_resumed_run_is_the_run_that_was_not_interrupted(folder, monkeypatch):
    monkeypatch.chdir(folder)
    train = {"steps": 24, "lanes": 4, "bptt": 8, "evaluate_every": 12, "warmup": 2}
    asked = {"data": {"pairs": True, "form": "aligned"}, "train": train, "model": {"units": 8, "embedding": 8}}

    def trained(name, until, resume=False):
        session = open_session(Request([] if resume else ["pairs.tsv"], asked, folder / "models", name, resume=resume))
        training = Training(session, stop=lambda: training.step >= until)
        list(training.events())
        return training.model.get_weights()

    whole = trained("whole", 99)
    assert not np.array_equal(trained("halved", 15)[0], whole[0])
    for one, other in zip(trained("halved", 99, resume=True), whole, strict=True):
        assert (one == other).all()


def test_pairs_from_standard_input_want_a_layout(typed, tmp_path):
    done = typed("train", "-", "--pairs", "--models", str(tmp_path), given="a\tb\nc\td\n")
    assert isinstance(done.exception, UsageError)
    assert "standard input is read once" in str(done.exception)


def test_pairs_too_few_to_choose_a_layout_by_are_refused(folder):
    (folder / "two.tsv").write_text("12+7\t19\n30+5\t35\n")
    with pytest.raises(DataError, match=r"two\.tsv: no held-out pair can be scored"):
        charlm.train(folder / "two.tsv", pairs=True, steps=3, name="two")
    assert not (folder / "models/two").exists()


def test_a_layout_is_tried_where_none_is_named(folder):
    asked = {
        "data": {"pairs": True},
        "train": {"steps": 60, "lanes": 4, "bptt": 8},
        "model": {"units": 8, "embedding": 8},
    }
    request, said = Request([str(folder / "pairs.tsv")], asked, folder / "models"), []
    found = settled(request, say=said.append)
    best, nats = re.match(r"layout (\w+),.*\(nats a pair: (.*)\)", said[-1]).groups()
    costs = {form: float(cost) for form, cost in (one.split() for one in nats.split(", "))}
    assert found.settings["data"]["form"] == best == min(costs, key=costs.get)
    assert sorted(costs) == sorted(FORM_NAMES)
    assert found.settings["train"] == asked["train"]  # the minutes of the trials are the run's
    named = Request(request.paths, {"data": {"pairs": True, "form": "whole"}}, request.models)
    assert settled(named) is named


def test_a_model_of_pairs_goes_on_with_others(typed, folder):
    (folder / "more.tsv").write_text("".join(f"{'abc'[n % 3]}{'cab'[n // 3 % 3]}\tX\n" for n in range(40)))
    small = ["--lanes", "4", "--bptt", "8", "--steps", "20"]
    done = typed("train", "more.tsv", "--from", "m", "--name", "further", *small)
    assert done.exit_code == 0, done.exception
    old, new = charlm.load("m"), charlm.load("further")
    assert new.alphabet.fingerprint == old.alphabet.fingerprint
    assert new.config.data.pairs
    assert new.config.data.form == "aligned"
