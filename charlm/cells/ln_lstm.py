"""The layer-normalised LSTM."""

from __future__ import annotations

import tensorflow as tf

from charlm.cell import Cell, Spec, State, Tensor, Weights
from charlm.cells.lstm import open_forget_gate

EPSILON = 1e-5


def normalised(z: Tensor, gain: Tensor) -> Tensor:
    """z [B, F] with the mean 0 and the variance 1 in each row, times the gain [F]."""
    mean, variance = tf.nn.moments(z, 1, keepdims=True)
    return (z - mean) * tf.math.rsqrt(variance + EPSILON) * gain


class LayerNormLSTM(Cell):
    """LSTM with layer normalisation (Ba, Kiros and Hinton 2016, equations 20 to 22). Gates i, f, g, o.

    z = LN(W'x; γₓ) + LN(U'h₋; γ_h) + b       LN(a; γ) = γ·(a − mean a) / √(var a + ε)
    i = σ(zᵢ)   f = σ(z_f)   g = tanh(z_g)   o = σ(zₒ)
    c = f·c₋ + i·g             h = o·tanh(LN(c; γ_c) + β_c)
    """

    name = "ln-lstm"
    states = ("h", "c")

    def weights(self, inputs: int, units: int) -> dict[str, Spec]:
        gates = 4 * units
        return {
            "kernel": Spec((inputs, gates), "glorot"),
            "recurrent_kernel": Spec((units, gates), "orthogonal"),
            "bias": Spec((gates,), open_forget_gate),
            "input_gain": Spec((gates,), "ones"),
            "recurrent_gain": Spec((gates,), "ones"),
            "cell_gain": Spec((units,), "ones"),
            "cell_bias": Spec((units,)),
        }

    def step(self, weights: Weights, x: Tensor, state: State) -> State:
        h, c = state
        z = normalised(x @ weights["kernel"], weights["input_gain"]) + weights["bias"]
        i, f, g, o = tf.split(z + normalised(h @ weights["recurrent_kernel"], weights["recurrent_gain"]), 4, 1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(normalised(c, weights["cell_gain"]) + weights["cell_bias"]), c


CELL = LayerNormLSTM()
