"""From logits to ids. Pure functions that run inside a graph, with an explicit seed.

A sampler takes logits `[B, V]`, its setting (a number, or one for each row, `[B]`) and the ids that came last, and
returns logits, with what it excludes at minus infinity. `SAMPLERS` holds them in the order in which they compose:
repetition penalty, temperature, top-k, top-p, min-p. Symbols as probable as the last one kept are kept too.
The draw that follows is Gumbel-max (Gumbel 1954; Maddison et al. 2014) on Threefry bits of (seed, position).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from charlm.cell import Tensor
from charlm.config import KNOBS, SampleConfig
from charlm.runtime import kernel_on_processor

Setting: TypeAlias = Any  # a number, or a tensor [B]

RECENT = 64  # ids that the repetition penalty looks back on
WHOLE = 2.0**36  # the largest weight: 131,072 of it can be added exactly in float64


def _rows(setting: Setting, dtype: tf.DType) -> Tensor:
    """A setting as [B, 1], or [1, 1] where it is one number."""
    return tf.reshape(tf.cast(setting, dtype), (-1, 1))


def _keep(logits: Tensor, kept: Tensor) -> Tensor:
    return tf.where(kept, logits, tf.constant(float("-inf"), logits.dtype))


def repetition_penalty(logits: Tensor, penalty: Setting, recent: Tensor) -> Tensor:
    """Divides the probability, unnormalised, of every id in `recent` [B, R] (-1: none) by `penalty`; 1 is off.

    Keskar et al., "CTRL" (2019), in the log domain, so that it does not depend on where the logits' zero is.
    """
    penalty = tf.broadcast_to(_rows(penalty, logits.dtype), (tf.shape(logits)[0], 1))

    def penalised(rows: Tensor, penalty: Tensor, recent: Tensor) -> Tensor:
        seen = tf.reduce_any(tf.one_hot(recent, logits.shape[-1], True, False, dtype=tf.bool), -2)
        return tf.where(seen, rows - tf.math.log(penalty), rows)

    if not kernel_on_processor():
        return penalised(logits, penalty, recent)
    changed = _in_rows(penalty[:, 0] != 1, lambda n: (penalised(logits[n], penalty[n], recent[n]),), (logits,))
    return tf.convert_to_tensor(changed[0])


def temperature(logits: Tensor, value: Setting, recent: Tensor) -> Tensor:
    """Divides by the temperature; 0 keeps the most probable symbol alone, the first of equals."""
    value = _rows(value, logits.dtype)
    greedy = _keep(logits, tf.one_hot(tf.argmax(logits, -1), logits.shape[-1], True, False, dtype=tf.bool))
    return tf.where(value > 0, logits / tf.where(value > 0, value, 1), greedy)


def top_k(logits: Tensor, k: Setting, recent: Tensor) -> Tensor:
    """Keeps the k most probable symbols (Fan et al. 2018); 0 is off."""
    k = tf.broadcast_to(_rows(k, tf.int32)[:, 0], tf.shape(logits)[:1])

    def weighed(rows: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return tf.ones_like(rows, tf.int64), tf.cast(k, tf.float64)

    return _heaviest(logits, (k > 0) & (k < logits.shape[-1]), k, weighed)


def top_p(logits: Tensor, p: Setting, recent: Tensor) -> Tensor:
    """Keeps the fewest most probable symbols whose probabilities reach p (nucleus; Holtzman et al. 2020); 1 is off.

    The most probable one is kept whatever p is.
    """
    p = tf.broadcast_to(_rows(p, logits.dtype)[:, 0], tf.shape(logits)[:1])

    def weighed(rows: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        weights = tf.cast(tf.exp(rows - tf.reduce_max(rows, -1, keepdims=True)) * WHOLE, tf.int64)
        return weights, tf.cast(p, tf.float64) * tf.cast(tf.reduce_sum(weights, -1), tf.float64)

    return _heaviest(logits, p < 1, p, weighed)


def min_p(logits: Tensor, p: Setting, recent: Tensor) -> Tensor:
    """Keeps symbols at least p times as probable as the most probable one (Nguyen et al. 2024); 0 is off."""
    least = tf.reduce_max(logits, -1, keepdims=True) + tf.math.log(_rows(p, logits.dtype))
    return _keep(logits, logits >= least)


def _heaviest(
    logits: Tensor, asked: Tensor, setting: Tensor, weighed: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> Tensor:
    """Keeps the most probable symbols that weigh as much as is wanted; all in rows that do not ask [B].

    `weighed` gives the weights of rows [..., V], whole numbers whose sums do not depend on the order, and how much is
    wanted [...]. In a processor's kernel, rows that do not ask cost nothing.
    """
    everything = tf.fill(tf.shape(logits)[:1], tf.constant(float("-inf"), logits.dtype))
    if kernel_on_processor():
        (least,) = _in_rows(asked, lambda n: (_found(logits[n], *weighed(logits[n], setting[n])),), (everything,))
    else:
        ordered = tf.math.top_k(logits, logits.shape[-1]).values
        least = tf.where(asked, _last(ordered, *weighed(ordered, setting)), everything)
    return _keep(logits, logits >= least[:, None])


def _last(ordered: Tensor, weights: Tensor, wanted: Tensor) -> Tensor:
    """The last value of ordered rows [B, V] that is needed for what is wanted [B]; the first one if none is."""
    before = tf.cumsum(tf.cast(weights, tf.float64), -1, exclusive=True)
    return tf.reduce_min(tf.where((before < wanted[:, None]) | (before <= 0), ordered, float("inf")), -1)


def _found(row: Tensor, weights: Tensor, wanted: Tensor) -> Tensor:
    """`_last` of one row [V] in any order.

    It is searched by halves, for sorting costs XLA eight times as much (6,500 symbols: 1.7 ms and 0.2 ms): the bits of
    floating-point numbers, read as whole numbers, are in their order, so that 32 halves are enough for 32 bits.
    """
    word = tf.int64 if row.dtype == tf.float64 else tf.int32
    bits = tf.bitcast(row, word)
    keys = tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, word.max), bits)

    def body(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        middle = tf.bitwise.bitwise_or(low, high) - tf.bitwise.right_shift(
            tf.bitwise.bitwise_xor(low, high), tf.constant(1, word)
        )
        above = keys >= middle
        enough = tf.cast(tf.reduce_sum(tf.where(above, weights, 0)), tf.float64) >= wanted
        next_low = tf.reduce_min(tf.where(above, keys, word.max))
        next_high = tf.reduce_max(tf.where(above, word.min, keys))
        return tf.where(enough, next_low, low), tf.where(enough, high, next_high)

    low, _ = tf.while_loop(lambda low, high: low < high, body, (tf.reduce_min(keys), tf.reduce_max(keys)))
    return tf.reduce_min(tf.where(keys >= low, row, float("inf")))


def _in_rows(asked: Tensor, of_row: Callable[[Tensor], tuple[Tensor, ...]], empty: tuple[Tensor, ...]) -> Any:
    """`empty` [B, ...] with what a function of a row's number gives in the rows that ask for it [B]."""
    each = tf.range(tf.shape(asked)[0])

    def following(n: Tensor) -> Tensor:
        return tf.reduce_min(tf.where(asked & (each > n), each, tf.shape(asked)[0]))

    def body(n: Tensor, found: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        new = zip(found, of_row(n), strict=True)
        here = each == n
        return following(n), tuple(tf.where(tf.reshape(here, [-1] + [1] * (f.shape.rank - 1)), v, f) for f, v in new)

    return tf.while_loop(lambda n, _: n < tf.shape(asked)[0], body, (following(-1), empty))[1]


def likeliest(logits: Tensor, count: int, asked: Tensor) -> tuple[Tensor, Tensor]:
    """The ids [B, count] of the likeliest symbols and their log probabilities, in the rows that ask for it [B]."""
    rows = tf.shape(logits)[0]

    def of_row(n: Tensor) -> tuple[Tensor, Tensor]:
        best, ids = tf.math.top_k(tf.nn.log_softmax(logits[n]), count)
        return ids, best

    empty = tf.zeros((rows, count), tf.int32), tf.zeros((rows, count), logits.dtype)
    found: tuple[Tensor, Tensor] = _in_rows(asked, of_row, empty) if count else empty
    return found


SAMPLERS: dict[str, Callable[[Tensor, Setting, Tensor], Tensor]] = {
    sampler.__name__: sampler for sampler in (repetition_penalty, temperature, top_k, top_p, min_p)
}


def settings_of(config: SampleConfig) -> dict[str, float]:
    """The samplers that a configuration turns on, with their settings."""
    return {name: getattr(config, name) for name in SAMPLERS if getattr(config, name) != KNOBS[name].neutral}


def settings_of_rows(rows: Sequence[Mapping[str, float]]) -> dict[str, npt.NDArray[Any]]:
    """Every sampler's setting in each row [B]; neutral where a row says nothing of it."""
    return {
        name: np.array([row.get(name, knob.neutral) for row in rows], np.int32 if knob.kind is int else np.float32)
        for name, knob in KNOBS.items()
    }


def restrict(logits: Tensor, settings: dict[str, Setting], recent: Tensor) -> Tensor:
    """Logits [B, V] after every sampler in `settings`, in the order of `SAMPLERS`."""
    for name, sampler in SAMPLERS.items():
        if name in settings:
            logits = sampler(logits, settings[name], recent)
    return logits


def draw(logits: Tensor, seeds: Tensor, position: Tensor) -> Tensor:
    """One id for each row from softmax(logits), by Gumbel-max.

    Args:
        logits: [B, V].
        seeds: [B] int32, one for each row; a row's draws depend on its seed and position alone.
        position: int32, scalar or [B, 1].
    """
    bits, _ = threefry(
        (_word(seeds[:, None]), _word(0)), (_word(position), _word(tf.range(logits.shape[-1])[None]))
    )  # [B, V]
    # 23 bits and a half: neither 0 nor 1, which would exclude a symbol or force it.
    uniform = (tf.cast(tf.bitwise.right_shift(bits, _word(9)), logits.dtype) + 0.5) * 2.0**-23
    perturbed = logits - tf.math.log(-tf.math.log(uniform))
    # argmax in two reductions: XLA does not come to an end compiling its own behind as many operations.
    highest = perturbed == tf.reduce_max(perturbed, -1, keepdims=True)
    return tf.reduce_min(tf.where(highest, tf.range(logits.shape[-1]), logits.shape[-1] - 1), -1)


def threefry(key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Threefry-2x32-20, a random function of counters (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3").

    Integers alone, so that every engine draws the same; TensorFlow's own draws differ between a plain and an
    XLA-compiled graph.

    Args:
        key, counter: two uint32 each, of shapes that broadcast.

    Returns:
        Two uint32 of the broadcast shape.
    """
    keys = (*key, tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(key[0], key[1]), _word(0x1BD11BDA)))
    a, b = counter[0] + keys[0], counter[1] + keys[1]
    a, b = a + tf.zeros_like(b), b + tf.zeros_like(a)
    for group in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            a += b
            turned = tf.bitwise.bitwise_or(
                tf.bitwise.left_shift(b, _word(turn)), tf.bitwise.right_shift(b, _word(32 - turn))
            )
            b = tf.bitwise.bitwise_xor(turned, a)
        a += keys[(group + 1) % 3]
        b += keys[(group + 2) % 3] + _word(group + 1)
    return a, b


def _word(value: Any) -> Tensor:
    return tf.cast(value, tf.uint32)
