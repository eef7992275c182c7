"""The weights of a gated cell, made ready for products with columns."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from charlm.cell import Tensor


class LayerWeights(NamedTuple):
    """One layer's weights in Keras' layout; G is the number of gates times the units."""

    kernel: Tensor  # [E, G]
    recurrent_kernel: Tensor  # [H, G]
    bias: Tensor  # [G], GRU: [2, G] (input and recurrent)


class Operands(NamedTuple):
    """A layer's weights made ready for products with columns: cast and transposed once."""

    kernel: Tensor  # [E, G]
    kernel_t: Tensor  # [G, E]
    recurrent_kernel: Tensor  # [H, G]
    recurrent_kernel_t: Tensor  # [G, H]
    bias: Tensor  # [G, 1]
    recurrent_bias: Tensor | None  # [G, 1], GRU

    @classmethod
    def of(cls, weights: LayerWeights, precision: tf.DType | None = None) -> Operands:
        """Operands of `precision`, or of the weights' own; biases keep the weights'."""
        kernel, recurrent_kernel = (tf.cast(w, precision or w.dtype) for w in weights[:2])
        biases = tf.unstack(tf.reshape(weights.bias, (-1, kernel.shape[1], 1)))  # [1 or 2, G, 1]
        transposed = tf.transpose(kernel), tf.transpose(recurrent_kernel)
        return cls(
            kernel, transposed[0], recurrent_kernel, transposed[1], biases[0], biases[1] if len(biases) == 2 else None
        )

    @property
    def biases(self) -> tuple[Tensor, ...]:
        """One, or two where the cell has a recurrent one."""
        return (self.bias,) if self.recurrent_bias is None else (self.bias, self.recurrent_bias)


def product(a: Tensor, b: Tensor, transpose_b: bool = False) -> Tensor:
    """a @ b in a's precision."""
    return tf.matmul(a, tf.cast(b, a.dtype), transpose_b=transpose_b)


def with_biases(projected: Tensor, recurrent: Tensor, biases: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The products W'x and U'h, each [G, B], in the biases' precision and with them added."""
    dtype = biases[0].dtype
    projected, recurrent = tf.cast(projected, dtype) + biases[0], tf.cast(recurrent, dtype)
    return projected, recurrent + biases[1] if len(biases) == 2 else recurrent
