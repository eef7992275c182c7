"""charlm forecast"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charlm.cli import completion
from charlm.cli.options import COLUMNS, FORECASTING, json_option, model_options, settings
from charlm.cli.output import print_json
from charlm.config import Tables
from charlm.errors import CharlmError, UsageError
from charlm.files import replacing
from charlm.questions import ForecastConfig

if TYPE_CHECKING:
    from charlm.forecast.backtest import Errors
    from charlm.forecast.paths import Forecaster
    from charlm.forecast.result import Forecast
    from charlm.series.cells import Series

NUMBER = re.compile(r"\d+(\.\d+)?")


class _Levels(click.Command):
    """A command whose --level takes as many numbers as follow it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread, levels = list[str](), 0
        for arg in args:
            levels = 1 if arg == "--level" else levels + 1 if levels and NUMBER.fullmatch(arg) else 0
            spread += ["--level", arg] if levels > 2 else [arg]
        return super().parse_args(ctx, spread)


@click.command(cls=_Levels)
@click.argument("history", metavar="[HISTORY...]", nargs=-1, shell_complete=completion.files)
@model_options
@settings([*FORECASTING, *COLUMNS])
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write the forecast to this file, as CSV.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw it to this file: .png, .svg or .pdf.")
@click.option(
    "--backtest",
    type=click.IntRange(min=1),
    metavar="WINDOWS",
    help="Forecast so many windows in the end of the history, each from what is before it, and measure the errors.",
)
@json_option
def command(
    history: tuple[str, ...],
    model: str | None,
    models: Path,
    checkpoint: str,
    settings: Tables,
    csv_file: Path | None,
    plot: Path | None,
    backtest: int | None,
    as_json: bool,
) -> None:
    """Forecast number series.

    HISTORY is one or more tables; without it, those that the model learnt from. A table is CSV (commas, semicolons or
    tabs) in long form, with the columns unique_id, ds and y, those that the model learnt from, or those that options
    name; in wide form, with a column of times and one for each series; a single column of numbers; or a .tsf file.

    \b
    Missing values   are filled on a straight line, and never scored. Times that are not there count as missing.
    Times            are whole numbers, or dates in one form. All steps are as long as the commonest.
    Refused          a time that a series has twice, infinite values, irregular times, dates that can be read in two
                     ways, and series of which most is missing.
    No forecast      is below 0 where no value was; where all values were whole numbers, forecasts are.

    Each forecast is the mean, the median and intervals of continuations that are drawn, as a text is: the same --seed
    draws the same.
    """
    from charlm.cli.bars import progress_bars, reading_bar
    from charlm.dataset import series_of
    from charlm.machine import start_tensorflow
    from charlm.series.alphabet import SeriesAlphabet
    from charlm.series.records import usual_horizon
    from charlm.shelf import find_run
    from charlm.trained import corpus_of

    asked = ForecastConfig.from_dict(settings.get("forecast", {}))
    _check_files(csv_file, plot)
    found = find_run(model, models).pick(checkpoint)
    if not isinstance(found.alphabet(), SeriesAlphabet):
        kind = "pairs" if found.config().data.pairs else "text"
        way_out = "train one with: charlm train --tokenizer series TABLE"
        raise UsageError(f"{found.run_name}: is a model of {kind}; {way_out}")
    data = replace(found.config().data, **settings.get("data", {}))
    with progress_bars() as bar, corpus_of(found, list(history), reading_bar(bar)) as corpus:
        series = series_of(corpus, data)
    if backtest is not None and corpus.sha256 == found.record["corpus"]["sha256"]:
        _warn_of_training(series, data.split, backtest * (asked.horizon or usual_horizon(series)))
    start_tensorflow()
    from charlm.forecast.result import forecast_of
    from charlm.language_model import LanguageModel

    forecaster = LanguageModel(found).forecaster()
    if backtest is not None:
        _print_errors(_measured(forecaster, series, asked, backtest), as_json)
        return
    forecast = forecast_of(forecaster, series, asked)
    _keep(forecast, series, csv_file, plot)
    if as_json:
        for row in forecast.rows():
            print_json(row)
    elif csv_file is None and plot is None:
        _print(forecast)


def _measured(forecaster: Forecaster, series: Sequence[Series], asked: ForecastConfig, windows: int) -> list[Errors]:
    from charlm.cli.bars import progress_bars
    from charlm.forecast.backtest import backtest

    with progress_bars() as bar:
        return backtest(forecaster, series, asked, windows, bar("forecasting", None, "windows"))


def _keep(forecast: Forecast, series: Sequence[Series], csv_file: Path | None, plot: Path | None) -> None:
    """Writes and draws a forecast to the files that were named."""
    from charlm.display import say

    if csv_file is not None:
        _write_csv(forecast, csv_file)
        say(f"written to {csv_file}")
    if plot is not None:
        from charlm.forecast.fan import draw

        draw(forecast, series, plot)
        say(f"drawn to {plot}")


def _warn_of_training(series: Sequence[Series], split: Sequence[float], values: int) -> None:
    """Says so where windows in the end of series reach into what the model has learnt from."""
    from charlm.series.records import bounds

    if any(bounds(len(one.values), split, "test")[0] > len(one.values) - values for one in series):
        logging.getLogger("charlm").warning(
            "the model learnt from values that it is to forecast, so its errors are too small: hold some out of the "
            "training with --split 0.8 0 0.2, or backtest other series"
        )


def _check_files(csv_file: Path | None, plot: Path | None) -> None:
    """Refuses what cannot be written or drawn before anything is computed."""
    import importlib.util

    for option, file in (("--csv", csv_file), ("--plot", plot)):
        if file is not None and (file.is_dir() or not file.parent.is_dir()):
            raise UsageError(f"{option} {file}: {'is a folder' if file.is_dir() else 'its folder is not there'}")
    if plot is None:
        return
    if plot.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(f"--plot {plot}: is no .png, .svg or .pdf")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: pip install 'charlm[plot]'")


def _write_csv(forecast: Forecast, file: Path) -> None:
    try:
        with replacing(file) as beside, beside.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, forecast.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(forecast.rows())
    except OSError as error:
        raise CharlmError(f"{file}: cannot be written: {error.strerror}") from None


def _print(forecast: Forecast) -> None:
    _print_table(forecast.columns, ([_shown(value) for value in row.values()] for row in forecast.rows()), left=2)


def _print_errors(errors: Sequence[Errors], as_json: bool) -> None:
    if as_json:
        for one in errors:
            print_json(one.to_dict())
        return
    levels = [f"in {level:g} %" for level in errors[0].coverage]
    rows = (
        [one.method, _error(one.mase), _error(one.quantile_loss), *(f"{c:.0f} %" for c in one.coverage.values())]
        for one in errors
    )
    _print_table(["method", "MASE", "quantile loss", *levels], rows, left=1)


def _error(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def _print_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> None:
    """Prints rows under a header, the first `left` columns flush left."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        sides = (str.ljust if n < left else str.rjust for n in range(len(line)))
        print("  ".join(side(cell, width) for side, cell, width in zip(sides, line, widths, strict=True)).rstrip())


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}"
