"""A model made ready to go one symbol at a time: no loop, no gradient, no dropout; a tree that graphs can take.

    state = decoder.enter(rows); logits, state = decoder.step(ids, state); rows = decoder.leave(state)

`rows` is the state as the model has it, each tensor [B, H]. Inside, a decoder may have another layout.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from charlm.cell import GatedCell, State, Tensor, Weights
from charlm.cells import cell_of
from charlm.model import CharLM, ModelState, layer_weights, projection_of
from charlm.operands import LayerWeights, Operands, with_biases
from charlm.runtime import kernel


class StepDecoder(NamedTuple):
    """Goes by the cell's own step."""

    cell: str
    embedding: Tensor  # [V, E]
    layers: tuple[Weights, ...]
    projection: Tensor  # [H, V]
    bias: Tensor  # [V]

    def enter(self, rows: ModelState) -> ModelState:
        """The state in the decoder's layout."""
        return rows

    def leave(self, state: ModelState) -> ModelState:
        """The state as the model has it."""
        return state

    def read(self, ids: Tensor, state: ModelState) -> ModelState:
        """The state after one symbol for each row, ids [B]."""
        cell, values, after = cell_of(self.cell), tf.gather(self.embedding, ids), []
        for weights, before in zip(self.layers, state, strict=True):
            after.append(cell.step(weights, values, before))
            values = after[-1][0]
        return tuple(after)

    def logits(self, state: ModelState) -> Tensor:
        """The logits [B, V] of the next symbol."""
        return self.logits_of(state[-1][0])

    def logits_of(self, outputs: Tensor) -> Tensor:
        """The logits [N, V] of the last layer's outputs [N, H]."""
        return outputs @ self.projection + self.bias

    def arranged(self, columns: bool, multiple: int = 1) -> StepDecoder:
        """The same: its layout is rows, its products have the sizes that the cell gives them."""
        return self


class GatedDecoder(NamedTuple):
    """Goes by a gated cell's `forward`, from products that are prepared.

    The matrices of products may have rows of zeros below.
    """

    cell: str
    columns: bool  # whether states are columns inside, [H, B]
    table: Tensor  # [V, G], what each symbol adds to the first layer's gates
    kernels: tuple[Tensor, ...]  # of the layers after the first, transposed, each [G, H]
    recurrent_kernels: tuple[Tensor, ...]  # of every layer, transposed, each [G, H]
    biases: tuple[tuple[Tensor, ...], ...]  # of every layer, one or two, each [G, 1]
    projection: Tensor  # [V, H]
    bias: Tensor  # [V, 1]

    def enter(self, rows: ModelState) -> ModelState:
        """As `StepDecoder.enter`."""
        return tf.nest.map_structure(tf.transpose, rows) if self.columns else rows

    def leave(self, state: ModelState) -> ModelState:
        """As `StepDecoder.leave`; a transpose is its own way back."""
        return self.enter(state)

    def read(self, ids: Tensor, state: ModelState) -> ModelState:
        """As `StepDecoder.read`."""
        axis, gates = 0 if self.columns else 1, self.table.shape[1]
        projected, after = tf.gather(self.table, ids), list[State]()
        if self.columns:
            projected = tf.transpose(projected)
        for n, (recurrent_kernel, before) in enumerate(zip(self.recurrent_kernels, state, strict=True)):
            if n:
                projected = _product(self.kernels[n - 1], after[-1][0], gates, axis)
            recurrent = _product(recurrent_kernel, before[0], gates, axis)
            biases = tuple(map(tf.transpose, self.biases[n])) if axis else self.biases[n]
            after.append(_decoded(self.cell, projected, recurrent, before, biases, axis))
        return tuple(after)

    def logits(self, state: ModelState) -> Tensor:
        """As `StepDecoder.logits`."""
        if not self.columns:
            return self.logits_of(state[-1][0])
        return tf.transpose(_product(self.projection, state[-1][0], self.bias.shape[0], 0) + self.bias)

    def logits_of(self, outputs: Tensor) -> Tensor:
        """As `StepDecoder.logits_of`."""
        return _product(self.projection, outputs, self.bias.shape[0], 1) + tf.transpose(self.bias)

    def arranged(self, columns: bool, multiple: int = 1) -> GatedDecoder:
        """The same in another layout, with rows of zeros below every matrix, to a multiple of so many."""

        def padded(weights: Tensor) -> Tensor:
            missing = -weights.shape[0] % multiple
            return tf.pad(weights, [[0, missing], [0, 0]]) if missing else weights

        kernels, recurrent_kernels = tuple(map(padded, self.kernels)), tuple(map(padded, self.recurrent_kernels))
        return self._replace(
            columns=columns, kernels=kernels, recurrent_kernels=recurrent_kernels, projection=padded(self.projection)
        )


Decoder: TypeAlias = StepDecoder | GatedDecoder


def decoder_of(model: CharLM, precision: str | None = None, *, columns: bool = False) -> Decoder:
    """Takes the weights that the model has now.

    Args:
        model: the network.
        precision: of the operands of a gated cell's products; the weights' own if None.
        columns: whether a gated cell's states are columns inside.
    """
    weights = {name: tf.convert_to_tensor(weight) for name, weight in model.named_weights().items()}
    layers = [layer_weights(weights, n) for n in range(model.config.layers)]
    if not isinstance(model.cell, GatedCell):
        projection = projection_of(weights)
        return StepDecoder(model.cell.name, weights["embedding"], tuple(layers), projection, weights["bias"])
    operands = [Operands.of(LayerWeights(**w), tf.as_dtype(precision) if precision else None) for w in layers]
    return GatedDecoder(
        model.cell.name,
        columns,
        tf.matmul(weights["embedding"], layers[0]["kernel"]),
        tuple(layer.kernel_t for layer in operands[1:]),
        tuple(layer.recurrent_kernel_t for layer in operands),
        tuple(layer.biases for layer in operands),
        tf.transpose(projection_of(weights)),
        weights["bias"][:, None],
    )


def _product(weights: Tensor, values: Tensor, features: int, axis: int) -> Tensor:
    """The first features of a product, which are along `axis`, of values [H, B], or [B, H]."""
    values = tf.cast(values, weights.dtype)
    if axis:
        return tf.matmul(values, weights, transpose_b=True)[:, :features]
    return tf.matmul(weights, values)[:features]


@kernel
def _decoded(
    cell: str, projected: Tensor, recurrent: Tensor, state: State, biases: tuple[Tensor, ...], axis: int
) -> State:
    """The state after one step from the products W'x and U'h, and the state before."""
    gated: Any = cell_of(cell)
    after: State = gated.forward(*with_biases(projected, recurrent, biases), state, axis)[0]
    return after
