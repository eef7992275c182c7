"""Which scaling suits series: the one by which a linear model best forecasts the end of their training part.

The linear model predicts a scaled step from those before it, by least squares over all series, and draws what it missed
by. It stands for the network, takes no time, and knows what matters here: whether the steps are alike over time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from charlm.series.metrics import quantile_loss
from charlm.series.scaling import BASES, Scaling, Values

WINDOWS, SAMPLES = 4, 100
MOST_SERIES, MOST_VALUES = 200, 2000  # that are looked at, and of each
FEWEST_LAGS, MOST_LAGS = 8, 24
LONGEST_HORIZON, FEWEST_SEASONS = 24, 2
RIDGE = 1e-3  # of the steps' variance
TAIL = 0.005


class Choice(NamedTuple):
    """A scaling, and why it was chosen."""

    scaling: Scaling
    losses: dict[Scaling, float]  # the weighted quantile loss of each that was tried

    def __str__(self) -> str:
        if len(self.losses) < 2:
            return f"{self.scaling}: the training part is too short, or too even, to compare it with others"
        (_, loss), (other, second), *_ = sorted(self.losses.items(), key=lambda found: found[1])
        return f"{self.scaling}: quantile loss {loss:.4f} at the end of the training part, {second:.4f} by {other}"


def choose(series: Sequence[Values], season: int, positive: bool) -> Choice:
    """Chooses the scaling of series.

    Args:
        series: the values of the training part of each.
        season: steps of a season; 1 if there is none.
        positive: whether all values are, those of other parts too: only then may they be logarithms.
    """
    some = [values[-MOST_VALUES:] for values in series[:: -(-len(series) // MOST_SERIES)]]
    longest = max(map(len, some))
    horizon = max(1, min(max(season, 6), LONGEST_HORIZON, longest // 5))
    logs = (False, True) if positive else (False,)
    seasonal = season > 1 and longest >= (FEWEST_SEASONS + 1) * season
    bases = [base for base in BASES if seasonal or not base.startswith("season")]
    losses = {}
    for scaling in (Scaling(base, log, season) for base in bases for log in logs):
        loss = _loss(some, scaling, horizon)
        if loss is not None and np.isfinite(loss):
            losses[scaling] = loss
    return Choice(min(losses, key=losses.__getitem__, default=Scaling(season=season)), losses)


def _loss(series: Sequence[Values], scaling: Scaling, horizon: int) -> float | None:
    """The weighted quantile loss at rolling origins before the end; None where no series is long enough."""
    lost = size = 0.0
    rng = np.random.default_rng(0)
    for window in range(1, WINDOWS + 1):
        cut = [(v[: -window * horizon], v[len(v) - window * horizon :][:horizon]) for v in series]
        cut = [(history, after) for history, after in cut if len(history) >= scaling.first + 2 + FEWEST_LAGS // 2]
        if not cut:
            break
        histories = [history for history, _ in cut]
        with np.errstate(over="ignore", invalid="ignore"):
            for (history, after), steps in zip(cut, _linear(histories, scaling, horizon, rng), strict=True):
                paths = np.nan_to_num(scaling.continued(history, steps, 0.0))
                lost += quantile_loss(paths, after)
                size += np.abs(after).sum()
    return lost / size if size else None


def _linear(histories: Sequence[Values], scaling: Scaling, horizon: int, rng: np.random.Generator) -> list[Values]:
    """The scaled steps [H, S] after each history, drawn from a linear model of all."""
    scaled = [scaling.scaled(values) for values in histories]
    least, most = np.quantile(np.concatenate(scaled), [TAIL, 1 - TAIL])
    lags = min(MOST_LAGS, max(FEWEST_LAGS, scaling.season))
    padded = [np.concatenate([np.zeros(lags), np.clip(steps, least, most)]) for steps in scaled]
    inputs = np.concatenate([np.lib.stride_tricks.sliding_window_view(steps, lags)[:-1] for steps in padded])
    outputs = np.concatenate([steps[lags:] for steps in padded])
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    ridge = RIDGE * len(inputs) * max(outputs.var(), 1e-12) * np.eye(lags + 1)
    weights = np.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ outputs)
    missed = outputs - inputs @ weights
    drawn = []
    for steps in padded:
        recent = np.repeat(steps[len(steps) - lags :, None], SAMPLES, 1)
        for _ in range(horizon):
            following = weights[:-1] @ recent[-lags:] + weights[-1] + rng.choice(missed, SAMPLES)
            recent = np.concatenate([recent, following[None]])
        drawn.append(recent[lags:])
    return drawn
