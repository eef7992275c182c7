"""The cells of a table, the numbers in them, and the series that they make."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from charlm.errors import DataError
from charlm.series.calendar import Calendar, quoted

Values = npt.NDArray[np.float64]
MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "."}
MOST_MISSING = 0.5  # of the steps between a series' first value and its last
LARGEST = 1e100  # its square is a number still


class Cell(NamedTuple):
    """A value as it is written, and where."""

    name: str  # of its series
    time: str
    value: str
    line: int
    column: str


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


def called(name: str) -> str:
    """A series in a message."""
    return f"series {name}" if name else "the series"


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Inside, a DataError's message begins with the series that it is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{called(name)}: {error}") from None


def is_value(text: str) -> bool:
    """Whether a text is a number or a missing one."""
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


def values_of(cells: Sequence[Cell], decimal_comma: bool, where: str) -> Values:
    """The numbers in cells, NaN where they are missing.

    Args:
        cells: of a table.
        decimal_comma: whether 1,5 is a number; then 1.5 is none in the same table.
        where: the file's name, for messages.

    Raises:
        DataError: a cell that is no finite number.
    """
    values = np.array([_value(cell, decimal_comma, where) for cell in cells])
    commas, points = ([cell for cell in cells if mark in cell.value and len(cell.value) > 1] for mark in ",.")
    if commas and points:
        point, comma = (f"{quoted(found[0].value)} on line {found[0].line}" for found in (points, commas))
        raise DataError(f"{where}: {point} has a decimal point and {comma} a comma; write all numbers like 1234.5")
    return values


def _value(cell: Cell, decimal_comma: bool, where: str) -> float:
    if cell.value.lower() in MISSING:
        return math.nan
    value = _number(cell.value, decimal_comma)
    place = f"{where}, line {cell.line}: {quoted(cell.value)} in column {quoted(cell.column)}"
    if value is None:
        raise DataError(f"{place} is no number; write numbers like 1234.5, and nothing where one is missing")
    if math.isinf(value) or abs(value) > LARGEST:
        much = "above 1e100; use a larger unit" if re.search(r"\d", cell.value) else "infinite; leave the field empty"
        raise DataError(f"{place} is {much}")
    return value


def filled(name: str, values: Values, counts: npt.NDArray[np.int64], calendar: Calendar, where: str) -> Series:
    """A series from its first value to its last, with what is missing filled in.

    Args:
        name: its own.
        values: [N], in the order of their times, at least one of them a number.
        counts: [N] their times in the calendar.
        calendar: of its table.
        where: the file's name, for messages.

    Raises:
        DataError: most of it is missing.
    """
    given = ~np.isnan(values)
    values, counts = values[given], counts[given]
    steps = (counts - counts[0]) // calendar.every
    if len(values) < (1 - MOST_MISSING) * (steps[-1] + 1):
        begin, end = calendar.texts(counts[[0, -1]])
        raise DataError(
            f"{where}: {called(name)}: {steps[-1] + 1 - len(values):,} of {steps[-1] + 1:,} steps from {begin} to "
            f"{end} are missing, which is most; sum it up to longer steps"
        )
    whole = np.arange(steps[-1] + 1)
    there = np.zeros(len(whole), bool)
    there[steps] = True
    between = np.interp(whole, steps, values)
    return Series(name, np.rint(between) if are_whole(values) else between, there, int(counts[0]), calendar)


def are_whole(values: Values) -> bool:
    """Whether all values are whole numbers."""
    return bool((values == np.rint(values)).all())
