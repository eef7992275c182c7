"""Forecasts of number series: by the command, from Python, measured, drawn, and trained further."""

import contextlib
import csv
import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from test_series import refusal

import charlm
from charlm.cli import cli
from charlm.cli.options import as_typed
from charlm.errors import DataError, UsageError, spelled
from charlm.events import Saved
from charlm.forecast.backtest import backtest, windows_of
from charlm.forecast.result import forecast_of, series_from
from charlm.forecast.rivals import Normal, drift, rivals, seasonal_naive
from charlm.questions import ForecastConfig
from charlm.series.calendar import Calendar
from charlm.series.cells import Series
from charlm.shelf import find_run

FEW = settings(max_examples=12, deadline=None)
MONTHS = [f"{year}-{month:02}-01" for year in range(2012, 2019) for month in range(1, 13)]
SMALL = {"units": 8, "lanes": 2, "bptt": 8}


def seasonal(seed, level=5):
    rng, t = np.random.default_rng(seed), np.arange(len(MONTHS))
    return level + 10 * np.sin(2 * np.pi * t / 12) + rng.normal(size=len(t))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two trained models, of number series and of text."""
    place = tmp_path_factory.mktemp("series")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARLM_CACHE", str(place / "cache"))
        lines = [f"{name},{m},{v:.2f}" for n, name in enumerate("AB") for m, v in zip(MONTHS, seasonal(n), strict=True)]
        (place / "shops.csv").write_text("\n".join(["unique_id,ds,y", *lines]))
        (place / "text.txt").write_text("the quick brown fox\n" * 50)
        settings = {**SMALL, "models": place / "models"}
        charlm.train(place / "text.txt", name="text", steps=2, **settings)
        charlm.train(place / "shops.csv", name="shops", tokenizer="series", steps=20, split=(0.8, 0.1, 0.1), **settings)
    return place


@pytest.fixture(scope="module")
def model(place):
    return charlm.load("shops", models=place / "models")


def typed(place, words):
    """What a command writes to standard output, in this process."""
    with contextlib.chdir(place), spelled(as_typed):
        result = CliRunner().invoke(cli, words.split(), standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.stdout


def wide_table(count):
    """A wide table of so many series over five days."""
    head = "ds," + ",".join(f"S{n}" for n in range(count))
    rows = ["2024-02-{:02},{}".format(day, ",".join(str(day + n) for n in range(count))) for day in range(25, 30)]
    return "\n".join([head, *rows])


def numbers(forecast):
    return np.array([[*row.values()][2:] for row in forecast.rows()])


# ---- from Python


def test_a_forecast_has_a_row_for_each_series_and_step(model, place):
    found = model.forecast(place / "shops.csv", horizon=3, level=[50, 90], seed=1)
    rows = list(found.rows())
    assert [(row["unique_id"], row["ds"]) for row in rows] == [
        (name, f"2019-0{month}-01") for name in "AB" for month in (1, 2, 3)
    ]
    assert list(rows[0]) == ["unique_id", "ds", "mean", "median", "lo-50", "hi-50", "lo-90", "hi-90"]
    for row in rows:
        assert row["lo-90"] <= row["lo-50"] <= row["median"] <= row["hi-50"] <= row["hi-90"]
    assert pd.DataFrame(rows).shape == (6, 8)
    assert repr(found) == "<Forecast of 2 series, 3 steps, intervals of 50 %, 90 %>"


def test_a_horizon_is_a_season_where_nobody_says(model, place):
    assert model.forecast(place / "shops.csv").mean.shape == (2, 12)
    assert model.forecast([1.0, 2.0, 3.0]).mean.shape == (1, 6)


def test_one_seed_draws_one_forecast(model):
    first, again, other = (numbers(model.forecast(seasonal(0), seed=seed, horizon=4)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    drawn = model.forecast(seasonal(0), horizon=4)
    assert (numbers(model.forecast(seasonal(0), horizon=4, seed=drawn.seed)) == numbers(drawn)).all()


def test_a_series_is_forecast_among_others_as_if_alone(model):
    series = [seasonal(0), 1000 * seasonal(1)[:50], np.arange(9.0), [5.0]]
    among = numbers(model.forecast(series, horizon=5, seed=3)).reshape(len(series), 5, -1)
    for n, values in enumerate(series):
        alone = numbers(model.forecast([values], horizon=5, seed=3))
        assert alone == pytest.approx(among[n], rel=1e-5)


def test_many_series_are_forecast_in_parts(model, monkeypatch):
    series = [seasonal(n)[: 30 + n] for n in range(5)]
    whole = numbers(model.forecast(series, horizon=2, samples=50, seed=3))
    monkeypatch.setattr("charlm.forecast.paths.ROWS", 100)
    assert numbers(model.forecast(series, horizon=2, samples=50, seed=3)) == pytest.approx(whole, rel=1e-5)


histories = st.lists(st.integers(0, 50), min_size=1, max_size=40)


@FEW
@given(histories, st.integers(0, 9))
def test_counts_stay_whole_and_are_never_below_0(model, values, seed):
    paths = model.forecaster().paths([("", np.array(values, float))], 4, 20, seed)[0]
    assert (paths == np.rint(paths)).all()
    assert (paths >= 0).all()


@FEW
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=15), st.data())
def test_no_answer_is_nan_whatever_the_history(model, values, data):
    gaps = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    history = [one for value, gap in zip(values, gaps, strict=True) for one in ([np.nan, value] if gap else [value])]
    found = model.forecast(history, horizon=4, samples=20, seed=1)
    assert np.isfinite(numbers(found)).all()


@pytest.mark.parametrize("value", [0.0, 7.0, -2.5, 1e99])
def test_a_constant_series_goes_on(model, value):
    found = numbers(model.forecast(np.full(60, value), horizon=3, seed=1))
    assert found == pytest.approx(np.full(found.shape, value), rel=1e-6, abs=1e-12)


def test_a_history_of_one_value_is_forecast_around_it(model):
    found = model.forecast([100.0], horizon=3, seed=1)
    assert found.median[0] == pytest.approx([100] * 3, rel=1)
    assert (found.lo[80.0] < found.hi[80.0]).all()
    assert found.ds == [["1", "2", "3"]]


def test_missing_values_are_as_if_they_lay_on_a_line(model):
    values = np.arange(40.0)
    holes = np.where(np.isin(np.arange(40), [5, 20, 21]), np.nan, values)
    assert (numbers(model.forecast(holes, seed=1)) == numbers(model.forecast(values, seed=1))).all()


def test_pandas_and_lists_and_dictionaries_are_taken(model):
    frame = pd.DataFrame({"unique_id": "A", "ds": pd.to_datetime(MONTHS), "y": seasonal(0)})
    indexed = pd.Series(seasonal(0), pd.DatetimeIndex(MONTHS), name="A")
    wide = pd.DataFrame({"A": seasonal(0)}, pd.PeriodIndex(MONTHS, freq="M"))
    found = [list(model.forecast(data, horizon=2, seed=1).rows()) for data in (frame, indexed, wide)]
    assert found[0] == found[1] == found[2]
    assert found[0][0]["ds"] == "2019-01-01"
    for data in ({"A": seasonal(0)}, [seasonal(0)], seasonal(0)[None], seasonal(0).tolist(), pd.Series(seasonal(0))):
        assert model.forecast(data, horizon=2, seed=1).mean[0].tolist() == [row["mean"] for row in found[0]]


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        (["a", "b"], UsageError, "series 0: must be numbers"),
        ([[1, 2], ["x"]], UsageError, "series 1: must be numbers"),
        ([1, [2]], UsageError, "series 0: must be numbers"),
        ({"A": 5}, UsageError, "series A: must be a list of numbers, not 0-dimensional"),
        (object(), UsageError, "data must be values, several series, a pandas frame or the path of a table"),
        (None, UsageError, "not None"),
        (5, UsageError, "not 5"),
        (b"abc", UsageError, "data must be values"),
        (np.zeros((2, 3, 4)), UsageError, "series 0: must be a list of numbers, not 2-dimensional"),
        ([], DataError, "series 0: has no values"),
        ({}, DataError, "data has no series"),
        ([np.nan, None], DataError, "series 0: has no values"),
        ([[1, 2], [1, np.inf]], DataError, "series 1: value 1 is inf"),
        ([1, np.nan, np.nan, np.nan, 2], DataError, "3 of 5 steps from 0 to 4 are missing"),
        (pd.DataFrame({"a": ["x", "y"]}), DataError, "the frame, line 2: 'x' in column 'a' is no number"),
        (pd.DataFrame(), DataError, "data has no series"),
        ("nowhere.csv", UsageError, "nowhere.csv: no such file"),
    ],
)
def test_what_is_no_series_is_refused_in_a_line(model, data, kind, says):
    with pytest.raises(kind) as caught:
        model.forecast(data)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"horizon": 0}, "horizon must be at least 1, not 0"),
        ({"samples": 1}, "samples must be at least 10"),
        ({"level": [0]}, "level must be above 0 and below 100"),
        ({"level": [80, 80]}, "each once"),
        ({"level": []}, "level must be"),
        ({"level": 80}, "level must be"),
        ({"horizons": 3}, "did you mean horizon?"),
    ],
)
def test_a_setting_out_of_range_is_named(model, settings, says):
    with pytest.raises(UsageError, match=says.replace("?", r"\?")):
        model.forecast([1.0, 2.0], **settings)


def test_a_model_of_relative_steps_names_the_series_that_it_cannot_take(place, monkeypatch):
    monkeypatch.setenv("CHARLM_CACHE", str(place / "cache"))
    growing = np.exp(0.05 * np.arange(90) + 0.02 * np.random.default_rng(1).normal(size=90))
    (place / "growing.csv").write_text("y\n" + "\n".join(map(str, growing)))
    grown = charlm.train(
        place / "growing.csv", name="growing", tokenizer="series", steps=1, models=place / "models", **SMALL
    )
    assert grown.alphabet.scaling.log
    assert (numbers(grown.forecast(growing, horizon=30, seed=1)) > 0).all()
    with pytest.raises(DataError, match=r"^series 1: the value 0, where the model takes values above 0 alone"):
        grown.forecast([[1.0, 2.0], [3.0, 0.0]])
    (place / "zero.csv").write_text("ds,A,B\n1,1,1\n2,2,0\n3,3,1\n4,4,1\n")
    with pytest.raises(DataError, match=r"^series B: the value 0"):
        grown.evaluate(place / "zero.csv")


# ---- the command


def test_the_command_writes_a_table(place):
    lines = typed(place, "forecast --model shops --horizon 2 --seed 1").splitlines()
    assert lines[0].split() == ["unique_id", "ds", "mean", "median", "lo-80", "hi-80", "lo-95", "hi-95"]
    assert [line.split()[1] for line in lines[1:]] == ["2019-01-01", "2019-02-01"] * 2


def test_the_command_forecasts_what_python_does(place, model):
    expected = list(model.forecast(place / "shops.csv", horizon=2, level=[50, 90], seed=1, samples=50).rows())
    words = "forecast shops.csv --model shops --horizon 2 --seed 1 --samples 50 --level 50 90"
    assert [json.loads(line) for line in typed(place, f"{words} --json").splitlines()] == expected
    typed(place, f"{words} --csv out.csv")
    with (place / "out.csv").open(newline="") as file:
        found = [
            {key: value if key in ("unique_id", "ds") else float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]
    assert found == expected


@pytest.mark.parametrize("words", ["--level 50 90", "--level 50 --level 90", "--level=50 --level=90", "--level 90 50"])
def test_levels_are_given_together_or_one_by_one(place, words):
    lines = typed(place, f"forecast --model shops {words} shops.csv --horizon 1").splitlines()
    assert lines[0].split()[4:] == ["lo-50", "hi-50", "lo-90", "hi-90"]


def test_columns_of_another_table_are_named_by_options(place):
    (place / "other.csv").write_text("shop,day,a,b\nX,01/02/2020,1,9\nX,02/02/2020,2,9\nX,03/02/2020,3,9\n")
    words = "--id-column shop --time-column day --value-column a --date-format %d/%m/%Y"
    lines = typed(place, f"forecast other.csv --model shops --horizon 1 {words}").splitlines()
    assert lines[1].split()[:2] == ["X", "2020-02-04"]


@pytest.mark.parametrize(
    ("table", "kind", "begins"),
    [("wide.csv", "png", b"\x89PNG"), ("shops.csv", "svg", b"<?xml"), ("column.csv", "pdf", b"%PDF")],
)
def test_a_plot_is_drawn_of_many_series_and_of_few_dates(place, recwarn, table, kind, begins):
    (place / "wide.csv").write_text(wide_table(13))
    (place / "column.csv").write_text("1\n2\n")
    assert typed(place, f"forecast {table} --model shops --plot out.{kind} --horizon 3") == ""
    assert (place / f"out.{kind}").read_bytes().startswith(begins)
    assert not [warning for warning in recwarn if "charlm" in warning.filename]


@pytest.fixture
def without_ets(monkeypatch):
    """ETS takes seconds for each window."""
    monkeypatch.setattr("charlm.forecast.backtest.rivals", lambda: {n: m for n, m in rivals().items() if n != "ETS"})


def test_a_backtest_measures_the_model_beside_plain_methods(place, without_ets):
    words = "forecast --model shops --backtest 2 --horizon 4 --seed 1"
    lines = [line.split("  ")[0] for line in typed(place, words).splitlines()]
    assert lines == ["method", "charlm", "seasonal naive", "naive with drift"]
    found = [json.loads(line) for line in typed(place, f"{words} --json").splitlines()]
    assert [one["method"] for one in found] == lines[1:]
    assert all(one["mase"] > 0 and one["quantile_loss"] > 0 for one in found)
    assert all(0 <= share <= 100 for one in found for share in one["coverage"].values())


def test_a_backtest_of_what_was_learnt_says_so(place, caplog, without_ets):
    typed(place, "forecast --model shops --backtest 1 --horizon 4")
    assert not caplog.records
    typed(place, "forecast --model shops --backtest 2 --horizon 12")
    assert "the model learnt from values that it is to forecast" in caplog.text


@pytest.mark.parametrize(
    ("code", "words", "says"),
    [
        (2, "forecast --horizon 0", "--horizon must be at least 1, not 0"),
        (2, "forecast --level 0", "--level must be above 0 and below 100"),
        (2, "forecast --level 100", "--level must be above 0 and below 100"),
        (2, "forecast --level 80 80", "--level must be above 0 and below 100, each once"),
        (2, "forecast --level", "Option '--level' requires an argument."),
        (2, "forecast --level -5", "--level must be above 0"),
        (2, "forecast --samples 1", "--samples must be at least 10"),
        (2, "forecast --backtest 0", "--backtest"),
        (3, "forecast --backtest 1 --horizon 82", "no series is long enough for a window of 82 steps: 84 values"),
        (2, "forecast --plot out.gif", "--plot out.gif: is no .png, .svg or .pdf"),
        (2, "forecast --plot nowhere/out.png", "--plot nowhere/out.png: its folder is not there"),
        (2, "forecast --csv nowhere/out.csv", "--csv nowhere/out.csv: its folder is not there"),
        (2, "forecast --csv models", "--csv models: is a folder"),
        (2, "forecast nowhere.csv", "nowhere.csv: no such file"),
        (3, "forecast text.txt", "text.txt, line 2"),
        (3, "forecast shops.csv --value-column sales", "no column 'sales' (--value-column)"),
        (2, "generate --prompt x", "is a model of number series: charlm forecast goes on with them"),
        (2, "serve", "is a model of number series"),
        (2, "export out", "is a model of number series"),
        (2, "tokenize x", "is a model of number series"),
        (3, "evaluate text.txt", "text.txt, line 2"),
        (3, "train text.txt --from shops", "text.txt, line 2"),
        (2, "train shops.csv --name shops", "exists"),
        (2, "train text.txt --name shops --resume", "the corpus has changed"),
        (2, "train --name shops --resume --bins 5", "bins was None, now 5"),
        (2, "train shops.csv --tokenizer series --bins 1", "--bins must be at least 2"),
        (2, "train shops.csv --tokenizer series --season 0", "--season must be at least 1"),
        (2, "train shops.csv --tokenizer series --from text", "tokenizer"),
    ],
)
def test_each_refusal_is_a_line_and_an_exit_code(place, monkeypatch, code, words, says):
    monkeypatch.chdir(place)
    command, *rest = words.split()
    chosen = [] if command == "train" else ["--model", "shops"]
    found, message = refusal(command, *chosen, *rest)
    assert (found, says in message) == (code, True), message
    assert "\n" not in message


def test_a_model_of_text_is_none_of_series(place, monkeypatch):
    monkeypatch.chdir(place)
    code, message = refusal("forecast", "--model", "text", "shops.csv")
    assert (code, message) == (2, "text: is a model of text; train one with: charlm train --tokenizer series TABLE")
    with pytest.raises(UsageError, match="is no model of number series; train one with tokenizer='series'"):
        charlm.load("text", models="models").forecast([1.0])


def test_a_score_of_series_speaks_of_values(place):
    lines = typed(place, "evaluate --model shops").splitlines()
    assert "nats per value" in lines[1]
    assert lines[2].strip().startswith("18 values")
    found = json.loads(typed(place, "evaluate --model shops --split test --json"))
    assert found["symbols"] == 16
    assert "bits_per_byte" not in found
    assert "tokenizer   series, " in typed(place, "info --model shops")
    assert json.loads(typed(place, "info --model shops --json"))["tokenizer"] == "series"
    assert "shops.csv" in typed(place, "runs")


def test_missing_values_are_not_scored(model, place):
    lines = (place / "shops.csv").read_text().splitlines()
    (place / "holes.csv").write_text("\n".join([*lines[:60], *lines[64:]]))
    whole, holes = (model.evaluate(place / name, split="all") for name in ("shops.csv", "holes.csv"))
    assert whole.symbols - holes.symbols == 4


# ---- training


def test_ten_steps_and_ten_more_are_twenty(place, monkeypatch):
    monkeypatch.setenv("CHARLM_CACHE", str(place / "cache"))
    table, settings = place / "shops.csv", {"tokenizer": "series", "evaluate_every": 5, **SMALL}
    settings["models"] = place / "models"

    class Stopped(Exception):
        pass

    def stop(event):
        if isinstance(event, Saved) and event.step == 10:
            raise Stopped

    whole = charlm.train(table, name="whole", steps=20, **settings)
    with pytest.raises(Stopped):
        charlm.train(table, name="halves", steps=20, on_event=stop, **settings)
    halves = charlm.train(name="halves", resume=True, models=place / "models")
    last = [find_run(str(run.checkpoint.path.parents[1]), place).pick("last") for run in (whole, halves)]
    for kind in ("weights", "training"):
        one, other = (checkpoint.arrays(kind) for checkpoint in last)
        assert one.keys() == other.keys()
        assert all((one[key] == other[key]).all() for key in one)


def test_a_run_begins_from_another_with_its_bins(place, model, monkeypatch):
    monkeypatch.setenv("CHARLM_CACHE", str(place / "cache"))
    (place / "more.csv").write_text("y\n" + "\n".join(map(str, seasonal(7))))
    further = charlm.train(place / "more.csv", from_run="shops", steps=2, models=place / "models", lanes=2, bptt=8)
    assert further.alphabet.fingerprint == model.alphabet.fingerprint
    assert further.config.model == model.config.model
    assert numbers(further.forecast(place / "more.csv", horizon=2)).shape == (2, 6)


# ---- measures and rivals


def one_series(values, given=None):
    values = np.asarray(values, float)
    return Series("0", values, np.ones(len(values), bool) if given is None else given, 0, Calendar("number", 1))


def test_windows_lie_at_the_end_a_horizon_apart_and_leave_a_history():
    found = windows_of([one_series(np.arange(20)), one_series(np.arange(7)), one_series(np.arange(4))], 3, 2)
    assert [(len(one.history), one.actual.tolist()) for one in found] == [
        (14, [14, 15, 16]),
        (17, [17, 18, 19]),
        (4, [4, 5, 6]),
    ]
    assert all(one.history.tolist() == list(range(len(one.history))) for one in found)


def test_errors_are_those_of_the_forecasts_of_each_window(model, without_ets):
    series = series_from({"A": seasonal(3), "B": seasonal(4)}, model.config.data)
    asked = ForecastConfig(horizon=5, level=(80.0,), seed=2, samples=40)
    found = {one.method: one for one in backtest(model.forecaster(), series, asked, 1)}
    season = model.alphabet.scaling.season
    mase, lost, size, inside = [], 0.0, 0.0, []
    for name, values in (("A", seasonal(3)), ("B", seasonal(4))):
        before, after = values[:-5], values[-5:]
        one = forecast_of(model.forecaster(), series_from({name: before}, None), asked)
        naive = np.abs(before[season:] - before[:-season]).mean()
        mase.append(np.abs(after - one.median[0]).mean() / naive)
        inside += [(one.lo[80.0][0] <= after) & (after <= one.hi[80.0][0])]
        size += np.abs(after).sum()
        paths = model.forecaster().paths([(name, before)], 5, 40, 2)[0]
        for q in np.arange(1, 10) / 10:
            missed = after - np.quantile(paths, q, axis=1)
            lost += 2 / 9 * np.maximum(q * missed, (q - 1) * missed).sum()
    assert found["charlm"].mase == pytest.approx(np.mean(mase), rel=1e-4)
    assert found["charlm"].quantile_loss == pytest.approx(lost / size, rel=1e-4)
    assert found["charlm"].coverage == {80.0: pytest.approx(100 * np.mean(inside))}


def test_missing_values_are_not_measured(model, without_ets):
    values, given = seasonal(5), np.ones(84, bool)
    given[-2] = False
    spoilt = values.copy()
    spoilt[-2] = 1e9
    asked = ForecastConfig(horizon=4, seed=2, samples=20)
    found = [
        backtest(model.forecaster(), [one_series(one, given)], asked, 1)[0].to_dict() | {"seconds": 0}
        for one in (values, spoilt)
    ]
    assert found[0] == found[1]


def test_plain_methods_are_those_of_the_book():
    history = np.array([1.0, 4, 2, 3, 6, 5])
    assert seasonal_naive(history, 3, 7).mean.tolist() == [3, 6, 5, 3, 6, 5, 3]
    missed = np.sqrt(np.mean(np.square([2, 2, 3])))
    assert seasonal_naive(history, 3, 7).deviation == pytest.approx(missed * np.sqrt([1, 1, 1, 2, 2, 2, 3]))
    assert drift(history, 1, 2).mean == pytest.approx([5.8, 6.6])
    normal = Normal(np.array([3.0]), np.array([2.0]))
    assert normal.quantiles([0.5, 0.975])[:, 0] == pytest.approx([3, 3 + 2 * 1.959964])


@pytest.mark.parametrize("name", rivals())
@pytest.mark.parametrize(
    ("values", "season"), [([5.0, 5, 5], 1), ([1.0, 2, 3], 12), ([0.0] * 40, 12), ([1.0, 9] * 9, 2)]
)
def test_plain_methods_take_short_and_constant_histories(name, values, season):
    found = rivals()[name](np.asarray(values), season, 14).quantiles([0.1, 0.5, 0.9])
    assert found.shape == (3, 14)
    assert np.isfinite(found).all()
    assert (np.diff(found, axis=0) >= 0).all()


def test_ets_finds_a_season_and_a_trend():
    pytest.importorskip("statsmodels")
    t = np.arange(120)
    history = 100 + 0.5 * t + 10 * np.sin(2 * np.pi * t / 12) + 0.1 * np.random.default_rng(1).normal(size=120)
    after = np.arange(120, 132)
    expected = 100 + 0.5 * after + 10 * np.sin(2 * np.pi * after / 12)
    assert rivals()["ETS"](history, 12, 12).mean == pytest.approx(expected, abs=2)


def test_series_of_one_name_in_several_files_are_told_apart(place, tmp_path):
    from charlm.config import DataConfig

    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sales.csv").write_text("y\n1\n2\n3\n")
        (tmp_path / folder / "other.csv").write_text("unique_id,ds,y\nA,1,5\nA,2,6\n" if folder == "a" else "y\n4\n5\n")
    found = series_from(tmp_path, DataConfig(tokenizer="series"))
    assert sorted(one.name for one in found) == ["A", "a/sales.csv", "b/sales.csv", "other"]


def test_python_names_the_columns_of_another_table(model, place, tmp_path):
    table = tmp_path / "other.csv"
    table.write_text("shop,when,sold\nA,02/01/2020,3\nA,03/01/2020,4\nA,04/01/2020,5\n")
    named = {"id_column": "shop", "time_column": "when", "value_column": "sold", "date_format": "%d/%m/%Y"}
    found = model.forecast(table, horizon=2, seed=1, **named)
    assert found.unique_id == ["A"]
    assert found.ds == [["2020-01-05", "2020-01-06"]]


def test_a_file_that_says_its_frequency_has_a_season_without_dates(tmp_path):
    from charlm.config import DataConfig

    (tmp_path / "m.tsf").write_text("@attribute series_name string\n@frequency monthly\n@data\nT1:1,2,3\nT2:4,5\n")
    found = series_from(tmp_path / "m.tsf", DataConfig(tokenizer="series"))
    assert [one.calendar.season for one in found] == [12, 12]
    assert found[0].times(3, 5) == ["4", "5"]


def test_a_backtest_of_constants_says_that_no_error_can_be_scaled(place):
    (place / "zeros.csv").write_text("ds,y\n" + "".join(f"{n},0\n" for n in range(30)))
    words = "forecast zeros.csv --models models --model shops --backtest 2 --horizon 3 --seed 1"
    for line in typed(place, f"{words} --json").splitlines():
        found = json.loads(line)
        assert (found["mase"], found["quantile_loss"]) == (None, None)
    assert typed(place, words).splitlines()[1].split()[:3] == ["charlm", "none", "none"]
