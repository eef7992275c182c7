r"""Files of pairs: a line for each, its source, a tab, its target.

Inside a field a tab is written \t, a line end \n, and a backslash \\. Empty lines are passed over. A target may be
empty, a source may not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from charlm.errors import DataError

ESCAPED = {"\t": r"\t", "\n": r"\n", "\r": r"\r", "\\": r"\\"}
ESCAPES = {written: character for character, written in ESCAPED.items()}


class Pair(NamedTuple):
    """A source and its target."""

    source: str
    target: str


def read_pairs(pieces: Iterable[str], where: str) -> Iterator[Pair]:
    """The pairs of a file.

    Raises:
        DataError: a line that is no pair; the message has its number.
    """
    for number, line in enumerate(lines(pieces), 1):
        if not line:
            continue
        fields = line.split("\t")
        if len(fields) != 2:
            problem = "no tab between source and target" if len(fields) == 1 else f"{len(fields) - 1} tabs, not one"
            raise DataError(rf"{where}, line {number}: {problem}; inside a field a tab is written \t")
        if not fields[0]:
            raise DataError(f"{where}, line {number}: the source is empty")
        yield Pair(*map(unescaped, fields))


def lines(pieces: Iterable[str]) -> Iterator[str]:
    """The lines of a text in pieces, without their ends."""
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n")
        yield from (line.removesuffix("\r") for line in whole)
    if rest:
        yield rest.removesuffix("\r")


def unescaped(field: str) -> str:
    """A field as it is meant; a backslash before any other character stands for itself."""
    return re.sub(r"\\[tnr\\]", lambda found: ESCAPES[found.group()], field)


def escaped(text: str) -> str:
    """A text as it is written in a field."""
    return re.sub(r"[\t\n\r\\]", lambda found: ESCAPED[found.group()], text)
