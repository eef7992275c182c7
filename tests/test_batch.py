"""Batches of every size give a row the same symbols."""

import numpy as np
import pytest
import tensorflow as tf
from kinds import PATHS
from test_export import language_model

from charlm.generation import LONGEST_CHUNK
from charlm.sampling import settings_of_rows
from charlm.serve import batch as batch_module
from charlm.serve.batch import FIRST, PIECE, READERS, SCORERS, SIZES, Batch

STEPS = 40


@pytest.fixture(scope="module", params=PATHS)
def model(tmp_path_factory, request):
    return language_model(tmp_path_factory.mktemp("batch"), request.param, units=20)


@pytest.fixture(scope="module")
def batch(model):
    batch = Batch(model)
    batch.prepare()
    assert batch.sizes == (FIRST,)
    assert list(batch.extend()) == [SCORERS, 2, 8, 128, 256]
    return batch


def settings(temperature):
    """All settings, off but for the temperature."""
    others = settings_of_rows([{}] * len(temperature))
    return {**others, "temperature": temperature}, np.zeros(len(temperature), bool)


def written(batch, size, rows):
    """What some rows draw from states and seeds of their own, at places of their own in a batch."""
    places = np.random.default_rng(size).permutation(size)[:rows]
    generator = np.random.default_rng(7)
    states = [[generator.standard_normal(len(s)).astype(np.float32) for s in batch.fresh] for _ in range(rows)]
    forced = np.full((LONGEST_CHUNK, size), -1, np.int32)
    seeds, temperature = np.arange(1000, 1000 + size, dtype=np.int32), np.full(size, 0.5, np.float32)
    for row, place in enumerate(places):
        seeds[place], temperature[place] = row, 1 + row / 10
        forced[0, place] = row + 1
    batch.arrange([-1] * size, dict(zip(places.tolist(), states, strict=True)), [-1] * size, {})
    drawn = batch.advance(STEPS, forced, seeds, *settings(temperature))
    return drawn.ids[:STEPS, places], drawn.nats[:STEPS, places]


def test_a_row_is_the_same_to_the_last_bit_in_every_size_and_place(batch):
    expected_ids, expected_nats = written(batch, SIZES[-1], 2)
    assert len(np.unique(expected_ids)) > 5
    assert len(batch.sizes) > 1
    for size in batch.sizes:
        ids, nats = written(batch, size, 2)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_array_equal(nats, expected_nats)


def test_rows_that_stay_go_on_when_the_batch_is_arranged_anew(batch):
    size = batch.sizes[0]
    forced, seeds = np.full((LONGEST_CHUNK, SIZES[-1]), -1, np.int32), np.arange(SIZES[-1], dtype=np.int32)
    warm = np.ones(SIZES[-1], np.float32)

    def ten(size):
        return batch.advance(10, forced[:, :size], seeds[:size], *settings(warm[:size])).ids[:10]

    batch.arrange([-1] * size, {}, [0] * size, {})
    whole = np.concatenate([ten(size), ten(size), ten(size)])
    batch.arrange([-1] * size, {}, [0] * size, {})
    parts = [ten(size)]
    for new in batch.sizes[-1], size:  # grows, and shrinks
        kept = [*range(size), *[-1] * (new - size)]
        batch.arrange(kept, {}, [10 * len(parts)] * size + [0] * (new - size), {})
        parts.append(ten(new)[:, :size])
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_prompts_of_any_length_are_read_together_as_the_model_reads_them(batch, model):
    generator = np.random.default_rng(3)
    lengths = [1, PIECE, PIECE - 1, 3 * PIECE + 5, 40] + [7] * (READERS - 5)
    prompts = [generator.integers(1, 20, n).tolist() for n in lengths]
    states = [batch.fresh for _ in prompts]
    at = 0
    while rest := [n for n, prompt in enumerate(prompts) if len(prompt) > at]:
        found = batch.read([prompts[n][at : at + PIECE] for n in rest], [states[n] for n in rest])
        for n, state in zip(rest, found, strict=True):
            states[n] = state
        at += PIECE
    for prompt, state in zip(prompts, states, strict=True):
        _, expected = model.model(np.array(prompt, np.int32)[:, None], model.model.initial_state(1))
        for one, other in zip(state, tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(one, other[0], atol=1e-5)
    alone = batch.read([prompts[1]], [batch.fresh])[0]
    for one, other in zip(alone, states[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_size_that_differs_is_left_out(tmp_path, monkeypatch, caplog):
    program, read = batch_module._program, batch_module._read

    def elsewhere(size):
        def advance(*inputs):
            drawn, after = program(size)(*inputs)
            return drawn, after._replace(logits=tf.math.nextafter(after.logits, 9.0)) if size == 8 else after

        return advance

    def read_elsewhere(decoder, symbols, state):
        after = read(decoder, symbols, state)
        wrong = symbols.shape[1] == 2
        return tf.nest.map_structure(lambda s: tf.math.nextafter(s, 9.0), after) if wrong else after

    monkeypatch.setattr(batch_module, "_program", elsewhere)
    monkeypatch.setattr(batch_module, "_read", read_elsewhere)
    monkeypatch.setattr(batch_module, "SIZES", (2, 8, FIRST))
    batch = Batch(language_model(tmp_path, "rnn", units=20))
    batch.prepare()
    assert list(batch.extend())
    assert batch.sizes == (FIRST,)
    for size in 2, 8:
        assert f"batches of {size} rows are left out" in caplog.text
    assert len(batch.read([[1]], [batch.fresh])) == 1
