"""The beginnings of documents in a text, its symbols document by document, and those that count."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
MATCH_CHARS = 4096  # that the end of a document may have, and what it looks back on
NO_STARTS: Ids = np.zeros(0, np.int64)


class Records(NamedTuple):
    """Texts or series as symbols, one after the other."""

    ids: Ids  # [N]
    starts: Ids  # [D] int64, sorted: where documents begin after the first
    scored: Mask | None = None  # [N], true for the symbols whose prediction counts; None is all but documents' first

    @property
    def symbols(self) -> int:
        """The symbols that there are; of series, those whose prediction counts."""
        return len(self.ids) if self.scored is None else self.predicted

    @property
    def predicted(self) -> int:
        """The symbols whose prediction counts."""
        return max(0, len(self.ids) - len(self.starts) - 1) if self.scored is None else int(self.scored.sum())


def matches(pieces: Iterable[str], pattern: str) -> Iterator[int]:
    """The characters after each match of a pattern in a text, which comes in pieces."""
    found, at, text, searched = re.compile(pattern), 0, "", 0
    for piece, last in _with_last(pieces):
        text += piece
        certain = len(text) if last else len(text) - MATCH_CHARS
        until = max(searched, certain)
        for match in found.finditer(text, searched):
            if match.end() > certain:  # it might go on
                until = min(until, match.start())
                break
            yield at + match.end()
        searched = until
        cut = max(0, searched - MATCH_CHARS)
        at, text, searched = at + cut, text[cut:], searched - cut


def _with_last(pieces: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Each piece, and whether it is the last."""
    following = iter(pieces)
    piece = next(following, None)
    while piece is not None:
        after = next(following, None)
        yield piece, after is None
        piece = after
