"""Which symbols of a target each symbol of its source writes, learnt from pairs by expectation maximisation.

A source symbol writes a chunk of 0 to 3 target symbols, in order. The chance of a chunk depends on the symbol alone:
after Jiampojamarn, Kondrak and Sherif, "Applying Many-to-Many Alignments and Hidden Markov Models to
Letter-to-Phoneme Conversion" (2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Table = npt.NDArray[np.float64]

LONGEST_CHUNK = 3
ROUNDS = 12
FIRST_GUESS = (0.1, 0.6, 0.2, 0.1)  # the chance of a chunk's length before anything is learnt
SMALLEST = 1e-12


class Alignment:
    """Pairs of ids, padded, and the chunks that their targets can be cut into.

    Attributes:
        chances: [S, C] of each chunk, for each source symbol.
    """

    def __init__(self, sources: Sequence[Ids], targets: Sequence[Ids], symbols: int, learnt: int) -> None:
        """Takes pairs of which no target is longer than three times its source.

        Args:
            sources, targets: the ids of each.
            symbols: S.
            learnt: how many pairs, from the first on, are learnt from.
        """
        self._learnt = (np.arange(len(sources)) < learnt)[:, None]
        self.lengths = np.array([len(source) for source in sources])
        self.target_lengths = np.array([len(target) for target in targets])
        self.source = _padded(sources)  # [P, n]
        self.chunk, lengths = _chunks(targets, int(self.target_lengths.max(initial=0)))  # [P, m + 1, 4], [C]
        often = np.bincount(lengths, minlength=LONGEST_CHUNK + 1)
        self.chances: Table = np.tile((np.array(FIRST_GUESS) / np.maximum(often, 1))[lengths], (symbols, 1))

    def learn(self) -> None:
        """Raises the likelihood of the targets, round by round."""
        for _ in range(ROUNDS):
            expected = self._expected()
            self.chances = expected / np.maximum(expected.sum(1, keepdims=True), SMALLEST)

    def nats(self) -> float:
        """The mean of -log p of a pair's target under the likeliest alignment."""
        return float(-self._best()[1].mean())

    def chunk_sizes(self) -> list[list[int]]:
        """For each pair, how many target symbols each source symbol writes, by the likeliest alignment."""
        return self._best()[0]

    def _scores(self, i: int, k: int) -> Table:
        """The chances [P, m + 1] that source symbol i writes the k target symbols that end at each place."""
        chunk = self.chunk[:, :, k]
        chance = np.maximum(self.chances[self.source[:, i][:, None], np.maximum(chunk, 0)], SMALLEST)
        return np.where(chunk >= 0, chance, 0.0)

    def _forward(self) -> list[Table]:
        """The chance [P, m + 1] of the target up to a place, after each source symbol; scaled for each pair."""
        pairs, places = self.chunk.shape[:2]
        alphas = [np.zeros((pairs, places))]
        alphas[0][:, 0] = 1.0
        for i in range(self.source.shape[1]):
            after = np.sum([_shifted(alphas[-1], k) * self._scores(i, k) for k in range(LONGEST_CHUNK + 1)], 0)
            after = np.where((i < self.lengths)[:, None], after, alphas[-1])
            alphas.append(after / np.maximum(after.sum(1, keepdims=True), SMALLEST))
        return alphas

    def _expected(self) -> Table:
        """How often each source symbol is expected to write each chunk [S, C], in the pairs to learn from."""
        alphas, sizes = self._forward(), range(LONGEST_CHUNK + 1)
        pairs, places = self.chunk.shape[:2]
        beta = np.zeros((pairs, places))
        beta[np.arange(pairs), self.target_lengths] = 1.0
        size = self.chances.shape
        expected = np.zeros(size[0] * size[1])
        for i in reversed(range(self.source.shape[1])):
            there = (i < self.lengths)[:, None]
            scores = [self._scores(i, k) for k in sizes]
            joint = np.stack([_shifted(alphas[i], k) * scores[k] * beta for k in sizes])
            joint *= (there & self._learnt) / np.maximum(joint.sum((0, 2)), SMALLEST)[:, None]
            for k, found in enumerate(joint):
                at = self.source[:, i][:, None] * size[1] + np.maximum(self.chunk[:, :, k], 0)
                expected += np.bincount(at.ravel(), found.ravel(), len(expected))
            before = np.sum([_shifted(scores[k] * beta, -k) for k in sizes], 0)
            beta = np.where(there, before / np.maximum(before.sum(1, keepdims=True), SMALLEST), beta)
        return expected.reshape(size)

    def _best(self) -> tuple[list[list[int]], Table]:
        """The sizes of chunks of the likeliest alignments, and their log chances [P]."""
        pairs, places = self.chunk.shape[:2]
        best = np.full((pairs, places), -np.inf)
        best[:, 0] = 0.0
        choices = []
        for i in range(self.source.shape[1]):
            with np.errstate(divide="ignore"):
                scores = [_shifted(best, k, -np.inf) + np.log(self._scores(i, k)) for k in range(LONGEST_CHUNK + 1)]
            choice = np.argmax(scores, 0)
            choices.append(choice)
            best = np.where((i < self.lengths)[:, None], np.max(scores, 0), best)
        sizes = []
        for pair, (length, place) in enumerate(zip(self.lengths, self.target_lengths, strict=True)):
            own = []
            for i in reversed(range(length)):
                own.append(int(choices[i][pair, place]))
                place -= own[-1]
            sizes.append(own[::-1])
        return sizes, best[np.arange(pairs), self.target_lengths]


def _padded(rows: Sequence[Ids]) -> Ids:
    padded = np.zeros((len(rows), max(map(len, rows), default=0)), np.int64)
    for n, row in enumerate(rows):
        padded[n, : len(row)] = row
    return padded


def _chunks(targets: Sequence[Ids], longest: int) -> tuple[Ids, Ids]:
    """The chunk of k symbols that ends at each place [P, m + 1, 4], by number, or -1; and the lengths [C]."""
    known: dict[Any, int] = {(): 0}
    numbers = np.full((len(targets), longest + 1, LONGEST_CHUNK + 1), -1)
    for pair, target in enumerate(targets):
        symbols = tuple(target.tolist())
        for end in range(len(symbols) + 1):
            for k in range(min(end, LONGEST_CHUNK) + 1):
                numbers[pair, end, k] = known.setdefault(symbols[end - k : end], len(known))
    return numbers, np.array([len(chunk) for chunk in known])


def _shifted(values: Table, k: int, empty: float = 0.0) -> Table:
    """Values [P, m + 1] moved k places towards the end; towards the beginning if k is negative."""
    if k == 0:
        return values
    moved = np.full_like(values, empty)
    if k > 0:
        moved[:, k:] = values[:, :-k]
    else:
        moved[:, :k] = values[:, -k:]
    return moved
