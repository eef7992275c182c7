"""The search for likely targets: some symbols are given, others are chosen, several hypotheses side by side.

A script says for each source what is given and where symbols are drawn until a NEXT. The hypotheses of a source stand
at one place of its script: one that has closed its part waits for the others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from charlm.cell import Tensor
from charlm.decoder import Decoder
from charlm.model import ModelState
from charlm.records import Ids
from charlm.runtime import kernel
from charlm.sampling import RECENT, Setting, draw, restrict

FINISHED, DRAWN = -2, -1  # entries of a script that are no symbols


class Found(NamedTuple):
    """The hypotheses of S sources, N of each, step by step; only the first `count` steps are valid."""

    symbols: Tensor  # [steps, S, N] that were read, -1 where a hypothesis waited
    drawn: Tensor  # [steps, S] whether they were drawn
    parents: Tensor  # [steps, S, N] the hypothesis that each goes on from
    nats: Tensor  # [S, N] -log p of what was drawn among what may be, infinite where there is no hypothesis
    count: Tensor


class _At(NamedTuple):
    """Between two steps."""

    place: Tensor  # [S] in the script
    closed: Tensor  # [S, N] whether a hypothesis has closed its part
    written: Tensor  # [S] symbols drawn for the part
    score: Tensor  # [S, N] log p
    logits: Tensor  # [S, N, V]
    state: ModelState  # each [S·N, H]


class _Rules(NamedTuple):
    """The search's fixed parts: the same at every step."""

    decoder: Decoder
    scripts: Tensor  # [S, L + 1], `FINISHED` in the end
    allowed: Tensor  # [V]
    closes: int
    most: int
    hypotheses: int
    settings: dict[str, Setting]
    seeds: Tensor | None

    @property
    def itself(self) -> Tensor:
        """[S, N] the hypotheses of each source."""
        return tf.tile(tf.range(self.hypotheses)[None], [self.scripts.shape[0], 1])

    def entry(self, at: _At) -> Tensor:
        """[S] what the scripts say at their places."""
        return tf.gather(self.scripts, at.place, axis=1, batch_dims=1)

    def chosen(self, at: _At, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The parents, the symbols (-1 where one waits) and the scores of the ways that are followed, each [S, N]."""
        vocabulary = self.allowed.shape[0]
        only_closing = tf.range(vocabulary) == self.closes
        may = self.allowed & (only_closing | (at.written < self.most)[:, None])
        logits = tf.where(may[:, None], at.logits, float("-inf"))
        ways = at.score[..., None] + tf.nn.log_softmax(logits)
        if self.seeds is None:
            parents, symbols, scores = _best(ways, at, self.hypotheses)
            return parents, tf.where(symbols == vocabulary, -1, symbols), scores
        recent = tf.fill((logits.shape[0], RECENT), -1)
        drawn = draw(restrict(logits[:, 0], self.settings, recent), self.seeds, t)[:, None]
        scores = tf.gather(ways, drawn[..., None], axis=2, batch_dims=2)[..., 0]
        return self.itself, tf.where(at.closed, -1, drawn), tf.where(at.closed, at.score, scores)

    def step(self, at: _At, t: Tensor) -> tuple[_At, tuple[Tensor, Tensor, Tensor]]:
        """The hypotheses after a step; and for each its symbol, whether that was drawn, and its parent."""
        entry = self.entry(at)
        drawing = (entry == DRAWN)[:, None]
        parents, symbols, scores = self.chosen(at, t)
        parents = tf.where(drawing, parents, self.itself)
        symbols = tf.where(drawing, symbols, tf.maximum(entry, -1)[:, None])
        scores = tf.where(drawing, scores, at.score)
        logits, state = self.read(symbols, parents, at)
        closed = tf.gather(at.closed, parents, axis=1, batch_dims=1) | (symbols == self.closes) | tf.math.is_inf(scores)
        over = tf.where(drawing[:, 0], tf.reduce_all(closed, 1), entry >= 0)
        after = _At(
            at.place + tf.cast(over, tf.int32),
            drawing & closed & ~over[:, None],
            tf.where(drawing[:, 0] & ~over, at.written + 1, 0),
            scores,
            logits,
            state,
        )
        return after, (symbols, drawing[:, 0], parents)

    def read(self, symbols: Tensor, parents: Tensor, at: _At) -> tuple[Tensor, ModelState]:
        """The logits [S, N, V] and the state after symbols, each read by its parent; -1 reads none."""
        state, before = at.state, at.logits
        if self.hypotheses > 1:
            rows = tf.reshape(tf.range(symbols.shape[0])[:, None] * self.hypotheses + parents, [-1])
            state = tf.nest.map_structure(lambda s: tf.gather(s, rows), state)
            before = tf.gather(before, parents, axis=1, batch_dims=1)
        flat = tf.reshape(symbols, [-1])
        reads = (flat >= 0)[:, None]
        read = self.decoder.read(tf.maximum(flat, 0), state)
        logits = tf.reshape(self.decoder.logits(read), before.shape)
        state = tf.nest.map_structure(lambda new, old: tf.where(reads, new, old), read, state)
        return tf.where((symbols >= 0)[..., None], logits, before), state


def _best(ways: Tensor, at: _At, hypotheses: int) -> tuple[Tensor, Tensor, Tensor]:
    """The parents, symbols and scores [S, N] of the best of ways [S, N, V]; closed hypotheses wait, by symbol V."""
    count = ways.shape[2] + 1
    waits = tf.where(at.closed, at.score, float("-inf"))[..., None]
    flat = tf.concat([tf.where(at.closed[..., None], float("-inf"), ways), waits], 2)
    flat = tf.reshape(flat, (ways.shape[0], -1))
    places, scores = [], []
    for _ in range(hypotheses):
        places.append(tf.argmax(flat, 1, tf.int32))
        scores.append(tf.gather(flat, places[-1], axis=1, batch_dims=1))
        flat = tf.where(tf.range(flat.shape[1]) == places[-1][:, None], float("-inf"), flat)
    place = tf.stack(places, 1)
    return place // count, place % count, tf.stack(scores, 1)


@kernel
def search(
    decoder: Decoder,
    start: ModelState,
    scripts: Tensor,
    allowed: Tensor,
    closes: int,
    most: int,
    hypotheses: int,
    steps: int,
    settings: dict[str, Setting],
    seeds: Tensor | None = None,
) -> Found:
    """Finds the likeliest targets by beam search, or draws them.

    Args:
        decoder: the model; its layout is rows.
        start: the state before, each [S·N, H].
        scripts: [S, L] symbols that are given, `DRAWN` where some are drawn, `FINISHED` after the end.
        allowed: [V] booleans, what may be drawn, `closes` among it.
        closes: the symbol that ends a part.
        most: symbols that are drawn before it, at most.
        hypotheses: N; one is a greedy search.
        steps: at most.
        settings: of the samplers that are on, if seeds are given.
        seeds: [S] int32; a single hypothesis then draws its symbols.
    """
    sources = scripts.shape[0]
    scripts = tf.concat([scripts, tf.fill((sources, 1), FINISHED)], 1)
    rules = _Rules(decoder, scripts, allowed, closes, most, hypotheses, settings, seeds)

    def body(t: Tensor, at: _At, arrays: tuple[tf.TensorArray, ...]) -> tuple[Any, ...]:
        after, values = rules.step(at, t)
        return t + 1, after, tuple(array.write(t, value) for array, value in zip(arrays, values, strict=True))

    def goes_on(t: Tensor, at: _At, *_: Any) -> Tensor:
        return (t < steps) & tf.reduce_any(rules.entry(at) != FINISHED)

    begin = _At(
        tf.zeros(sources, tf.int32),
        tf.zeros((sources, hypotheses), tf.bool),
        tf.zeros(sources, tf.int32),
        tf.where(rules.itself == 0, 0.0, float("-inf")),  # one hypothesis until something is drawn
        tf.zeros((sources, hypotheses, allowed.shape[0])),
        start,
    )
    shapes = (tf.int32, [sources, hypotheses]), (tf.bool, [sources]), (tf.int32, [sources, hypotheses])
    empty = tuple(tf.TensorArray(dtype, steps, element_shape=shape) for dtype, shape in shapes)
    count, at, arrays = tf.while_loop(goes_on, body, (0, begin, empty), parallel_iterations=1)
    symbols, drawn, parents = (array.stack() for array in arrays)
    return Found(symbols, drawn, parents, -at.score, count)


def traced(symbols: Ids, parents: Ids) -> Ids:
    """The symbols [steps, S, N] on the way to each last hypothesis."""
    steps, sources, hypotheses = symbols.shape
    at = np.tile(np.arange(hypotheses), (sources, 1))
    lines = np.empty_like(symbols)
    for t in reversed(range(steps)):
        lines[t] = np.take_along_axis(symbols[t], at, 1)
        at = np.take_along_axis(parents[t], at, 1)
    return lines
