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

Records that belong together, such as number series, are packed: each goes as a whole into one lane, in another order
every epoch, and begins there from zero state. No symbol is left over. The empty ends of lanes count nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from charlm.errors import DataError, named
from charlm.records import NO_STARTS, Ids, Mask, Records

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
        return _window(Records(self.ids, self.starts), at, newest, begins)

    def windows_in(self, epoch: int) -> int:
        """The number of windows in an epoch."""
        return self.windows

    def windows_of(self, epochs: int) -> int:
        """The number of windows in the first epochs together."""
        return epochs * self.windows

    def after(self, cursor: Cursor) -> Cursor:
        """The cursor of the window that follows."""
        if cursor.window + 1 < self.windows_in(cursor.epoch):
            return Cursor(cursor.epoch, cursor.window + 1)
        return Cursor(cursor.epoch + 1, 0)


class PackedLanes(Lanes):
    """B parallel lanes, each of whole records one after the other, and the windows that move over them."""

    def __init__(self, records: Records, lanes: int, k2: int, k1: int, seed: int, longest: int | None = None) -> None:
        """Packs records, of which each begins with a symbol that nothing predicts.

        Args:
            records: all of them; longer ones than `longest` steps are cut, elsewhere in every epoch.
            lanes, k2, k1, seed: as `Lanes` takes them.
            longest: steps of a piece; None cuts nothing.

        Raises:
            DataError: there is nothing to predict.
        """
        self.ids, self.lanes, self.k2, self.k1, self.seed = records.ids, lanes, k2, k1, seed
        self.starts, self.longest = records.starts, longest
        self._scored = np.ones(len(self.ids), bool) if records.scored is None else records.scored
        ends = np.append(self.starts, len(self.ids))
        firsts = np.insert(self.starts, 0, 0)
        self._records = [(int(first), int(end - first) - 1) for first, end in zip(firsts, ends, strict=True)]
        if not any(steps and self._scored[first + 1 : first + steps + 1].any() for first, steps in self._records):
            raise DataError("too few values to train on: no step of any record can be predicted")
        self._laid: tuple[int, Ids, Mask] | None = None  # the latest epoch's
        self.windows, self.unscored = self.windows_in(0), 0

    def windows_in(self, epoch: int) -> int:
        """As of `Lanes`: as many as the longest lane needs."""
        steps = len(self._layout(epoch)[0])
        return 1 + max(0, -(-(steps - self.k2) // self.k1))

    def windows_of(self, epochs: int) -> int:
        """As of `Lanes`; each epoch is laid anew, and asked."""
        return sum(map(self.windows_in, range(epochs)))

    def window(self, cursor: Cursor) -> Window:
        """As of `Lanes`."""
        places, begins = self._layout(cursor.epoch)
        start = cursor.window * self.k1
        missing = (0, max(0, start + self.k2 - len(places))), (0, 0)
        at = np.pad(places[start : start + self.k2], missing, constant_values=-1)
        resets = np.pad(begins[start : start + self.k2], missing)
        newest = np.arange(self.k2)[:, None] >= (self.k2 - self.k1 if cursor.window else 0)
        read = np.maximum(at, 0)
        loss_mask = newest & (at >= 0) & self._scored[read + 1]
        return Window(self.ids[read].astype(np.int32), self.ids[read + 1].astype(np.int32), loss_mask, resets)

    def _layout(self, epoch: int) -> tuple[Ids, Mask]:
        """The symbols that the lanes read in an epoch, by place [L, B], -1 after a lane's end; and where records begin.

        The longest piece goes to the emptiest lane, and so on; then the pieces of every lane are shuffled.
        """
        if self._laid is None or self._laid[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch))
            pieces = [piece for record in self._records for piece in self._cut(*record, rng)]
            rng.shuffle(pieces)
            loads, lanes = np.zeros(self.lanes, np.int64), [list[tuple[int, int]]() for _ in range(self.lanes)]
            for piece in sorted(pieces, key=lambda piece: -piece[1]):
                emptiest = int(loads.argmin())
                loads[emptiest] += piece[1]
                lanes[emptiest].append(piece)
            places, begins = np.full((loads.max(), self.lanes), -1), np.zeros((loads.max(), self.lanes), bool)
            for lane, own in enumerate(lanes):
                rng.shuffle(own)
                at = 0
                for first, steps in own:
                    places[at : at + steps, lane] = np.arange(first, first + steps)
                    begins[at, lane] = True
                    at += steps
            begins[0] = True
            self._laid = epoch, places, begins
        return self._laid[1:]

    def _cut(self, first: int, steps: int, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
        """The pieces of a record: where each begins, and its steps."""
        if self.longest is None or steps <= self.longest:
            if steps:
                yield first, steps
            return
        cuts = [0, *range(int(rng.integers(1, self.longest + 1)), steps, self.longest), steps]
        yield from ((first + cut, until - cut) for cut, until in itertools.pairwise(cuts))


def _window(records: Records, at: Ids, scored: Mask, resets: Mask) -> Window:
    """The steps at positions `at` [T, B] of the ids.

    There is nothing to score beyond them. Where a document begins, the state is zeroed, and nothing predicts its first
    symbol.
    """
    ids, starts, counts = records
    inside = np.clip(at, 0, len(ids) - 2)
    loss_mask = scored & (at == inside) & ~_begins(starts, inside + 1)
    if counts is not None:
        loss_mask &= counts[inside + 1]
    reset_mask = np.broadcast_to(resets, at.shape) | _begins(starts, inside)
    return Window(ids[inside].astype(np.int32), ids[inside + 1].astype(np.int32), loss_mask, reset_mask)


def _begins(starts: Ids, at: Ids) -> Mask:
    """True if a document begins at a position."""
    if not len(starts):
        return np.zeros(at.shape, bool)
    following = np.searchsorted(starts, at)
    return (following < len(starts)) & (starts[np.minimum(following, len(starts) - 1)] == at)


def carried_windows(ids: Ids, starts: Ids = NO_STARTS, scored: Mask | None = None) -> Iterator[Window]:
    """Windows that score every symbol of ids [N] but a document's first exactly once, state carried through the text.

    Of `scored` [N], if it is given, those that are true alone.

    The text is read in parallel lanes. Every lane but the first warms up on the `WARM_UP` symbols before its own,
    which it does not count, so that each symbol is predicted from at least that much of what precedes it.
    """
    records, total = Records(ids, starts, scored), len(ids) - 1
    lanes = min(EVALUATION_LANES, max(1, total // (4 * WARM_UP)))
    length = -(-total // lanes)
    first = np.arange(lanes) * length
    warm = WARM_UP if lanes > 1 else 0
    for start in range(-warm, length, EVALUATION_WINDOW):
        step = np.arange(start, start + EVALUATION_WINDOW)[:, None]
        resets = (step == -warm) | ((first == 0) & (step == 0))
        yield _window(records, first + step, (step >= 0) & (step < length), resets)


def cold_windows(ids: Ids, window: int, starts: Ids = NO_STARTS, scored: Mask | None = None) -> Iterator[Window]:
    """Windows that score what `carried_windows` do, from zero state every `window` symbols."""
    records, total, steps = Records(ids, starts, scored), len(ids) - 1, min(window, EVALUATION_WINDOW)
    firsts = np.arange(0, total, window)
    for some in np.split(firsts, range(EVALUATION_LANES, len(firsts), EVALUATION_LANES)):
        padded = np.pad(some, (0, EVALUATION_LANES - len(some)), constant_values=total)
        for start in range(0, window, steps):
            step = np.arange(start, start + steps)[:, None]
            yield _window(records, padded + step, step < window, step == 0)
