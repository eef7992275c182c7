"""How many targets are right, and how far the others are off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from charlm.pairs.table import Pair


class Accuracy(NamedTuple):
    """The errors of the targets that were found for sources, as shares.

    Attributes:
        exact: of the sources whose target is one of those wanted.
        words, characters: the insertions, deletions and replacements that make the nearest target wanted of the one
            found, over its words and over its characters.
    """

    exact: float
    words: float
    characters: float


def accuracy(found: dict[str, str], pairs: Sequence[Pair]) -> Accuracy:
    """The errors of the target found for each source; a source may have several that are wanted."""
    wanted: dict[str, list[str]] = {}
    for pair in pairs:
        wanted.setdefault(pair.source, []).append(pair.target)
    exact = words = word_errors = characters = character_errors = 0
    for source, targets in wanted.items():
        target = found[source]
        exact += target in targets
        errors, nearest = min((edits(target, one), one) for one in targets)
        character_errors, characters = character_errors + errors, characters + len(nearest)
        word_errors += edits(target.split(), nearest.split())
        words += len(nearest.split())
    return Accuracy(exact / len(wanted), word_errors / max(words, 1), character_errors / max(characters, 1))


def edits(one: Sequence[object], other: Sequence[object]) -> int:
    """The fewest insertions, deletions and replacements that make one sequence of another (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for n, symbol in enumerate(one, 1):
        before, row[0] = row[0], n
        for m, opposite in enumerate(other, 1):
            before, row[m] = row[m], min(row[m] + 1, row[m - 1] + 1, before + (symbol != opposite))
    return row[-1]
