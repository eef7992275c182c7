"""Number series as records of symbols, cut by time into parts for training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from charlm.records import Mask, Records
from charlm.series.alphabet import SeriesAlphabet
from charlm.series.cells import Series, naming
from charlm.series.scaling import Values

PARTS = ("train", "valid", "test")
LEAST_HORIZON = 6


def usual_horizon(series: Sequence[Series]) -> int:
    """The steps to forecast where nobody says: those of a season, and at least `LEAST_HORIZON`."""
    return max(series[0].calendar.season, LEAST_HORIZON)


def bounds(length: int, split: Sequence[float], part: str) -> tuple[int, int]:
    """The values [start, stop) of a series of a length that are in a part; "all" is every one."""
    if part == "all":
        return 0, length
    cuts = [round(length * share) for share in np.cumsum([0, *split])]
    place = PARTS.index(part)
    return cuts[place], cuts[place + 1]


def training_values(series: Sequence[Series], split: Sequence[float]) -> list[Values]:
    """The values of each series that are in the training part."""
    return [one.values[slice(*bounds(len(one.values), split, "train"))] for one in series]


def records_of(series: Sequence[Series], alphabet: SeriesAlphabet, split: Sequence[float], part: str) -> Records:
    """The symbols of every series up to the end of a part; those count whose values are given and in the part.

    A series that has no step of a base up to there is left out.

    Raises:
        DataError: a series that the alphabet's scaling does not take.
    """
    ids, scored = [], list[Mask]()
    for one in series:
        start, stop = bounds(len(one.values), split, part)
        with naming(one.name):
            symbols = alphabet.ids(one.values[:stop])
        if len(symbols) < 2:
            continue
        at = np.arange(stop - len(symbols), stop)  # the value of each symbol; the first begins the series
        ids.append(symbols)
        scored.append((at >= start) & one.given[:stop][at] & (symbols != symbols[0]))
    if not ids:
        return Records(np.zeros(0, alphabet.dtype), np.zeros(0, np.int64))
    starts = np.cumsum([len(symbols) for symbols in ids])[:-1]
    return Records(np.concatenate(ids), starts.astype(np.int64), np.concatenate(scored))
