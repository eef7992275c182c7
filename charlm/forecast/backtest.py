"""Forecasts of what is known already: rolling origins, and the errors beside those of plain methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from charlm.errors import DataError, named
from charlm.forecast.paths import Forecaster
from charlm.forecast.rivals import Method, rivals
from charlm.questions import ForecastConfig
from charlm.records import Mask
from charlm.series.cells import Series
from charlm.series.metrics import DECILES, pinball, scaled_error
from charlm.series.records import usual_horizon
from charlm.series.scaling import Values

FEWEST_VALUES = 3  # of a history


@dataclass(frozen=True)
class Window:
    """A part of a series that is forecast from what is before it."""

    series: str
    history: Values  # [N]
    actual: Values  # [H]
    given: Mask  # [H], false where the value was missing


@dataclass(frozen=True)
class Errors:
    """The errors of one method over all windows.

    Attributes:
        mase: mean absolute scaled error, the mean over windows whose scale is not 0; None if there is none.
        quantile_loss: weighted, of the deciles; None if all values are 0.
        coverage: for each level in percent, how many percent of the values were in the interval.
        seconds: that the forecasts took.
    """

    method: str
    mase: float | None
    quantile_loss: float | None
    coverage: dict[float, float]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def windows_of(series: Sequence[Series], horizon: int, count: int) -> list[Window]:
    """The last `count` windows of each series, a horizon apart; of a short one those that leave a history.

    Raises:
        DataError: there is none.
    """
    windows = []
    for one in series:
        for start in range(len(one.values) - count * horizon, len(one.values), horizon):
            part = slice(start, start + horizon)
            if start >= FEWEST_VALUES and one.given[part].any():
                windows.append(Window(one.name, one.values[:start], one.values[part], one.given[part]))
    if not windows:
        longest = max(len(one.values) for one in series)
        shorter = named("forecast.horizon")
        raise DataError(f"no series is long enough for a window of {horizon} steps: {longest} values; give a {shorter}")
    return windows


def backtest(
    forecaster: Forecaster,
    series: Sequence[Series],
    config: ForecastConfig,
    count: int,
    progress: Callable[[int], None] = lambda windows: None,
) -> list[Errors]:
    """The errors of a model and of plain methods, which all forecast the same windows.

    Args:
        forecaster: of the model.
        series: with their histories.
        config: levels, horizon, samples and seed.
        count: windows of each series.
        progress: called with the windows that a method has forecast since the last call.

    Raises:
        DataError: no series is long enough.
    """
    horizon, season = config.horizon or usual_horizon(series), forecaster.alphabet.scaling.season
    windows, levels = windows_of(series, horizon, count), sorted(config.level)
    ends = [(50 - level / 2) / 100 for level in levels] + [(50 + level / 2) / 100 for level in levels]
    places = [0.5, *DECILES.tolist(), *ends]
    start = time.monotonic()
    paths = forecaster.paths([(one.series, one.history) for one in windows], horizon, config.samples, config.seed or 0)
    own = [np.quantile(one, places, axis=1) for one in paths]
    progress(len(windows))
    found = [_errors("charlm", own, windows, levels, season, time.monotonic() - start)]
    for name, method in rivals().items():
        start = time.monotonic()
        theirs = [_quantiles(method, one, season, horizon, places, progress) for one in windows]
        found.append(_errors(name, theirs, windows, levels, season, time.monotonic() - start))
    return found


def _quantiles(
    method: Method, window: Window, season: int, horizon: int, places: Sequence[float], progress: Callable[[int], None]
) -> Values:
    found = method(window.history, season, horizon).quantiles(places)
    progress(1)
    return found


def _errors(
    method: str,
    quantiles: Sequence[Values],
    windows: Sequence[Window],
    levels: Sequence[float],
    season: int,
    seconds: float,
) -> Errors:
    """The errors of quantiles [1 + deciles + ends, H] for each window."""
    mase, lost, size, values, inside = list[float](), 0.0, 0.0, 0, np.zeros(len(levels))
    for found, one in zip(quantiles, windows, strict=True):
        found, actual = found[:, one.given], one.actual[one.given]
        mase.append(scaled_error(found[0], actual, one.history, season))
        lost += pinball(found[1 : 1 + len(DECILES)], actual)
        size += float(np.abs(actual).sum())
        low, high = np.split(found[1 + len(DECILES) :], 2)
        inside += ((low <= actual) & (actual <= high)).sum(1)
        values += len(actual)
    scaled = [error for error in mase if not np.isnan(error)]
    coverage = dict(zip(levels, (100 * inside / values).tolist(), strict=True))
    loss = lost / size if size else None
    return Errors(method, float(np.mean(scaled)) if scaled else None, loss, coverage, seconds)
