"""Samplers against their definitions written over probabilities, what every sampler must be, and the draw."""

from itertools import permutations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from charlm.config import KNOBS, SampleConfig
from charlm.errors import UsageError
from charlm.runtime import kernel
from charlm.sampling import SAMPLERS, draw, restrict, settings_of, threefry

B, V = 3, 9
INF = float("inf")
SOME = settings(max_examples=60, deadline=None)
MANY = settings(max_examples=300, deadline=None)
NEUTRAL = {name: knob.neutral for name, knob in KNOBS.items()}
ORDER = ("repetition_penalty", "temperature", "top_k", "top_p", "min_p")
every = pytest.mark.parametrize("name", SAMPLERS)
# Inside a kernel these go another way.
KERNELS = {name: kernel(SAMPLERS[name]) for name in ("top_k", "top_p", "repetition_penalty")}
every_way = pytest.mark.parametrize(
    ("name", "ways"),
    [(name, ways) for ways in (SAMPLERS, KERNELS) for name in ways],
    ids=[*SAMPLERS, *(f"{name}-searched" for name in KERNELS)],
)

# Quarters, so that many are equal and adding a whole number is exact; some are excluded already.
LOGITS = arrays(np.float64, (B, V), elements=st.integers(-40, 40).map(lambda n: n / 4) | st.just(-INF)).filter(
    lambda rows: np.isfinite(rows).any(-1).all()
)
RECENT = arrays(np.int32, (B, 4), elements=st.integers(-1, V - 1))
VALUES = {
    "repetition_penalty": st.floats(1, 50),
    "temperature": st.just(0.0) | st.floats(0.05, 20),
    "top_k": st.integers(0, V + 3),
    "top_p": st.floats(0.001, 1),
    "min_p": st.floats(0, 1),
}


def probabilities(logits):
    """Softmax of the last axis, in float64."""
    weights = np.exp(np.asarray(logits, np.float64) - np.max(logits, -1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def sampled(name, logits, value, recent, ways=SAMPLERS):
    """After one sampler, all in float64 (a Python float would be rounded to float32)."""
    return ways[name](tf.constant(logits), tf.constant(np.array(value)), tf.constant(recent)).numpy()


def normalised(p):
    return p / p.sum()


# Each by its definition, over one row's probabilities.


def penalised(p, penalty, recent):
    return normalised(np.array([q / penalty if v in recent else q for v, q in enumerate(p)]))


def tempered(p, temperature, recent):
    if temperature == 0:
        return np.eye(len(p))[list(p).index(max(p))]
    return normalised((p / p.max()) ** (1 / temperature))


def of_the_k_most_probable(p, k, recent):
    return normalised(np.array([q if k == 0 or (p > q).sum() < k else 0.0 for q in p]))


def of_the_nucleus(p, share, recent):
    """A symbol is in if all those more probable do not reach `share` yet."""
    return normalised(np.array([q if share == 1 or p[p > q].sum() < share else 0.0 for q in p]))


def of_the_nucleus_by_order(p, share):
    """Which are in, of many."""
    if share == 1:
        return p > 0
    ordered = -np.sort(-p)
    before = np.cumsum(ordered) - ordered
    return p >= ordered[(before < share) | (before <= 0)].min()


def near_the_best(p, share, recent):
    return normalised(np.array([q if q >= share * p.max() else 0.0 for q in p]))


REFERENCES = dict(zip(ORDER, (penalised, tempered, of_the_k_most_probable, of_the_nucleus, near_the_best), strict=True))


def on_an_edge(name, p, value):
    """Whether rounding decides which symbols are in."""
    if name == "top_p":
        return any(abs(p[p > q].sum() - value) < 1e-9 for q in p if q < p.max())
    return name == "min_p" and any(0 < abs(q / p.max() - value) < 1e-12 for q in p if q > 0)


def same(a, b, atol=1e-9):
    """The same distribution, and the same symbols excluded."""
    a, b = np.asarray(a), np.asarray(b)
    return ((a == 0) == (b == 0)).all() and np.allclose(a, b, rtol=0, atol=atol)


# ---- what every sampler is


def test_every_sampler_has_a_setting_a_neutral_value_and_a_reference_here():
    assert list(SAMPLERS) == list(REFERENCES)
    assert SAMPLERS.keys() == NEUTRAL.keys() == VALUES.keys()
    assert settings_of(SampleConfig(**NEUTRAL)) == {}
    for name, value in {**NEUTRAL, "top_k": 4, "min_p": 0.25}.items():
        others = {k: v for k, v in NEUTRAL.items() if k != name}
        assert settings_of(SampleConfig(**others, **{name: value})) == ({name: value} if value != NEUTRAL[name] else {})


@every
@SOME
@given(logits=LOGITS, recent=RECENT)
def test_neutral_changes_nothing(name, logits, recent):
    assert same(probabilities(sampled(name, logits, NEUTRAL[name], recent)), probabilities(logits))


@every_way
@MANY
@given(data=st.data(), logits=LOGITS, recent=RECENT)
def test_it_is_its_definition(name, ways, data, logits, recent):
    value = data.draw(VALUES[name])
    before = probabilities(logits)
    assume(not any(on_an_edge(name, p, value) for p in before))
    after = probabilities(sampled(name, logits, value, recent, ways))
    for row in range(B):
        expected = REFERENCES[name](before[row], value, recent[row])
        if name in ("temperature", "repetition_penalty"):  # these exclude none, however small: only greedy does
            assert np.allclose(after[row], expected, rtol=0, atol=1e-9)
        else:
            assert same(after[row], expected)


@every_way
@SOME
@given(data=st.data(), logits=LOGITS, recent=RECENT)
def test_it_keeps_the_most_probable_and_what_was_excluded_stays_so(name, ways, data, logits, recent):
    after = sampled(name, logits, data.draw(VALUES[name]), recent, ways)
    assert (after[~np.isfinite(logits)] == -INF).all()
    assert not np.isnan(after).any()
    assert np.isfinite(after[range(B), logits.argmax(-1)]).all()
    if name == "repetition_penalty":
        assert (np.isfinite(after) == np.isfinite(logits)).all()
    else:
        assert (after.argmax(-1) == logits.argmax(-1)).all()


@every_way
@SOME
@given(data=st.data(), logits=LOGITS, recent=RECENT)
def test_a_setting_for_each_row_is_that_row_alone(name, ways, data, logits, recent):
    values = data.draw(st.tuples(*[VALUES[name]] * B))
    together = sampled(name, logits, values, recent, ways)
    alone = [sampled(name, logits[n : n + 1], values[n], recent[n : n + 1], ways)[0] for n in range(B)]
    assert (together == alone).all()


@every
@SOME
@given(data=st.data(), logits=LOGITS, recent=RECENT, added=st.integers(-1000, 1000))
def test_it_does_not_depend_on_where_zero_is(name, data, logits, recent, added):
    value = data.draw(VALUES[name])
    here, there = (probabilities(sampled(name, x, value, recent)) for x in (logits, logits + added))
    assert same(here, there)


@every
def test_it_is_the_same_in_a_graph(name):
    compiled = tf.function(SAMPLERS[name], reduce_retracing=True)

    @SOME
    @given(data=st.data(), logits=LOGITS, recent=RECENT)
    def check(data, logits, recent):
        inputs = tf.constant(logits, tf.float32), tf.constant(data.draw(VALUES[name])), tf.constant(recent)
        assert np.array_equal(compiled(*inputs), SAMPLERS[name](*inputs))

    check()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", 2e-38, [0, 1, 0]),
        ("temperature", 1e-45, [0, 1, 0]),
        ("temperature", 1e300, [1 / 3] * 3),
        ("top_p", 1e-46, [0, 1, 0]),
        ("top_k", 2**32 + 1, [0.004, 0.705, 0.291]),
        ("top_k", 2**70, [0.004, 0.705, 0.291]),
        ("repetition_penalty", 1e300, [0, 0.708, 0.292]),
    ],
)
def test_every_setting_that_the_configuration_takes_works_in_float32(name, value, expected):
    try:
        SampleConfig(**{name: value})
    except UsageError:
        return
    logits = tf.constant([[-60.0, -54.885, -55.770]])
    after = restrict(logits, {name: value}, tf.constant([[0, -1]]))
    assert np.isfinite(after).any()
    assert probabilities(after)[0] == pytest.approx(np.array(expected), abs=1e-3)


# ---- by example


@pytest.mark.parametrize("ways", [SAMPLERS, KERNELS], ids=["sorted", "searched"])
@pytest.mark.parametrize("size", [1, 2, 6500, 20_000])
def test_one_reader_of_many_symbols_gets_the_nucleus_and_the_others_everything(size, ways):
    rng = np.random.default_rng(size)
    logits = rng.normal(0, 3, (4, size)).astype(np.float32)
    logits[1], logits[2, size // 2 :] = 0.5, -INF  # all equal; half of them blocked
    if size < 3:
        logits[2] = logits[0]
    recent = np.full((4, 1), -1)
    for p in ((1.0, 1.0, 0.9, 1.0), (0.5, 0.999999, 0.3, 1e-6)):
        after = sampled("top_p", logits, np.array(p, np.float32), recent, ways)
        for row, share in zip(range(4), p, strict=True):
            expected = of_the_nucleus_by_order(probabilities(logits[row]), share)
            assert (np.isfinite(after[row]) == expected).all(), (row, share)
    for k in ((0, 0, 3, 0), (1, 2, size - 1, size), (40, 40, size + 1, 2**31 - 1)):
        after = sampled("top_k", logits, np.array(k), recent, ways)
        for row, most in zip(range(4), k, strict=True):
            least = np.sort(logits[row])[-most] if 0 < most < size else -INF
            assert (after[row] == np.where(logits[row] >= least, logits[row], -INF)).all(), (row, most)


def test_symbols_as_probable_as_the_last_one_kept_are_kept():
    logits = np.log([[0.1, 0.3, 0.2, 0.2, 0.2]])
    for name, value in (("top_k", 2), ("top_p", 0.4), ("min_p", 0.6)):
        kept = np.isfinite(SAMPLERS[name](logits, value, [[-1]])[0])
        assert kept.tolist() == [False, True, True, True, True], name


@pytest.mark.parametrize("value", [1e-46, 0.0, -1.0])
def test_the_nucleus_is_never_empty(value):
    kept = np.isfinite(SAMPLERS["top_p"](tf.math.log([[0.1, 0.5, 0.4]]), value, [[-1]])[0])
    assert kept.tolist() == [False, True, False]


def test_greedy_takes_the_first_of_equals():
    after = SAMPLERS["temperature"](np.array([[1.0, 2.0, 0.0, 2.0]]), 0, [[-1]])
    assert np.isfinite(after).tolist() == [[False, True, False, False]]


def test_a_symbol_is_penalised_once_however_often_it_came():
    once, thrice = (SAMPLERS["repetition_penalty"](np.zeros((1, 3)), 4.0, [r]) for r in ([1, -1, -1], [1, 1, 1]))
    assert probabilities(once)[0] == pytest.approx([4 / 9, 1 / 9, 4 / 9])
    assert np.array_equal(once, thrice)


def test_samplers_compose_in_the_stated_order():
    """On examples that tell the orders apart, but for temperature and top-k, which commute."""
    rng = np.random.default_rng(1)
    agree = set(permutations(ORDER))
    for _ in range(40):
        logits, recent = rng.normal(size=8), rng.integers(0, 8, 3)
        values = {
            "min_p": rng.uniform(0.05, 0.5),
            "top_p": rng.uniform(0.6, 0.95),
            "top_k": int(rng.integers(2, 7)),
            "temperature": rng.uniform(0.5, 2),
            "repetition_penalty": rng.uniform(1.5, 4),
        }

        def composed(order, p, values=values, recent=recent):
            for name in order:
                p = REFERENCES[name](p, values[name], recent)
            return p

        expected = composed(ORDER, probabilities(logits))
        after = restrict(logits[None], {k: np.array(v) for k, v in values.items()}, recent[None])
        assert same(probabilities(after)[0], expected)
        agree = {order for order in agree if np.allclose(composed(order, probabilities(logits)), expected)}
    assert agree == {ORDER, ("repetition_penalty", "top_k", "temperature", "top_p", "min_p")}


# ---- the draw

WEIGHTS = np.array([0.35, 0.25, 0.15, 0.1, 0.08, 0.05, 0.02])
SEEDS = tf.constant([1, 2, 2**31 - 1])


@tf.function
def drawn(logits, seeds, positions):
    return tf.map_fn(lambda at: draw(logits, seeds, at), positions)


def chi_square(found, expected):
    return ((found - expected) ** 2 / expected).sum()


def test_draws_follow_the_probabilities():
    logits = tf.constant(np.log([WEIGHTS] * 3) + 5, tf.float32)
    ids = drawn(logits, SEEDS, tf.range(4000)).numpy()
    for row in range(3):
        found = np.bincount(ids[:, row], minlength=len(WEIGHTS))
        assert chi_square(found, 4000 * WEIGHTS) < 22.46  # 6 degrees of freedom, one in a thousand
    pairs = (ids[:, 0], ids[:, 1]), (ids[:-1, 0], ids[1:, 0])  # neither neighbouring seeds nor positions go together
    for a, b in pairs:
        frequent = (a < 4) & (b < 4)
        table = np.histogram2d(a[frequent], b[frequent], bins=4)[0]
        expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
        assert chi_square(table, expected) < 27.88  # 9 degrees of freedom


def test_a_draw_depends_on_seed_and_position_alone():
    logits = tf.constant(np.random.default_rng(0).normal(size=(3, 20)), tf.float32)
    together = drawn(logits, SEEDS, tf.range(50)).numpy()
    for n in range(3):
        assert (together[:, n] == drawn(logits[n : n + 1], SEEDS[n : n + 1], tf.range(50)).numpy()[:, 0]).all()
    assert (together[:, ::-1] == drawn(logits[::-1], SEEDS[::-1], tf.range(50)).numpy()).all()
    assert (together[7] == draw(logits, SEEDS, tf.constant(7)).numpy()).all()


def test_seed_and_position_both_matter():
    logits = tf.zeros((2, 50))
    ids = drawn(logits, tf.constant([3, 4]), tf.range(40)).numpy()
    assert (ids[:, 0] == ids[:, 1]).mean() < 0.2
    assert (ids[1:] == ids[:-1]).mean() < 0.2


@SOME
@given(
    arrays(bool, V).filter(np.any), st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3), st.integers(0, 10**6)
)
def test_what_is_excluded_is_never_drawn(kept, seeds, position):
    logits = tf.constant([np.where(kept, -100.0, -INF)] * len(seeds), tf.float32)
    assert kept[draw(logits, tf.constant(seeds), tf.constant(position)).numpy()].all()


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1, 2**32 - 1), (2**32 - 1, 2**32 - 1), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_random_bits_are_the_published_ones_in_every_engine(key, counter, expected, compiled):
    """The known answers that the authors publish with their Random123 library."""
    engine = tf.function(threefry, jit_compile=True) if compiled else threefry
    words = [tuple(tf.constant([word], tf.uint32) for word in pair) for pair in (key, counter)]
    assert tuple(int(word[0]) for word in engine(*words)) == expected


def test_a_draw_is_the_same_in_a_compiled_graph():
    logits = tf.constant(np.random.default_rng(0).normal(size=(3, 20)), tf.float32)
    compiled = tf.function(draw, jit_compile=True)
    for position in tf.range(50):
        assert (draw(logits, SEEDS, position).numpy() == compiled(logits, SEEDS, position).numpy()).all()
