"""The Monash archive's .tsf files: attributes, @data, and a line for each series.

Godahewa et al., "Monash Time Series Forecasting Archive" (2021).
"""

from __future__ import annotations

import re

import numpy as np

from charlm.errors import DataError
from charlm.series.calendar import DAY, Calendar, Times, read_times
from charlm.series.cells import Cell, Series, filled, values_of

FREQUENCIES = {
    "yearly": Calendar("month", 12),
    "quarterly": Calendar("month", 3),
    "monthly": Calendar("month", 1),
    "weekly": Calendar("second", 7 * DAY),
    "daily": Calendar("second", DAY),
    "hourly": Calendar("second", 3600),
    "half_hourly": Calendar("second", 1800),
    "15_minutes": Calendar("second", 900),
    "10_minutes": Calendar("second", 600),
    "5_minutes": Calendar("second", 300),
    "minutely": Calendar("second", 60),
    "4_seconds": Calendar("second", 4),
}


def is_tsf(text: str) -> bool:
    """Whether a text is such a file."""
    return re.search(r"^@data\b", text, re.MULTILINE | re.IGNORECASE) is not None


def read_tsf(text: str, where: str) -> list[Series]:
    """The series in the text of a file, of which `where` is the name, for messages; raises DataError."""
    attributes, frequency, lines = list[str](), "", enumerate(text.splitlines(), 1)
    for number, line in lines:
        match line.lower().split():
            case ["@data", *_]:
                break
            case ["@attribute", name, *_]:
                attributes.append(name)
            case ["@frequency", frequency, *_]:
                pass
            case ["@attribute" | "@frequency"]:
                raise DataError(f"{where}, line {number}: {line.strip()} of what? Write a word after it")
    found: dict[str, Series] = {}
    for number, line in lines:
        if line.strip() and not line.startswith("#"):
            one = _series(line.strip(), attributes, frequency, number, where)
            if one is not None and one.name in found:
                raise DataError(f"{where}, line {number}: there is a series {one.name} already; rename one")
            if one is not None:
                found[one.name] = one
    if not found:
        raise DataError(f"{where}: no values after @data")
    return list(found.values())


def _series(line: str, attributes: list[str], frequency: str, number: int, where: str) -> Series | None:
    """The series in a line; None if it has no values."""
    place = f"{where}, line {number}"
    *fields, listed = line.split(":", len(attributes))
    if len(fields) != len(attributes):
        raise DataError(f"{place}: {len(fields)} attributes where the header has {len(attributes)}")
    known = dict(zip(attributes, fields, strict=True))
    name, start = known.get("series_name", fields[0] if fields else f"T{number}"), known.get("start_timestamp")
    values = values_of([Cell(name, "", value.strip(), number, "values") for value in listed.split(",")], False, where)
    if np.isnan(values).all():
        return None
    if start is None:
        usual = FREQUENCIES[frequency].season if frequency in FREQUENCIES else None
        return filled(name, values, np.arange(1, len(values) + 1), Calendar("number", 1, usual=usual), where)
    if frequency not in FREQUENCIES:
        known_ones = ", ".join(FREQUENCIES)
        raise DataError(
            f"{place}: it begins at {start}, but @frequency is {frequency or 'not there'}; use {known_ones}"
        )
    calendar = FREQUENCIES[frequency]
    stamp: Times = read_times([start], None, lambda _: place)
    first = int(calendar.counts(stamp)[0])
    return filled(name, values, first + calendar.every * np.arange(len(values)), calendar, where)
