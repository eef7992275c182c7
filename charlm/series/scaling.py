"""From a series' values to what is drawn of them, and back: steps from a base, over their own size so far.

    step[t]  = value[t] - base[t]                  the values may be logarithms
    size[t]  = mean |step| before t
    scaled[t] = step[t] / size[t]

The base is what the series' past says of the next value; what is known before t alone enters it:

    last            value[t-1]
    mean            the mean of all values
    season          value[t-m], a season of m steps ago
    seasonal mean   the mean of value[t-m], value[t-2m], ...
    seasonal step   value[t-1] and the mean of the steps from it at t-m, t-2m, ...

Scaling by a series' own mean size is Chronos' (Ansari et al. 2024); that it runs along with the series, and that steps
from a base are scaled, is for trends, which levels do not go on with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from charlm.errors import DataError

Values = npt.NDArray[np.float64]
BASES = ("last", "mean", "season", "seasonal mean", "seasonal step")
SMALLEST = 1e-9  # size of steps, relative to the largest value
LEAST = 1e-190  # that the largest value is taken for; what is divided by it stays a number
FARTHEST = 50.0  # of scaled steps: one is farther only where all before it were nearly none


class Scaling(NamedTuple):
    """How values are scaled.

    Attributes:
        base: one of `BASES`.
        log: whether the values are logarithms, which takes positive ones.
        season: m, in steps.
    """

    base: str = "last"
    log: bool = False
    season: int = 1

    def __str__(self) -> str:
        return f"{'relative ' if self.log else ''}steps from the {self.base}" + (
            f" ({self.season} steps)" if self.base.startswith("season") else ""
        )

    @property
    def first(self) -> int:
        """The first value that has a base."""
        return {"last": 1, "mean": 1, "seasonal step": self.season + 1}.get(self.base, self.season)

    def scaled(self, values: Values) -> Values:
        """The scaled steps of values [N], from the second step on, at most `FARTHEST`: [max(0, N - first - 1)]."""
        steps = self._steps(self._transformed(values))
        sizes = np.cumsum(np.abs(steps)) / np.arange(1, len(steps) + 1)
        largest = np.maximum.accumulate(np.abs(values))[self.first : -1]
        return np.clip(steps[1:] / np.maximum(sizes[:-1], self._smallest(largest)), -FARTHEST, FARTHEST)

    def continued(self, values: Values, scaled: Values, size: float) -> Values:
        """The values [H, S] after a history [N] of at least one, whose scaled steps are [H, S].

        Args:
            values: the history.
            scaled: the steps after it, S of each.
            size: of a step where the history is too short to have any, relative to the mean value; of logarithms as is.
        """
        known, (horizon, paths) = self._transformed(values), scaled.shape
        steps = np.abs(self._steps(known))
        if not len(steps):
            steps = np.array([size if self.log else size * np.abs(values).mean()])
        total, count, largest = np.full(paths, steps.sum()), len(steps), np.full(paths, np.abs(values).max())
        whole = np.concatenate([np.broadcast_to(known[:, None], (len(known), paths)), np.zeros((horizon, paths))])
        for n in range(horizon):
            t = len(known) + n
            step = scaled[n] * np.maximum(total / count, self._smallest(largest))
            whole[t] = self._base(whole[:t]) + step
            total, count, largest = total + np.abs(step), count + 1, np.maximum(largest, np.abs(whole[t]))
        after = whole[len(known) :]
        with np.errstate(over="ignore"):
            return np.exp(after) if self.log else after

    def relative_size(self, series: Sequence[Values]) -> float:
        """The size of a step relative to the values, or of logarithms as is: the median over series."""
        sizes = []
        for values in series:
            steps = np.abs(self._steps(self._transformed(values)))
            level = 1.0 if self.log else np.abs(values).mean()
            if len(steps) and level > 0:
                sizes.append(steps.mean() / level)
        return float(np.median(sizes)) if sizes else 0.0

    def _smallest(self, largest: Values) -> Values:
        """The size that steps have at least, where so large a value is the largest."""
        return SMALLEST * (np.ones_like(largest) if self.log else np.maximum(LEAST, largest))

    def _transformed(self, values: Values) -> Values:
        if not self.log:
            return values
        if (values <= 0).any():
            least = float(values.min())
            raise DataError(
                f"the value {least:g}, where the model takes values above 0 alone; leave the series out, or train on it"
            )
        return np.log(values)

    def _steps(self, known: Values) -> Values:
        """The steps from the base [max(0, N - first)]."""
        first, m = self.first, self.season
        if len(known) <= first:
            return np.zeros(0)
        match self.base:
            case "last":
                base = known[:-1]
            case "mean":
                base = np.cumsum(known)[:-1] / np.arange(1, len(known))
            case "season":
                base = known[:-m]
            case "seasonal mean":
                base = _means_by_position(known, m)[m:]
            case _:
                base = known[m:-1] + _means_by_position(np.diff(known), m)[m:]
        steps: Values = known[first:] - base
        return steps

    def _base(self, known: Values) -> Values:
        """The base [S] of the value after known ones [t, S]; of a history shorter than a season, the last one."""
        t, m = len(known), self.season
        seasons = np.arange(t - m, -1, -m)
        match self.base:
            case "mean":
                return known.mean(0)
            case "season" if t >= m:
                return known[t - m]
            case "seasonal mean" if t >= m:
                return known[seasons].mean(0)
            case "seasonal step" if t > m:
                earlier = seasons[seasons > 0]
                return known[-1] + (known[earlier] - known[earlier - 1]).mean(0)
        return known[-1]


def _means_by_position(values: Values, m: int) -> Values:
    """The means [N] of the values m, 2m, ... before each; 0 where there is none."""
    padded = np.concatenate([values, np.zeros(-len(values) % m)]).reshape(-1, m)
    sums = np.cumsum(padded, 0) - padded
    return (sums / np.maximum(np.arange(len(padded)), 1)[:, None]).reshape(-1)[: len(values)]
