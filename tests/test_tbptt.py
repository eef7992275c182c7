"""The update: BPTT(k2; k1) against autodiff with the gradient cut, lane groups, clipping, schedule."""

import math
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from reference import LAYERS

from charlm.cells import CELL_NAMES
from charlm.checkpoint import named_slots
from charlm.config import OPTIMIZER_NAMES, ModelConfig, TrainConfig
from charlm.decoder import decoder_of
from charlm.evaluation import score_ids
from charlm.model import build_model
from charlm.records import NO_STARTS, Records
from charlm.tbptt import Evaluator, Trainer, build_optimizer, nats, scheduled_rate
from charlm.tokenizers import TOKENIZERS
from charlm.windows import Cursor, Lanes, Window

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 13, 2000)


def trained(cell="lstm", groups=1, updates=4, dropout=0.0, lanes=4, k2=12, k1=5, rate=0.1, **options):
    config = TrainConfig(bptt=k2, stride=k1, lanes=lanes, **{"optimizer": "sgd", **options})
    model = build_model(ModelConfig(cell=cell, layers=2, units=16, vocabulary=13, dropout=dropout), dtype="float64")
    trainer, windows = Trainer(model, config, groups), Lanes(IDS, lanes, k2, k1, 1)
    cursor, state, log = Cursor(), model.initial_state(lanes), []
    for n in range(updates):
        w = windows.window(cursor)
        update = trainer(w, state, rate, (1, n))
        log.append((float(update.nats_sum), float(update.gradient_norm)))
        cursor, state = windows.after(cursor), update.state
    assert float(update.weights_sum) == pytest.approx(sum(v.numpy().sum() for v in model.trainable_variables))
    return model, state, log


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_bptt_is_autodiff_with_the_gradient_cut_at_the_windows_start(cell):
    """Written out symbol by symbol, state cut where each window starts; gradient, loss and carried state agree."""
    k2, k1, lanes = 12, 5, 4
    model = build_model(ModelConfig(cell=cell, layers=2, units=16, vocabulary=13), dtype="float64")
    windows = Lanes(IDS, lanes, k2, k1, 1)
    start = model.initial_state(lanes)
    sums, norms = [], []
    for n in range(4):
        w = windows.window(Cursor(0, n))
        with tf.GradientTape() as tape:
            decoder, state, losses, carried = decoder_of(model), start, [], None
            for t in range(k2):
                state = decoder.read(tf.constant(w.x[t]), state)
                logits = decoder.logits(state)
                losses.append(nats(logits, w.y[t]))
                carried = state if t + 1 == k1 else carried
            total = tf.reduce_sum(tf.where(w.loss_mask, losses, 0.0))
            loss = total / w.loss_mask.sum()
        found = [tf.convert_to_tensor(g) for g in tape.gradient(loss, model.trainable_variables)]
        norms.append(float(tf.linalg.global_norm(found)))
        sums.append(float(total))
        start = tf.nest.map_structure(tf.stop_gradient, carried)
    _, state, log = trained(cell, updates=4, rate=0.0)  # nothing is learned, so every window can be compared
    assert log == [pytest.approx(pair, rel=1e-9) for pair in zip(sums, norms, strict=True)]
    pairs = zip(tf.nest.flatten(state), tf.nest.flatten(start), strict=True)
    assert max(np.abs(a - b).max() for a, b in pairs) < 1e-12


def test_a_window_as_long_as_the_text_is_full_bptt():
    _, _, log = trained(k2=100, k1=100, updates=1)
    model = build_model(ModelConfig(cell="lstm", layers=2, units=16, vocabulary=13), dtype="float64")
    w = Lanes(IDS, 4, 100, 100, 1).window(Cursor())
    with tf.GradientTape() as tape:
        decoder, state, total = decoder_of(model), model.initial_state(4), 0.0
        for t in range(100):
            state = decoder.read(tf.constant(w.x[t]), state)
            total += tf.reduce_sum(nats(decoder.logits(state), w.y[t]))
    norm = tf.linalg.global_norm(
        [tf.convert_to_tensor(g) / 400 for g in tape.gradient(total, model.trainable_variables)]
    )
    assert log[0] == pytest.approx((float(total), float(norm)), rel=1e-9)


def test_lane_groups_change_rounding_alone():
    one, two = trained(groups=1), trained(groups=2)
    assert np.allclose(one[2], two[2], rtol=1e-10)
    for a, b in zip(one[0].weights, two[0].weights, strict=True):
        assert np.allclose(a, b, rtol=1e-9, atol=1e-12)
    for a, b in zip(tf.nest.flatten(one[1]), tf.nest.flatten(two[1]), strict=True):
        assert np.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_an_update_is_reproducible_and_dropout_follows_its_seed():
    a, b = trained(dropout=0.3), trained(dropout=0.3)
    assert a[2] == b[2]
    assert a[2][0] != trained(dropout=0.0)[2][0]


def test_clipping_bounds_the_step_and_reports_the_norm_before():
    before = build_model(ModelConfig(cell="lstm", layers=2, units=16, vocabulary=13), dtype="float64").get_weights()
    model, _, log = trained(updates=1, clip=1e-3)
    moved = math.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(before, model.get_weights(), strict=True)))
    assert log[0][1] > 0.01
    assert moved == pytest.approx(0.1 * 1e-3 * 1.9, rel=1e-6)  # rate, norm, Nesterov's first step (1 + 0.9)


def test_float16_scales_its_loss_and_skips_an_update_that_overflows():
    """On Keras' layers, which a GPU runs; here they run on the processor."""
    logs = []
    for precision in ("float32", "float16"):
        config = ModelConfig(cell="gru", layers=2, units=16, vocabulary=13)
        model = build_model(config, engine="keras", precision=precision)
        trainer = Trainer(model, TrainConfig(bptt=12, lanes=4), 1)
        windows, cursor, state, log = Lanes(IDS, 4, 12, 12, 1), Cursor(), model.initial_state(4), []
        for n in range(5):
            w = windows.window(cursor)
            update = trainer(w, state, 0.01, (1, n))
            log.append((float(update.nats_sum), float(update.gradient_norm)))
            cursor, state = windows.after(cursor), update.state
        logs.append(log)
    assert np.allclose(*logs, rtol=0.01)
    assert not np.array_equal(*logs)
    before = [v.numpy() for v in trainer.model.weights]
    trainer.optimizer.dynamic_scale.assign(2.0**120)
    skipped = trainer(w, state, 0.01, (1, 9))
    assert math.isfinite(float(skipped.nats_sum))
    assert float(skipped.gradient_norm) == 0
    assert float(trainer.optimizer.dynamic_scale) == 2.0**119
    assert all(np.array_equal(a, b) for a, b in zip(before, trainer.model.weights, strict=True))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop"])
def test_it_learns_a_sequence_that_has_a_rule(optimizer):
    ids = np.tile(np.arange(13), 200)
    config = TrainConfig(bptt=16, lanes=4, learning_rate=0.02, optimizer=optimizer)
    model = build_model(ModelConfig(cell="gru", units=16, vocabulary=13))
    trainer, windows, cursor, state = (
        Trainer(model, config, 1),
        Lanes(ids, 4, 16, 16, 1),
        Cursor(),
        model.initial_state(4),
    )
    for n in range(150):
        w = windows.window(cursor)
        update = trainer(w, state, 0.02, (1, n))
        cursor, state = windows.after(cursor), update.state
    assert float(update.nats_sum) / 64 < 0.2


@pytest.mark.parametrize("optimizer", OPTIMIZER_NAMES)
@pytest.mark.parametrize("cell", LAYERS)
def test_every_variable_of_an_optimizer_is_saved_under_the_name_of_its_weight(cell, optimizer):
    for precision in ("float32", "float16"):
        model = build_model(ModelConfig(cell=cell, layers=2, units=3, vocabulary=5), precision=precision)
        variables, weights = build_optimizer(TrainConfig(optimizer=optimizer), model).variables, model.named_weights()
        named = named_slots(variables, weights)
        assert set(map(id, named.values())) == set(map(id, variables))
        slots = [name.removeprefix("optimizer.").partition(".") for name in named]
        slots = {name: weight for name, (_, _, weight) in zip(named, slots, strict=True) if weight in weights}
        assert set(slots.values()) == weights.keys()
        assert all(named[name].shape == weights[weight].shape for name, weight in slots.items())


def test_weight_decay_leaves_biases_and_embedding_alone():
    model = build_model(ModelConfig(cell="rnn", units=8, vocabulary=5))
    before = {name: v.numpy().copy() for name, v in model.named_weights().items()}
    trainer = Trainer(model, TrainConfig(weight_decay=0.5), 1)
    trainer.optimizer.apply([tf.zeros_like(v) for v in model.trainable_variables], model.trainable_variables)
    for name, v in model.named_weights().items():
        assert (np.abs(v.numpy()) < np.abs(before[name])).any() == ("kernel" in name)


def test_the_schedule_warms_up_and_falls_to_the_floor():
    config = TrainConfig(learning_rate=1.0, warmup=10, floor=0.1)
    rates = [scheduled_rate(config, step, 110) for step in range(110)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize("inside", [False, True])
def test_the_evaluation_step_counts_what_it_should_and_resets_what_it_should(inside):
    model = build_model(ModelConfig(cell="lstm", units=16, vocabulary=13), dtype="float64")
    x, y = (RNG.integers(0, 13, (6, 4)).astype(np.int32) for _ in range(2))
    counted, resets = RNG.random((6, 4)) < 0.5, np.zeros((6, 4), bool)
    resets[0], resets[3, 1] = [True, False, True, False], inside
    state = tf.nest.map_structure(lambda s: s + 0.3, model.initial_state(4))
    found, after = Evaluator(model, 2)(Window(x, y, counted, resets), state)
    logits, end = model(tf.constant(x), state, resets=tf.constant(resets))
    assert np.allclose(found, nats(logits, y) * counted, rtol=1e-12)
    assert all(np.allclose(a, b) for a, b in zip(tf.nest.flatten(after), tf.nest.flatten(end), strict=True))


@pytest.mark.parametrize("cold", [None, 256])
def test_a_score_takes_the_memory_of_a_window_and_not_of_the_text(cold):
    class Uniform:
        """A model that gives every symbol one nat."""

        model = SimpleNamespace(initial_state=lambda batch: None)

        def __call__(self, window, state):
            return tf.constant(window.loss_mask.astype(np.float32)), state

    tokenizer = TOKENIZERS["char"].train(lambda: iter(["aé猫"]), 0)
    ids = np.tile(tokenizer.encode("aé?猫"), 1 << 18)
    tracemalloc.start()
    score = score_ids(Uniform(), Records(ids, NO_STARTS), tokenizer, "all", cold)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(ids)
    assert (score.nats_per_symbol, score.symbols, score.chars) == (1, len(ids) - 1, len(ids) - 1)
    assert (score.unknown, score.bytes) == (1 << 18, (1 + 2 + 3 + 3) * (1 << 18) - 1)
