"""Ids as parallel lanes, and lanes as windows. NumPy only.

Training. The ids are cut into B contiguous lanes, and windows of k2 symbols move over all lanes at once by a stride
of k1 symbols. Here B = 3, k2 = 8, k1 = 4; `=` marks the symbols whose successors a window scores:

    ids     ··|--------- lane 0 ---------|--------- lane 1 ---------|--------- lane 2 ---------|·
             offset

    lane 0    a b c d e f g h i j k l m n o p q r s t u v w x
    window 0  = = = = = = = =                                       the first scores all of its symbols
    window 1          · · · · = = = =                               later ones their newest k1
    window 2                  · · · · = = = =
    carried          ^       ^                                      the state that windows 1 and 2 start from

So every symbol of a lane is scored exactly once in an epoch, but for a tail shorter than a stride. The next epoch
begins at another offset, below the stride, so that windows begin and end elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from charlm.errors import DataError, named
from charlm.records import NO_STARTS, Ids

Mask = npt.NDArray[np.bool_]

EVALUATION_LANES = 64
EVALUATION_WINDOW = 64
WARM_UP = 256


class Window(NamedTuple):
    """Some steps of B lanes: a model reads `x` and predicts `y`, which follows it."""

    x: Ids  # [T, B] int32
    y: Ids  # [T, B] int32
    loss_mask: Mask  # [T, B], true where the prediction counts
    reset_mask: Mask  # [T, B], true where the state is zeroed before the step


@dataclass(frozen=True)
class Cursor:
    """The next window: an epoch and a window's number in it, both from 0."""

    epoch: int = 0
    window: int = 0


class Lanes:
    """B parallel lanes over ids, and the windows that move over them.

    Attributes:
        windows: in an epoch.
        unscored: symbols that no window of an epoch scores (the tails, and what the cut into lanes leaves over).
    """

    def __init__(self, ids: Ids, lanes: int, k2: int, k1: int, seed: int, starts: Ids = NO_STARTS) -> None:
        """Cuts `ids` [N] into lanes; documents begin at `starts` [D], sorted.

        Raises:
            DataError: a lane would be shorter than a window; the message says what would fit.
        """
        self.ids, self.lanes, self.k2, self.k1, self.seed = ids, lanes, k2, k1, seed
        self.starts = starts
        self.length = (len(ids) - k1) // lanes  # symbols scored or scorable in a lane, at any offset below k1
        if self.length < k2:
            most = (len(ids) - k1) // k2
            widest = len(ids) // (lanes + 1)
            fits = [named("train.lanes", most)] if most >= 1 else []
            fits += [named("train.bptt", widest)] if widest >= 1 else []
            remedy = " or ".join(fits) + " fits" if fits else "use a longer text"
            raise DataError(
                f"{len(ids)} symbols of training text are too few for {lanes} lanes of a {k2}-symbol window: {remedy}"
            )
        self.windows = 1 + (self.length - k2) // k1
        self.unscored = len(ids) - 1 - lanes * (k2 + (self.windows - 1) * k1)

    def offset(self, epoch: int) -> int:
        """The start of lane 0 in that epoch, in symbols: 0 in the first, then any below the stride."""
        return 0 if epoch == 0 else int(np.random.default_rng((self.seed, epoch)).integers(self.k1))

    def window(self, cursor: Cursor) -> Window:
        """The window at a cursor."""
        start = self.offset(cursor.epoch) + cursor.window * self.k1
        at = start + np.arange(self.lanes) * self.length + np.arange(self.k2)[:, None]  # [k2, B]
        newest = np.arange(self.k2)[:, None] >= (self.k2 - self.k1 if cursor.window else 0)
        begins = (np.arange(self.k2)[:, None] == 0) & (cursor.window == 0)
        return _window(self.ids, self.starts, at, newest, begins)

    def after(self, cursor: Cursor) -> Cursor:
        """The cursor of the window that follows."""
        if cursor.window + 1 < self.windows:
            return Cursor(cursor.epoch, cursor.window + 1)
        return Cursor(cursor.epoch + 1, 0)


def _window(ids: Ids, starts: Ids, at: Ids, scored: Mask, resets: Mask) -> Window:
    """The steps at positions `at` [T, B] of the ids.

    There is nothing to score beyond them. Where a document begins, the state is zeroed, and nothing predicts its first
    symbol.
    """
    inside = np.clip(at, 0, len(ids) - 2)
    loss_mask = scored & (at == inside) & ~_begins(starts, inside + 1)
    reset_mask = np.broadcast_to(resets, at.shape) | _begins(starts, inside)
    return Window(ids[inside].astype(np.int32), ids[inside + 1].astype(np.int32), loss_mask, reset_mask)


def _begins(starts: Ids, at: Ids) -> Mask:
    """True if a document begins at a position."""
    if not len(starts):
        return np.zeros(at.shape, bool)
    following = np.searchsorted(starts, at)
    return (following < len(starts)) & (starts[np.minimum(following, len(starts) - 1)] == at)


def carried_windows(ids: Ids, starts: Ids = NO_STARTS) -> Iterator[Window]:
    """Windows that score every symbol of ids [N] but a document's first exactly once, state carried through the text.

    The text is read in parallel lanes. Every lane but the first warms up on the `WARM_UP` symbols before its own,
    which it does not count, so that each symbol is predicted from at least that much of what precedes it.
    """
    total = len(ids) - 1
    lanes = min(EVALUATION_LANES, max(1, total // (4 * WARM_UP)))
    length = -(-total // lanes)
    first = np.arange(lanes) * length
    warm = WARM_UP if lanes > 1 else 0
    for start in range(-warm, length, EVALUATION_WINDOW):
        step = np.arange(start, start + EVALUATION_WINDOW)[:, None]
        resets = (step == -warm) | ((first == 0) & (step == 0))
        yield _window(ids, starts, first + step, (step >= 0) & (step < length), resets)


def cold_windows(ids: Ids, window: int, starts: Ids = NO_STARTS) -> Iterator[Window]:
    """Windows that score what `carried_windows` do, from zero state every `window` symbols."""
    total, steps = len(ids) - 1, min(window, EVALUATION_WINDOW)
    firsts = np.arange(0, total, window)
    for some in np.split(firsts, range(EVALUATION_LANES, len(firsts), EVALUATION_LANES)):
        padded = np.pad(some, (0, EVALUATION_LANES - len(some)), constant_values=total)
        for start in range(0, window, steps):
            step = np.arange(start, start + steps)[:, None]
            yield _window(ids, starts, padded + step, step < window, step == 0)
