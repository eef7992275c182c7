"""The minimal GRU."""

from __future__ import annotations

import tensorflow as tf

from charlm.cell import Cell, Spec, State, Tensor, Weights


class MinGRU(Cell):
    """GRU whose gates do not depend on the state before (Feng et al. 2024, "Were RNNs all we needed?").

    z = σ(W_z'x + b_z)   h̃ = g(Wₕ'x + bₕ)   h = (1 − z)·h₋ + z·h̃      g(a) = a + ½ for a ≥ 0, else σ(a)
    """

    name = "mingru"
    states = ("h",)

    def weights(self, inputs: int, units: int) -> dict[str, Spec]:
        return {"kernel": Spec((inputs, 2 * units), "glorot"), "bias": Spec((2 * units,))}

    def step(self, weights: Weights, x: Tensor, state: State) -> State:
        z, a = tf.split(x @ weights["kernel"] + weights["bias"], 2, 1)
        z, candidate = tf.sigmoid(z), tf.where(a >= 0, a + 0.5, tf.sigmoid(a))
        return ((1 - z) * state[0] + z * candidate,)


CELL = MinGRU()
