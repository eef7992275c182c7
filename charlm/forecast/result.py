"""What sampled continuations come to: the mean, the median and intervals of every step."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from charlm.config import DataConfig, ForecastConfig
from charlm.dataset import read, series_of
from charlm.forecast.paths import Forecaster
from charlm.series.calendar import Calendar
from charlm.series.cells import Series
from charlm.series.records import usual_horizon
from charlm.series.scaling import Values
from charlm.series.tables import Columns, read_table


@dataclass(frozen=True, repr=False)
class Forecast:
    """The forecasts of N series over H steps.

    Attributes:
        unique_id: [N] names of the series.
        ds: [N][H] their times.
        mean, median: [N, H].
        lo, hi: for each level in percent, the ends [N, H] of the interval in which so many of the continuations lie.
        seed: that drew them.
    """

    unique_id: list[str]
    ds: list[list[str]]
    mean: Values
    median: Values
    lo: dict[float, Values]
    hi: dict[float, Values]
    seed: int

    def __repr__(self) -> str:
        series, horizon = self.mean.shape
        levels = ", ".join(f"{level:g} %" for level in self.lo)
        return f"<Forecast of {series:,} series, {horizon} steps, intervals of {levels}>"

    @property
    def columns(self) -> list[str]:
        """The names of the columns of `rows`."""
        ends = [f"{end}-{level:g}" for level in self.lo for end in ("lo", "hi")]
        return ["unique_id", "ds", "mean", "median", *ends]

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row for each series and step."""
        for n, name in enumerate(self.unique_id):
            for step, time in enumerate(self.ds[n]):
                ends = [float(end[level][n, step]) for level in self.lo for end in (self.lo, self.hi)]
                centre = float(self.mean[n, step]), float(self.median[n, step])
                yield dict(zip(self.columns, (name, time, *centre, *ends), strict=True))


def forecast_of(forecaster: Forecaster, series: Sequence[Series], config: ForecastConfig) -> Forecast:
    """The forecast of series.

    Raises:
        DataError: a series that the model's scaling does not take; the message names it.
    """
    horizon = config.horizon or usual_horizon(series)
    seed = secrets.randbelow(2**31) if config.seed is None else config.seed
    paths = forecaster.paths([(one.name, one.values) for one in series], horizon, config.samples, seed)
    every = np.array(paths)  # [N, H, S]
    levels = sorted(config.level)
    low, high = ([50 - sign * level / 2 for level in levels] for sign in (1, -1))
    ends = np.percentile(every, [50, *low, *high], axis=-1)
    count = len(levels)
    times = [one.times(len(one.values), len(one.values) + horizon) for one in series]
    return Forecast(
        [one.name for one in series],
        times,
        every.mean(-1),
        ends[0],
        dict(zip(levels, ends[1 : 1 + count], strict=True)),
        dict(zip(levels, ends[1 + count :], strict=True)),
        seed,
    )


def series_from(data: Any, config: DataConfig) -> list[Series]:
    """Series from what Python has: values, several of them, pandas' frames and series, or the path of a table.

    Raises:
        DataError: it is nothing of these, or cannot be read.
    """
    if isinstance(data, str | os.PathLike):
        with read([os.fspath(data)], config, lambda size: lambda count: None) as corpus:
            return series_of(corpus, config)
    if hasattr(data, "to_csv"):  # pandas: a table like those in files
        frame = data.to_frame(data.name or config.value_column) if hasattr(data, "to_frame") else data
        timed = type(frame.index).__name__ in ("DatetimeIndex", "PeriodIndex")
        frame = frame.rename_axis(config.time_column).reset_index() if timed else frame
        columns = Columns(config.id_column, config.time_column, config.value_column, config.date_format)
        return [_named(one, "y") for one in read_table(frame.to_csv(index=False), columns, "the frame")]
    if isinstance(data, Mapping):
        return [_from_values(values, str(name)) for name, values in data.items()]
    nested = not isinstance(data, np.ndarray) and len(data) and hasattr(data[0], "__len__")
    many = nested or getattr(data, "ndim", 1) == 2
    return [_from_values(values, str(n)) for n, values in enumerate(data)] if many else [_from_values(data, "0")]


def _named(series: Series, name: str) -> Series:
    return series if series.name else Series(name, series.values, series.given, series.first, series.calendar)


def _from_values(values: Any, name: str) -> Series:
    text = "\n".join(["y", *(str(value) for value in np.asarray(values, np.float64).tolist())])
    series = read_table(text, Columns(), f"series {name}")[0]
    return Series(name, series.values, series.given, 0, Calendar("number", 1))
