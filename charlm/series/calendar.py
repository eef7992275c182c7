"""The times of a table: from what people write to steps of equal length, and back."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.errors import DataError, named

Times = npt.NDArray[Any]  # datetime64[s], or int64 where times are numbers
Counts = npt.NDArray[np.int64]

DAY = 86_400
LENGTHS = (("day", DAY), ("hour", 3600), ("minute", 60), ("second", 1))
CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H-%M-%S")
DAYS = (
    *("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%Y-%m-%d"),
    *("%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%d. %B %Y"),
)
MONTHS = ("%Y-%m", "%Y/%m", "%m/%Y", "%m.%Y", "%m-%Y", "%Y %b", "%Y-%b", "%b %Y", "%b-%Y", "%B %Y", "%Y %B")
FORMS = (*MONTHS, *(day + clock for day in DAYS for clock in CLOCKS))
QUARTER = re.compile(r"(?P<year>\d{4})[- ]?Q(?P<quarter>[1-4])|Q(?P<q>[1-4])[- /]?(?P<y>\d{4})", re.IGNORECASE)
# The steps of the season that steps of a length usually have.
SEASONS = {
    "month": {1: 12, 2: 6, 3: 4, 4: 3, 6: 2},
    "weekday": {1: 5},
    "second": {60: 60, 300: 12, 600: 144, 900: 96, 1800: 48, 3600: 24, DAY: 7, 7 * DAY: 52},
    "number": {},
}


@dataclass(frozen=True)
class Calendar:
    """Steps of equal length.

    Attributes:
        unit: "number", "second", "month" or "weekday".
        every: the units of a step.
        day: of the month, where months are counted; 0 is the last.
        clock: seconds of the day, where months or weekdays are counted.
    """

    unit: str
    every: int
    day: int = 1
    clock: int = 0

    @property
    def season(self) -> int:
        """The steps of the season that such steps usually have; 1 if they have none."""
        return SEASONS[self.unit].get(self.every, 1)

    def counts(self, times: Times) -> Counts:
        """The units [N] from a fixed time to each of the times [N]."""
        match self.unit:
            case "month":
                return times.astype("datetime64[M]").astype(np.int64)
            case "weekday":
                return np.busday_count("1970-01-01", times.astype("datetime64[D]")).astype(np.int64)
        return times.astype(np.int64)

    def texts(self, counts: Counts) -> list[str]:
        """The times at counts, as a table has them: numbers, or dates after ISO 8601."""
        if self.unit == "number":
            return [str(count) for count in counts.tolist()]
        match self.unit:
            case "month":
                days = (counts + (self.day == 0)).astype("datetime64[M]").astype("datetime64[D]") + (self.day - 1)
                times = days.astype("datetime64[s]") + self.clock
            case "weekday":
                days = np.busday_offset("1970-01-01", counts, roll="forward")
                times = days.astype("datetime64[s]") + self.clock
            case _:
                times = counts.astype("datetime64[s]")
        by_day = not (times.astype(np.int64) % DAY).any()
        return np.datetime_as_string(times, "D" if by_day else "s").tolist()


def calendar_of(series: Sequence[Times], names: Sequence[str]) -> Calendar:
    """The calendar of series, each of distinct times in order: the commonest gap is a step.

    Days without any Saturday or Sunday are weekdays. Dates on one day of the month, or on its last, are months.

    Raises:
        DataError: a gap is no whole number of steps.
    """
    every = np.concatenate(series)
    if every.dtype == np.int64:
        return _fitting(Calendar("number", 1), series, names)
    dates, clocks = every.astype("datetime64[D]"), every.astype(np.int64) % DAY
    same_clock, clock = len(set(clocks.tolist())) == 1, int(clocks[0])
    day = (dates - dates.astype("datetime64[M]")).astype(np.int64) + 1
    last = ((dates + 1) - (dates + 1).astype("datetime64[M]")).astype(np.int64) == 0
    spans = len(set(dates.astype("datetime64[M]").tolist())) > 1
    if same_clock and spans and (last.all() or len(set(day.tolist())) == 1):
        return _fitting(Calendar("month", 1, 0 if last.all() else int(day[0]), clock), series, names)
    gaps = _gaps(series, Calendar("second", 1))
    weekdays = (dates.astype(np.int64) + 3) % 7 < 5  # 1970-01-01 was a Thursday
    if same_clock and weekdays.all() and len(gaps) > 5 and np.median(gaps) == DAY:
        return _fitting(Calendar("weekday", 1, clock=clock), series, names)
    return _fitting(Calendar("second", 1), series, names)


def _gaps(series: Sequence[Times], calendar: Calendar) -> Counts:
    return np.concatenate([np.diff(calendar.counts(times)) for times in series])


def _fitting(calendar: Calendar, series: Sequence[Times], names: Sequence[str]) -> Calendar:
    """The calendar with the commonest gap for a step."""
    gaps = _gaps(series, calendar)
    if not len(gaps):
        return calendar
    sizes, often = np.unique(gaps, return_counts=True)
    every = int(sizes[often.argmax()])
    for times, name in zip(series, names, strict=True):
        counts = calendar.counts(times)
        odd = np.flatnonzero(np.diff(counts) % every)
        if len(odd):
            before, after = calendar.texts(counts[odd[0] : odd[0] + 2])
            raise DataError(
                f"series {name}: the times are irregular: from {before} to {after} is no whole number of steps, the "
                "commonest of which is " + _length(calendar.unit, every) + "; number the rows if their order is enough"
            )
    return Calendar(calendar.unit, every, calendar.day, calendar.clock)


def _length(unit: str, every: int) -> str:
    if unit == "second":
        name, size = next(
            (n, s) for n, s in (("day", DAY), ("hour", 3600), ("minute", 60), ("second", 1)) if every % s == 0
        )
        return f"{every // size} {name}{'s' if every > size else ''}"
    return f"{every} {unit}{'s' if every > 1 else ''}"


def read_times(texts: Sequence[str], form: str | None = None, where: Callable[[int], str] = str) -> Times:
    """Times as a column has them, all in one form.

    Years and other whole numbers are numbers, but for YYYYMMDD and YYYYMM. Dates are after ISO 8601, or in one of
    `FORMS`; dates with a time zone are taken to UTC.

    Args:
        texts: the column.
        form: how dates are written, as `strptime` has it; None finds out.
        where: the place of a row, for messages.

    Raises:
        DataError: a time that cannot be read, or one that two forms read differently.
    """
    if form is not None:
        return _stamps(_parsed(texts, lambda text: datetime.datetime.strptime(text, form), where, f"is not {form}"))
    if all(re.fullmatch(r"[+-]?\d+(\.0*)?", text) for text in texts):
        dates = {8: "%Y%m%d", 6: "%Y%m"}.get(len(texts[0]))
        compact = _all_in(texts, dates) if dates and all(len(t) == len(texts[0]) for t in texts) else None
        return np.array([int(float(text)) for text in texts]) if compact is None else _stamps(compact)
    if all(map(QUARTER.fullmatch, texts)):
        return np.array([_quarter(text) for text in texts], "datetime64[M]").astype("datetime64[s]")
    iso = _iso(texts)
    if iso is not None:
        return _stamps(iso)
    read = {one: found for one in FORMS if (found := _all_in(texts, one)) is not None}
    if not read:
        bad = next((n for n, text in enumerate(texts) if _readable(text) is None), None)
        if bad is not None:
            raise DataError(f"{where(bad)}: {texts[bad]!r} is no date that is known; write 2024-12-31")
        raise DataError(f"{where(0)}: times are written in more than one form; use one for all")
    (first, chosen), *others = read.items()
    for other, different in others:
        for n, (one, another) in enumerate(zip(chosen, different, strict=True)):
            if one != another:
                which = f"{named('data.date_format')} {first!r} or {other!r}"
                raise DataError(f"{where(n)}: {texts[n]!r} can be read in two ways; say which by {which}")
    return _stamps(chosen)


def _readable(text: str) -> Any:
    return _iso([text]) or next((one for one in FORMS if _all_in([text], one)), None)


def _iso(texts: Sequence[str]) -> list[datetime.datetime] | None:
    try:
        return [datetime.datetime.fromisoformat(text) for text in texts]
    except ValueError:
        return None


def _all_in(texts: Sequence[str], form: str) -> list[datetime.datetime] | None:
    try:
        return [datetime.datetime.strptime(text, form) for text in texts]
    except ValueError:
        return None


def _parsed(
    texts: Sequence[str], parse: Callable[[str], datetime.datetime], where: Callable[[int], str], problem: str
) -> list[datetime.datetime]:
    dates = []
    for n, text in enumerate(texts):
        try:
            dates.append(parse(text))
        except ValueError:
            raise DataError(f"{where(n)}: {text!r} {problem}") from None
    return dates


def _quarter(text: str) -> str:
    found = QUARTER.fullmatch(text)
    assert found is not None
    year, quarter = found["year"] or found["y"], int(found["quarter"] or found["q"])
    return f"{year}-{3 * quarter - 2:02}"


def _stamps(dates: Sequence[datetime.datetime]) -> Times:
    utc = [d.astimezone(datetime.UTC).replace(tzinfo=None) if d.tzinfo else d for d in dates]
    return np.array(utc, "datetime64[s]")
