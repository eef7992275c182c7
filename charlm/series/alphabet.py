"""The symbols of number series: bins of scaled steps, with as many of the training part's steps in each.

A symbol stands for the steps that are in its bin. Drawing it draws one of them, or one between two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from charlm.errors import DataError
from charlm.series.scaling import BASES, Scaling, Values
from charlm.tokenizer import Alphabet, Ids, from_json, to_json

START = 0  # the symbol before the first step
POINTS = 17  # quantiles of a bin that are kept
TAIL = 0.005  # of the steps at either end are taken for the last that is none of them
FEWEST_BINS, MOST_BINS, STEPS_PER_BIN = 10, 100, 100


class SeriesAlphabet(Alphabet):
    """Bins of scaled steps; id 0 begins a series, id n is the n-th bin from below.

    Attributes:
        scaling: what makes steps of values.
        edges: [V - 2] between the bins, sorted.
        quantiles: [V - 1, POINTS] of the steps in each bin, from its least to its greatest.
        size: of a step relative to the values (of logarithms as is), for series too short to tell.
    """

    name = "series"
    file_name: ClassVar[str] = "series.json"
    fixed = "the bins stay as they are"

    def __init__(self, scaling: Scaling, edges: Values, quantiles: Values, size: float) -> None:
        self.scaling, self.edges, self.quantiles, self.size = scaling, edges, quantiles, size
        if quantiles.shape != (len(edges) + 1, POINTS) or not all(map(_sorted, (edges, quantiles.ravel()))):
            raise ValueError("its bins are not sorted")
        vocabulary = len(quantiles) + 1
        super().__init__([1] * vocabulary, [0] * vocabulary, None, [START], self.content())

    @classmethod
    def learnt(cls, series: Sequence[Values], scaling: Scaling, bins: int | None = None) -> Self:
        """Makes one of the training parts of series.

        Args:
            series: the values of each.
            scaling: of them.
            bins: at most; fewer where many steps are equal. None is one for every 100 steps, from 10 to 100.

        Raises:
            DataError: there are no steps.
        """
        steps = np.concatenate([scaling.scaled(values) for values in series])
        if not len(steps):
            longest = max(map(len, series))
            raise DataError(
                f"too few values to train on: the longest series has {longest} in its training part, and {scaling} "
                f"want {scaling.first + 2} at least"
            )
        steps = np.clip(steps, *np.quantile(steps, [TAIL, 1 - TAIL]))
        count = min(MOST_BINS, max(FEWEST_BINS, len(steps) // STEPS_PER_BIN)) if bins is None else bins
        edges = np.quantile(steps, np.linspace(0, 1, count + 1))[1:-1]
        below, firsts = np.unique(np.searchsorted(np.sort(steps), edges), return_index=True)
        edges = edges[firsts[below > 0]]  # no bin is empty
        own = np.searchsorted(edges, steps, side="right")
        places = np.linspace(0, 1, POINTS)
        quantiles = np.array([np.quantile(steps[own == n], places) for n in range(len(edges) + 1)])
        return cls(scaling, edges, quantiles, scaling.relative_size(series))

    def ids(self, values: Values) -> Ids:
        """The symbols of a series: `START`, and one for each value from the second that has a base on."""
        bins = np.searchsorted(self.edges, self.scaling.scaled(values), side="right")
        return np.insert(bins + 1, 0, START).astype(self.dtype)

    def steps(self, ids: Ids, uniform: Values) -> Values:
        """A scaled step for each symbol; `uniform`, of the same shape and in [0, 1), says which of its bin."""
        place = uniform * (POINTS - 1)
        below = place.astype(np.int64)
        bins = self.quantiles[ids - 1]
        low, high = (np.take_along_axis(bins, (below + n)[..., None], -1)[..., 0] for n in (0, 1))
        steps: Values = low + (place - below) * (high - low)
        return steps

    def content(self) -> bytes:
        """JSON, with every number in full."""
        bins = {"edges": self.edges.tolist(), "quantiles": self.quantiles.tolist(), "size": self.size}
        return to_json(self.name, **self.scaling._asdict(), **bins)

    @classmethod
    def from_content(cls, content: bytes) -> Self:
        """Raises ValueError for anything but what `content` gives."""
        found = from_json(content, cls.name)
        if found.keys() != {*Scaling._fields, "edges", "quantiles", "size"}:
            raise ValueError("other keys or values than expected")
        base, log, season, size = (found[key] for key in (*Scaling._fields, "size"))
        whole = type(season) is int and season > 0 and type(log) is bool and base in BASES
        if not whole or not isinstance(size, float) or not 0 <= size < np.inf:
            raise ValueError("other keys or values than expected")
        return cls(Scaling(base, log, season), _numbers(found["edges"], 1), _numbers(found["quantiles"], 2), size)


def _numbers(values: Any, rank: int) -> Values:
    """A list of finite numbers, or of such lists of one length, as an array; raises ValueError for another."""
    array: npt.NDArray[Any] = np.array(values)
    if array.dtype != np.float64 or array.ndim != rank or not np.isfinite(array).all():
        raise ValueError("other keys or values than expected")
    return array


def _sorted(values: Values) -> bool:
    return bool((np.diff(values) >= 0).all())
