"""The plain methods that a forecast has to beat, each with its own intervals."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import statistics
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from charlm.series.scaling import Values

FEWEST_FOR_TREND = 10
MOST_SEASONS, MOST_VALUES = 10, 400  # of a history that ETS is fitted to


class Normal(NamedTuple):
    """A forecast of normal distributions."""

    mean: Values  # [H]
    deviation: Values  # [H]

    def quantiles(self, levels: Sequence[float]) -> Values:
        """[Q, H] at levels between 0 and 1."""
        places = np.array([statistics.NormalDist().inv_cdf(level) for level in levels])
        return self.mean + places[:, None] * self.deviation


Method = Callable[[Values, int, int], Normal]


def seasonal_naive(history: Values, season: int, horizon: int) -> Normal:
    """The values of the last season again; the last value where a season is one step.

    Hyndman and Athanasopoulos, "Forecasting: Principles and Practice" (2021), 5.2 and 5.5.
    """
    season = min(season, len(history))
    steps = np.arange(horizon)
    missed = history[season:] - history[:-season]
    variance = (missed**2).mean() if len(missed) else 0.0
    return Normal(history[len(history) - season + steps % season], np.sqrt(variance * (steps // season + 1)))


def drift(history: Values, season: int, horizon: int) -> Normal:
    """The last value and the mean step from then on; the same book's."""
    steps, last = np.arange(1, horizon + 1), len(history) - 1
    if not last:
        return Normal(np.full(horizon, history[-1]), np.zeros(horizon))
    mean = (history[-1] - history[0]) / last
    variance = ((np.diff(history) - mean) ** 2).mean()
    return Normal(history[-1] + mean * steps, np.sqrt(variance * steps * (1 + steps / last)))


def ets(history: Values, season: int, horizon: int) -> Normal:
    """Exponential smoothing in state space with additive error, damped trend and season, by statsmodels.

    Hyndman et al., "Forecasting with Exponential Smoothing" (2008). Short histories have no trend, or no season.
    """
    pandas: Any = importlib.import_module("pandas")
    smoothing: Any = importlib.import_module("statsmodels.tsa.exponential_smoothing.ets")
    recent = history[-max(MOST_SEASONS * season, MOST_VALUES) :]
    trend, seasonal = len(recent) >= FEWEST_FOR_TREND, 1 < season <= len(recent) // 2
    with warnings.catch_warnings(), contextlib.suppress(RuntimeWarning):
        warnings.simplefilter("ignore")
        model = smoothing.ETSModel(
            pandas.Series(recent),
            error="add",
            trend="add" if trend else None,
            damped_trend=trend,
            seasonal="add" if seasonal else None,
            seasonal_periods=season if seasonal else None,
            initialization_method="estimated" if len(recent) >= FEWEST_FOR_TREND else "known",
            initial_level=None if len(recent) >= FEWEST_FOR_TREND else recent[0],
        )
        found = model.fit(disp=False).get_prediction(start=len(recent), end=len(recent) + horizon - 1)
    return Normal(np.asarray(found.predicted_mean), np.sqrt(np.asarray(found.forecast_variance)))


def rivals() -> dict[str, Method]:
    """The methods that can be had here, by name; ETS wants statsmodels."""
    found: dict[str, Method] = {"seasonal naive": seasonal_naive, "naive with drift": drift}
    return found | ({"ETS": ets} if importlib.util.find_spec("statsmodels") else {})
