"""The Mogrifier LSTM."""

from __future__ import annotations

import tensorflow as tf

from charlm.cell import Cell, Spec, State, Tensor, Weights
from charlm.cells.lstm import LSTM

ROUNDS = 5  # as in the paper's best models


class MogrifierLSTM(Cell):
    """LSTM whose input and state gate each other before it (Melis, Kočiský and Blunsom 2020).

    x¹ = 2σ(Q₁'h₋)·x   h¹ = 2σ(R₂'x¹)·h₋   x² = 2σ(Q₃'h¹)·x¹   ...   in five rounds, then the LSTM's step on both
    """

    name = "mogrifier"
    states = ("h", "c")

    def weights(self, inputs: int, units: int) -> dict[str, Spec]:
        shapes = {n: (units, inputs) if n % 2 else (inputs, units) for n in range(1, ROUNDS + 1)}
        rounds = {f"round_{n}_kernel": Spec(shape, "glorot") for n, shape in shapes.items()}
        return LSTM().weights(inputs, units) | rounds

    def step(self, weights: Weights, x: Tensor, state: State) -> State:
        h, c = state
        for n in range(1, ROUNDS + 1):
            kernel = weights[f"round_{n}_kernel"]
            if n % 2:
                x = 2 * tf.sigmoid(h @ kernel) * x
            else:
                h = 2 * tf.sigmoid(x @ kernel) * h
        return LSTM().step(weights, x, (h, c))


CELL = MogrifierLSTM()
