"""Writes docs/forecasts.md: forecasts beside plain methods: python benchmarks/forecasts.py M1_YEARLY.tsf

The file is the Monash archive's m1_yearly_dataset.tsf; the other series come with statsmodels and vega_datasets.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from machine import heading

import charlm
from charlm.config import DataConfig
from charlm.forecast.backtest import backtest
from charlm.forecast.fan import draw
from charlm.forecast.result import forecast_of, series_from
from charlm.questions import ForecastConfig

SEEDS = (1, 2, 3)
PAGE = """# Forecasts, measured

`make forecasts M1=m1_yearly_dataset.tsf` writes this page. Every model is trained by `charlm train --tokenizer series`
without any other option, on what comes before the windows, and forecasts with 200 continuations.
MASE is the mean absolute scaled error (Hyndman and Koehler 2006); the weighted quantile loss is of the nine deciles;
"in 80 %" says how many of the values lay in the interval of 80 %, and should be 80; the others are better if lower.

{machine}

## M1, yearly

181 series of the M1 competition (Makridakis et al. 1982), 15 to 58 values each; the last 6 of each are forecast, by one
model for all. charlm's rows are of three seeds. Published for the same data (Monash archive): MASE of TBATS 3.499, ETS
3.771, DeepAR 4.603; quantile loss of Chronos tiny 0.173.

{m1}

## One series each

Rolling windows in the end of a series, one after the other. Sunspots are yearly (5 windows of 12), CO2 at Mauna Loa is
weekly (6 of 26), El Niño's sea surface is monthly (6 of 12), temperatures in Seattle are hourly (14 of 24).

{single}
"""
HEAD = "| series | method | MASE | quantile loss | in 80 % | seconds |\n|---|---|---|---|---|---|"


def tables():
    """The series of the packages by name: a table in long form, and the windows with their horizon."""
    import statsmodels.api as sm
    import vega_datasets

    sunspots = sm.datasets.sunspots.load_pandas().data
    sunspots = sunspots.rename(columns={"YEAR": "ds", "SUNACTIVITY": "y"})
    co2 = sm.datasets.co2.load_pandas().data["co2"].rename("y")
    elnino = sm.datasets.elnino.load_pandas().data
    months = elnino.melt("YEAR", var_name="month", value_name="y")
    numbers = {name: n for n, name in enumerate(elnino.columns[1:], 1)}
    months["ds"] = [
        f"{int(year)}-{numbers[name]:02}" for year, name in zip(months["YEAR"], months["month"], strict=True)
    ]
    seattle = vega_datasets.data.seattle_temps().rename(columns={"date": "ds", "temp": "y"})
    return {
        "sunspots": (sunspots, 5, 12),
        "CO2": (co2, 6, 26),
        "El Niño": (months[["ds", "y"]], 6, 12),
        "Seattle": (seattle, 14, 24),
    }


def held_out(series, values, folder):
    """A long table of all but the last values of each series."""
    lines = ["unique_id,ds,y"]
    for one in series:
        end = len(one.values) - values
        given = (str(v) if there else "" for v, there in zip(one.values.tolist(), one.given, strict=True))
        lines += [f"{one.name},{t},{v}" for t, v in zip(one.times(0, end), given, strict=False)]
    path = Path(folder, "history.csv")
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def measured(series, windows, horizon, seed):
    """The errors of a model that is trained on what comes before the windows, and of plain methods; seconds."""
    with tempfile.TemporaryDirectory() as folder:
        table = held_out(series, windows * horizon, folder)
        start = time.monotonic()
        model = charlm.train(table, tokenizer="series", models=folder, seed=seed, progress=False)
        trained = time.monotonic() - start
        errors = backtest(model.forecaster(), series, ForecastConfig(horizon=horizon, seed=seed), windows)
    return [replace(errors[0], seconds=errors[0].seconds + trained), *errors[1:]]


def row(name, errors):
    numbers = f"{errors.mase:.3f} | {errors.quantile_loss:.3g} | {errors.coverage[80.0]:.0f} %"
    return f"| {name} | {errors.method} | {numbers} | {errors.seconds:.0f} |"


def picture(file):
    """Draws two years of the El Niño's sea surface that nobody knows yet, after all that is known."""
    series = [
        replace(one, name="El Niño (°C)") for one in series_from(tables()["El Niño"][0], DataConfig(tokenizer="series"))
    ]
    with tempfile.TemporaryDirectory() as folder:
        model = charlm.train(held_out(series, 0, folder), tokenizer="series", models=folder, progress=False)
        draw(forecast_of(model.forecaster(), series, ForecastConfig(horizon=24, seed=SEEDS[0])), series, file)


def main() -> None:
    config = DataConfig(tokenizer="series", encoding="cp1252")
    series = series_from(sys.argv[1], config)
    runs = [measured(series, 1, 6, seed) for seed in SEEDS]
    ours = [replace(run[0], method=f"charlm, seed {seed}") for run, seed in zip(runs, SEEDS, strict=True)]
    median = replace(
        ours[0],
        method="charlm, median",
        mase=statistics.median(one.mase for one in ours),
        quantile_loss=statistics.median(one.quantile_loss for one in ours),
        coverage={80.0: statistics.median(one.coverage[80.0] for one in ours)},
        seconds=statistics.median(one.seconds for one in ours),
    )
    m1 = [HEAD, *(row("M1", one) for one in (*ours, median, *runs[0][1:]))]
    print("\n".join(m1), flush=True)
    single = [HEAD]
    for name, (table, windows, horizon) in tables().items():
        found = measured(series_from(table, DataConfig(tokenizer="series")), windows, horizon, SEEDS[0])
        single += [row(name, one) for one in found]
        print("\n".join(single[-len(found) :]), flush=True)
    measured_on = heading("make forecasts M1=m1_yearly_dataset.tsf", "statsmodels")
    page = PAGE.format(machine=measured_on, m1="\n".join(m1), single="\n".join(single))
    docs = Path(__file__).parent.parent / "docs"
    (docs / "forecasts.md").write_text(page, "utf-8")
    picture(docs / "forecast.png")


if __name__ == "__main__":
    main()
