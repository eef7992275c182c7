"""The multiplicative LSTM."""

from __future__ import annotations

import tensorflow as tf

from charlm.cell import Cell, Spec, State, Tensor, Weights
from charlm.cells.lstm import open_forget_gate


class MultiplicativeLSTM(Cell):
    """LSTM whose recurrent matrix depends on the input (Krause, Lu, Murray and Renals 2016). Gates i, f, g, o.

    m = (Wₘ'x)·(Uₘ'h₋)         z = W'x + U'm + b
    i = σ(zᵢ)   f = σ(z_f)   g = tanh(z_g)   o = σ(zₒ)
    c = f·c₋ + i·g             h = o·tanh(c)
    """

    name = "mlstm"
    states = ("h", "c")

    def weights(self, inputs: int, units: int) -> dict[str, Spec]:
        return {
            "kernel": Spec((inputs, 4 * units), "glorot"),
            "recurrent_kernel": Spec((units, 4 * units), "orthogonal"),
            "bias": Spec((4 * units,), open_forget_gate),
            "factor_kernel": Spec((inputs, units), "glorot"),
            "factor_recurrent_kernel": Spec((units, units), "orthogonal"),
        }

    def step(self, weights: Weights, x: Tensor, state: State) -> State:
        h, c = state
        m = (x @ weights["factor_kernel"]) * (h @ weights["factor_recurrent_kernel"])
        i, f, g, o = tf.split(x @ weights["kernel"] + m @ weights["recurrent_kernel"] + weights["bias"], 4, 1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(c), c


CELL = MultiplicativeLSTM()
