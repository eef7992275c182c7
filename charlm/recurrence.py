"""Recurrent layers over a window, forward and hand-derived backward through time.

A window is T time steps of B lanes. Sequences are *feature-major*, `[T, features, B]`: a step's slice has the
lanes as its columns, so every gate is a contiguous block of rows and every product is `weights @ columns`, the
form that CPU matrix code runs fastest. Weights are laid out as Keras' own layers have them.

`Cell.forward` and `Cell.backward` are the equations of one time step. `forward_window` and `backward_window` unfold
a window with them, in *blocks* of `STEPS_PER_BLOCK` time steps, `[S, features, B]`. What does not depend on the
previous step stays out of the recurrence: the input projections of a block's steps are one batched product before
them, and the weight gradients one product after them, whose inner dimension is steps × lanes. `unroll` joins the two
into one differentiable function.

There is no loop in the graph: a layer's block waits for nothing but its own previous block and the same block of the
layer below, so that TensorFlow runs the layers of a stack side by side, each a block behind the one below it.

Products have operands of a precision of their own (bfloat16 where the processor multiplies it natively) and give
their results in it; state, gates, weights and every sum over steps have the weights' precision. The element-wise
work of a step, with the casts around it, is one compiled kernel.

The derivation is in docs/bptt.md. Williams and Zipser, "Gradient-based learning algorithms for recurrent networks"
(1995) call this epochwise BPTT over the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from charlm.cell import GatedCell, State, Tensor
from charlm.operands import LayerWeights, Operands, product, with_biases
from charlm.runtime import kernel

STEPS_PER_BLOCK = 4

Blocks: TypeAlias = tuple[Tensor, ...]  # a sequence [T, F, B], cut along its time


class Step(NamedTuple):
    """The values of a forward step that its backward needs."""

    operand: Tensor  # h before it, as an operand, [H, B]
    direct: State  # the cell's `direct` states before it
    activations: tuple[Tensor, ...]  # what the cell kept


class Window(NamedTuple):
    """The result of a forward pass over a window."""

    hidden: Blocks  # h after every step, as an operand, [T, H, B]
    final: State  # after the last step, each [H, B]
    steps: tuple[tuple[Step, ...], ...]  # of every block

    def state(self, cell: GatedCell, count: int) -> State:
        """After `count` steps, each [H, B]."""
        steps = [step for block in self.steps for step in block]
        if count == len(steps):
            return self.final
        return _state(cell, steps[count].operand, steps[count].direct, self.final[0].dtype)


class Gradients(NamedTuple):
    """Derivatives of a scalar L with respect to what `forward_window` took."""

    inputs: Blocks  # [T, E, B]; none if not asked for
    weights: LayerWeights
    state: State  # the incoming state's, each [H, B]
    adjoints: State  # if asked for: dL/d the state that each step started from, each [T, H, B]


def in_blocks(sequence: Tensor) -> Blocks:
    """[T, ...] cut into pieces of `STEPS_PER_BLOCK` steps, the last as long as is left."""
    whole, rest = divmod(sequence.shape[0], STEPS_PER_BLOCK)
    return tuple(tf.split(sequence, [STEPS_PER_BLOCK] * whole + [rest] * (rest > 0)))


def _side_by_side(steps: Sequence[Tensor]) -> Tensor:
    """Steps of [F, B] as the columns of one matrix: [F, steps * B]."""
    return tf.concat(list(steps), 1)


def _keep(resets: Tensor | None, t: int, state: State) -> State:
    """The state with the lanes zeroed that reset before step t; also the derivative of doing so."""
    if resets is None:
        return state
    return tuple(s * (1 - tf.cast(resets[t], s.dtype)) for s in state)


def _state(cell: GatedCell, operand: Tensor, direct: State, dtype: tf.DType) -> State:
    """The whole state from what a step hands to the next: where h acts through its product alone, the operand is h."""
    named = {"h": tf.cast(operand, dtype), **dict(zip(cell.direct, direct, strict=True))}
    return tuple(named[name] for name in cell.states)


@kernel
def _forward_step(
    cell: GatedCell, projected: Tensor, recurrent: Tensor, operand: Tensor, direct: State, biases: tuple[Tensor, ...]
) -> tuple[State, State, tuple[Tensor, ...]]:
    """One step from the products W'x and U'h and the state before, h as an operand: the same after, and activations.

    The operand is missing where it would be the same tensor as a `direct` one, which a kernel would copy.
    """
    dtype = biases[0].dtype
    projected, recurrent = with_biases(projected, recurrent, biases)
    state, activations = cell.forward(projected, recurrent, _state(cell, operand, direct, dtype))
    after = dict(zip(cell.states, state, strict=True))
    new = () if operand.dtype == dtype and "h" in cell.direct else (tf.cast(after["h"], operand.dtype),)
    return new, tuple(after[name] for name in cell.direct), activations


@kernel
def _backward_step(
    cell: GatedCell, d_out: Tensor, d_product: Tensor, d_direct: State, step: Step
) -> tuple[tuple[Tensor, ...], State]:
    """One step's derivative.

    Args:
        cell: the equations.
        d_out, d_product: dL/dh through the layer's output, and through the next step's product.
        d_direct: dL/d the cell's `direct` states through the next step besides.
        step: what its forward left.

    Returns:
        dL/d projected and dL/d recurrent as operands, one tensor if they are equal; and the cell's `direct` parts.
    """
    dtype, precision = step.activations[0].dtype, d_product.dtype
    before = _state(cell, step.operand, step.direct, dtype)
    after = _adjoint(cell, d_product, d_direct, dtype)
    d_state = tuple(tf.cast(d_out, dtype) + d if name == "h" else d for name, d in zip(cell.states, after, strict=True))
    d_projected, d_recurrent, d_direct = cell.backward(d_state, step.activations, before)
    different = (d_projected,) if d_projected is d_recurrent else (d_projected, d_recurrent)
    return tuple(tf.cast(d, precision) for d in different), d_direct


def _adjoint(cell: GatedCell, d_product: Tensor, d_direct: State, dtype: tf.DType) -> State:
    """dL/d a step's state through the next step: h's through the product, and what passes directly."""
    direct = dict(zip(cell.direct, d_direct, strict=True))
    h = tf.cast(d_product, dtype)
    direct["h"] = h + direct["h"] if "h" in direct else h
    return tuple(direct[name] for name in cell.states)


@tf.function(autograph=False)
def _forward_block(
    cell: GatedCell, ready: Operands, inputs: Tensor, resets: Tensor | None, operand: Tensor, direct: State
) -> tuple[Tensor, Tensor, State, tuple[Step, ...]]:
    """The steps of a block from the state, h as an operand: h after each, the state after the last, what was kept."""
    hidden, steps = [], []
    for t, projected in enumerate(tf.unstack(product(ready.kernel_t, inputs))):
        operand, *before = _keep(resets, t, (operand, *direct))
        recurrent = product(ready.recurrent_kernel_t, operand)
        new, direct, activations = _forward_step(cell, projected, recurrent, operand, tuple(before), ready.biases)
        steps.append(Step(operand, tuple(before), activations))
        (operand,) = new or direct
        hidden.append(operand)
    return tf.stack(hidden), operand, direct, tuple(steps)


def forward_window(
    cell: GatedCell,
    inputs: Blocks,
    weights: LayerWeights,
    state: State,
    resets: Tensor | None = None,
    precision: tf.DType | None = None,
) -> Window:
    """Runs a layer over a window.

    Args:
        cell: the equations.
        inputs: [T, E, B] in blocks.
        weights: the layer's.
        state: h (and c) before the window, each [H, B].
        resets: [T, B], nonzero where a lane's state is zeroed before the step (a document begins there).
        precision: of the products' operands, the weights' own if None. Sums and state keep the weights' precision.
    """
    ready, hidden, steps = Operands.of(weights, precision), [], []
    operand, direct = tf.cast(state[0], ready.kernel.dtype), _direct(cell, state)
    for block, cleared in zip(inputs, _resets_in_blocks(resets, len(inputs)), strict=True):
        h, operand, direct, kept = _forward_block(cell, ready, block, cleared, operand, direct)
        hidden.append(h)
        steps.append(kept)
    return Window(tuple(hidden), _state(cell, operand, direct, ready.bias.dtype), tuple(steps))


def _direct(cell: GatedCell, state: State) -> State:
    """The cell's `direct` states out of all."""
    return tuple(s for name, s in zip(cell.states, state, strict=True) if name in cell.direct)


def _resets_in_blocks(resets: Tensor | None, blocks: int) -> tuple[Tensor | None, ...]:
    return (None,) * blocks if resets is None else in_blocks(resets)


@tf.function(autograph=False)
def _backward_block(
    cell: GatedCell,
    ready: Operands,
    inputs: Tensor,
    resets: Tensor | None,
    steps: tuple[Step, ...],
    d_hidden: Tensor,
    d_product: Tensor,
    d_direct: State,
    sums: State,
    with_inputs: bool,
    with_adjoints: bool,
) -> tuple[Tensor, State, State, Tensor | None, list[State]]:
    """A block's steps from the last to the first.

    Takes and returns `d_product` and `d_direct` as `_backward_step` has them, and the sums over steps of dL/d the
    kernels, transposed, and the biases; then returns dL/d inputs and the adjoints, if asked for.
    """
    hidden, d_projected, d_recurrent, adjoints = [], [], [], []
    for t, d_out in reversed(list(enumerate(tf.unstack(d_hidden)))):
        step = steps[t]
        d_products, d_direct = _backward_step(cell, d_out, d_product, d_direct, step)
        d_product, *rest = _keep(resets, t, (product(ready.recurrent_kernel, d_products[-1]), *d_direct))
        d_direct = tuple(rest)
        hidden.append(step.operand)
        d_projected.append(d_products[0])
        d_recurrent.append(d_products[-1])
        if with_adjoints:
            adjoints.append(_adjoint(cell, d_product, d_direct, ready.bias.dtype))
    x = _side_by_side(tf.unstack(inputs)[::-1])
    dx, h = _side_by_side(d_projected), _side_by_side(hidden)  # [., S * B]
    du = dx if d_projected[0] is d_recurrent[0] else _side_by_side(d_recurrent)
    dtype = ready.bias.dtype
    news = (product(dx, x, True), product(du, h, True), *(tf.reduce_sum(tf.cast(d, dtype), 1) for d in (dx, du)))
    sums = tuple(s + tf.cast(new, dtype) for s, new in zip(sums, news, strict=True))
    d_inputs = product(ready.kernel, tf.stack(d_projected[::-1])) if with_inputs else None
    return d_product, d_direct, sums, d_inputs, adjoints


def backward_window(
    cell: GatedCell,
    inputs: Blocks,
    weights: LayerWeights,
    window: Window,
    d_hidden: Blocks,
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
        d_hidden: dL/dh after every step through the layer's outputs alone, [T, H, B] in blocks.
        d_final: dL/d the state after the last step through what follows the window, each [H, B].
        with_inputs: whether the derivative with respect to the inputs is wanted.
        with_adjoints: whether dL/d the state that each step started from is wanted.
    """
    ready = Operands.of(weights, precision)
    others = {name: d for name, d in zip(cell.states, d_final, strict=True) if name != "h"}
    d_direct = tuple(others.get(name, tf.zeros_like(d_final[0])) for name in cell.direct)
    d_product = tf.cast(d_final[0], ready.kernel.dtype)
    (inputs_size, gates), units = weights.kernel.shape, weights.recurrent_kernel.shape[0]
    dtype = ready.bias.dtype
    sums = tuple(tf.zeros(shape, dtype) for shape in ((gates, inputs_size), (gates, units), (gates,), (gates,)))
    d_inputs, adjoints = [], []
    blocks = zip(inputs, _resets_in_blocks(resets, len(inputs)), window.steps, d_hidden, strict=True)
    for block in reversed(list(blocks)):
        d_product, d_direct, sums, d_block, new = _backward_block(
            cell, ready, *block, d_product, d_direct, sums, with_inputs, with_adjoints
        )
        d_inputs.append(d_block)
        adjoints += new
    dw, du, db, db_recurrent = sums
    d_bias = db if ready.recurrent_bias is None else tf.stack([db, db_recurrent])
    return Gradients(
        tuple(reversed(d_inputs)) if with_inputs else (),
        LayerWeights(tf.transpose(dw), tf.transpose(du), d_bias),
        _adjoint(cell, d_product, d_direct, dtype),
        tuple(tf.stack(each[::-1]) for each in zip(*adjoints, strict=True)),
    )


def unroll(
    cell: GatedCell,
    inputs: Blocks,
    weights: LayerWeights,
    state: State,
    resets: Tensor | None = None,
    precision: tf.DType | None = None,
    *,
    carry: int | None = None,
    differentiate_inputs: bool = True,
) -> tuple[Blocks, State]:
    """A layer over a window as one differentiable function; arguments as `forward_window`'s.

    Returns h after every step, [T, H, B] in blocks, and the state, each [H, B]: the one after `carry` steps, which
    carries no gradient; or the final one, which does, if None. With `differentiate_inputs` false no gradient reaches
    the inputs, which saves a product where they are one-hot.
    """
    blocks = len(inputs)

    @tf.custom_gradient
    def run(*flat: Tensor) -> tuple[Any, Any]:
        inputs, weights, state = flat[:blocks], LayerWeights(*flat[blocks : blocks + 3]), flat[blocks + 3 :]
        window = forward_window(cell, inputs, weights, state, resets, precision)
        carried = window.final if carry is None else window.state(cell, carry)

        def gradient(*d: Tensor) -> tuple[Tensor | None, ...]:
            d_final = d[blocks:] if carry is None else tuple(map(tf.zeros_like, state))
            at = cell, inputs, weights, window, d[:blocks], d_final, resets, precision
            found = backward_window(*at, with_inputs=differentiate_inputs)
            d_inputs = [tf.cast(d, inputs[0].dtype) for d in found.inputs] or [None] * blocks
            return *d_inputs, *found.weights, *found.state

        return (*window.hidden, *carried), gradient

    outputs = run(*inputs, *weights, *state)
    return outputs[:blocks], outputs[blocks:]
