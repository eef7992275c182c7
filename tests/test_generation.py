"""Text from models whose next symbol is known: spelled out, or computed again by the window forward."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import KINDS, multiplies_bfloat16

from charlm.api import load
from charlm.checkpoint import to_arrays
from charlm.config import Config, ModelConfig, SampleConfig
from charlm.decoder import decoder_of
from charlm.errors import UsageError
from charlm.generation import DECODE, LONGEST_CHUNK, Generator, stream_text
from charlm.model import build_model
from charlm.runs import Run
from charlm.sampling import RECENT, draw, restrict, settings_of
from charlm.tokenizers import TOKENIZERS

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps. été, ночь, 世界 🙂\n" * 5
ALPHABETS = {"char": "abc\n", "byte": "aé世🙂\n", "sentencepiece": "the quick\n"}
TOKENIZER = {name: kind.train(lambda: iter([TEXT]), 320) for name, kind in TOKENIZERS.items()}
TOKENIZER["char"] = TOKENIZERS["char"].train(lambda: iter([TEXT + "abc"]), 0)
CYCLE = 24  # symbols that a speller repeats
GREEDY = {"temperature": 0.0}
every = pytest.mark.parametrize("name", TOKENIZER)


def spell(model, ids):
    """Sets an RNN's weights so that it says `ids` over and over, from the first one after any first symbol.

    Its hidden values are a pointer: one of them is 1, the others -1, and it moves on with every symbol. From the zero
    state it begins at 0.
    """
    n, ids = len(ids), np.asarray(ids)
    recurrent, bias = np.zeros((n, n), np.float32), np.full(n, -20, np.float32)
    recurrent[range(n - 1), range(1, n)] = 40
    recurrent[:, 0] = 40 / (n - 2)  # with any pointer set, these sum to -40
    recurrent[n - 1, 0] += 40
    bias[0] = 20
    said = np.eye(model.config.vocabulary, dtype=np.float32)[ids]
    weights = model.named_weights()
    weights["layers.0.kernel"].assign(np.zeros((1, n)))
    weights["layers.0.recurrent_kernel"].assign(recurrent)
    weights["layers.0.bias"].assign(bias)
    weights["projection"].assign(15 * said)
    weights["bias"].assign(15 * said.sum(0))


def speller(name):
    tokenizer = TOKENIZER[name]
    model = build_model(ModelConfig(cell="rnn", units=CYCLE, embedding=1, vocabulary=tokenizer.vocabulary))
    return Generator(model, SampleConfig(**GREEDY), tokenizer.blocked)


SPELLER = {name: speller(name) for name in TOKENIZER}


def cycle(name, text):
    """The ids of a text, filled up with line ends."""
    tokenizer = TOKENIZER[name]
    ids = tokenizer.encode(text)[:CYCLE].tolist()
    return ids + tokenizer.encode("\n").tolist() * (CYCLE - len(ids))


def written(generator, name, prompt="a", seed=1, **config):
    """Streamed pieces by row, and the samples; what is so of any text is checked on the way."""
    config = SampleConfig(**config)
    items = list(stream_text(generator, TOKENIZER[name], prompt, config, seed))
    samples = items[-config.samples :]
    pieces = [[text for row, text in items[: -config.samples] if row == n] for n in range(config.samples)]
    for own, sample in zip(pieces, samples, strict=True):
        assert "".join(own) == sample.text
        assert all(own)
        assert all(piece == piece.encode().decode() for piece in own)
        assert sample.prompt == prompt
        assert not any(stop in sample.text for stop in config.stop)
    return pieces, samples


def random_model(cell="gru", vocabulary=13, seed=3, scale=3.0):
    """Untrained, with weights so large that it does not settle on a symbol."""
    model = build_model(ModelConfig(cell=cell, layers=2, units=16, vocabulary=vocabulary), seed=seed)
    for weight in model.weights:
        weight.assign(weight * scale)
    return model


def random_generator(name, **config):
    tokenizer = TOKENIZER[name]
    config = SampleConfig(**{"temperature": 1.0, **config})
    return Generator(random_model(vocabulary=tokenizer.vocabulary), config, tokenizer.blocked)


def window_logits(model, ids):
    """Logits after every symbol of ids [T], by the forward of training."""
    return model(tf.constant(ids, tf.int32)[:, None], model.initial_state(1))[0][:, 0].numpy()


def ids_and_nats(generator, prompt, length, seeds):
    ids, nats = zip(*generator.stream(prompt, length, seeds), strict=True)
    return np.concatenate(ids), np.concatenate(nats)


# ---- what is drawn


@pytest.mark.parametrize("cell", KINDS)
def test_greedy_is_the_argmax_of_the_window_forward(cell):
    model, prompt = random_model(cell), [1, 5, 2]
    ids, _ = ids_and_nats(Generator(model, SampleConfig(**GREEDY), np.array([0, 4])), prompt, 70, [1])
    logits = window_logits(model, [*prompt, *ids[:-1, 0]])[len(prompt) - 1 :]
    logits[:, [0, 4]] = -np.inf
    assert len(set(ids[:, 0])) > 2
    assert (logits[range(70), ids[:, 0]] > logits.max(-1) - 1e-4).all()


@pytest.mark.parametrize("cell", KINDS)
def test_nats_are_the_models_own_before_any_sampler(cell):
    chaotic = cell in ("mlstm", "mogrifier")  # and make much of a rounding, where weights are large
    model, prompt = random_model(cell, scale=1.5 if chaotic else 3.0), [3, 0, 7, 7]
    config = SampleConfig(temperature=0.5, top_k=5, repetition_penalty=1.3)
    ids, nats = ids_and_nats(Generator(model, config, np.array([0, 4])), prompt, 75, [1, 2])
    for row in range(2):
        logits = window_logits(model, [*prompt, *ids[:-1, row]])[len(prompt) - 1 :].astype(np.float64)
        expected = np.log(np.exp(logits).sum(-1)) - logits[range(75), ids[:, row]]
        assert np.allclose(nats[:, row], expected, rtol=1e-4, atol=1e-4)


@multiplies_bfloat16
def test_bfloat16_operands_stay_near_and_write_one_text_for_a_seed():
    """The same draws from logits that are a little off: the text is the same until one of them decides."""
    model = random_model("lstm")
    low, exact = (Generator(model, SampleConfig(precision=p), np.array([0])) for p in ("bfloat16", "float32"))
    prompt = np.random.default_rng(0).integers(1, 13, 300).tolist()
    (ids, nats), (again, _), (expected, exact_nats) = (
        ids_and_nats(g, prompt, 40, [3, 4, 5]) for g in (low, low, exact)
    )
    assert (ids == again).all()
    assert (ids[0] == expected[0]).all()
    assert 0 < np.abs(nats[0] - exact_nats[0]).max() < 0.1


@pytest.mark.parametrize("cell", KINDS)
def test_rows_in_groups_are_the_same_rows(cell):
    model = build_model(ModelConfig(cell=cell, layers=2, units=24, vocabulary=11), seed=3)
    config = SampleConfig(temperature=0.9, top_k=7)
    generator = Generator(model, config, np.array([0]))
    forced = np.full(LONGEST_CHUNK, -1, np.int32)
    forced[:3] = 4, 5, 6
    found = []
    for groups in (1, 3):
        rows = generator.start(3, 6)
        at = decoder_of(model, "float32", columns=True), rows, tf.constant(20), forced, tf.range(6), generator.settings
        drawn, after = DECODE["bfloat16"](*at, generator._blocked, groups)
        found.append((drawn.ids[:20].numpy(), drawn.nats[:20].numpy(), after))
    assert (found[0][0] == found[1][0]).all()
    assert len({tuple(row) for row in found[0][0].T}) == 6
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4)
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found[0][2], found[1][2])


def test_every_symbol_is_the_draw_after_the_samplers_have_seen_what_came_last():
    model, prompt, length = random_model(), [1, 2, 3], 90
    config = SampleConfig(temperature=0.9, top_k=9, top_p=0.9, min_p=0.01, repetition_penalty=6.0)
    ids, _ = ids_and_nats(Generator(model, config, np.array([0])), prompt, length, [11])
    came = [-1] * RECENT + prompt + ids[:, 0].tolist()
    logits = window_logits(model, came[RECENT:-1])[len(prompt) - 1 :]
    logits[:, 0] = -np.inf
    recent = np.array([came[len(prompt) + n :][:RECENT] for n in range(length)], np.int32)

    @tf.function
    def drawn(logits, recent, n):
        return draw(restrict(logits[None], settings_of(config), recent[None]), tf.constant([11]), n)

    assert [int(drawn(logits[n], recent[n], tf.constant(n))[0]) for n in range(length)] == ids[:, 0].tolist()


def test_the_same_seed_gives_the_same_text_and_another_another():
    model, config = random_model(), SampleConfig(temperature=1.0)
    texts = [ids_and_nats(Generator(model, config, np.array([0])), [1], 60, [seed])[0] for seed in (5, 5, 6)]
    assert (texts[0] == texts[1]).all()
    assert (texts[0] != texts[2]).mean() > 0.3


def test_blocked_ids_are_never_drawn_and_may_be_in_the_prompt():
    model, blocked = random_model(), np.array([0, 9])
    model.bias.assign(np.eye(13)[0] * 50)
    for config in (SampleConfig(**GREEDY), SampleConfig(temperature=2.0, top_k=3, repetition_penalty=9.0)):
        ids, nats = ids_and_nats(Generator(model, config, blocked), [9, 0], 80, [1, 2])
        assert not np.isin(ids, blocked).any()
        assert nats.min() > 30


def test_a_generator_follows_its_models_weights():
    generator = SPELLER["char"]
    for text in ("abc", "cab"):
        spell(generator.model, cycle("char", text))
        assert written(generator, "char", length=3)[1][0].text == text


def test_a_longer_text_begins_with_the_shorter_one():
    generator = random_generator("char")
    longest = written(generator, "char", length=135)[1][0]
    assert longest.stopped == "length"
    for length in range(135):
        sample = written(generator, "char", length=length)[1][0]
        assert sample.text == longest.text[:length]
        assert (sample.symbols, sample.stopped) == (length, "length")


def test_a_prompt_of_any_length_is_taken_to_its_last_symbol():
    spell(SPELLER["char"].model, ids := cycle("char", "the quick brown fox jump"))
    for symbols in range(1, 100):
        expected = [ids[(symbols - 1 + n) % CYCLE] for n in range(5)]
        assert written(SPELLER["char"], "char", "a" * symbols, length=5)[1][0].text == TOKENIZER["char"].decode(
            expected
        )


def test_nothing_of_length_0():
    for prompt in ("", "a", "a" * 64):
        pieces, (sample,) = written(SPELLER["char"], "char", prompt, length=0)
        assert pieces == [[]]
        assert (sample.text, sample.symbols, sample.nats, sample.stopped) == ("", 0, 0.0, "length")


# ---- prompts


@every
def test_an_empty_prompt_is_a_line_end(name):
    generator = random_generator(name, **GREEDY)
    texts = {prompt: written(generator, name, prompt, length=30)[1][0].text for prompt in ("", "\n", "b")}
    assert texts[""] == texts["\n"] != texts["b"]


def test_an_empty_prompt_is_the_first_symbol_where_line_ends_are_unknown():
    tokenizer = TOKENIZERS["char"].train(lambda: iter(["xyz"]), 0)
    generator = Generator(random_model(vocabulary=4), SampleConfig(temperature=1.0), tokenizer.blocked)
    config = SampleConfig(length=30)
    texts = {p: list(stream_text(generator, tokenizer, p, config, 1))[-1].text for p in ("", "\n", "x", "y")}
    assert texts[""] == texts["x"]
    assert len(set(texts.values())) == 3


def test_unseen_characters_of_a_prompt_are_read_as_the_unknown():
    tokenizer, generator = TOKENIZER["char"], random_generator("char", **GREEDY)
    ids, _ = ids_and_nats(generator, [*tokenizer.encode("a"), 0, *tokenizer.encode("b")], 30, [1])
    assert written(generator, "char", "a§b", length=30)[1][0].text == tokenizer.decode(ids[:, 0])


# ---- stop texts


def expected_text(name, ids, length, stops):
    """Text, symbols and why: cut at the first stop text that is there once a symbol has completed one."""
    said = [ids[n % CYCLE] for n in range(length)]
    for n in range(1, length + 1):
        text = TOKENIZER[name].decode_bytes(said[:n]).decode("utf-8", "ignore")
        found = [text.index(stop) for stop in stops if stop in text]
        if found:
            return text[: min(found)], n, "stop"
    return TOKENIZER[name].decode_bytes(said).decode("utf-8", "replace"), length, "length"


@pytest.mark.parametrize(
    ("name", "text", "stops", "expected"),
    [
        ("char", "ababacab", ("abac",), "ab"),  # looks like one, then is another
        ("char", "cababc", ("ab", "abc"), "c"),
        ("char", "cacabc", ("abc", "ab"), "cac"),
        ("char", "aabc", ("aab", "abc"), ""),
        ("char", "abca", ("abcb", "bc"), "a"),
        ("char", "abcabd", ("abca", "bcab"), ""),
        ("byte", "aé世🙂a", ("世",), "aé"),
        ("byte", "aéé世🙂a", ("é世🙂",), "aé"),
        ("byte", "aé世é🙂a", ("é🙂",), "aé世"),
        ("sentencepiece", "the quick brown fox", ("ck b",), "the qui"),
        ("sentencepiece", "quick 世界 the", ("界 t", "界 x"), "quick 世"),
    ],
)
def test_a_stop_text_ends_the_text_before_it(name, text, stops, expected):
    spell(SPELLER[name].model, cycle(name, text))
    _, (sample,) = written(SPELLER[name], name, length=200, stop=stops)
    assert (sample.text, sample.stopped) == (expected, "stop")


@every
def test_stop_texts_wherever_they_fall(name):
    texts = st.text(st.sampled_from(ALPHABETS[name]), max_size=8)

    @settings(max_examples=150, deadline=None)
    @given(texts, st.lists(texts.map(lambda text: text[:4]).filter(bool), max_size=3), st.integers(0, 60))
    def check(text, stops, length):
        spell(SPELLER[name].model, ids := cycle(name, text))
        _, (sample,) = written(SPELLER[name], name, length=length, stop=tuple(stops))
        assert (sample.text, sample.symbols, sample.stopped) == expected_text(name, ids, length, stops)

    check()


def test_what_might_have_become_a_stop_text_is_there_at_the_end():
    spell(SPELLER["char"].model, cycle("char", "abc"))
    pieces, (sample,) = written(SPELLER["char"], "char", length=3, stop=("bcc",))
    assert pieces == [["a", "bc"]]
    assert (sample.text, sample.stopped) == ("abc", "length")


def test_the_nats_are_those_of_the_symbols_up_to_the_stop():
    tokenizer, generator = TOKENIZER["char"], random_generator("char")
    _, (whole,) = written(generator, "char", length=80)
    stop = whole.text[40:43]
    _, (sample,) = written(generator, "char", length=80, stop=(stop,))
    ids, nats = ids_and_nats(generator, tokenizer.encode("a").tolist(), 80, [1])
    assert tokenizer.decode(ids[:, 0]) == whole.text
    assert whole.nats == pytest.approx(nats.sum(), rel=1e-5)
    assert sample.symbols == whole.text.index(stop) + 3 <= 43
    assert sample.nats == pytest.approx(nats[: sample.symbols].sum(), rel=1e-5)


def test_nothing_is_generated_after_every_row_has_stopped():
    spell(SPELLER["char"].model, cycle("char", "abc"))
    generated = []

    def stream(*arguments):
        for ids, nats in SPELLER["char"].stream(*arguments):
            generated.append(len(ids))
            yield ids, nats

    _, (sample,) = written(SimpleNamespace(stream=stream), "char", length=10_000, stop=("c",))
    assert (sample.text, sample.symbols) == ("ab", 3)
    assert sum(generated) < 1000


# ---- pieces and rows


def test_text_comes_while_it_is_generated():
    spell(SPELLER["char"].model, ids := cycle("char", "abc"))
    items = stream_text(SPELLER["char"], TOKENIZER["char"], "a", SampleConfig(length=10**6), 1)
    pieces = [text for _, text in itertools.islice(items, 3)]
    assert all(len(piece) < 1000 for piece in pieces)
    assert TOKENIZER["char"].decode(np.resize(ids, 3000)).startswith("".join(pieces))


@every
def test_no_piece_has_half_a_character(name):
    for text in ("é世🙂🙂世é", "🙂🙂🙂🙂", "a🙂界ночь"):
        spell(SPELLER[name].model, ids := cycle(name, text))
        for length in range(20, 75):
            (pieces,), (sample,) = written(SPELLER[name], name, length=length)
            assert sample.text == expected_text(name, ids, length, ())[0]
            assert all("\ufffd" not in piece for piece in pieces[:-1])


def test_bytes_that_are_no_text_are_replaced():
    spell(SPELLER["byte"].model, np.resize([0x61, 0xE4, 0xB8, 0x62, 0xFF], CYCLE))
    assert written(SPELLER["byte"], "byte", length=7)[1][0].text == "a\ufffdb\ufffda\ufffd"


@pytest.mark.parametrize("seed", [1, 2**31 - 2])
def test_rows_are_the_texts_of_consecutive_seeds(seed):
    generator = random_generator("char")
    _, free = written(generator, "char", seed=seed, length=90, samples=3)
    stop = free[1].text[10:12]
    _, together = written(generator, "char", seed=seed, length=90, samples=3, stop=(stop,))
    assert len({sample.symbols for sample in together}) > 1
    for n, sample in enumerate(together):
        own = (seed + n) % 2**31
        _, (alone,) = written(generator, "char", seed=own, length=90, stop=(stop,))
        assert sample.seed == own
        assert (sample.text, sample.symbols, sample.stopped) == (alone.text, alone.symbols, alone.stopped)
        assert sample.nats == pytest.approx(alone.nats, rel=1e-4)
    assert len({sample.text for sample in free}) == 3


# ---- a loaded model


@pytest.fixture
def saved(request, tmp_path):
    """A generator, and the model that was saved of it as loaded again."""
    name = request.param
    generator = random_generator(name, temperature=0.6, top_k=7)
    sample = {"length": 40, "temperature": 0.6, "top_k": 7}
    tables = {"data": {"tokenizer": name}, "sample": sample, "model": generator.model.config.to_dict()}
    run = Run.create(tmp_path / "run", {"config": Config.from_dict(tables, "test").to_dict()})
    run.save(1, to_arrays(generator.model.named_weights()), {}, {"best": None}, TOKENIZER[name])
    return name, generator, load("run", models=tmp_path)


@pytest.mark.parametrize("saved", TOKENIZER, indirect=True)
def test_a_loaded_model_writes_what_the_saved_one_does(saved):
    name, generator, loaded = saved
    _, samples = written(generator, name, "the", 7, length=40, samples=2)
    assert loaded.generate("the", seed=7) == samples[0].text
    assert loaded.generate("the", seed=7, samples=2) == [sample.text for sample in samples]
    assert loaded.unseen("a§b§") == ("§" if name == "char" else "")


@pytest.mark.parametrize("saved", ["char"], indirect=True)
def test_settings_of_generate_go_over_the_configurations_own(saved):
    _, generator, loaded = saved
    assert loaded.generate(seed=7, length=5) == written(generator, "char", "", 7, length=5)[1][0].text
    greedy = loaded.generate("a", temperature=0.0)
    assert greedy == loaded.generate("a", temperature=0.0, seed=3)
    assert greedy != loaded.generate("a", seed=3)
    for wrong in ({"temprature": 1.0}, {"temperature": -1.0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            loaded.generate(**wrong)


@pytest.mark.parametrize("saved", ["char"], indirect=True)
def test_a_seed_is_made_up_where_none_is_given_and_reported(saved):
    _, _, loaded = saved
    config = SampleConfig(length=40, temperature=1.0)
    one, two = (list(loaded.stream("a", config))[-1] for _ in range(2))
    assert one.seed != two.seed
    assert loaded.generate("a", temperature=1.0, top_k=0, seed=one.seed) == one.text
