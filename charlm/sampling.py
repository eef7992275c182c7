"""From logits to ids. Pure functions that run inside a graph, with an explicit seed.

A sampler takes logits `[B, V]`, its setting (a number, or one for each row, `[B]`) and the ids that came last, and
returns logits, with what it excludes at minus infinity. `SAMPLERS` holds them in the order in which they compose:
repetition penalty, temperature, top-k, top-p, min-p. Symbols as probable as the last one kept are kept too.
The draw that follows is Gumbel-max (Gumbel 1954; Maddison et al. 2014) on Threefry bits of (seed, position).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from charlm.cells import Tensor
from charlm.config import SampleConfig

Setting: TypeAlias = Any  # a number, or a tensor [B]

RECENT = 64  # ids that the repetition penalty looks back on


def _rows(setting: Setting, dtype: tf.DType) -> Tensor:
    """A setting as [B, 1], or [1, 1] where it is one number."""
    return tf.reshape(tf.cast(setting, dtype), (-1, 1))


def _keep(logits: Tensor, kept: Tensor) -> Tensor:
    return tf.where(kept, logits, tf.constant(float("-inf"), logits.dtype))


def repetition_penalty(logits: Tensor, penalty: Setting, recent: Tensor) -> Tensor:
    """Divides the probability, unnormalised, of every id in `recent` [B, R] (-1: none) by `penalty`; 1 is off.

    Keskar et al., "CTRL" (2019), in the log domain, so that it does not depend on where the logits' zero is.
    """
    seen = tf.reduce_any(tf.one_hot(recent, logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool), 1)
    return tf.where(seen, logits - tf.math.log(_rows(penalty, logits.dtype)), logits)


def temperature(logits: Tensor, value: Setting, recent: Tensor) -> Tensor:
    """Divides by the temperature; 0 keeps the most probable symbol alone, the first of equals."""
    value = _rows(value, logits.dtype)
    greedy = _keep(logits, tf.one_hot(tf.argmax(logits, -1), logits.shape[-1], True, False, dtype=tf.bool))
    return tf.where(value > 0, logits / tf.where(value > 0, value, 1), greedy)


def top_k(logits: Tensor, k: Setting, recent: Tensor) -> Tensor:
    """Keeps the k most probable symbols (Fan et al. 2018); 0 is off."""
    size = logits.shape[-1]
    k = _rows(k, tf.int32)
    rank = tf.broadcast_to(tf.where(k > 0, tf.minimum(k, size), size) - 1, (tf.shape(logits)[0], 1))
    return _keep(logits, logits >= tf.gather(_sorted(logits), rank, batch_dims=1))


def top_p(logits: Tensor, p: Setting, recent: Tensor) -> Tensor:
    """Keeps the fewest most probable symbols whose probabilities reach p (nucleus; Holtzman et al. 2020); 1 is off.

    The most probable one is kept whatever p is.
    """
    p = _rows(p, logits.dtype)
    ordered = _sorted(logits)
    before = tf.cumsum(tf.nn.softmax(ordered), -1, exclusive=True)
    least = tf.reduce_min(tf.where((before < p) | (before <= 0), ordered, float("inf")), -1, keepdims=True)
    return tf.where(p < 1, _keep(logits, logits >= least), logits)


def min_p(logits: Tensor, p: Setting, recent: Tensor) -> Tensor:
    """Keeps symbols at least p times as probable as the most probable one (Nguyen et al. 2024); 0 is off."""
    least = tf.reduce_max(logits, -1, keepdims=True) + tf.math.log(_rows(p, logits.dtype))
    return _keep(logits, logits >= least)


def _sorted(logits: Tensor) -> Tensor:
    return tf.math.top_k(logits, logits.shape[-1]).values


SAMPLERS: dict[str, Callable[[Tensor, Setting, Tensor], Tensor]] = {
    sampler.__name__: sampler for sampler in (repetition_penalty, temperature, top_k, top_p, min_p)
}
NEUTRAL = {"repetition_penalty": 1.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def settings_of(config: SampleConfig) -> dict[str, float]:
    """The samplers that a configuration turns on, with their settings."""
    return {name: getattr(config, name) for name in SAMPLERS if getattr(config, name) != NEUTRAL[name]}


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
