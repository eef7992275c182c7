"""Recurrent layers over a window, forward and hand-derived backward through time.

A window is T time steps of B lanes. Sequences are *feature-major*, `[T, features, B]`: a step's slice has the
lanes as its columns, so every gate is a contiguous block of rows and every product is `weights @ columns`, the
form that CPU matrix code runs fastest. Weights are laid out as Keras' own layers have them.

`Cell.forward` and `Cell.backward` are the equations of one time step; `forward_window` and `backward_window` walk
a window with them, `STEPS_PER_ITERATION` time steps per loop iteration. What does not depend on the previous step
stays out of the recurrence: the input projections of an iteration's steps are one batched product before them,
and the weight gradients one product after them, whose inner dimension is steps × lanes. `unroll` joins the two
into one differentiable function.

Products have operands of a precision of their own (bfloat16 where the processor multiplies it natively) and give
their results in it; state, gates, weights and every sum over steps have the weights' precision. The element-wise
work of a step, with the casts around it, is one compiled kernel (`Kernels`).

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

    hidden: Tensor  # h after every step, as an operand, [T, H, B]
    states: State  # h (and c) after every step, each [T, H, B]
    incoming: tuple[tf.TensorArray, ...]  # h as an operand, and the state that each step started from, per step [H, B]
    activations: tuple[tf.TensorArray, ...]  # what the cell's forward kept for its backward, per step [H, B]


class Gradients(NamedTuple):
    """Derivatives of a scalar L with respect to what `forward_window` took."""

    inputs: Tensor | None  # [T, E, B], if asked for
    weights: Weights
    state: State  # the incoming state's, each [H, B]
    adjoints: State  # if asked for: dL/d the state that each step started from, each [T, H, B]


class Unrolled(NamedTuple):
    """A layer's way through a window. `hidden` and `final` are differentiable, `states` is not."""

    hidden: Tensor  # [T, H, B], of the operands' precision
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
        """a @ b, cast to the operands' precision before and left in it."""
        return tf.matmul(tf.cast(a, self.precision), tf.cast(b, self.precision), transpose_b=transpose_b)

    def project(self, inputs: Tensor) -> Tensor:
        """W'x + b for [E, B]."""
        return tf.cast(self.product(self.kernel_t, inputs), self.dtype) + self.bias

    def recur(self, h: Tensor) -> Tensor:
        """U'h, with the recurrent bias where the cell has one, for [H, B]."""
        product = tf.cast(self.product(self.recurrent_kernel_t, h), self.dtype)
        return product if self.recurrent_bias is None else product + self.recurrent_bias


class Kernels:
    """A cell's element-wise work, with biases and casts, compiled into one kernel each way."""

    def __init__(self, cell: Cell, ready: Operands) -> None:
        self.cell, self.ready = cell, ready
        self._forward, self._backward = (
            tf.function(function, jit_compile=True, autograph=False) for function in (self._step, self._step_back)
        )

    def forward(self, projected: Tensor, recurrent: Tensor, state: State) -> tuple[State, Tensor, tuple[Tensor, ...]]:
        """One step from W'x and U'h: the state after it, its h as an operand, and the activations."""
        ready = self.ready
        biases = (ready.bias,) if ready.recurrent_bias is None else (ready.bias, ready.recurrent_bias)
        state, operand, activations = self._forward(projected, recurrent, state, biases)
        return tuple(state), (operand or state)[0], tuple(activations)

    def _step(self, projected: Tensor, recurrent: Tensor, state: State, biases: tuple[Tensor, ...]) -> tuple[Any, ...]:
        dtype, precision = self.ready.dtype, self.ready.precision
        projected, recurrent = tf.cast(projected, dtype) + biases[0], tf.cast(recurrent, dtype)
        if len(biases) == 2:
            recurrent += biases[1]
        state, activations = self.cell.forward(projected, recurrent, state)
        operand = () if precision == dtype else (tf.cast(state[0], precision),)  # the same tensor twice would be copied
        return state, operand, activations

    def backward(
        self, d_out: Tensor, d_product: Tensor, d_direct: State, activations: tuple[Tensor, ...], state: State
    ) -> tuple[Tensor, Tensor, State]:
        """One step's derivative.

        Args:
            d_out, d_product: dL/dh through the layer's output, and through the next step's product.
            d_direct: dL/d the cell's `direct` states through the next step besides.
            activations, state: of the step, and before it.

        Returns:
            dL/d projected and dL/d recurrent as operands, and the cell's `direct` parts.
        """
        d_products, d_direct = self._backward(d_out, d_product, d_direct, activations, state)
        return d_products[0], d_products[-1], tuple(d_direct)

    def _step_back(
        self, d_out: Tensor, d_product: Tensor, d_direct: State, activations: tuple[Tensor, ...], state: State
    ) -> tuple[Any, ...]:
        dtype, precision = self.ready.dtype, self.ready.precision
        direct = dict(zip(self.cell.direct, d_direct, strict=True))
        d_state = tuple(
            tf.cast(d_out, dtype) + _whole(d_product, direct, dtype) if name == "h" else direct[name]
            for name in self.cell.states
        )
        d_projected, d_recurrent, d_direct = self.cell.backward(d_state, activations, state)
        different = (d_projected,) if d_projected is d_recurrent else (d_projected, d_recurrent)
        return tuple(tf.cast(d, precision) for d in different), d_direct


def _whole(d_product: Tensor, direct: dict[str, Tensor], dtype: tf.DType) -> Tensor:
    """dL/dh through the next step: through its product, and beside it where there is such a way."""
    product = tf.cast(d_product, dtype)
    return product + direct["h"] if "h" in direct else product


def _steps(sequence: Tensor, start: Tensor | int, count: int) -> Tensor:
    """Steps [start, start + count) of [T, F, B]."""
    return tf.slice(sequence, (start, 0, 0), (count, -1, -1))


def _side_by_side(steps: Sequence[Tensor]) -> Tensor:
    """Steps of [F, B] as the columns of one matrix: [F, steps * B]."""
    return tf.concat(list(steps), 1)


def _array(length: int, dtype: tf.DType) -> tf.TensorArray:
    return tf.TensorArray(dtype, size=length, clear_after_read=False)


def _read(arrays: Sequence[tf.TensorArray], t: Tensor | int) -> tuple[Tensor, ...]:
    return tuple(array.read(t) for array in arrays)


def _write(arrays: Sequence[tf.TensorArray], t: Tensor | int, values: State) -> tuple[tf.TensorArray, ...]:
    return tuple(array.write(t, value) for array, value in zip(arrays, values, strict=True))


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
    length = inputs.shape[0]
    ready = Operands(weights, precision)
    kernels = Kernels(cell, ready)

    def walk(start: Tensor | int, count: int, operand: Tensor, state: State, arrays: Any) -> tuple[Any, ...]:
        incoming, outgoing, kept = arrays
        for u, x in enumerate(tf.unstack(ready.product(ready.kernel_t, _steps(inputs, start, count)), count)):
            before = _keep(resets, start + u, (operand, *state))
            incoming = _write(incoming, start + u, before)
            recurrent = ready.product(ready.recurrent_kernel_t, before[0])
            state, operand, activations = kernels.forward(x, recurrent, before[1:])
            outgoing, kept = _write(outgoing, start + u, (operand, *state)), _write(kept, start + u, activations)
        return start + count, operand, state, (incoming, outgoing, kept)

    whole = length - length % STEPS_PER_ITERATION
    dtypes = (ready.precision, *(ready.dtype for _ in state))
    arrays = (
        tuple(_array(length, dtype) for dtype in dtypes),
        tuple(_array(length, dtype) for dtype in dtypes),
        tuple(_array(length, ready.dtype) for _ in range(cell.kept)),
    )
    at, operand, state, arrays = tf.while_loop(
        lambda t, *_: t < whole,
        lambda t, *carried: walk(t, STEPS_PER_ITERATION, *carried),
        (tf.constant(0), tf.cast(state[0], ready.precision), tuple(state), arrays),
        parallel_iterations=1,
        maximum_iterations=whole // STEPS_PER_ITERATION,
    )
    if length > whole:
        *_, arrays = walk(at, length - whole, operand, state, arrays)
    incoming, outgoing, kept = arrays
    hidden, *states = (array.stack() for array in outgoing)
    return Window(hidden, tuple(states), incoming, kept)


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
    length = inputs.shape[0]
    ready = Operands(weights, precision)
    kernels = Kernels(cell, ready)
    others = {name: d for name, d in zip(cell.states, d_final, strict=True) if name != "h"}
    d_direct = tuple(others.get(name, tf.zeros_like(d_final[0])) for name in cell.direct)

    def adjoint(d_product: Tensor, d_direct: State) -> State:
        direct = dict(zip(cell.direct, d_direct, strict=True))
        return tuple(_whole(d_product, direct, ready.dtype) if name == "h" else direct[name] for name in cell.states)

    def walk(
        end: Tensor | int, count: int, d_product: Tensor, d_direct: State, sums: State, arrays: Any
    ) -> tuple[Any, ...]:
        start = end - count
        d_inputs, adjoints = arrays
        d_out = tf.unstack(_steps(d_hidden, start, count), count)
        hidden, d_projected, d_recurrent = [], [], []
        for u in reversed(range(count)):
            h, *before = _read(window.incoming, start + u)
            activations = _read(window.activations, start + u)
            dx, du, d_direct = kernels.backward(d_out[u], d_product, d_direct, activations, tuple(before))
            d_product, *rest = _keep(resets, start + u, (ready.product(ready.recurrent_kernel, du), *d_direct))
            d_direct = tuple(rest)
            hidden.append(h)
            d_projected.append(dx)
            d_recurrent.append(du)
            if with_adjoints:
                adjoints = _write(adjoints, start + u, adjoint(d_product, d_direct))
        x = _side_by_side(tf.unstack(_steps(inputs, start, count), count)[::-1])
        dx, h = _side_by_side(d_projected), _side_by_side(hidden)  # [., count * B]
        du = dx if d_projected[0] is d_recurrent[0] else _side_by_side(d_recurrent)
        news = (ready.product(dx, x, True), ready.product(du, h, True), _summed(dx, ready), _summed(du, ready))
        sums = tuple(s + tf.cast(new, ready.dtype) for s, new in zip(sums, news, strict=True))
        if with_inputs:
            for u, d in enumerate(tf.unstack(ready.product(ready.kernel, tf.stack(d_projected[::-1])), count)):
                d_inputs = d_inputs.write(start + u, d)
        return start, d_product, d_direct, sums, (d_inputs, adjoints)

    (inputs_size, gates), units = weights.kernel.shape, weights.recurrent_kernel.shape[0]
    sums = tuple(tf.zeros(shape, ready.dtype) for shape in ((gates, inputs_size), (gates, units), (gates,), (gates,)))
    adjoints = tuple(_array(length, ready.dtype) for _ in d_final) if with_adjoints else ()
    carried: Any = (tf.cast(d_final[0], ready.precision), d_direct, sums, (_array(length, ready.precision), adjoints))
    at, rest = tf.constant(length), length % STEPS_PER_ITERATION
    if rest:
        at, *carried = walk(at, rest, *carried)
    _, d_product, d_direct, (dw, du, db, db_recurrent), (d_inputs, adjoints) = tf.while_loop(
        lambda t, *_: t > 0,
        lambda t, *carried: walk(t, STEPS_PER_ITERATION, *carried),
        (at, *carried),
        parallel_iterations=1,
        maximum_iterations=length // STEPS_PER_ITERATION,
    )
    d_bias = db if ready.recurrent_bias is None else tf.stack([db, db_recurrent])
    return Gradients(
        d_inputs.stack() if with_inputs else None,
        Weights(tf.transpose(dw), tf.transpose(du), d_bias),
        adjoint(d_product, d_direct),
        tuple(array.stack() for array in adjoints),
    )


def _summed(columns: Tensor, ready: Operands) -> Tensor:
    return tf.reduce_sum(tf.cast(columns, ready.dtype), 1)


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
            d_inputs = None if found.inputs is None else tf.cast(found.inputs, inputs.dtype)
            return d_inputs, *found.weights, *found.state

        return (window.hidden, *(s[-1] for s in window.states), *window.states), gradient

    outputs = run(inputs, *weights, *state)
    return Unrolled(outputs[0], outputs[1 : 1 + states], tuple(map(tf.stop_gradient, outputs[1 + states :])))


_eager_unroll = tf.function(_unroll, autograph=False)
