"""Tables of number series, as people have them, and what is done about their gaps.

    long     unique_id,ds,y       a row for each series and time; other names by options
             A,2024-01-01,3.5
    wide     ds,north,south       a column for each series, after a column of times; or one column of numbers alone
             2024-01-01,3.5,7
    .tsf     the Monash archive's format, see `charlm.series.tsf`

Fields are separated by commas, semicolons or tabs; after semicolons and tabs a decimal comma is understood.

- A value that is empty, or NA, NaN, null, ? or ., is missing, and so is a time that is not there between two that are.
  The missing ones inside a series lie on the straight line between their neighbours, rounded where all others are whole
  numbers: they are read, and never scored.
  Those before its first value and after its last are dropped, and so are empty lines.
- Rows may be in any order. A time that a series has twice is refused, and so are infinite values, and times that are no
  whole number of steps apart.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from charlm.errors import DataError, named
from charlm.series.calendar import Times, calendar_of, is_date, quoted, read_times
from charlm.series.cells import Cell, Series, called, filled, is_value, values_of
from charlm.series.tsf import is_tsf, read_tsf

Rows = Sequence[tuple[int, list[str]]]
TIME_NAMES = (
    *("ds", "date", "time", "timestamp", "datetime"),
    *("year", "quarter", "month", "week", "day", "hour", "period"),
)
SHOWN_COLUMNS = 8


class Columns(NamedTuple):
    """The names of a long table's columns, and how its dates are written, if that is not to be found out."""

    series: str = "unique_id"
    time: str = "ds"
    value: str = "y"
    date_format: str | None = None


def read_table(text: str, columns: Columns, where: str) -> list[Series]:
    """The series of a table, in the order in which they appear.

    Args:
        text: of the file.
        columns: of a long table.
        where: the file's name, for messages.

    Raises:
        DataError: a value, a time or a row that cannot be read, or no values at all; the message has the line.
    """
    if is_tsf(text):
        return read_tsf(text, where)
    if text.lstrip("\ufeff \t\r\n")[:1] in ("{", "["):
        raise DataError(f"{where}: is JSON and no table; write it as CSV, with a header such as unique_id,ds,y")
    delimiter = _delimiter(text)
    rows = _rows(text.removeprefix("\ufeff"), delimiter, where)
    header = _Header(rows, columns, where)
    return _collected(list(header.cells(rows[header.before :])), header, delimiter != ",", where)


def _delimiter(text: str) -> str:
    head = next((line for line in text.splitlines() if line.strip()), "")
    return max(",;\t", key=head.count)


def _rows(text: str, delimiter: str, where: str) -> Rows:
    """The rows that are not empty, each with its line; empty fields beyond the header's last name are left out."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = [(lines.line_num, [" ".join(field.split()) for field in row]) for row in lines]
    except csv.Error as error:
        raise DataError(f"{where}, line {lines.line_num}: is no row of a table: {error}") from None
    rows = list(itertools.dropwhile(lambda found: not any(found[1]), rows))
    if not rows:
        raise DataError(f"{where}: no rows in there")
    width = max(n for n, field in enumerate(rows[0][1], 1) if field)
    kept = ((line, row) for line, row in rows if any(row) or (row and width == 1))
    return [(line, row if any(row[width:]) else row[:width]) for line, row in kept]


class _Header:
    """What the columns of a table are.

    Attributes:
        names: of the columns.
        before: rows of the header, 1 or 0.
        columns: as they were asked for.
        series, time: columns of a long table's names, and of times; None if there is none.
        values: columns of values, of which a long table has one.
        long: whether it is a long table's.
    """

    def __init__(self, rows: Rows, columns: Columns, where: str) -> None:
        line, self.names = rows[0]
        self.columns, self.where, self.before = columns, f"{where}, line {line}", 1
        if all(map(is_value, self.names)):
            self.names = [f"column {n + 1}" for n in range(len(self.names))] if len(self.names) > 1 else [""]
            self.before = 0
        self._refuse_dates()
        lower = [name.lower() for name in self.names]
        self.series, self.time, value = (self._place(name, lower) for name in columns[:3])
        self._refuse_absent()
        body = rows[self.before :]
        if self.time is None:
            self.time = self._time(lower, {self.series, value}, body[0][1] if body else [])
        rest = [n for n in range(len(lower)) if n not in (self.series, self.time)]
        if value is None and self.series is not None and len(rest) != 1:
            self._refuse(f"name the column of values with {named('data.value_column')}")
        self.values = rest if value is None else [value]
        self.long = value is not None or self.series is not None
        if not self.long and self.time is None and len(lower) > 1:
            self._refuse(
                f"no column of times: name it with {named('data.time_column')}, and the values of a long table with "
                f"{named('data.value_column')}"
            )
        self._refuse_twice()
        if not self.long and body:
            self._refuse_texts(body[0][1])

    def _place(self, name: str, lower: Sequence[str]) -> int | None:
        return lower.index(name.lower()) if name.lower() in lower else None

    def _refuse(self, problem: str) -> None:
        more = len(self.names) - SHOWN_COLUMNS
        there = ", ".join(map(quoted, self.names[:SHOWN_COLUMNS])) + (f" and {more:,} more" if more > 0 else "")
        raise DataError(f"{self.where}: {problem}; there are {there}")

    def _refuse_dates(self) -> None:
        """Refuses a first row that is no header, and one with a column for each time."""
        for name in self.names[:3]:
            if not is_value(name) and is_date(name):
                raise DataError(
                    f"{self.where}: {quoted(name)} is a date where a header is wanted; begin the table with names "
                    "such as unique_id,ds,y, and give each time a row"
                )

    def _refuse_absent(self) -> None:
        asked = zip(self.columns[:3], Columns()[:3], ("id_column", "time_column", "value_column"), strict=True)
        lower = {name.lower() for name in self.names}
        for name, default, key in asked:
            if name != default and name.lower() not in lower:
                self._refuse(f"no column {name!r} ({named(f'data.{key}')})")

    def _refuse_twice(self) -> None:
        often = Counter(self.names)
        for n in (self.series, self.time, *self.values):
            if n is not None and often[self.names[n]] > 1:
                raise DataError(
                    f"{self.where}: two columns are called {quoted(self.names[n])}; rename one, or take it out"
                )

    def _refuse_texts(self, row: Sequence[str]) -> None:
        """Refuses a column of words in a wide table, by its first row."""
        for n in self.values:
            if len(row) == len(self.names) > 1 and not (is_value(row[n]) or re.search(r"[\d#]", row[n])):
                self._refuse(
                    f"column {quoted(self.names[n])} has no numbers; if it names series, name it with "
                    f"{named('data.id_column')}, and the values with {named('data.value_column')}"
                )

    @staticmethod
    def _time(lower: Sequence[str], others: set[int | None], row: Sequence[str]) -> int | None:
        """The first column of a usual name, or the first of all that has no numbers."""
        free = [n for n in range(len(lower)) if n not in others]
        usual = next((n for n in free if lower[n] in TIME_NAMES), None)
        if usual is None and free and free[0] < len(row) and len(lower) > 1 and not is_value(row[free[0]]):
            return free[0]
        return usual

    def cells(self, body: Rows) -> Iterator[Cell]:
        """The cells with values; raises DataError for a row that is longer or shorter than the header."""
        for line, row in body:
            if len(row) != len(self.names):
                fields = f"{len(row)} field{'s' if len(row) > 1 else ''}"
                place = f"{self.where.rpartition(' ')[0]} {line}"
                raise DataError(f"{place}: {fields} where the header has {len(self.names)}")
            for n in self.values:
                name = self.names[n] if not self.long else "" if self.series is None else row[self.series]
                yield Cell(name, "" if self.time is None else row[self.time], row[n], line, self.names[n])

    @property
    def twice(self) -> str:
        """What to do about a time that a series has twice."""
        if self.series is not None or not self.long:
            return ""
        return f"; if there are several series, name the column that tells them apart with {named('data.id_column')}"


def _collected(cells: Sequence[Cell], header: _Header, decimal_comma: bool, where: str) -> list[Series]:
    if not cells:
        raise DataError(f"{where}: a header and no rows")
    values = values_of(cells, decimal_comma, where)
    members: dict[str, list[int]] = {}
    for n, cell in enumerate(cells):
        members.setdefault(cell.name, []).append(n)
    times = _times(cells, members, header, where)
    for own in members.values():
        own.sort(key=times.__getitem__)
        for before, after in itertools.pairwise(own):
            if times[before] == times[after]:
                first, second = sorted((cells[before], cells[after]), key=lambda cell: cell.line)
                raise DataError(
                    f"{where}, line {second.line}: {called(second.name)} has {second.time} twice; it is on line "
                    f"{first.line} too{header.twice}"
                )
    kept = {name: own for name, own in members.items() if not np.isnan(values[own]).all()}
    if not kept:
        raise DataError(f"{where}: all values are missing")
    calendar = calendar_of([times[own] for own in members.values()], [f"{where}: {called(name)}" for name in members])
    return [filled(name, values[own], calendar.counts(times[own]), calendar, where) for name, own in kept.items()]


def _times(cells: Sequence[Cell], members: dict[str, list[int]], header: _Header, where: str) -> Times:
    """The time of each cell: its own, or its number in its series."""
    if header.time is None:
        times: Times = np.zeros(len(cells), np.int64)
        for own in members.values():
            times[own] = np.arange(1, len(own) + 1)
        return times
    missing = next((cell for cell in cells if not cell.time), None)
    if missing is not None:
        raise DataError(f"{where}, line {missing.line}: the time is missing")
    written = header.columns.date_format
    return read_times([cell.time for cell in cells], written, lambda n: f"{where}, line {cells[n].line}")
