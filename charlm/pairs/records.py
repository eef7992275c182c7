"""Pairs as records of symbols, cut into parts for training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from charlm.pairs.alphabet import Layout, PairAlphabet, check_pairs, sizes_of
from charlm.pairs.table import Pair
from charlm.records import Records

PARTS = ("train", "valid", "test")


def parts_of(pairs: Sequence[Pair], split: Sequence[float]) -> dict[str, list[Pair]]:
    """The pairs of each part, drawn at random and always the same, for files are often sorted; "all" in their order.

    Pairs of one source go into one part.
    """
    sources = list(dict.fromkeys(pair.source for pair in pairs))
    order = np.random.default_rng(0).permutation(len(sources))
    cuts = np.round(len(sources) * np.cumsum(split)).astype(int)
    part = {sources[n]: PARTS[int(np.searchsorted(cuts, place, side="right"))] for place, n in enumerate(order)}
    found: dict[str, list[Pair]] = {name: [] for name in PARTS}
    for pair in pairs:
        found[part[pair.source]].append(pair)
    return {**found, "all": list(pairs)}


def learnt_alphabet(pairs: Sequence[Pair], layout: Layout) -> PairAlphabet:
    """The alphabet of the pairs to train on; raises DataError if there are too few."""
    check_pairs(pairs)
    return PairAlphabet.learnt(pairs, layout)


def records_of(alphabet: PairAlphabet, learnt: Sequence[Pair], scored: Sequence[Pair]) -> tuple[Records, Records]:
    """The records of the pairs that are trained on, and of others that are scored."""
    pairs = [*learnt, *scored]
    laid = [alphabet.record(*of) for of in zip(pairs, sizes_of(alphabet, pairs, len(learnt)), strict=True)]
    return _joined(alphabet, laid[: len(learnt)]), _joined(alphabet, laid[len(learnt) :])


def _joined(alphabet: PairAlphabet, laid: Sequence[tuple[np.ndarray, np.ndarray]]) -> Records:
    if not laid:
        return Records(np.zeros(0, alphabet.dtype), np.zeros(0, np.int64))
    ids, scored = (np.concatenate(parts) for parts in zip(*laid, strict=True))
    starts = np.cumsum([len(symbols) for symbols, _ in laid])[:-1].astype(np.int64)
    return Records(ids.astype(alphabet.dtype), starts, scored)
