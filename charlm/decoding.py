"""The loops that go symbol by symbol: `prefill` reads, `decode` writes. Every generated text comes out of them.

The terminal, Python, the server's rows and the SavedModel drive them alike. A row is one text. Its state is the
model's, [B, H] for each tensor; a decoder may have another layout inside a loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from charlm.cell import Tensor
from charlm.decoder import Decoder
from charlm.model import ModelState
from charlm.runtime import kernel
from charlm.sampling import Setting, draw, likeliest, restrict


class DecodeState(NamedTuple):
    """The state of B texts between two symbols."""

    logits: Tensor  # [B, V] of the next symbol
    state: ModelState  # each [B, H]
    recent: Tensor  # [B, RECENT] the last ids, -1 before the first
    position: Tensor  # symbols drawn so far, scalar or [B, 1]; below 0 in the prompt


class Decoded(NamedTuple):
    """The symbols of some steps; only the first `count` are valid."""

    ids: Tensor  # [steps, B]
    nats: Tensor  # [steps, B] -log p under the model, before any sampler
    likeliest: Tensor  # [steps, B, n] the ids of the n likeliest symbols, in the rows that are told them
    log_probabilities: Tensor  # [steps, B, n] theirs


def decode(
    decoder: Decoder,
    start: DecodeState,
    count: Tensor,
    forced: Tensor,
    seeds: Tensor,
    settings: dict[str, Setting],
    blocked: Tensor,
    groups: int = 1,
    alternatives: int = 0,
    told: Tensor | None = None,
) -> tuple[Decoded, DecodeState]:
    """Takes some symbols for every row, given or drawn, in one loop for each group of rows; the loops run side by side.

    Args:
        decoder: the model.
        start: where the texts stand.
        count: how many symbols, at most `steps`.
        forced: [steps] or [steps, B] int32, the symbol that a row takes at a step; -1 where it draws its own. Groups
            want the same for all rows.
        seeds: [B] int32.
        settings: of the samplers that are on, by their names; of one row each, [B], in one group alone.
        blocked: [V] booleans, true for what is never drawn.
        groups: how many; they divide the rows.
        alternatives: how many of the likeliest symbols are told at every step.
        told: [B] booleans, the rows that are told them; of one group alone. None tells nobody.

    Returns:
        the symbols, and the rows after them.
    """
    rows, steps = start.logits.shape[0], tf.get_static_value(tf.shape(forced)[0])
    steps = tf.shape(forced)[0] if steps is None else steps
    many = None if rows is None else rows // groups
    one, several = [many], [many, alternatives]
    arrays = (tf.int32, one), (start.logits.dtype, one), (tf.int32, several), (start.logits.dtype, several)

    def group(at: DecodeState, seeds: Tensor) -> tuple[Decoded, DecodeState]:
        def body(t: Tensor, at: DecodeState, written: tuple[tf.TensorArray, ...]) -> tuple[Any, ...]:
            symbol, cost, recent = _chosen(at.logits, at.recent, at.position, forced[t], seeds, settings, blocked)
            likely = likeliest(at.logits, alternatives, tf.zeros_like(symbol, tf.bool) if told is None else told)
            state = decoder.read(symbol, at.state)
            values = zip(written, (symbol, cost, *likely), strict=True)
            after = DecodeState(decoder.logits(state), state, recent, at.position + 1)
            return t + 1, after, tuple(array.write(t, value) for array, value in values)

        empty = tuple(tf.TensorArray(dtype, steps, element_shape=shape) for dtype, shape in arrays)
        at = at._replace(state=decoder.enter(at.state))
        _, at, written = tf.while_loop(lambda t, *_: t < count, body, (0, at, empty), parallel_iterations=1)
        return Decoded(*(array.stack() for array in written)), at._replace(state=decoder.leave(at.state))

    if groups == 1:
        return group(start, seeds)
    decoded, after = zip(*map(group, _split(start, groups), tf.split(seeds, groups)), strict=True)
    return Decoded(*(tf.concat(parts, 1) for parts in zip(*decoded, strict=True))), _joined(after)


def _split(start: DecodeState, groups: int) -> list[DecodeState]:
    *rows, position = tf.nest.flatten(start)
    cut = zip(*(tf.split(tensor, groups) for tensor in rows), strict=True)
    return [tf.nest.pack_sequence_as(start, [*parts, position]) for parts in cut]


def _joined(groups: Sequence[DecodeState]) -> DecodeState:
    whole: DecodeState = tf.nest.map_structure(
        lambda *parts: tf.concat(parts, 0) if parts[0].shape.rank else parts[0], *groups
    )
    return whole


@kernel
def _chosen(
    logits: Tensor,
    recent: Tensor,
    position: Tensor,
    forced: Tensor,
    seeds: Tensor,
    settings: dict[str, Setting],
    blocked: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Every row's next symbol, its nats, and the recent ids with it."""
    allowed = tf.where(blocked, float("-inf"), logits)
    drawn = draw(restrict(allowed, settings, recent), seeds, position)
    symbol = tf.where(forced >= 0, forced, drawn)
    cost = tf.nn.sparse_softmax_cross_entropy_with_logits(symbol, logits)
    return symbol, cost, tf.concat([recent[:, 1:], symbol[:, None]], 1)


def prefill(decoder: Decoder, symbols: Tensor, state: ModelState) -> tuple[ModelState, Tensor]:
    """Reads symbols [T, B], -1 where a row is left as it is.

    Returns:
        the state after them, and the last layer's outputs [T, B, H].
    """
    steps = tf.get_static_value(tf.shape(symbols)[0])
    steps = tf.shape(symbols)[0] if steps is None else steps

    def body(t: Tensor, state: ModelState, outputs: tf.TensorArray) -> tuple[Any, ...]:
        ((there,),) = decoder.enter((((symbols[t] >= 0)[:, None],),))
        after = decoder.read(tf.maximum(symbols[t], 0), state)
        state = tf.nest.map_structure(lambda new, old: tf.where(there, new, old), after, state)
        ((output, *_),) = decoder.leave(state[-1:])
        return t + 1, state, outputs.write(t, output)

    last = state[-1][0]
    empty = tf.TensorArray(last.dtype, steps, element_shape=last.shape)
    _, after, outputs = tf.while_loop(
        lambda t, *_: t < steps, body, (0, decoder.enter(state), empty), parallel_iterations=1
    )
    return decoder.leave(after), outputs.stack()
