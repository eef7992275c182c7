"""The simple recurrent network."""

from __future__ import annotations

import tensorflow as tf

from charlm.cell import GatedCell, State, Tensor


class RNN(GatedCell):
    """Elman's simple recurrent network (1990).

    h = tanh(W'x + U'h₋ + b)        backward: δz = δh·(1 − h²)   δh₋ = U·δz
    """

    name = "rnn"
    gates = 1
    states = ("h",)
    direct = ()

    def forward(
        self, projected: Tensor, recurrent: Tensor, state: State, axis: int = 0
    ) -> tuple[State, tuple[Tensor, ...]]:
        h = tf.tanh(projected + recurrent)
        return (h,), (h,)

    def backward(self, d_state: State, activations: tuple[Tensor, ...], state: State) -> tuple[Tensor, Tensor, State]:
        dz = d_state[0] * (1 - activations[0] * activations[0])
        return dz, dz, ()


CELL = RNN()
