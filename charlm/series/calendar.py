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
ISO = "ISO 8601"
Place = Callable[[int], str]  # a time by its number: where it is, and the time itself
LONGEST_QUOTE = 40  # characters
LARGEST_NUMBER = 2**61  # a difference of two, and some steps beyond, fit into 64 bits
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
        usual: steps of a season, where the unit does not say it; None where it does.
    """

    unit: str
    every: int
    day: int = 1
    clock: int = 0
    usual: int | None = None

    @property
    def season(self) -> int:
        """The steps of the season that such steps usually have; 1 if they have none."""
        return SEASONS[self.unit].get(self.every, 1) if self.usual is None else self.usual

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
                begins, ends = (
                    months.astype("datetime64[M]").astype("datetime64[D]") for months in (counts, counts + 1)
                )
                days = np.minimum(begins + (self.day - 1), ends - 1) if self.day else ends - 1
                times = days.astype("datetime64[s]") + self.clock
            case "weekday":
                days = np.busday_offset("1970-01-01", counts, roll="forward")
                times = days.astype("datetime64[s]") + self.clock
            case _:
                times = counts.astype("datetime64[s]")
        by_day = not (times.astype(np.int64) % DAY).any()
        return np.datetime_as_string(times, "D" if by_day else "s").tolist()


def calendar_of(series: Sequence[Times], names: Sequence[str]) -> Calendar:
    """The calendar of series, each of distinct times in order: the commonest gap is a step; names are for messages.

    Days without any Saturday or Sunday are weekdays. Dates on one day of the month, or on its last, are months.

    Raises:
        DataError: a gap is no whole number of steps, or there is none between dates.
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
    if not len(gaps) and calendar.unit != "number":
        raise DataError(f"{names[0]}: one date alone does not say how long a step is; number the rows instead")
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
                f"{name}: the times are irregular: from {before} to {after} is no whole number of steps, the "
                "commonest of which is " + _length(calendar.unit, every) + "; number the rows if their order is enough"
            )
    return Calendar(calendar.unit, every, calendar.day, calendar.clock)


def _length(unit: str, every: int) -> str:
    if unit == "second":
        name, size = next((name, size) for name, size in LENGTHS if every % size == 0)
        return f"{every // size} {name}{'s' if every > size else ''}"
    return f"{every} {unit}{'s' if every > 1 else ''}"


def quoted(text: str) -> str:
    """A text of a table in a message, its beginning if it is long."""
    return repr(text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}...")


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

    def place(n: int) -> str:
        return f"{where(n)}: {quoted(texts[n])}"

    if form is not None:
        return _stamps(_parsed(texts, form, place), place)
    if all(re.fullmatch(r"[+-]?\d{1,19}(\.0*)?", text) for text in texts):
        return _numbers(texts, place)
    if all(map(QUARTER.fullmatch, texts)):
        return np.array([_quarter(text) for text in texts], "datetime64[M]").astype("datetime64[s]")
    iso = _iso(texts)
    if iso is not None:
        return _stamps(iso, place)
    read = {one: found for one in FORMS if (found := _all_in(texts, one)) is not None}
    if not read:
        raise _unreadable(texts, place)
    (first, chosen), *others = read.items()
    for other, different in others:
        for n, (one, another) in enumerate(zip(chosen, different, strict=True)):
            if one != another:
                which = f"{named('data.date_format')} {first!r} or {other!r}"
                raise DataError(f"{place(n)} can be read in two ways; say which by {which}")
    return _stamps(chosen, place)


def is_date(text: str) -> bool:
    """Whether a text is a date in a form that is known, and no mere number."""
    return bool(QUARTER.fullmatch(text)) or bool(_forms(text))


def _numbers(texts: Sequence[str], place: Place) -> Times:
    """Numbers, or dates written as YYYYMMDD or YYYYMM."""
    length = len(texts[0])
    form = {8: "%Y%m%d", 6: "%Y%m"}.get(length) if all(len(text) == length for text in texts) else None
    compact = _all_in(texts, form) if form else None
    if compact is not None:
        return _stamps(compact, place)
    if length == 8 and form and "1800" < texts[0] < "22" and _all_in(texts[:1], form):
        raise next(
            DataError(f"{place(n)} is no date, as {quoted(texts[0])} is one; write 2024-12-31")
            for n, text in enumerate(texts)
            if _all_in([text], form) is None
        )
    numbers = [int(text.partition(".")[0]) for text in texts]
    for n, number in enumerate(numbers):
        if abs(number) > LARGEST_NUMBER:
            raise DataError(f"{place(n)} is too large a number for a time; number the rows from 1")
    return np.array(numbers, np.int64)


def _unreadable(texts: Sequence[str], place: Place) -> DataError:
    """The error for times that no form reads."""
    own = _forms(texts[0])
    for n, text in enumerate(texts):
        if any(_all_in([text], form) is not None for form in own):
            continue
        if _forms(text):
            return DataError(f"{place(n)} is written in another form than the first time; use one for all")
        return DataError(
            f"{place(n)} is no date that is known; write dates like 2024-12-31, or name another column of "
            f"times with {named('data.time_column')}"
        )
    return DataError(f"{place(0)}: no form of dates reads this one and all others; write dates like 2024-12-31")


def _forms(text: str) -> list[str]:
    """The forms in which a text is a date."""
    return [form for form in (ISO, *FORMS) if _all_in([text], form) is not None]


def _iso(texts: Sequence[str]) -> list[datetime.datetime] | None:
    return _all_in(texts, ISO)


def _all_in(texts: Sequence[str], form: str) -> list[datetime.datetime] | None:
    try:
        return [_read(text, form) for text in texts]
    except ValueError:
        return None


def _read(text: str, form: str) -> datetime.datetime:
    if form == ISO:
        return datetime.datetime.fromisoformat(text)
    return datetime.datetime.strptime(text, form)


def _parsed(texts: Sequence[str], form: str, place: Place) -> list[datetime.datetime]:
    dates = []
    for n, text in enumerate(texts):
        try:
            dates.append(_read(text, form))
        except (ValueError, re.error):
            raise DataError(f"{place(n)} is not written as {named('data.date_format')} {form} says") from None
    return dates


def _quarter(text: str) -> str:
    found = QUARTER.fullmatch(text)
    assert found is not None
    year, quarter = found["year"] or found["y"], int(found["quarter"] or found["q"])
    return f"{year}-{3 * quarter - 2:02}"


def _stamps(dates: Sequence[datetime.datetime], place: Place) -> Times:
    """Dates in UTC, where they have a time zone, to the second."""
    zoned = dates[0].tzinfo is not None
    utc = []
    for n, date in enumerate(dates):
        if (date.tzinfo is not None) != zoned:
            these, those = ("no time zone", "one") if zoned else ("a time zone", "none")
            raise DataError(f"{place(n)} has {these}, where the first time has {those}; write all alike")
        if date.microsecond:
            raise DataError(f"{place(n)} has a fraction of a second, which no step has; number the rows")
        try:
            utc.append(date.astimezone(datetime.UTC).replace(tzinfo=None) if zoned else date)
        except OverflowError:
            raise DataError(f"{place(n)} is not in the years 1 to 9999 of UTC") from None
    return np.array(utc, "datetime64[s]")
