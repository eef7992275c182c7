"""The gated recurrent unit."""

from __future__ import annotations

import tensorflow as tf

from charlm.cell import GatedCell, Spec, State, Tensor


class GRU(GatedCell):
    """Gated recurrent unit (Cho et al. 2014), in cuDNN's form: the reset gate after the product. Gates z, r, n.

    z = σ(x_z + u_z)   r = σ(x_r + u_r)   n = tanh(x_n + r·u_n)      x = W'x + b, u = U'h₋ + b'
    h = z·h₋ + (1 − z)·n

    Backward:
    δx_z = δh·(h₋ − n)·z(1−z)   δx_n = δh·(1−z)·(1−n²)   δx_r = δx_n·u_n·r(1−r)
    δu_z = δx_z                 δu_n = δx_n·r            δu_r = δx_r
    δh₋ = δh·z + U·δu
    """

    name = "gru"
    gates = 3
    states = ("h",)
    direct = ("h",)

    def weights(self, inputs: int, units: int) -> dict[str, Spec]:
        """The bias is [2, G]: of W'x and of U'h."""
        return {**super().weights(inputs, units), "bias": Spec((2, 3 * units))}

    def forward(
        self, projected: Tensor, recurrent: Tensor, state: State, axis: int = 0
    ) -> tuple[State, tuple[Tensor, ...]]:
        (xz, xr, xn), (uz, ur, un) = tf.split(projected, 3, axis), tf.split(recurrent, 3, axis)
        z, r = tf.sigmoid(xz + uz), tf.sigmoid(xr + ur)
        n = tf.tanh(xn + r * un)
        return (z * state[0] + (1 - z) * n,), (z, r, n, un)

    def backward(self, d_state: State, activations: tuple[Tensor, ...], state: State) -> tuple[Tensor, Tensor, State]:
        z, r, n, un = activations
        (dh,) = d_state
        dz = dh * (state[0] - n) * z * (1 - z)
        dn = dh * (1 - z) * (1 - n * n)
        dr = dn * un * r * (1 - r)
        return tf.concat([dz, dr, dn], 0), tf.concat([dz, dr, dn * r], 0), (dh * z,)


CELL = GRU()
