"""Recurrent layers over a window, forward and hand-derived backward through time.

A window is T time steps of B lanes. Sequences are *feature-major*, `[T, features, B]`: a step's slice has the
lanes as its columns, so every gate is a contiguous block of rows and every product is `weights @ columns`, the
form that CPU matrix code runs fastest. Weights are laid out as Keras' own layers have them.

`Cell.forward` and `Cell.backward` are the equations of one time step; `forward_window` and `backward_window` walk
a window with them, `STEPS_PER_ITERATION` time steps per loop iteration. What does not depend on the previous step
stays out of the recurrence: the input projections of an iteration's steps are one batched product before them,
and the weight gradients one product after them, whose inner dimension is steps × lanes. `unroll` joins the two
into one differentiable function.

The derivation is in docs/bptt.md. Williams and Zipser, "Gradient-based learning algorithms for recurrent networks"
(1995) call this epochwise BPTT over the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from charlm.cells import Cell, State, Tensor

STEPS_PER_ITERATION = 16


class Weights(NamedTuple):
    """One layer's weights in Keras' layout; G is the number of gates times the units."""

    kernel: Tensor  # [E, G]
    recurrent_kernel: Tensor  # [H, G]
    bias: Tensor  # [G], GRU: [2, G] (input and recurrent)


class Window(NamedTuple):
    """What a forward pass over a window leaves."""

    states: State  # h (and c) after every step, each [T, H, B]
    incoming: tuple[tf.TensorArray, ...]  # h (and c) that each step started from, after resets, per step [H, B]
    activations: tf.TensorArray  # what the cell's forward kept for its backward, per step [A, B]


class Gradients(NamedTuple):
    """Derivatives of a scalar L with respect to what `forward_window` took."""

    inputs: Tensor | None  # [T, E, B], if asked for
    weights: Weights
    state: State  # the incoming state's, each [H, B]
    adjoints: State  # if asked for: dL/d the state that each step started from, each [T, H, B]


class Unrolled(NamedTuple):
    """A layer's way through a window. `hidden` and `final` are differentiable, `states` is not."""

    hidden: Tensor  # [T, H, B]
    final: State  # after the last step, each [H, B]
    states: State  # after every step, each [T, H, B]


class Operands:
    """A layer's weights made ready for products with columns: cast and transposed once."""

    def __init__(self, weights: Weights, precision: tf.DType | None = None) -> None:
        self.dtype = weights.kernel.dtype
        self.precision = precision or self.dtype
        self.kernel, self.recurrent_kernel = (tf.cast(w, self.precision) for w in weights[:2])
        self.kernel_t, self.recurrent_kernel_t = tf.transpose(self.kernel), tf.transpose(self.recurrent_kernel)
        columns = tf.reshape(weights.bias, (-1, self.kernel.shape[1], 1))  # [1 or 2, G, 1]
        self.bias = columns[0]
        self.recurrent_bias = columns[1] if columns.shape[0] == 2 else None

    def product(self, a: Tensor, b: Tensor, transpose_b: bool = False) -> Tensor:
        a, b = tf.cast(a, self.precision), tf.cast(b, self.precision)
        return tf.cast(tf.matmul(a, b, transpose_b=transpose_b), self.dtype)

    def project(self, inputs: Tensor) -> Tensor:
        """W'x + b for steps [..., E, B]."""
        return self.product(self.kernel_t, inputs) + self.bias

    def recur(self, h: Tensor) -> Tensor:
        """U'h, with the recurrent bias where the cell has one, for [H, B]."""
        product = self.product(self.recurrent_kernel_t, h)
        return product if self.recurrent_bias is None else product + self.recurrent_bias


def _steps(sequence: Tensor, start: Tensor | int, count: int) -> Tensor:
    """Steps [start, start + count) of [T, F, B]."""
    return tf.slice(sequence, (start, 0, 0), (count, -1, -1))


def _side_by_side(steps: Sequence[Tensor]) -> Tensor:
    """Steps of [F, B] as the columns of one matrix: [F, steps * B]."""
    return tf.concat(list(steps), 1)


def _array(length: int, dtype: tf.DType) -> tf.TensorArray:
    return tf.TensorArray(dtype, size=length, clear_after_read=False)


def _keep(resets: Tensor | None, t: Tensor | int, state: State) -> State:
    """The state with the lanes zeroed that reset before step t; also the derivative of doing so."""
    if resets is None:
        return state
    return tuple(s * (1 - tf.cast(resets[t], s.dtype)) for s in state)


def forward_window(
    cell: Cell,
    inputs: Tensor,
    weights: Weights,
    state: State,
    resets: Tensor | None = None,
    precision: tf.DType | None = None,
) -> Window:
    """Runs a layer over a window.

    Args:
        cell: the equations.
        inputs: [T, E, B], T known when the graph is built.
        weights: the layer's.
        state: h (and c) before the window, each [H, B].
        resets: [T, B], nonzero where a lane's state is zeroed before the step (a document begins there).
        precision: of the products' operands, the weights' own if None. Sums and state keep the weights' precision.
    """
    length, states = inputs.shape[0], len(state)
    ready = Operands(weights, precision)

    def walk(start: Tensor | int, count: int, state: State, arrays: tuple[tf.TensorArray, ...]) -> tuple[Any, ...]:
        for u, x in enumerate(tf.unstack(ready.project(_steps(inputs, start, count)), count)):
            before = _keep(resets, start + u, state)
            state, activations = cell.fused_forward(x, ready.recur(before[0]), before)
            kept = (*before, *state, activations)
            arrays = tuple(array.write(start + u, value) for array, value in zip(arrays, kept, strict=True))
        return start + count, tuple(state), arrays

    whole = length - length % STEPS_PER_ITERATION
    arrays = tuple(_array(length, ready.dtype) for _ in range(2 * states + 1))
    at, state, arrays = tf.while_loop(
        lambda t, *_: t < whole,
        lambda t, *carried: walk(t, STEPS_PER_ITERATION, *carried),
        (tf.constant(0), tuple(state), arrays),
        parallel_iterations=1,
        maximum_iterations=whole // STEPS_PER_ITERATION,
    )
    if length > whole:
        at, state, arrays = walk(at, length - whole, state, arrays)
    return Window(tuple(a.stack() for a in arrays[states:-1]), arrays[:states], arrays[-1])


def backward_window(
    cell: Cell,
    inputs: Tensor,
    weights: Weights,
    window: Window,
    d_hidden: Tensor,
    d_final: State,
    resets: Tensor | None = None,
    precision: tf.DType | None = None,
    *,
    with_inputs: bool = True,
    with_adjoints: bool = False,
) -> Gradients:
    """Back-propagates through a window that `forward_window` has run.

    Args:
        cell, inputs, weights, resets, precision: as given to `forward_window`.
        window: what it returned.
        d_hidden: dL/dh after every step through the layer's outputs alone, [T, H, B].
        d_final: dL/d the state after the last step through what follows the window, each [H, B].
        with_inputs: whether the derivative with respect to the inputs is wanted.
        with_adjoints: whether dL/d the state that each step started from is wanted.
    """
    length, states = inputs.shape[0], len(d_final)
    ready = Operands(weights, precision)

    def walk(end: Tensor | int, count: int, d_state: State, sums: State, arrays: Any) -> tuple[Any, ...]:
        start = end - count
        d_inputs, adjoints = arrays
        d_out = tf.unstack(_steps(d_hidden, start, count), count)
        hidden, d_projected, d_recurrent = [], [], []
        for u in reversed(range(count)):
            before = tuple(array.read(start + u) for array in window.incoming)
            d_state = (d_state[0] + d_out[u], *d_state[1:])
            dx, du, d_state = cell.fused_backward(d_state, window.activations.read(start + u), before)
            d_state = (d_state[0] + ready.product(ready.recurrent_kernel, du), *d_state[1:])
            d_state = _keep(resets, start + u, d_state)
            hidden.append(before[0])
            d_projected.append(dx)
            d_recurrent.append(du)
            adjoints = tuple(array.write(start + u, d) for array, d in zip(adjoints, d_state, strict=bool(adjoints)))
        x = _side_by_side(tf.unstack(_steps(inputs, start, count), count)[::-1])
        dx, du, h = _side_by_side(d_projected), _side_by_side(d_recurrent), _side_by_side(hidden)  # [., count * B]
        news = (ready.product(dx, x, True), ready.product(du, h, True), tf.reduce_sum(dx, 1), tf.reduce_sum(du, 1))
        sums = tuple(s + new for s, new in zip(sums, news, strict=True))
        if with_inputs:
            for u, d in enumerate(tf.unstack(ready.product(ready.kernel, tf.stack(d_projected[::-1])), count)):
                d_inputs = d_inputs.write(start + u, d)
        return start, d_state, sums, (d_inputs, adjoints)

    (inputs_size, gates), units = weights.kernel.shape, weights.recurrent_kernel.shape[0]
    sums = tuple(tf.zeros(shape, ready.dtype) for shape in ((gates, inputs_size), (gates, units), (gates,), (gates,)))
    arrays = (_array(length, ready.dtype), tuple(_array(length, ready.dtype) for _ in range(states * with_adjoints)))
    at, d_state = tf.constant(length), tuple(d_final)
    rest = length % STEPS_PER_ITERATION
    if rest:
        at, d_state, sums, arrays = walk(at, rest, d_state, sums, arrays)
    _, d_state, (dw, du, db, db_recurrent), (d_inputs, adjoints) = tf.while_loop(
        lambda t, *_: t > 0,
        lambda t, *carried: walk(t, STEPS_PER_ITERATION, *carried),
        (at, d_state, sums, arrays),
        parallel_iterations=1,
        maximum_iterations=length // STEPS_PER_ITERATION,
    )
    d_bias = db if ready.recurrent_bias is None else tf.stack([db, db_recurrent])
    return Gradients(
        d_inputs.stack() if with_inputs else None,
        Weights(tf.transpose(dw), tf.transpose(du), d_bias),
        d_state,
        tuple(array.stack() for array in adjoints),
    )


def unroll(
    cell: Cell,
    inputs: Tensor,
    weights: Weights,
    state: State,
    resets: Tensor | None = None,
    precision: tf.DType | None = None,
    *,
    differentiate_inputs: bool = True,
) -> Unrolled:
    """A layer over a window as one differentiable function; arguments as `forward_window`'s.

    With `differentiate_inputs` false no gradient reaches the inputs, which saves a product where they are one-hot.
    """
    run = _eager_unroll if tf.executing_eagerly() else _unroll
    return run(cell, inputs, weights, tuple(state), resets, precision, differentiate_inputs)


def _unroll(
    cell: Cell,
    inputs: Tensor,
    weights: Weights,
    state: State,
    resets: Tensor | None,
    precision: tf.DType | None,
    differentiate_inputs: bool,
) -> Unrolled:
    states = len(state)

    @tf.custom_gradient
    def run(inputs: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor, *state: Tensor) -> tuple[Any, Any]:
        weights = Weights(kernel, recurrent_kernel, bias)
        window = forward_window(cell, inputs, weights, state, resets, precision)

        def gradient(d_hidden: Tensor, *d_others: Tensor) -> tuple[Tensor | None, ...]:
            found = backward_window(
                cell,
                inputs,
                weights,
                window,
                d_hidden,
                d_others[:states],
                resets,
                precision,
                with_inputs=differentiate_inputs,
            )
            return found.inputs, *found.weights, *found.state

        return (window.states[0], *(s[-1] for s in window.states), *window.states), gradient

    outputs = run(inputs, *weights, *state)
    return Unrolled(outputs[0], outputs[1 : 1 + states], tuple(map(tf.stop_gradient, outputs[1 + states :])))


_eager_unroll = tf.function(_unroll, autograph=False)
