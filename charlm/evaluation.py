"""How well a model predicts a text: a pass with its own state, nats summed, then divided once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from charlm.errors import DataError, named
from charlm.records import Records
from charlm.score import Score
from charlm.tbptt import Evaluator
from charlm.tokenizer import Alphabet
from charlm.windows import carried_windows, cold_windows


def score_ids(
    evaluator: Evaluator,
    records: Records,
    tokenizer: Alphabet,
    split: str,
    cold: int | None = None,
    progress: Callable[[int], None] = lambda symbols: None,
) -> Score:
    """Scores a text of at least two symbols.

    Args:
        evaluator: the model's evaluation step.
        records: the split's symbols.
        tokenizer: what made them.
        split: its name, for the report.
        cold: start from zero state every so many symbols; state is carried through the text if None.
        progress: called with the number of symbols scored since the last call.

    Raises:
        DataError: fewer than two symbols.
    """
    ids, starts, scored = records
    if not records.predicted and scored is not None:
        raise DataError(f"no values in the {split} part of the series; take another: {named('evaluate.split', 'all')}")
    if not records.predicted:
        few = f"{len(ids)}" + (f" in {len(starts) + 1} documents" if len(starts) else "")
        raise DataError(f"symbols in the {split} split: {few}; at least two are needed to predict one")
    start, nats_sum, state = time.monotonic(), 0.0, None
    counts = np.zeros(tokenizer.vocabulary, np.int64)  # how often each symbol was scored
    for window in carried_windows(*records) if cold is None else cold_windows(ids, cold, starts, scored):
        if state is None:
            state = evaluator.model.initial_state(window.x.shape[1])
        found, state = evaluator(window, state)
        symbols = window.y[window.loss_mask]
        nats_sum += float(found.numpy().sum(dtype=np.float64))
        counts += np.bincount(symbols, minlength=len(counts))
        progress(len(symbols))
    total = int(counts.sum())
    chars, size = (int(counts @ per_id) for per_id in (tokenizer.chars_per_id, tokenizer.bytes_per_id))
    bits = nats_sum / math.log(2)
    return Score(
        nats_per_symbol=nats_sum / total,
        bits_per_char=bits / max(chars, 1),
        bits_per_byte=bits / max(size, 1),
        perplexity=math.exp(min(nats_sum / total, 700)),
        symbols=total,
        chars=chars,
        bytes=size,
        unknown=0 if tokenizer.unknown is None else int(counts[tokenizer.unknown]),
        context="carried" if cold is None else f"cold:{cold}",
        split=split,
        seconds=time.monotonic() - start,
    )
