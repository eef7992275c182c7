"""A recurrent layer over a window, as one differentiable function of its inputs, weights and state.

`unroll` takes the fastest path that there is for a cell: blocks of steps with a hand-derived derivative for a
`GatedCell` (recurrence.py), the cell's own `step` for every other. The latter keeps the states that the steps started
from; its backward pass goes through the steps from the last to the first, and differentiates each one by itself
(Werbos, "Backpropagation through time: what it does and how to do it", 1990).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from charlm import recurrence
from charlm.cell import Cell, GatedCell, State, Tensor, Weights
from charlm.operands import LayerWeights
from charlm.recurrence import Blocks, in_blocks
from charlm.runtime import kernel


class Unrolled(NamedTuple):
    """A layer's way through a window."""

    hidden: Blocks  # [T, H, B], of the operands' precision
    state: State  # each [B, H]


def unroll(
    cell: Cell,
    inputs: Blocks,
    weights: Weights,
    state: State,
    resets: Tensor | None = None,
    precision: tf.DType | None = None,
    *,
    carry: int | None = None,
    differentiate_inputs: bool = True,
) -> Unrolled:
    """Runs a layer over a window.

    Args:
        cell: the equations.
        inputs: [T, E, B] in blocks.
        weights: the layer's, by name.
        state: before the window, each [B, H].
        resets: [T, B], true where a lane's state is zeroed before the step (a document begins there).
        precision: of the operands of a gated cell's products; None is the weights' own.
        carry: after how many steps the returned state is taken, which then carries no gradient; None is the final
            state, which does.
        differentiate_inputs: whether a gradient reaches the inputs of a gated cell, which costs a product.
    """
    if isinstance(cell, GatedCell):
        columns, layer = tuple(map(tf.transpose, state)), LayerWeights(**weights)
        hidden, after = recurrence.unroll(
            cell, inputs, layer, columns, resets, precision, carry=carry, differentiate_inputs=differentiate_inputs
        )
        return Unrolled(hidden, tuple(map(tf.transpose, after)))
    rows = tf.transpose(tf.concat(inputs, 0), (0, 2, 1))
    outputs, after = step_by_step(cell, rows, weights, state, resets, carry)
    return Unrolled(in_blocks(tf.transpose(outputs, (0, 2, 1))), after)


def step_by_step(
    cell: Cell, inputs: Tensor, weights: Weights, state: State, resets: Tensor | None = None, carry: int | None = None
) -> tuple[Tensor, State]:
    """`unroll` by the cell's own step alone: inputs [T, B, E], outputs [T, B, H]."""
    names, count = list(weights), len(weights)

    @tf.custom_gradient
    def run(*at: Tensor) -> tuple[Any, Any]:
        # No tape around may look into the loop: XLA does not let out what that would keep of it.
        inputs, *flat = map(tf.stop_gradient, at)
        tree, state = dict(zip(names, flat[:count], strict=True)), tuple(flat[count:])
        outputs, before, final = _forward(cell, inputs, tree, state, resets)
        inside = carry is not None and carry < inputs.shape[0]
        carried = tuple(s[carry] for s in before) if inside else final

        def gradient(d_outputs: Tensor, *d_final: Tensor) -> tuple[Tensor, ...]:
            d_last = d_final if carry is None else tuple(map(tf.zeros_like, d_final))
            d_inputs, d_weights, d_state = _backward(cell, inputs, tree, before, resets, d_outputs, d_last)
            return d_inputs, *(d_weights[name] for name in names), *d_state

        return (outputs, *carried), gradient

    outputs, *after = run(inputs, *(weights[name] for name in names), *state)
    return outputs, tuple(after)


def _kept(resets: Tensor | None, t: Tensor, state: State) -> State:
    """The state with the lanes zeroed that reset before step t; also the derivative of doing so."""
    if resets is None:
        return state
    return tuple(tf.where(resets[t][:, None], tf.zeros_like(s), s) for s in state)


@kernel
def _forward(
    cell: Cell, inputs: Tensor, weights: Weights, state: State, resets: Tensor | None
) -> tuple[Tensor, State, State]:
    """The outputs [T, B, H], the states that the steps started from, each [T, B, H], and the final one."""
    steps = inputs.shape[0]

    def body(t: Tensor, state: State, arrays: tuple[tf.TensorArray, ...]) -> tuple[Any, ...]:
        before = _kept(resets, t, state)
        after = cell.step(weights, inputs[t], before)
        written = (array.write(t, value) for array, value in zip(arrays, (after[0], *before), strict=True))
        return t + 1, after, tuple(written)

    empty = tuple(tf.TensorArray(s.dtype, steps, element_shape=s.shape) for s in (state[0], *state))
    _, final, arrays = tf.while_loop(lambda t, *_: t < steps, body, (0, state, empty), maximum_iterations=steps)
    outputs, *before = (array.stack() for array in arrays)
    return outputs, tuple(before), final


@kernel
def _backward(
    cell: Cell,
    inputs: Tensor,
    weights: Weights,
    before: State,
    resets: Tensor | None,
    d_outputs: Tensor,
    d_final: State,
) -> tuple[Tensor, Weights, State]:
    """dL/d the inputs [T, B, E], the weights, and the state before the window."""
    steps = inputs.shape[0]

    def body(t: Tensor, d_state: State, sums: Weights, d_inputs: tf.TensorArray) -> tuple[Any, ...]:
        at = inputs[t], weights, tuple(s[t] for s in before)
        with tf.GradientTape() as tape:
            tape.watch(at)
            after = cell.step(weights, at[0], at[2])
        d_after = (d_state[0] + d_outputs[t], *d_state[1:])
        dx, dw, ds = tape.gradient(after, at, d_after, tf.UnconnectedGradients.ZERO)
        return t - 1, _kept(resets, t, ds), {k: sums[k] + dw[k] for k in sums}, d_inputs.write(t, dx)

    zeros = {name: tf.zeros_like(weight) for name, weight in weights.items()}
    empty = tf.TensorArray(inputs.dtype, steps, element_shape=inputs.shape[1:])
    _, d_state, sums, d_inputs = tf.while_loop(
        lambda t, *_: t >= 0, body, (steps - 1, d_final, zeros, empty), maximum_iterations=steps
    )
    return d_inputs.stack(), sums, d_state
