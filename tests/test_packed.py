"""Records packed into lanes: each is learnt from as if it were alone, and every symbol that counts is scored once."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.config import ModelConfig
from charlm.errors import DataError
from charlm.model import build_model
from charlm.records import Records
from charlm.tbptt import Evaluator
from charlm.windows import Cursor, PackedLanes, Window

SOME = settings(max_examples=150, deadline=None)
lengths = st.lists(st.integers(1, 40), min_size=1, max_size=8).filter(lambda found: max(found) > 1)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12)).filter(lambda s: s[2] <= s[1])


def packed(lengths, shape=(2, 8, 8), longest=None, seed=3, scored=None):
    """Lanes of records of some lengths, whose ids are their own positions."""
    starts = np.cumsum(lengths)[:-1].astype(np.int64)
    return PackedLanes(Records(np.arange(sum(lengths)), starts, scored), *shape, seed, longest)


def windows_of(lanes, epoch):
    return [lanes.window(Cursor(epoch, n)) for n in range(lanes.windows_in(epoch))]


def read_by(lanes, epoch, lane):
    """What a lane reads in an epoch, without what its windows repeat and what is after its end: (x, y, begins)."""
    found, overlap = [], lanes.k2 - lanes.k1
    for n, window in enumerate(windows_of(lanes, epoch)):
        for t in range(overlap if n else 0, lanes.k2):
            found.append((window.x[t, lane], window.y[t, lane], window.reset_mask[t, lane], window.loss_mask[t, lane]))
    return [(x, y, reset) for x, y, reset, counts in found if counts]


@SOME
@given(lengths, shapes, st.none() | st.integers(1, 15), st.integers(0, 3))
def test_every_symbol_but_a_record_s_first_is_scored_once_an_epoch(lengths, shape, longest, epoch):
    lanes = packed(lengths, shape, longest)
    scored = np.concatenate([window.y[window.loss_mask] for window in windows_of(lanes, epoch)])
    firsts = {0, *lanes.starts.tolist()}
    assert sorted(scored.tolist()) == [n for n in range(sum(lengths)) if n not in firsts]
    assert lanes.unscored == 0


@SOME
@given(lengths, shapes, st.data())
def test_of_symbols_that_do_not_count_none_is_scored(lengths, shape, data):
    total, firsts = sum(lengths), {0, *np.cumsum(lengths)[:-1].tolist()}
    counts = np.array(data.draw(st.lists(st.booleans(), min_size=total, max_size=total)))
    counts[1 if lengths[0] > 1 else next(n for n in range(total) if n not in firsts)] = True
    counts[sorted(firsts)] = False
    lanes = packed(lengths, shape, None, scored=counts)
    scored = np.concatenate([window.y[window.loss_mask] for window in windows_of(lanes, 1)])
    assert sorted(scored.tolist()) == np.flatnonzero(counts).tolist()


@SOME
@given(lengths, shapes, st.none() | st.integers(1, 15), st.integers(0, 3))
def test_a_lane_reads_records_in_order_and_from_nothing_where_one_begins(lengths, shape, longest, epoch):
    lanes = packed(lengths, shape, longest)
    firsts, pieces = {0, *lanes.starts.tolist()}, 0
    for lane in range(lanes.lanes):
        before = None
        for x, y, reset in read_by(lanes, epoch, lane):
            assert y == x + 1
            assert reset or x == before + 1
            assert reset or x not in firsts
            pieces += reset
            before = x
    steps = [length - 1 for length in lengths if length > 1]
    most = sum(1 if longest is None or n <= longest else 1 + -(-(n - 1) // longest) for n in steps)
    assert len(steps) <= pieces <= most
    if longest is None:
        assert pieces == len(steps)


@SOME
@given(lengths, shapes, st.integers(1, 15))
def test_no_piece_is_longer_than_asked(lengths, shape, longest):
    lanes = packed(lengths, shape, longest)
    for epoch, lane in itertools.product(range(2), range(lanes.lanes)):
        resets = [reset for *_, reset in read_by(lanes, epoch, lane)]
        begins = [*np.flatnonzero(resets), len(resets)]
        assert all(np.diff(begins) <= longest)


def test_the_state_is_not_reset_inside_a_record_nor_between_windows():
    lanes = packed([30], (1, 8, 8))
    resets = [window.reset_mask[:, 0].tolist() for window in windows_of(lanes, 0)]
    assert resets == [[True, *[False] * 7], [False] * 8, [False] * 8, [False] * 8]


def test_later_windows_repeat_what_they_do_not_score():
    lanes = packed([30], (1, 8, 3))
    first, second = windows_of(lanes, 0)[:2]
    assert first.loss_mask.all()
    assert second.loss_mask[:, 0].tolist() == [False] * 5 + [True] * 3
    assert (second.x[:5] == first.x[3:]).all()


@SOME
@given(lengths, shapes, st.none() | st.integers(1, 15), st.integers(0, 3), st.integers(0, 99))
def test_a_window_made_anew_is_the_same(lengths, shape, longest, epoch, at):
    lanes = packed(lengths, shape, longest)
    cursor = Cursor(epoch, at % lanes.windows_in(epoch))
    lanes.window(Cursor(epoch + 1))
    for found, again in zip(lanes.window(cursor), packed(lengths, shape, longest).window(cursor), strict=True):
        assert (found == again).all()


def test_every_epoch_packs_records_otherwise_and_cuts_them_elsewhere():
    def begins(seed, epoch):
        lanes = packed([60, 9, 9, 9], (2, 8, 8), 20, seed)
        return [[x for x, _, reset in read_by(lanes, epoch, lane) if reset] for lane in range(2)]

    assert begins(1, 0) == begins(1, 0)
    layouts = [begins(seed, epoch) for seed in (1, 2) for epoch in range(5)]
    assert sum(one == other for one, other in itertools.combinations(layouts, 2)) == 0


@SOME
@given(lengths, st.integers(1, 4))
def test_lanes_are_about_as_long_as_one_another(lengths, count):
    lanes = packed(lengths, (count, 4, 4))
    steps = [len(read_by(lanes, 0, lane)) for lane in range(count)]
    assert max(steps) - min(steps) <= max(lengths)
    assert lanes.windows_in(0) == max(1, -(-max(steps) // 4))


def test_the_cursor_walks_through_epochs_of_unlike_lengths():
    lanes = packed([50, 13, 7, 4], (2, 4, 4), 9)
    cursor, seen = Cursor(), []
    while cursor.epoch < 4:
        seen.append(cursor)
        cursor = lanes.after(cursor)
    assert seen == [Cursor(epoch, n) for epoch in range(4) for n in range(lanes.windows_in(epoch))]
    assert len(seen) == lanes.windows_of(4)


@pytest.mark.parametrize(("lengths", "scored"), [([1, 1], None), ([3], np.zeros(3, bool)), ([1], None)])
def test_records_without_a_step_that_counts_are_refused(lengths, scored):
    with pytest.raises(DataError, match="no step of any record can be predicted"):
        packed(lengths, scored=scored)


@pytest.mark.parametrize("cell", ["lstm", "mingru"])
def test_packed_records_have_the_nats_of_each_alone(cell):
    lengths, rng = [23, 5, 2, 17, 9, 1, 30], np.random.default_rng(4)
    ids, starts = rng.integers(0, 9, sum(lengths)).astype(np.uint8), np.cumsum(lengths)[:-1]
    model = build_model(ModelConfig(cell=cell, units=7, vocabulary=9), dtype="float64")
    evaluator = Evaluator(model, 1)

    def summed(windows):
        state, nats = model.initial_state(2), 0.0
        for window in windows:
            found, state = evaluator(window, state)
            nats += float(tf.reduce_sum(found))
        return nats

    def alone(record):  # in both lanes
        for start in range(0, len(record) - 1, 8):
            at = np.arange(start, start + 8)
            x, y = (record[np.minimum(at + n, len(record) - 1)].astype(np.int32) for n in (0, 1))
            yield Window(*(np.stack([part, part], 1) for part in (x, y, at < len(record) - 1, at == 0)))

    expected = sum(summed(alone(record)) for record in np.split(ids, starts)) / 2
    for longest in (None, 30):
        lanes = PackedLanes(Records(ids, starts), 2, 8, 8, 1, longest)
        assert [summed(windows_of(lanes, epoch)) for epoch in range(2)] == pytest.approx([expected] * 2, rel=1e-12)
