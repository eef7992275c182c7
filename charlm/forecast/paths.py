"""Continuations of number series, drawn by the decode loop that writes texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from charlm.cell import Tensor
from charlm.decoder import decoder_of
from charlm.decoding import DecodeState, decode, prefill
from charlm.errors import DataError
from charlm.model import CharLM, ModelState
from charlm.records import Ids
from charlm.runtime import kernel
from charlm.sampling import RECENT
from charlm.series.alphabet import SeriesAlphabet
from charlm.series.cells import are_whole, naming
from charlm.series.scaling import Values

ROWS = 1 << 14  # continuations that are drawn side by side, at most
STEPS = 128  # of the histories that are read at a time
LONGEST_HISTORY = 4096  # steps before the end; what lies earlier is in the scaling alone

READ, DRAW = kernel(prefill), kernel(decode)


class Forecaster:
    """A model of number series, ready to go on with some."""

    def __init__(self, model: CharLM, alphabet: SeriesAlphabet) -> None:
        self.model, self.alphabet = model, alphabet
        self._decoder = decoder_of(model, "float32", columns=True)
        self._blocked = tf.constant(np.isin(np.arange(alphabet.vocabulary), alphabet.blocked))

    def paths(self, histories: Sequence[tuple[str, Values]], horizon: int, samples: int, seed: int) -> list[Values]:
        """Draws continuations.

        A series' own do not depend on the others. None is negative where no value was, and all are whole numbers where
        all values were.

        Args:
            histories: the name and the values of each series, at least one.
            horizon: values to draw.
            samples: continuations of each series.
            seed: the same one draws the same.

        Returns:
            For each series its continuations [horizon, samples].

        Raises:
            DataError: a value is out of what the scaling takes; the message names the series.
        """
        at_once, uniform = max(1, ROWS // samples), np.random.default_rng(seed).random((horizon, samples))
        found: list[Values] = []
        for start in range(0, len(histories), at_once):
            some = histories[start : start + at_once]
            padded = [*some, *[some[0]] * (min(at_once, len(histories)) - len(some))]
            ids = self._drawn([self._ids(*one) for one in padded], horizon, samples, seed)
            steps = self.alphabet.steps(ids, np.broadcast_to(uniform[:, None], ids.shape))
            for n, (name, values) in enumerate(some):
                with naming(name):
                    continued = self.alphabet.scaling.continued(values, steps[:, n], self.alphabet.size)
                    found.append(_as_before(continued, values))
        return found

    def _ids(self, name: str, values: Values) -> Ids:
        with naming(name):
            return self.alphabet.ids(values)[-LONGEST_HISTORY:].astype(np.int32)

    def _drawn(self, prompts: Sequence[Ids], horizon: int, samples: int, seed: int) -> Ids:
        """The symbols [H, N, S] after prompts of N series."""
        rows, longest = len(prompts), max(map(len, prompts))
        symbols = np.full((-(-longest // STEPS) * STEPS, rows), -1, np.int32)
        for row, ids in enumerate(prompts):
            symbols[len(symbols) - len(ids) :, row] = ids
        state, outputs = self.model.initial_state(rows), tf.zeros(())
        for start in range(0, len(symbols), STEPS):
            state, outputs = READ(self._decoder, tf.constant(symbols[start : start + STEPS]), state)
        start_state = self._repeated(outputs[-1], state, samples)
        seeds = tf.tile((tf.range(samples, dtype=tf.int64) + seed) % 2**31, [rows])
        drawn, _ = DRAW(
            self._decoder,
            start_state,
            tf.constant(horizon),
            tf.fill((horizon,), -1),
            tf.cast(seeds, tf.int32),
            {},
            self._blocked,
        )
        symbols_drawn: Ids = drawn.ids.numpy().reshape(horizon, rows, samples)
        return symbols_drawn

    def _repeated(self, outputs: Tensor, state: ModelState, samples: int) -> DecodeState:
        """Rows that begin with the last layer's outputs [N, H] and a state, `samples` of each."""
        logits, state = tf.nest.map_structure(
            lambda rows: tf.repeat(rows, samples, 0), (self._decoder.logits_of(outputs), state)
        )
        return DecodeState(logits, state, tf.fill((logits.shape[0], RECENT), -1), tf.constant(0))


def _as_before(continued: Values, history: Values) -> Values:
    """Continuations with the sign and the whole numbers of their history."""
    if not np.isfinite(continued).all():
        raise DataError("a forecast that is no finite number; the history's values are too large or too far apart")
    if (history >= 0).all():
        continued = np.maximum(continued, 0.0)
    if are_whole(history):
        continued = np.rint(continued)
    return continued
