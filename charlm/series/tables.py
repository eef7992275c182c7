"""Tables of number series, as people have them, and what is done about their gaps.

    long     unique_id,ds,y       a row for each series and time; other names by options
             A,2024-01-01,3.5
    wide     ds,north,south       a column for each series, after a column of times; or one column of numbers alone
             2024-01-01,3.5,7
    .tsf     the Monash archive's format: attributes, @data, and a line for each series

Fields are separated by commas, semicolons or tabs; after semicolons and tabs a decimal comma is understood.

- A value that is empty, or NA, NaN, null, ? or ., is missing, and so is a time that is not there between two that are.
  The missing ones inside a series lie on the straight line between their neighbours: they are read, and never scored.
  Those before its first value and after its last are dropped.
- Rows may be in any order. A time that a series has twice is refused, and so are infinite values, and times that are no
  whole number of steps apart.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from charlm.errors import DataError, named
from charlm.series.calendar import Calendar, Times, calendar_of, read_times

Values = npt.NDArray[np.float64]
MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "."}
TIME_NAMES = (
    "ds",
    "date",
    "time",
    "timestamp",
    "datetime",
    "year",
    "month",
    "week",
    "day",
    "hour",
    "quarter",
    "period",
)
MOST_MISSING = 0.5  # of the steps between a series' first value and its last
FREQUENCIES = {  # of .tsf files
    "yearly": Calendar("month", 12),
    "quarterly": Calendar("month", 3),
    "monthly": Calendar("month", 1),
    "weekly": Calendar("second", 7 * 86_400),
    "daily": Calendar("second", 86_400),
    "hourly": Calendar("second", 3600),
    "half_hourly": Calendar("second", 1800),
    "10_minutes": Calendar("second", 600),
    "minutely": Calendar("second", 60),
    "4_seconds": Calendar("second", 4),
}


class Columns(NamedTuple):
    """The names of a long table's columns, and how its dates are written, if that is not to be found out."""

    series: str = "unique_id"
    time: str = "ds"
    value: str = "y"
    date_format: str | None = None


@dataclass(frozen=True)
class Series:
    """One series, at every step from its first value to its last.

    Attributes:
        name: its own in its table.
        values: [N], the missing ones filled in.
        given: [N] booleans, false where a value was missing.
        first: the count of its first step in the calendar.
        calendar: of all series of the table.
    """

    name: str
    values: Values
    given: npt.NDArray[np.bool_]
    first: int
    calendar: Calendar

    def times(self, start: int, stop: int) -> list[str]:
        """The times of the steps [start, stop), which may lie beyond the last."""
        return self.calendar.texts(self.first + self.calendar.every * np.arange(start, stop))


class _Row(NamedTuple):
    name: str
    time: str
    value: str
    line: int
    column: str


def read_table(text: str, columns: Columns, where: str) -> list[Series]:
    """The series of a table, in the order in which they appear.

    Args:
        text: of the file.
        columns: of a long table.
        where: the file's name, for messages.

    Raises:
        DataError: a value, a time or a row that cannot be read, or no values at all; the message has the line.
    """
    if re.search(r"^@data\b", text, re.MULTILINE | re.IGNORECASE):
        return list(_of_tsf(text, where))
    delimiter = _delimiter(text)
    lines = csv.reader(text.lstrip("\ufeff").splitlines(), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = [(lines.line_num, [field.strip() for field in row]) for row in lines if any(map(str.strip, row))]
    except csv.Error as error:
        raise DataError(f"{where}, line {lines.line_num}: is no row of a table: {error}") from None
    if not rows:
        raise DataError(f"{where}: no rows in there")
    long = _long(rows, columns, where)
    cells = list(_wide(rows, columns, where)) if long is None else long
    return _collected(cells, columns.date_format, delimiter != ",", where)


def _delimiter(text: str) -> str:
    head = next((line for line in text.splitlines() if line.strip()), "")
    return max(",;\t", key=head.count)


Rows = Sequence[tuple[int, list[str]]]


def _long(rows: Rows, columns: Columns, where: str) -> list[_Row] | None:
    """The cells of a long table; None if it is a wide one."""
    (_, header), *body = rows
    names = [name.lower() for name in header]
    wanted = [columns.series, columns.time, columns.value]
    at = [names.index(name.lower()) if name.lower() in names else None for name in wanted]
    series, time, value = at
    defaults = Columns()
    for place, name, default, key in zip(
        at, wanted, defaults[:3], ("id_column", "time_column", "value_column"), strict=True
    ):
        if place is None and name != default:
            raise DataError(f"{where}: no column {name!r} ({named(f'data.{key}')}); there are {', '.join(header)}")
    if value is None:
        return None
    if time is None:
        time = next((n for n, name in enumerate(names) if name in TIME_NAMES), None)
    found = []
    for line, row in body:
        _check_width(row, header, line, where)
        name = "" if series is None else row[series]
        found.append(_Row(name, "" if time is None else row[time], row[value], line, header[value]))
    return found


def _wide(rows: Rows, columns: Columns, where: str) -> Iterator[_Row]:
    """The cells of a wide table: each column of numbers is a series."""
    (first, header), *body = rows
    if all(map(_is_value, header)):  # no header
        header, body = [f"column {n + 1}" for n in range(len(header))] if len(header) > 1 else [""], list(rows)
    names = [name.lower() for name in header]
    timed = {columns.time.lower(), *TIME_NAMES}
    time = next((n for n, name in enumerate(names) if name in timed), None)
    if time is None and len(header) > 1 and body and not _is_value(body[0][1][0]):
        time = 0
    if time is None and len(header) > 1:
        raise DataError(
            f"{where}, line {first}: no column of times: name it with {named('data.time_column')}, and the values of a "
            f"long table with {named('data.value_column')}; there are {', '.join(header)}"
        )
    for line, row in body:
        _check_width(row, header, line, where)
        for n, value in enumerate(row):
            if n != time:
                yield _Row(header[n], "" if time is None else row[time], value, line, header[n])


def _check_width(row: Sequence[str], header: Sequence[str], line: int, where: str) -> None:
    if len(row) != len(header):
        raise DataError(f"{where}, line {line}: {len(row)} fields where the header has {len(header)}")


def _is_value(text: str) -> bool:
    return text.lower() in MISSING or _number(text, True) is not None


def _number(text: str, decimal_comma: bool) -> float | None:
    if decimal_comma and re.fullmatch(r"[+-]?\d*,\d+(e[+-]?\d+)?", text, re.IGNORECASE):
        text = text.replace(",", ".")
    if "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _value(row: _Row, decimal_comma: bool, where: str) -> float:
    """The number in a cell, NaN where it is missing."""
    if row.value.lower() in MISSING:
        return math.nan
    value = _number(row.value, decimal_comma)
    if value is None:
        raise DataError(f"{where}, line {row.line}: {row.value!r} in column {row.column!r} is no number")
    if math.isinf(value):
        raise DataError(f"{where}, line {row.line}: {row.value!r} in column {row.column!r} is infinite")
    return value


def _collected(cells: Sequence[_Row], date_format: str | None, decimal_comma: bool, where: str) -> list[Series]:
    if not cells:
        raise DataError(f"{where}: a header and no rows")
    values = np.array([_value(row, decimal_comma, where) for row in cells])
    timeless = [not row.time for row in cells]
    if any(timeless) and not all(timeless):
        raise DataError(f"{where}, line {cells[timeless.index(True)].line}: the time is missing")
    members: dict[str, list[int]] = {}
    for n, row in enumerate(cells):
        members.setdefault(row.name, []).append(n)
    if all(timeless):
        times: Times = np.zeros(len(cells), np.int64)
        for own in members.values():
            times[own] = np.arange(1, len(own) + 1)
    else:
        times = read_times([row.time for row in cells], date_format, lambda n: f"{where}, line {cells[n].line}")
    for own in members.values():
        own.sort(key=times.__getitem__)
        for before, after in itertools.pairwise(own):
            if times[before] == times[after]:
                lines = sorted((cells[before].line, cells[after].line))
                raise DataError(
                    f"{where}, line {lines[1]}: {_called(cells[before].name)} has {cells[before].time} twice; it is on "
                    f"line {lines[0]} too"
                )
    kept = {name: own for name, own in members.items() if not np.isnan(values[own]).all()}
    if not kept:
        raise DataError(f"{where}: all values are missing")
    calendar = calendar_of([times[own] for own in members.values()], list(members))
    return [_series(name, values[own], calendar.counts(times[own]), calendar) for name, own in kept.items()]


def _called(name: str) -> str:
    return f"series {name}" if name else "the series"


def _series(name: str, values: Values, counts: npt.NDArray[np.int64], calendar: Calendar) -> Series:
    """A series from its first value to its last, with what is missing filled in."""
    given = ~np.isnan(values)
    values, counts = values[given], counts[given]
    steps = (counts - counts[0]) // calendar.every
    if len(values) < (1 - MOST_MISSING) * (steps[-1] + 1):
        begin, end = calendar.texts(counts[[0, -1]])
        raise DataError(
            f"{_called(name)}: {steps[-1] + 1 - len(values):,} of {steps[-1] + 1:,} steps from {begin} to {end} are "
            "missing, which is most; sum it up to longer steps"
        )
    whole = np.arange(steps[-1] + 1)
    there = np.zeros(len(whole), bool)
    there[steps] = True
    return Series(name, np.interp(whole, steps, values), there, int(counts[0]), calendar)


def _of_tsf(text: str, where: str) -> Iterator[Series]:
    attributes, calendar, begun = list[str](), Calendar("number", 1), False
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        words = line.lower().split()
        if not line or line.startswith("#"):
            continue
        if not begun:
            if words[0] == "@attribute":
                attributes.append(words[1])
            elif words[0] == "@frequency":
                calendar = FREQUENCIES.get(words[1], calendar)
            begun = words[0] == "@data"
            continue
        *fields, listed = line.split(":", len(attributes))
        if len(fields) != len(attributes):
            raise DataError(f"{where}, line {number}: {len(fields)} attributes where the header has {len(attributes)}")
        named_fields = dict(zip(attributes, fields, strict=True))
        name = named_fields.get("series_name", fields[0] if fields else f"T{number}")
        row = _Row(name, "", "", number, "values")
        values = np.array([_value(row._replace(value=value.strip()), False, where) for value in listed.split(",")])
        start = named_fields.get("start_timestamp")
        own, first = calendar, 1
        if start is None:
            own = Calendar("number", 1)
        else:
            stamp = read_times([start], None, lambda _, line=number: f"{where}, line {line}")  # type: ignore[misc]
            first = int(own.counts(stamp)[0])
        if not np.isnan(values).all():
            yield _series(name, values, first + own.every * np.arange(len(values)), own)


def by_name(series: Iterable[Series]) -> dict[str, Series]:
    """Series by their names."""
    return {one.name: one for one in series}
