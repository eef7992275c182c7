"""Windows read back as text: every symbol is scored once, and the state that a window starts from is the right one."""

import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from charlm.errors import DataError
from charlm.windows import Cursor, Lanes, carried_windows, cold_windows

TEXT = "The quick brown fox jumps over the lazy dog. " * 20


def ids_of(text):
    return np.frombuffer(text.encode(), np.uint8)


def epoch_windows(lanes, epoch):
    return [lanes.window(Cursor(epoch, n)) for n in range(lanes.windows)]


sizes = st.tuples(
    st.integers(1, 5), st.integers(1, 12), st.integers(1, 12), st.integers(0, 3), st.integers(60, 400)
).filter(lambda s: s[2] <= s[1])


@settings(max_examples=200, deadline=None)
@given(sizes)
def test_every_symbol_of_a_lane_is_scored_once_but_for_the_tail(size):
    count, k2, k1, epoch, symbols = size
    assume((symbols - k1) // count >= k2)
    ids = np.arange(symbols)  # an id is its own position
    lanes = Lanes(ids, count, k2, k1, seed=3)
    scored = np.concatenate([w.y[w.loss_mask] for w in epoch_windows(lanes, epoch)])
    assert len(scored) == len(np.unique(scored))
    assert len(ids) - 1 - len(scored) == lanes.unscored
    assert lanes.windows_of(10**18) == 10**18 * lanes.windows
    tail = lanes.length - k2 - (lanes.windows - 1) * k1
    assert 0 <= tail < k1
    first = lanes.offset(epoch) + 1
    for lane in range(count):
        own = np.arange(first + lane * lanes.length, first + (lane + 1) * lanes.length - tail)
        assert np.isin(own, scored).all()


def test_windows_read_back_as_text():
    lanes = Lanes(ids_of(TEXT), lanes=3, k2=8, k1=8, seed=1)
    for lane in range(3):
        columns = [w.y[:, lane] for w in epoch_windows(lanes, 0)]
        text = bytes(np.concatenate(columns).astype(np.uint8)).decode()
        start = lane * lanes.length + 1
        assert text == TEXT[start : start + len(text)]


def test_targets_follow_inputs_and_windows_advance_by_the_stride():
    lanes = Lanes(ids_of(TEXT), lanes=4, k2=8, k1=3, seed=1)
    before, after = epoch_windows(lanes, 0)[4:6]
    assert (before.x[1:] == before.y[:-1]).all()
    assert (after.x[: 8 - 3] == before.x[3:]).all()  # the next window starts k1 further
    scored = [w.loss_mask.sum(0).tolist() for w in (before, after, lanes.window(Cursor()))]
    assert scored == [[3] * 4, [3] * 4, [8] * 4]
    assert not before.reset_mask.any()
    assert lanes.window(Cursor(1, 0)).reset_mask.sum(1).tolist() == [4] + [0] * 7


def test_the_cursor_walks_epochs_and_offsets_change():
    lanes = Lanes(ids_of(TEXT), lanes=4, k2=16, k1=16, seed=1)
    cursor, seen = Cursor(), []
    for _ in range(2 * lanes.windows):
        seen.append(cursor)
        cursor = lanes.after(cursor)
    assert cursor == Cursor(2, 0)
    assert seen[lanes.windows] == Cursor(1, 0)
    offsets = [lanes.offset(epoch) for epoch in range(20)]
    assert offsets[0] == 0
    assert len(set(offsets)) > 5
    assert max(offsets) < 16
    assert offsets == [Lanes(ids_of(TEXT), 4, 16, 16, seed=1).offset(epoch) for epoch in range(20)]


@pytest.mark.parametrize(("symbols", "lanes", "k2"), [(100, 32, 64), (1000, 200, 64), (1000, 4, 600)])
def test_too_small_a_text_says_what_would_fit(symbols, lanes, k2):
    ids = np.zeros(symbols, np.uint8)
    with pytest.raises(DataError, match="fits") as caught:
        Lanes(ids, lanes, k2, k2, seed=1)
    for name, value in re.findall(r"(lanes|bptt)=(\d+)", str(caught.value)):
        fitting = (int(value), k2) if name == "lanes" else (lanes, int(value))
        Lanes(ids, *fitting, fitting[1], seed=1)


def test_hopelessly_small():
    with pytest.raises(DataError, match="longer text"):
        Lanes(np.zeros(2, np.uint8), 4, 64, 64, seed=1)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9000), st.sampled_from([None, 1, 7, 64, 100, 256]))
def test_evaluation_counts_every_symbol_but_the_first_once(symbols, cold):
    ids = np.arange(symbols)
    pieces = carried_windows(ids) if cold is None else cold_windows(ids, cold)
    counted = np.concatenate([p.y[p.loss_mask] for p in pieces])
    assert sorted(counted) == list(range(1, symbols))


def test_carried_lanes_warm_up_on_what_precedes_them():
    ids = np.arange(20_000)
    pieces = list(carried_windows(ids))
    first = pieces[0]
    assert first.reset_mask[0].all()
    assert not first.loss_mask.any()
    starts = np.array([p.x[np.argmax(p.loss_mask[:, 1]), 1] for p in pieces if p.loss_mask[:, 1].any()])
    assert starts[0] - first.x[0, 1] == 256
    clears = np.array([p.reset_mask[0] for p in pieces])
    assert not any(p.reset_mask[1:].any() for p in pieces)
    begins = next(n for n, p in enumerate(pieces) if p.loss_mask[0, 0])
    assert clears[begins, 0]  # the text's own beginning has nothing before it
    assert not clears[begins, 1:].any()
    assert not clears[begins + 1 :].any()


def test_cold_windows_start_from_nothing():
    ids = np.arange(1000)
    for piece in cold_windows(ids, 100):
        starts = piece.x[0][piece.loss_mask[0]]
        assert piece.reset_mask[0].all() == bool((starts % 100 == 0).all())
