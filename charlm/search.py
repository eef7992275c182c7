"""The search for likely targets: some symbols are given, others are chosen, several hypotheses side by side.

A script says for each source what is given and where symbols are drawn until a NEXT. The hypotheses of a source stand
at one place of its script: one that has closed its part waits for the others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from charlm.cell import Tensor
from charlm.decoder import Decoder
from charlm.model import ModelState
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
    sources, one = scripts.shape[0], hypotheses == 1
    vocabulary = allowed.shape[0]
    rows = tf.range(sources)[:, None] * hypotheses
    itself = tf.tile(tf.range(hypotheses)[None], [sources, 1])
    only_closing = tf.range(vocabulary) == closes
    last = tf.fill((sources, 1), FINISHED)
    scripts = tf.concat([scripts, last], 1)

    def chosen(at: _At, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The parents, the symbols (V where a hypothesis waits) and the scores of the best ways on, each [S, N]."""
        may = allowed & (only_closing | (at.written < most)[:, None])
        logits = tf.where(may[:, None], at.logits, float("-inf"))
        ways = at.score[..., None] + tf.nn.log_softmax(logits)
        if seeds is not None:
            recent = tf.fill((sources, RECENT), -1)
            drawn = draw(restrict(logits[:, 0], settings, recent), seeds, t)
            symbol = tf.where(at.closed, vocabulary, drawn[:, None])
            score = tf.gather(ways, tf.minimum(symbol, vocabulary - 1)[..., None], axis=2, batch_dims=2)[..., 0]
            return itself, symbol, tf.where(at.closed, at.score, score)
        waits = tf.where(at.closed, at.score, float("-inf"))[..., None]
        ways = tf.concat([tf.where(at.closed[..., None], float("-inf"), ways), waits], 2)
        flat = tf.reshape(ways, (sources, -1))
        best, scores = [], []
        for _ in range(hypotheses):
            place = tf.argmax(flat, 1, tf.int32)
            best.append(place)
            scores.append(tf.gather(flat, place, axis=1, batch_dims=1))
            flat = tf.where(tf.range(flat.shape[1]) == place[:, None], float("-inf"), flat)
        places = tf.stack(best, 1)
        return places // (vocabulary + 1), places % (vocabulary + 1), tf.stack(scores, 1)

    def body(t: Tensor, at: _At, arrays: tuple[tf.TensorArray, ...]) -> tuple[Any, ...]:
        entry = tf.gather(scripts, at.place, axis=1, batch_dims=1)
        drawing = (entry == DRAWN)[:, None]
        parents, symbols, scores = chosen(at, t)
        parents = tf.where(drawing, parents, itself)
        symbols = tf.where(drawing, tf.where(symbols == vocabulary, -1, symbols), tf.maximum(entry, -1)[:, None])
        scores = tf.where(drawing, scores, at.score)
        from_rows = tf.reshape(rows + parents, [-1])
        state = at.state if one else tf.nest.map_structure(lambda s: tf.gather(s, from_rows), at.state)
        before = at.logits if one else tf.gather(at.logits, parents, axis=1, batch_dims=1)
        flat = tf.reshape(symbols, [-1])
        read = decoder.read(tf.maximum(flat, 0), state)
        reads = (flat >= 0)[:, None]
        state = tf.nest.map_structure(lambda new, old: tf.where(reads, new, old), read, state)
        logits = tf.where(reads, decoder.logits(read), tf.reshape(before, (-1, vocabulary)))
        closed = tf.gather(at.closed, parents, axis=1, batch_dims=1) | (symbols == closes) | tf.math.is_inf(scores)
        over = tf.where(drawing[:, 0], tf.reduce_all(closed, 1), entry >= 0)
        after = _At(
            at.place + tf.cast(over, tf.int32),
            drawing & closed & ~over[:, None],
            tf.where(drawing[:, 0] & ~over, at.written + 1, 0),
            scores,
            tf.reshape(logits, (sources, hypotheses, vocabulary)),
            state,
        )
        written = zip(arrays, (symbols, drawing[:, 0], parents), strict=True)
        return t + 1, after, tuple(array.write(t, value) for array, value in written)

    def goes_on(t: Tensor, at: _At, *_: Any) -> Tensor:
        return (t < steps) & tf.reduce_any(tf.gather(scripts, at.place, axis=1, batch_dims=1) != FINISHED)

    first = tf.where(itself == 0, 0.0, float("-inf"))
    begin = _At(
        tf.zeros(sources, tf.int32),
        tf.zeros((sources, hypotheses), tf.bool),
        tf.zeros(sources, tf.int32),
        first,
        tf.zeros((sources, hypotheses, vocabulary)),
        start,
    )
    shapes = (tf.int32, [sources, hypotheses]), (tf.bool, [sources]), (tf.int32, [sources, hypotheses])
    empty = tuple(tf.TensorArray(dtype, steps, element_shape=shape) for dtype, shape in shapes)
    count, at, arrays = tf.while_loop(goes_on, body, (0, begin, empty), parallel_iterations=1)
    symbols, drawn, parents = (array.stack() for array in arrays)
    return Found(symbols, drawn, parents, -at.score, count)
