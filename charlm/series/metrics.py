"""How good forecasts are, by numbers that others report too."""

from __future__ import annotations

from typing import Any

import numpy as np

from charlm.series.scaling import Values

DECILES = np.arange(1, 10) / 10


def pinball(quantiles: Values, actual: Values, levels: Any = DECILES) -> float:
    """Twice the mean over levels q of the sum of q·(y − z) where y is above z, and of (1 − q)·(z − y) elsewhere.

    Summed over series and divided by the sum of |y|, it is the weighted quantile loss (Koenker and Bassett 1978;
    Ansari et al. 2024 take these levels).

    Args:
        quantiles: [Q, H], of a forecast.
        actual: [H].
        levels: [Q].
    """
    missed = actual - quantiles
    q = np.asarray(levels)[:, None]
    return float(2 / len(q) * np.where(missed >= 0, q * missed, (q - 1) * missed).sum())


def quantile_loss(paths: Values, actual: Values) -> float:
    """`pinball` of the deciles of sampled paths [H, S]."""
    return pinball(np.quantile(paths, DECILES, axis=1), actual)


def scaled_error(forecast: Values, actual: Values, history: Values, season: int) -> float:
    """The mean absolute scaled error: |y − forecast| over the mean |y[t] − y[t − m]| of the history.

    Hyndman and Koehler, "Another look at measures of forecast accuracy" (2006). NaN where the history is constant or
    no longer than a season.
    """
    naive = np.abs(history[season:] - history[:-season]).mean() if len(history) > season else 0.0
    return float(np.abs(actual - forecast).mean() / naive) if naive > 0 else float("nan")
