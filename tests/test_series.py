"""Number series: their tables and times, their scaling and symbols, the choice of a scaling, and measures of error."""

import datetime
import itertools
import json

import click
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from charlm.cli import cli
from charlm.cli.options import as_typed
from charlm.config import DataConfig
from charlm.dataset import prepare, read, series_of
from charlm.errors import CharlmError, DataError, ModelError, spelled
from charlm.series.alphabet import POINTS, SeriesAlphabet
from charlm.series.calendar import calendar_of, read_times
from charlm.series.choice import choose
from charlm.series.metrics import DECILES, pinball, quantile_loss, scaled_error
from charlm.series.records import bounds, records_of, training_values
from charlm.series.scaling import BASES, FARTHEST, Scaling
from charlm.series.tables import Columns, read_table

SOME = settings(max_examples=100, deadline=None)
NOISE = np.random.default_rng(5).normal(size=400)
LONG = "unique_id,ds,y\n"


def table(text, columns=Columns()):  # noqa: B008
    return read_table(text, columns, "t.csv")


def days(count, start="2024-01-01"):
    return [str(np.datetime64(start) + n) for n in range(count)]


def rows(times, values=itertools.count(1)):  # noqa: B008
    return "ds,y\n" + "".join(f"{time},{value}\n" for time, value in zip(times, values, strict=False))


# ---- times

MONTH_ENDS = ["2023-11-30", "2023-12-31", "2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30", "2024-05-31"]
MONTHS = ["2023-10-01", "2023-11-01", "2023-12-01", "2024-01-01"]
ON_30TH = ["2023-11-30", "2023-12-30", "2024-01-30", "2024-03-30", "2024-04-30"]
WORKDAYS = [day for day in days(40) if datetime.date.fromisoformat(day).weekday() < 5]
QUARTERS = [f"{year}-Q{quarter}" for year in (2023, 2024) for quarter in (1, 2, 3, 4)]
HOURS = [f"2024-02-28T{hour:02}:00:00" for hour in range(24)] + [f"2024-02-29T{hour:02}:00:00" for hour in range(24)]
CASES = {
    "years as numbers": ([str(year) for year in range(1890, 1900)], None),
    "numbers in fives": ([str(n) for n in range(-10, 40, 5)], None),
    "years": ([f"{year}-12-31" for year in range(1995, 2006)], None),
    "years on a leap day": ([f"{year}-02-29" for year in range(2000, 2024, 4)], None),
    "quarters": (QUARTERS, [f"{q[:4]}-{3 * int(q[-1]) - 2:02}-01" for q in QUARTERS]),
    "ends of quarters": (["2023-03-31", "2023-06-30", "2023-09-30", "2023-12-31", "2024-03-31", "2024-06-30"], None),
    "months": ([f"{year}-{month:02}-01" for year in (1899, 1900) for month in range(1, 13)], None),
    "ends of months": (MONTH_ENDS, None),
    "months in words": (["Oct 2023", "Nov 2023", "Dec 2023", "Jan 2024"], MONTHS),
    "YYYYMM": (["202310", "202311", "202312", "202401"], MONTHS),
    "weeks": (days(70)[::7], None),
    "weekdays": (WORKDAYS, None),
    "days": (days(70), None),
    "days as Germans write them": ([f"{day}.{month}.2023" for month in (1, 2) for day in range(1, 29)][:28], None),
    "hours": (HOURS, None),
    "hours of another zone": ([f"{hour}+01:00" for hour in HOURS[1:20]], HOURS[:19]),
    "quarters of an hour": ([f"{h[:13]}:{m:02}:00" for h in HOURS for m in (0, 15, 30, 45)], None),
}


@pytest.mark.parametrize("case", CASES)
def test_times_go_on_as_they_are_written(case):
    texts, iso = CASES[case]
    if case == "days as Germans write them":
        iso = days(28, "2023-01-01")
    known = len(texts) - 2
    times = read_times(texts)
    calendar = calendar_of([times[:known]], ["t"])
    first = int(calendar.counts(times[:1])[0])
    assert calendar.texts(first + calendar.every * np.arange(len(texts))) == (iso or texts)


def test_a_month_without_the_day_ends_earlier():
    times = read_times(ON_30TH)
    calendar = calendar_of([times], ["t"])
    assert (calendar.unit, calendar.every, calendar.day) == ("month", 1, 30)
    assert "2024-02-29" in calendar.texts(calendar.counts(times[:1]) + np.arange(6))


@SOME
@given(
    st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1)),
    st.sampled_from([("D", 1), ("h", 1), ("h", 6), ("m", 15), ("s", 4), ("W", 1), ("D", 10)]),
    st.integers(8, 60),
    st.sets(st.integers(2, 58)),
)
def test_steps_of_equal_length_are_found_though_some_are_missing(start, step, count, missing):
    unit, every = step
    times = np.datetime64(start.replace(microsecond=0), "s") + every * np.arange(count).astype(f"timedelta64[{unit}]")
    texts = [str(time) for time in times]
    kept = [n for n in range(count) if n not in missing or n == count - 1]
    assume(len(kept) > 0.6 * count)
    one = table(rows([texts[n] for n in kept], kept))[0]
    assert (np.array(one.times(0, count), "datetime64[s]") == times).all()
    assert one.values.tolist() == pytest.approx(range(count))
    assert np.flatnonzero(one.given).tolist() == kept


@pytest.mark.parametrize(
    ("texts", "season"),
    [(MONTH_ENDS, 12), (QUARTERS, 4), (WORKDAYS, 5), (days(9), 7), (days(70)[::7], 52), (HOURS, 24), (["1", "2"], 1)],
)
def test_steps_have_a_usual_season(texts, season):
    assert calendar_of([read_times(texts)], ["t"]).season == season


# ---- tables

GOOD = {
    "long": (LONG + "A,1,1\nA,2,2\nB,1,5\n", {"A": [1, 2], "B": [5]}),
    "wide": ("ds,A,B\n1,1,5\n2,2,\n", {"A": [1, 2], "B": [5]}),
    "a column": ("1\n2.5\n", {"": [1, 2.5]}),
    "a column and its name": ("sales\n1\n2.5\n", {"sales": [1, 2.5]}),
    "a column with a missing value": ('y\n1\n""\n3\n', {"": [1, 2, 3]}),
    "semicolons and decimal commas": ("ds;y\n1;1,5\n2;-,5\n", {"": [1.5, -0.5]}),
    "tabs": ("ds\ty\n1\t1.5\n2\t2\n", {"": [1.5, 2]}),
    "a byte order mark": ("\ufeffds,y\n1,1\n2,2\n", {"": [1, 2]}),
    "line ends of old Macintoshes": ("ds,y\r1,1\r2,2\r", {"": [1, 2]}),
    "a line end in quotes": (LONG + '"A\nB",1,1\n"A\nB",2,2\n', {"A B": [1, 2]}),
    "empty columns and rows": ("ds,y,,\n1,1,,\n,,,\n2,2,,\n", {"": [1, 2]}),
    "any order": ("ds,y\n3,3\n1,1\n2,2\n", {"": [1, 2, 3]}),
    "a gap": ("ds,y\n1,1\n2,2\n4,4\n", {"": [1, 2, 3, 4]}),
    "missing at the ends": ("ds,y\n1,NA\n2,2\n3,?\n4,4\n5,\n", {"": [2, 3, 4]}),
    "a header of other words": ("Date,Sales\n2024-01-01,1\n2024-01-02,2\n", {"Sales": [1, 2]}),
    "what pandas writes of a series": (",y\n2024-01-01,1\n2024-01-03,2\n2024-01-05,3\n", {"": [1, 2, 3]}),
    "a row number before it": (",ds,y\n0,5,1\n1,6,2\n", {"": [1, 2]}),
    "values under another name": ("unique_id,ds,sales\nA,1,1\nA,2,2\n", {"A": [1, 2]}),
    "a series without a name": (LONG + ",1,1\n,2,2\nA,1,3\n", {"": [1, 2], "A": [3]}),
    "a day that clocks leave out": (
        rows([f"2024-03-31 0{hour}:00" for hour in (0, 1, 3, 4)], [0, 1, 3, 4]),
        {"": [0, 1, 2, 3, 4]},
    ),
    "a leap day": (rows(["2024-02-28", "2024-02-29", "2024-03-01"]), {"": [1, 2, 3]}),
    "zeros": ("y\n0\n0\n0\n", {"": [0, 0, 0]}),
    "large and negative": ("y\n-1e99\n1e99\n12345678901234567890\n", {"": [-1e99, 1e99, 12345678901234567890.0]}),
    "one row": ("y\n5\n", {"": [5]}),
    "tsf": (
        "# made\n@relation x\n@attribute series_name string\n@attribute start_timestamp date\n@frequency monthly\n"
        "@data\nT1:1990-01-01 00-00-00:1,?,3\nT2:1991-01-01 00-00-00:4,5,\nT3:1991-01-01 00-00-00:?,?\n",
        {"T1": [1, 2, 3], "T2": [4, 5]},
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_tables_are_read_as_people_write_them(case):
    text, values = GOOD[case]
    assert {one.name: one.values.tolist() for one in table(text)} == values


def test_a_tsf_file_says_its_own_times():
    first, second = table(GOOD["tsf"][0])
    assert first.times(0, 4) == ["1990-01-01", "1990-02-01", "1990-03-01", "1990-04-01"]
    assert second.times(0, 1) == ["1991-01-01"]
    assert first.calendar.season == 12


@SOME
@given(
    st.lists(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=3, max_size=12), min_size=1, max_size=4), st.randoms()
)
def test_long_and_wide_tables_in_any_order_are_the_same_series(columns, random):
    columns = [[1.0, *column, 2.0] for column in columns]
    assume(all(sum(value is not None for value in column) > len(column) / 2 for column in columns))
    height = max(map(len, columns))
    cells = [(f"S{n}", t, value) for n, column in enumerate(columns) for t, value in enumerate(column)]
    shown = {None: ""}
    wide = ["ds," + ",".join(f"S{n}" for n in range(len(columns)))]
    for t in range(height):
        wide.append(",".join([str(t), *(str(shown.get(c[t], c[t])) if t < len(c) else "" for c in columns)]))
    of_wide = table("\n".join(wide))
    random.shuffle(cells)
    of_long = {one.name: one for one in table(LONG + "".join(f"{n},{t},{shown.get(v, v)}\n" for n, t, v in cells))}
    for one, column in zip(of_wide, columns, strict=True):
        other = of_long[one.name]
        at = [t for t, value in enumerate(column) if value is not None]
        expected = np.interp(np.arange(len(column)), at, [column[t] for t in at])
        if all(value is None or value == round(value) for value in column):
            expected = np.rint(expected)
        for found in (one, other):
            assert found.values.tolist() == expected.tolist()
            assert np.flatnonzero(found.given).tolist() == at
            assert not np.isnan(found.values).any()


def read_or_refused(text):
    try:
        return table(text)
    except DataError as error:
        if not str(error).startswith("t.csv"):
            raise AssertionError(f"no file in: {error}") from error
        return []


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('ad,;\t\n\r"0123456789.-:eNT@#? \ufeff\x00é٣'), max_size=60) | st.text(max_size=40))
def test_any_text_is_a_table_or_refused(text):
    found = read_or_refused(text)
    assert all(len(one.values) and np.isfinite(one.values).all() for one in found)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*(text for text, _ in GOOD.values()), rows(MONTH_ENDS), rows(HOURS[:5]), rows(QUARTERS)]),
    st.lists(
        st.tuples(
            st.integers(0, 200),
            st.integers(0, 9),
            st.sampled_from(
                ["", ",", "\n", '"', "9" * 30, "inf", "-", "@data\n", "1e308", "٣", "0001-01-01", "+14:00"]
            ),
        ),
        max_size=3,
    ),
)
def test_a_damaged_table_is_read_or_refused(text, damages):
    for at, cut, new in damages:
        text = text[:at] + new + text[at + cut :]
    for one in read_or_refused(text):
        assert np.isfinite(one.values).all()
        assert len(one.times(len(one.values), len(one.values) + 7)) == 7


BAD = {
    "an empty file": ("", "t.csv: no text"),
    "a header alone": (LONG, "t.csv: a header and no rows"),
    "nothing but commas": (",,\n,,\n", "t.csv: no rows"),
    "a text": ("hello\nworld\n", "line 2: 'world' in column 'hello' is no number"),
    "a page": ("<html>\n<body>not found</body>\n</html>\n", "line 2: '<body>not found</body>'"),
    "a short row": (LONG + "A,1,1\nA,2\n", "line 3: 2 fields where the header has 3"),
    "a long row": ("ds,y\n1,1,5\n2,1,6\n", "line 2: 3 fields where the header has 2"),
    "a time twice": (LONG + "A,1,1\nA,1,2\n", "line 3: series A has 1 twice; it is on line 2 too"),
    "series that nothing tells apart": ("ds,y\n1,1\n2,2\n1,3\n", "with --id-column"),
    "an infinite value": ("y\n1\ninf\n", "line 3: 'inf' in column 'y' is infinite"),
    "no value at all": ("y\nnan\nNA\n", "t.csv: all values are missing"),
    "thousands": ('ds,y\n1,"1,234"\n2,5\n', "line 2: '1,234' in column 'y' is no number; write numbers like 1234.5"),
    "thousands and decimal commas": ("ds;y\n1;1.234,5\n", "'1.234,5' in column 'y' is no number"),
    "commas and points": (
        "ds;y\n1;1,234\n2;1.5\n",
        "'1.5' on line 3 has a decimal point and '1,234' on",
    ),
    "mixed dates": (rows(["2024-01-01", "02/01/2024"]), "line 3: '02/01/2024' is written in another form"),
    "dates that can be read in two ways": (
        rows(["01/02/2024", "02/02/2024"]),
        "line 2: '01/02/2024' can be read in two ways; say which by --date-format '%d/%m/%Y' or '%m/%d/%Y'",
    ),
    "some zones": (rows(["2024-01-01T00:00Z", "2024-01-02T00:00"]), "line 3: '2024-01-02T00:00' has no time zone"),
    "a zone before the first year": (rows(["0001-01-01T00:00+14:00"]), "is not in the years 1 to 9999"),
    "years of two digits": (rows(["01.02.24", "02.02.24"]), "line 2: '01.02.24' is no date that is known; write dates"),
    "a leap day of another year": (rows(["2023-02-28", "2023-02-29"]), "line 3: '2023-02-29' is no date"),
    "a day of a month that has none": (rows(["20240131", "20240231"]), "line 3: '20240231' is no date"),
    "an hour twice": (rows(["2024-10-27 01:00", "2024-10-27 02:00", "2024-10-27 02:00"]), "line 4: the series has"),
    "fractions of seconds": (rows(["2024-01-01T00:00:00.5"]), "has a fraction of a second"),
    "irregular times": (
        rows(["2024-03-01", "2024-03-03", "2024-03-05", "2024-03-06"]),
        "t.csv: the series: the times are irregular: from 2024-03-05 to 2024-03-06",
    ),
    "a huge gap": (rows(["2024-03-01", "2024-03-02", "3024-03-03"]), "t.csv: the series: 365,242 of 365,245 steps"),
    "one date": (LONG + "A,2024-01-01,5\n", "series A: one date alone does not say how long a step is"),
    "a time that is missing": ("ds,y\n1,1\n,2\n", "line 3: the time is missing"),
    "a name twice": ("ds,a,a\n1,1,2\n", "line 1: two columns are called 'a'"),
    "values twice": (LONG.replace("y", "y,y") + "A,1,1,2\n", "line 1: two columns are called 'y'"),
    "a name and words": (
        "store,Date,Sales\nA,1,1\n",
        "column 'store' has no numbers; if it names series, name it",
    ),
    "a name and many values": ("unique_id,ds,a,b\nA,1,1,2\n", "name the column of values with --value-column"),
    "columns without times": ("1,2\n3,4\n", "line 1: no column of times: name it with --time-column"),
    "no header": ("2024-01-01,1\n2024-01-02,2\n", "line 1: '2024-01-01' is a date where a header is wanted"),
    "times in the header": ("name,2024-01,2024-02\nA,1,2\n", "line 1: '2024-01' is a date where a header is wanted"),
    "1e308": ("y\n1e308\n-1e308\n", "line 2: '1e308' in column 'y' is above 1e100; use a larger unit"),
    "a whole number beyond 64 bits": ("ds,y\n9223372036854775808,1\n", "line 2: '9223372036854775808' is too large"),
    "a very long number": (
        f"ds,y\n{'9' * 5000},1\n",
        f"line 2: '{'9' * 40}...' is no date",
    ),
    "the year 0": (rows(["0000-01-01"]), "line 2: '0000-01-01' is no date that is known"),
    "the year 10000": (rows(["9999-12-31", "10000-01-01"]), "line 3: '10000-01-01' is no date that is known"),
    "errors of spreadsheets": ("ds,y\n1,1\n2,#N/A\n", "line 3: '#N/A' in column 'y' is no number"),
    "JSON": ('{"a": [1, 2]}', "t.csv: is JSON and no table"),
    "a quote that is not closed": (LONG + '"A,1,1\nA,2,2\n', "line 3: 1 field where the header has 3"),
    "a field without end": (f"y\n{'1' * 140_000}\n", "line 2: is no row of a table"),
    "a binary file": (bytes(range(256)), "t.csv: looks like a binary file"),
    "UTF-16": (rows(days(3)).encode("utf-16"), "use --encoding utf-16"),
    "another encoding": ("größe\n1\n".encode("cp1252"), "t.csv: not utf-8 at byte 2"),
    "tsf: no series": ("@data\n\n", "t.csv: no values after @data"),
    "tsf: a word is missing": ("@attribute\n@data\n1\n", "line 1: @attribute of what?"),
    "tsf: too few attributes": ("@attribute a\n@attribute b\n@data\nx:1,2\n", "line 4: 1 attributes where"),
    "tsf: a name twice": ("@attribute series_name s\n@data\nA:1\nA:2\n", "line 4: there is a series A already"),
    "tsf: a frequency that is not known": (
        "@attribute start_timestamp date\n@frequency lunar\n@data\n2000-01-01:1,2\n",
        "line 4: it begins at 2000-01-01, but @frequency is lunar; use yearly,",
    ),
    "too few values": ("y\n1\n2\n", "too few values to train on: the longest series has 2"),
}


def refusal(*words):
    """The exit code and the message of a command that is refused before TensorFlow is needed."""
    with spelled(as_typed), pytest.raises((CharlmError, click.ClickException)) as caught:
        cli.main(list(map(str, words)), "charlm", standalone_mode=False)
    error = caught.value
    return error.exit_code, error.format_message() if isinstance(error, click.ClickException) else str(error)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_refused_in_a_line_that_names_it(case, tmp_path, monkeypatch):
    content, says = BAD[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    code, message = refusal("train", "t.csv", "--tokenizer", "series")
    assert says in message
    assert (code, "\n" in message, len(message) < 400) == (3, False, True)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--value-column sales", "t.csv, line 1: no column 'sales' (--value-column); there are 'unique_id', 'ds', 'y'"),
        ("--time-column when", "(--time-column)"),
        ("--id-column shop", "(--id-column)"),
        ("--date-format %d/%m/%Y", "line 2: '2024-01-01' is not written as --date-format %d/%m/%Y says"),
        ("--date-format %d%d", "is not written as --date-format %d%d says"),
        ("--date-format %Q", "is not written as --date-format %Q says"),
    ],
)
def test_an_option_that_does_not_fit_the_table_is_named(options, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(LONG + "A,2024-01-01,1\nA,2024-01-02,2\n")
    code, message = refusal("train", "t.csv", "--tokenizer", "series", *options.split())
    assert (code, says in message) == (3, True), message


def test_files_of_other_steps_are_refused_and_of_one_name_told_apart(tmp_path):
    for name, text in {"a": GOOD["long"][0], "b": GOOD["long"][0], "c": "y\n1\n2\n", "d": rows(days(3))}.items():
        (tmp_path / f"{name}.csv").write_text(text)
    config = DataConfig(tokenizer="series")

    def names(*files):
        with read([str(tmp_path / f"{file}.csv") for file in files], config, lambda size: lambda count: None) as corpus:
            return [one.name for one in series_of(corpus, config)]

    assert names("a", "b", "c") == ["a.csv/A", "a.csv/B", "b.csv/A", "b.csv/B", "c"]
    with pytest.raises(DataError, match=r"d\.csv: its steps are not as long as those of .*a\.csv"):
        names("a", "d")


# ---- scaling

histories = st.lists(st.floats(-1e5, 1e5).map(lambda value: round(value, 3)), min_size=9, max_size=40).map(np.array)


@settings(max_examples=200, deadline=None)
@given(histories, st.sampled_from(BASES), st.booleans(), st.integers(1, 4), st.integers(0, 30))
def test_the_scaled_steps_after_a_history_give_back_its_values(values, base, log, season, more):
    values = np.exp(values / 1e4) if log else values
    scaling = Scaling(base, log, season)
    scaled = scaling.scaled(values)
    assert len(scaled) == len(values) - scaling.first - 1
    assume(not len(scaled) or np.abs(scaled).max() < FARTHEST)
    t = min(scaling.first + 1 + more, len(values) - 1)
    after = scaling.continued(values[:t], scaled[t - scaling.first - 1 :, None], 0.0)
    assert after[:, 0] == pytest.approx(values[t:], abs=1e-6 * np.abs(values).max(), rel=1e-6)


@SOME
@given(histories, st.sampled_from(BASES), st.integers(1, 4), st.integers(3, 8))
def test_a_scaled_step_does_not_know_what_comes_later(values, base, season, until):
    scaling = Scaling(base, False, season)
    early, late = scaling.scaled(values[:until]), scaling.scaled(values)
    assert early == pytest.approx(late[: len(early)], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("base", BASES)
def test_scaled_steps_do_not_know_the_unit(base):
    values = 100 + 10 * np.cumsum(NOISE[:60])
    scaling = Scaling(base, False, 4)
    assert scaling.scaled(1e6 * values) == pytest.approx(scaling.scaled(values))
    relative = Scaling(base, True, 4)
    assert relative.scaled(1e6 * np.exp(values / 100)) == pytest.approx(relative.scaled(np.exp(values / 100)))


@pytest.mark.parametrize("base", BASES)
def test_a_history_of_one_value_and_a_constant_one_go_on(base):
    steps = np.array([[1.0, -1.0], [1.0, -1.0]])
    one = Scaling(base, False, 4).continued(np.array([100.0]), steps, 0.1)
    assert one[0].tolist() == [110, 90]
    constant = Scaling(base, False, 4).continued(np.full(9, 7.0), 0 * steps, 0.1)
    assert (constant == 7).all()


def test_a_series_that_begins_with_zeros_has_no_endless_steps():
    values = np.array([0.0] * 20 + [5, 0, 3, 0, 0, 4])
    assert np.abs(Scaling().scaled(values)).max() == FARTHEST
    assert np.abs(Scaling().continued(values[:20], np.array([[3.0, -2.0]]), 0.1)).max() < 1e-100


def test_logarithms_of_zero_are_refused():
    with pytest.raises(DataError, match="the value 0, where the model takes values above 0"):
        Scaling("last", True).scaled(np.array([1.0, 0.0]))


# ---- symbols


def alphabet_of(values, bins=None):
    return SeriesAlphabet.learnt([np.asarray(values)], Scaling(), bins)


@pytest.mark.parametrize(
    "values", [np.cumsum(NOISE), np.rint(NOISE), np.full(40, 3.0), np.arange(9.0), np.arange(9) % 2]
)
@pytest.mark.parametrize("bins", [None, 2, 1000])
def test_a_step_that_is_drawn_of_a_symbol_has_that_symbol(values, bins):
    alphabet = alphabet_of(values, bins)
    assert alphabet.vocabulary <= 1 + (bins or 100)
    ids = np.repeat(np.arange(1, alphabet.vocabulary), 50)
    steps = alphabet.steps(ids, np.random.default_rng(1).random(len(ids)))
    assert (np.searchsorted(alphabet.edges, steps, side="right") + 1 == ids).all()


def test_every_symbol_is_about_as_frequent():
    alphabet = alphabet_of(np.cumsum(NOISE), 8)
    counts = np.bincount(alphabet.ids(np.cumsum(NOISE)), minlength=9)
    assert counts[0] == 1
    assert counts[1:].min() >= 48 <= counts[1:].max() <= 52


def test_what_is_drawn_is_distributed_as_what_was_learnt():
    alphabet, values = alphabet_of(np.cumsum(NOISE)), np.cumsum(NOISE)
    ids, rng = alphabet.ids(values)[1:], np.random.default_rng(2)
    drawn = np.concatenate([alphabet.steps(ids, rng.random(len(ids))) for _ in range(50)])
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    assert np.quantile(drawn, levels) == pytest.approx(np.quantile(alphabet.scaling.scaled(values), levels), abs=0.03)


@SOME
@given(histories, st.sampled_from(BASES), st.integers(2, 30))
def test_saved_and_loaded_an_alphabet_is_the_same(values, base, bins):
    alphabet = SeriesAlphabet.learnt([values], Scaling(base, False, 2), bins)
    again = SeriesAlphabet.from_content(alphabet.content())
    assert (again.fingerprint, again.scaling, again.size) == (alphabet.fingerprint, alphabet.scaling, alphabet.size)
    assert (again.edges == alphabet.edges).all()
    assert (again.quantiles == alphabet.quantiles).all()


DAMAGES = {
    "edges": [None, "x", [2.0, 1.0], [[1.0]], [1], [float("nan")], {}, [1.0] * 500, ["a"]],
    "quantiles": [None, [], [[0.0] * POINTS], [[1.0, 0.0]], [[0.0], [0.0, 1.0]], [[float("inf")] * POINTS] * 3],
    "base": [None, "first", 3, ["last"]],
    "log": [None, 1, "no"],
    "season": [None, 0, -1, 1.5, True],
    "size": [None, -0.5, "x", float("nan"), float("inf"), 1],
    "tokenizer": ["char", None],
    "version": [2],
    "more": [1],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in DAMAGES.items() for value in values])
def test_a_damaged_alphabet_is_refused_by_name(key, value, tmp_path):
    content = json.loads(alphabet_of(np.cumsum(NOISE), 3).content()) | {key: value}
    (tmp_path / "series.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"series\.json: not a series tokenizer of charlm, or damaged"):
        SeriesAlphabet.load(tmp_path)


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_half_an_alphabet_is_refused(cut, tmp_path):
    (tmp_path / "series.json").write_bytes(alphabet_of(np.cumsum(NOISE), 3).content()[:cut])
    with pytest.raises(ModelError, match=r"series\.json"):
        SeriesAlphabet.load(tmp_path)


# ---- parts

SPLITS = st.sampled_from([(0.9, 0.1, 0.0), (1.0, 0.0, 0.0), (0.5, 0.25, 0.25), (0.6, 0.0, 0.4)])


@SOME
@given(st.integers(1, 200), SPLITS)
def test_the_parts_of_a_series_follow_one_another(length, split):
    parts = [bounds(length, split, part) for part in ("train", "valid", "test")]
    assert [parts[0][0], *(stop for _, stop in parts)] == [0, *(start for start, _ in parts[1:]), length]


@SOME
@given(SPLITS, st.sets(st.integers(1, 48), max_size=20), st.sampled_from(BASES))
def test_each_given_value_that_has_a_symbol_counts_in_one_part_and_missing_ones_in_none(split, missing, base):
    text = "y\n" + "".join(f"{'?' if n in missing else n + NOISE[n]}\n" for n in range(50))
    series = table(text)
    alphabet = SeriesAlphabet.learnt(training_values(series, split), Scaling(base, False, 3))
    parts = [records_of(series, alphabet, split, part) for part in ("train", "valid", "test", "all")]
    counted = [np.flatnonzero(part.scored) if part.scored is not None else np.zeros(0) for part in parts]
    assert np.concatenate(counted[:3]).tolist() == counted[3].tolist()
    assert len(counted[3]) == sum(n not in missing for n in range(alphabet.scaling.first + 1, 50))


def test_a_zero_that_is_held_out_keeps_a_model_from_logarithms(tmp_path):
    values = [*np.exp(np.cumsum(NOISE[:90]) / 20), 0.0, 1.0]
    (tmp_path / "t.csv").write_text("y\n" + "\n".join(map(str, values)))
    config = DataConfig(tokenizer="series")
    with read([str(tmp_path / "t.csv")], config, lambda size: lambda count: None) as corpus:
        data = prepare(corpus, config)
        assert not data.tokenizer.scaling.log
        assert data.valid.predicted == 9
        relative = SeriesAlphabet.learnt([np.array(values[:80])], Scaling("last", True))
        with pytest.raises(DataError, match=r"^series t: the value 0, where the model takes values above 0"):
            prepare(corpus, config, relative)


# ---- the choice of a scaling


@pytest.mark.parametrize("seed", range(3))
def test_seasons_choose_a_seasonal_base_and_random_walks_the_last_value(seed):
    rng = np.random.default_rng(seed)
    seasonal = [10 * np.tile(rng.normal(size=12), 12) + rng.normal(size=144) for _ in range(3)]
    assert choose(seasonal, 12, False).scaling.base.startswith("season")
    walks = [np.cumsum(rng.normal(size=144)) for _ in range(3)]
    assert choose(walks, 12, False).scaling.base == "last"


def test_growth_by_a_share_chooses_logarithms_where_they_may_be():
    growing = [np.exp(0.05 * (np.arange(150) + NOISE[n : n + 150])) for n in (0, 150)]
    assert choose(growing, 1, True).scaling.log
    assert not choose(growing, 1, False).scaling.log


@pytest.mark.parametrize("values", [[5.0], [5.0, 6.0], [0.0] * 50, [3.0] * 50, [1e99, -1e99] * 20, [1e-300] * 9])
def test_series_that_say_nothing_still_get_a_scaling(values):
    choice = choose([np.array(values)], 12, min(values) > 0)
    assert choice.scaling.base in BASES
    assert str(choice.scaling) in str(choice)


# ---- measures


@SOME
@given(st.integers(1, 6), st.integers(2, 30), st.integers(0, 999))
def test_losses_are_the_formulas_written_out(horizon, samples, seed):
    rng = np.random.default_rng(seed)
    paths, actual = rng.normal(size=(horizon, samples)), rng.normal(size=horizon)
    expected = 0.0
    for q in DECILES:
        for t in range(horizon):
            z = np.quantile(paths[t], q)
            expected += 2 * (q * (actual[t] - z) if actual[t] > z else (1 - q) * (z - actual[t])) / 9
    assert quantile_loss(paths, actual) == pytest.approx(expected)
    median = np.median(paths, 1)
    assert pinball(median[None], actual, [0.5]) == pytest.approx(np.abs(actual - median).sum())


@pytest.mark.parametrize("season", [1, 3])
def test_the_scaled_error_is_relative_to_that_of_the_last_season(season):
    history = np.array([1.0, 4, 2, 3, 5, 2, 7])
    naive = [abs(history[t] - history[t - season]) for t in range(season, 7)]
    forecast, actual = np.array([1.0, 2]), np.array([4.0, 0])
    assert scaled_error(forecast, actual, history, season) == pytest.approx(2.5 / (sum(naive) / len(naive)))
    assert np.isnan(scaled_error(forecast, actual, np.full(5, 2.0), season))
    assert np.isnan(scaled_error(forecast, actual, history[:season], season))
