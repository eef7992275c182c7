"""A forecast as a picture: the end of each history, the median, and the intervals as a fan."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from charlm.errors import CharlmError
from charlm.files import replacing
from charlm.forecast.result import Forecast
from charlm.series.cells import Series

MOST_PANELS, COLUMNS = 12, 3
SHOWN_HORIZONS, FEWEST_SHOWN = 4, 40  # of the history
BLUE, GREY = "#1f5fa8", "#444444"


def draw(forecast: Forecast, series: Sequence[Series], file: Path) -> None:
    """Draws the first twelve series of a forecast to a file; needs matplotlib.

    Raises:
        CharlmError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    shown = min(len(series), MOST_PANELS)
    columns = min(shown, COLUMNS)
    rows = -(-shown // columns)
    size = 10 if columns == 1 else 5 * columns, 4.5 if rows == 1 else 3.2 * rows
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for n, panel in enumerate(panels):
        if n < shown:
            _draw_panel(panel, forecast, series[n], n)
        else:
            panel.axis("off")
    panels[0].legend(loc="best", frameon=False)
    if len(series) > shown:
        figure.suptitle(f"{shown} of {len(series):,} series")
    try:
        with replacing(file) as beside, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few dates, and of letters that the font has not
            figure.savefig(beside, dpi=120)
    except OSError as error:
        raise CharlmError(f"{file}: cannot be written: {error.strerror}") from None


def _draw_panel(panel: Any, forecast: Forecast, one: Series, n: int) -> None:
    horizon = len(forecast.ds[n])
    begin = max(0, len(one.values) - max(SHOWN_HORIZONS * horizon, FEWEST_SHOWN))
    times = one.times(begin, len(one.values))
    past, future = _axis(times), _axis([times[-1], *forecast.ds[n]])
    last = one.values[-1]  # the fan opens from it
    values = np.where(one.given, one.values, np.nan)[begin:]
    panel.plot(past, values, color=GREY, linewidth=1.3, label="history")
    opacity = np.linspace(0.35, 0.15, len(forecast.lo))
    for level, alpha in zip(forecast.lo, opacity, strict=True):
        low, high = (np.insert(end[level][n], 0, last) for end in (forecast.lo, forecast.hi))
        panel.fill_between(future, low, high, color=BLUE, alpha=alpha, linewidth=0, label=f"{level:g} %")
    panel.plot(future, np.insert(forecast.median[n], 0, last), color=BLUE, linewidth=1.8, label="median")
    panel.set_title(one.name, fontsize=10)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)
    if past.dtype.kind == "M":
        dates: Any = importlib.import_module("matplotlib.dates")
        locator = dates.AutoDateLocator(maxticks=7)
        panel.xaxis.set_major_locator(locator)
        panel.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))


def _axis(times: list[str]) -> Any:
    """Dates, or numbers."""
    try:
        return np.array(times, np.int64)
    except ValueError:
        return np.array(times, "datetime64[s]")
