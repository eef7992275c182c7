"""Long short-term memory."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from charlm.cell import GatedCell, Spec, State, Tensor


def open_forget_gate(shape: tuple[int, ...], dtype: Any = None) -> Tensor:
    """A bias [4H] of ones for the forget gate, and zeros (Jozefowicz et al. 2015)."""
    return tf.repeat(tf.constant([0, 1, 0, 0], dtype), shape[0] // 4)


class LSTM(GatedCell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000). Gates i, f, g, o.

    i = σ(zᵢ)   f = σ(z_f)   g = tanh(z_g)   o = σ(zₒ)      z = W'x + U'h₋ + b
    c = f·c₋ + i·g           h = o·tanh(c)

    Backward, with δ for dL/d:
    δc ← δc + δh·o·(1 − tanh²c)
    δzᵢ = δc·g·i(1−i)   δz_f = δc·c₋·f(1−f)   δz_g = δc·i·(1−g²)   δzₒ = δh·tanh(c)·o(1−o)
    δc₋ = δc·f          δh₋ = U·δz
    """

    name = "lstm"
    gates = 4
    states = ("h", "c")
    direct = ("c",)

    def weights(self, inputs: int, units: int) -> dict[str, Spec]:
        return {**super().weights(inputs, units), "bias": Spec((4 * units,), open_forget_gate)}

    def forward(
        self, projected: Tensor, recurrent: Tensor, state: State, axis: int = 0
    ) -> tuple[State, tuple[Tensor, ...]]:
        zi, zf, zg, zo = tf.split(projected + recurrent, 4, axis)
        i, f, g, o = tf.sigmoid(zi), tf.sigmoid(zf), tf.tanh(zg), tf.sigmoid(zo)
        c = f * state[1] + i * g
        tanh_c = tf.tanh(c)
        return (o * tanh_c, c), (i, f, g, o, tanh_c)

    def backward(self, d_state: State, activations: tuple[Tensor, ...], state: State) -> tuple[Tensor, Tensor, State]:
        i, f, g, o, tanh_c = activations
        dh, dc = d_state
        dc += dh * o * (1 - tanh_c * tanh_c)
        dz = tf.concat(
            [dc * g * i * (1 - i), dc * state[1] * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)], 0
        )
        return dz, dz, (dc * f,)


CELL = LSTM()
