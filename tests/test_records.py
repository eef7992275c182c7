"""Documents: found in a text that comes in pieces, encoded by themselves, and learnt from as if each were alone."""

import itertools
import json
import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import charlm
from charlm import records
from charlm.config import Config, ModelConfig, TrainConfig
from charlm.errors import UsageError
from charlm.model import build_model
from charlm.records import Records, matches
from charlm.tbptt import Evaluator, Trainer, nats
from charlm.validation import spread
from charlm.windows import Cursor, Lanes, carried_windows, cold_windows

TEXT = "the fox jumps over the dog.\n\nthe dog sleeps, été 🙂.\n\n\nthe end\n\n" * 8
SOME = settings(max_examples=150, deadline=None)
texts = st.text("ab\n", max_size=60)


def in_pieces(text, cuts):
    edges = [0, *sorted({c % (len(text) + 1) for c in cuts}), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@SOME
@given(texts, st.lists(st.integers(0, 60), max_size=6), st.sampled_from(["\n\n", "a+b", "^b", "(?<=a)b", "b$", "a|"]))
def test_a_match_is_found_wherever_the_text_is_cut(text, cuts, pattern):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MATCH_CHARS", 3)
        found = set(matches(in_pieces(text, cuts), pattern))
    assert found == {match.end() for match in re.finditer(pattern, text)}


@SOME
@given(st.integers(30, 3000), st.sets(st.integers(1, 2999), max_size=40), st.sampled_from([None, 7, 64, 100]))
def test_a_score_leaves_out_the_first_symbol_of_each_document_and_starts_it_from_nothing(symbols, starts, cold):
    ids, starts = np.arange(symbols), np.array(sorted(s for s in starts if s < symbols), np.int64)
    windows = carried_windows(ids, starts) if cold is None else cold_windows(ids, cold, starts)
    scored = []
    for window in windows:
        scored.append(window.y[window.loss_mask])
        assert window.reset_mask[np.isin(window.x, starts)].all()
    assert sorted(np.concatenate(scored)) == sorted(set(range(1, symbols)) - set(starts.tolist()))


@pytest.mark.parametrize("stride", [12, 5])
@pytest.mark.parametrize("cell", ["lstm", "mingru"])
def test_learning_from_documents_is_learning_from_each_alone(cell, stride):
    """The loss, its gradient and the state carried on are those of the documents run one by one, in float64."""
    rng, window, lanes = np.random.default_rng(3), 12, 2
    ids, starts = rng.integers(0, 9, 90), np.array([3, 4, 11, 17, 30, 44, 47, 52, 60, 71])
    cut = Lanes(ids, lanes, window, stride, 1, starts)
    model = build_model(ModelConfig(cell=cell, layers=2, units=7, vocabulary=9), dtype="float64")
    trainer = Trainer(model, TrainConfig(bptt=window, stride=stride, lanes=lanes, optimizer="sgd", clip=1e9), groups=1)
    state, cursor = model.initial_state(lanes), Cursor()
    for n in range(3):
        at, state_before = cut.window(cursor), state
        with tf.GradientTape() as tape:
            total, carried = alone(model, at, state_before, stride)
            loss = total / at.loss_mask.sum()
        norm = tf.linalg.global_norm([tf.convert_to_tensor(g) for g in tape.gradient(loss, model.trainable_variables)])
        update = trainer(at, state_before, 0.1, (1, n))
        assert float(update.nats_sum) == pytest.approx(float(total), rel=1e-12)
        assert float(update.gradient_norm) == pytest.approx(float(norm), rel=1e-12)
        for a, b in zip(tf.nest.flatten(update.state), tf.nest.flatten(carried), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-13)
        cursor, state = cut.after(cursor), update.state


def alone(model, window, state, stride):
    """The nats of a window whose lanes and documents are run by themselves, and the state after a stride."""
    total, lanes = 0.0, []
    for lane in range(window.x.shape[1]):
        own = tf.nest.map_structure(lambda s, lane=lane: s[lane : lane + 1], state)
        begins = np.flatnonzero(window.reset_mask[:, lane])
        edges = sorted({0, len(window.x), *begins.tolist(), stride})
        kept = None
        for a, b in itertools.pairwise(edges):
            own = model.initial_state(1) if a in begins else own
            logits, own = model(tf.constant(window.x[a:b, lane : lane + 1]), own)
            cost = nats(logits, window.y[a:b, lane : lane + 1])
            total += tf.reduce_sum(tf.where(window.loss_mask[a:b, lane : lane + 1], cost, 0.0))
            if b == stride:
                kept = model.initial_state(1) if b in begins else tf.nest.map_structure(tf.stop_gradient, own)
        lanes.append(kept)
    return total, tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *lanes)


def test_a_part_of_a_text_keeps_its_documents():
    whole = Records(np.arange(9000), np.array([10, 4000, 8990]))
    part = spread(whole, 2048)
    assert part.ids[part.starts].tolist() == [10, 8990]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    for n in range(3):
        (folder / f"{n}.txt").write_text(TEXT[n:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARLM_CACHE", str(folder / "cache"))
        yield folder


class TestRun:
    def train(self, folder, name, **settings):
        small = {"cell": "gru", "units": 8, "lanes": 2, "bptt": 8, "steps": 2}
        events = []
        model = charlm.train(folder, name=name, models=folder / "runs", on_event=events.append, **small, **settings)
        return model, events[-1].best

    def test_files_are_documents_unless_they_are_joined(self, folder):
        apart, at_marks, joined = (
            self.train(folder, f"{n}", **asked)
            for n, asked in enumerate([{}, {"reset_on": r"\n\n"}, {"join_files": True}])
        )
        assert at_marks[1] != apart[1]
        assert apart[0].evaluate().symbols == joined[0].evaluate().symbols  # the held-out tenth is of one file
        assert at_marks[0].evaluate().symbols < apart[0].evaluate().symbols
        assert apart[0].evaluate(split="all").symbols == joined[0].evaluate(split="all").symbols - 2

    def test_a_run_that_does_not_say_so_has_joined_its_files(self, folder):
        model, _ = self.train(folder, "old")
        record = json.loads((model.checkpoint.path / "config.json").read_text())
        del record["config"]["data"]["join_files"]
        assert Config.recorded(record["config"], "config.json").data.join_files
        assert not model.config.data.join_files

    def test_what_is_no_pattern_is_refused(self, folder):
        for pattern in ("(", "(" * 3000, "a{99999999999999999999}"):
            with pytest.raises(UsageError, match=r"reset_on must be a regular expression, not '"):
                self.train(folder, "bad", reset_on=pattern)


def test_resets_inside_a_window_are_a_graph_of_their_own():
    model = build_model(ModelConfig(units=8, vocabulary=9))
    evaluator, state = Evaluator(model, 1), model.initial_state(1)
    for starts in (np.array([], int), np.array([40])):
        for window in carried_windows(np.arange(90) % 9, starts):
            found, _ = evaluator(window, state)
            assert np.isfinite(found).all()
    assert evaluator._evaluate.experimental_get_tracing_count() == 2
