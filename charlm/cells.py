"""The equations of one time step of each recurrent layer, and their derivatives.

A step has B lanes and is feature-major: x is `[E, B]`, the state h (and c) and every gate `[H, B]`, so that each
gate is a contiguous block of rows; forward it can be lane-major too, with every shape the other way round. δ stands for
dL/d. docs/bptt.md derives the backward equations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, TypeAlias

import tensorflow as tf

Tensor: TypeAlias = tf.Tensor
State: TypeAlias = tuple[Tensor, ...]


class Cell(ABC):
    """One time step of a recurrent layer and its derivative. x is [E, B]; h, c and each gate [H, B].

    Attributes:
        name: in `CELLS`.
        gates: how many; G is that many times H.
        states: h, and c where there is one.
        direct: the states whose derivative also passes to the step before without passing through `recurrent`.
    """

    name: ClassVar[str]
    gates: ClassVar[int]
    states: ClassVar[tuple[str, ...]]
    direct: ClassVar[tuple[str, ...]]

    @abstractmethod
    def forward(
        self, projected: Tensor, recurrent: Tensor, state: State, axis: int = 0
    ) -> tuple[State, tuple[Tensor, ...]]:
        """One step.

        Args:
            projected: W'x + b, [G, B].
            recurrent: U'h (GRU: + its recurrent bias), [G, B].
            state: h (and c) before the step.
            axis: of the gates; 1 where lanes come first.

        Returns:
            The state after the step, and the activations that `backward` needs, each [H, B].
        """

    @abstractmethod
    def backward(self, d_state: State, activations: tuple[Tensor, ...], state: State) -> tuple[Tensor, Tensor, State]:
        """The step's derivative.

        Args:
            d_state: dL/dh (and dL/dc) after the step.
            activations: what `forward` returned.
            state: the state before the step.

        Returns:
            dL/d projected [G, B]; dL/d recurrent [G, B], the same tensor where the two are added; and for each of
            `direct` the part of dL/d state before the step that does not pass through `recurrent`.
        """


class LSTM(Cell):
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


class GRU(Cell):
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


class RNN(Cell):
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


CELLS: dict[str, Cell] = {cell.name: cell for cell in (LSTM(), GRU(), RNN())}
