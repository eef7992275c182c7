"""What sampled continuations come to: the mean, the median and intervals of every step."""

from __future__ import annotations

import os
import secrets
import textwrap
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from charlm.config import DataConfig
from charlm.dataset import read, series_of
from charlm.errors import DataError, UsageError, named
from charlm.forecast.paths import Forecaster
from charlm.questions import ForecastConfig
from charlm.series.calendar import Calendar
from charlm.series.cells import LARGEST, Series, filled
from charlm.series.records import usual_horizon
from charlm.series.scaling import Values
from charlm.series.tables import TIME_NAMES, Columns, read_table


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
        UsageError: it is nothing of these.
        DataError: a table or a value that cannot be read.
    """
    if isinstance(data, str | os.PathLike):
        with read([os.fspath(data)], config, lambda size: lambda count: None) as corpus:
            return series_of(corpus, config)
    if hasattr(data, "to_csv"):
        return _from_pandas(data, config)
    if isinstance(data, Mapping):
        return [_from_values(values, str(name)) for name, values in _some(data).items()]
    if not isinstance(data, Sequence | np.ndarray) or isinstance(data, bytes | bytearray):
        raise UsageError(
            f"{named('data')} must be values, several series, a pandas frame or the path of a table, not {_short(data)}"
        )
    many = data.ndim > 1 if isinstance(data, np.ndarray) else len(data) > 0 and isinstance(data[0], Sized)
    return [_from_values(values, str(n)) for n, values in enumerate(_some(data))] if many else [_from_values(data, "0")]


def _from_pandas(data: Any, config: DataConfig) -> list[Series]:
    frame, name = (data.to_frame(config.value_column), data.name) if hasattr(data, "to_frame") else (data, None)
    columns = Columns(config.id_column, config.time_column, config.value_column, config.date_format)
    there = {str(column).lower() for column in frame}
    kind = type(frame.index).__name__
    dated = kind in ("DatetimeIndex", "PeriodIndex") and columns.time not in frame
    if dated or (kind == "Index" and frame.index.name is None and there.isdisjoint({columns.time, *TIME_NAMES})):
        frame = frame.rename_axis(columns.time)
    if any(level is not None and level not in frame for level in frame.index.names):
        frame = frame.reset_index()
        there |= {str(column).lower() for column in frame}
    known = {column.lower() for column in (*columns[:3], *TIME_NAMES)}
    if known.isdisjoint(there) and all(column.kind in "iufb" for column in frame.dtypes):
        return [_from_values(frame[column], str(column)) for column in _some(frame)]
    usual = "0" if name is None else str(name)
    return [replace(one, name=one.name or usual) for one in read_table(frame.to_csv(index=False), columns, "the frame")]


def _some(data: Any) -> Any:
    """Series of which there is at least one."""
    if not len(data):
        raise DataError(f"{named('data')} has no series")
    return data


def _from_values(values: Any, name: str) -> Series:
    try:
        found: Values = np.ma.filled(np.ma.array(values, np.float64), np.nan)
    except (TypeError, ValueError):
        raise UsageError(f"series {name}: must be numbers, NaN where one is missing, not {_short(values)}") from None
    if found.ndim != 1:
        raise UsageError(f"series {name}: must be a list of numbers, not {found.ndim}-dimensional")
    if np.isnan(found).all():
        raise DataError(f"series {name}: has no values")
    large = np.flatnonzero(np.abs(found) > LARGEST)
    if len(large):
        raise DataError(
            f"series {name}: value {large[0]} is {found[large[0]]:g}; use a larger unit, or NaN if it is missing"
        )
    return filled(name, found, np.arange(len(found)), Calendar("number", 1), "the data")


def _short(value: Any) -> str:
    return textwrap.shorten(repr(value), 60, placeholder="...")
