"""The network: embedding, recurrent layers, dropout, projection to logits. State in, state out.

    logits, state = model(ids, state)

Ids are `[T, B]` (time, lanes), logits `[T, B, V]`. State is a tuple over layers of (h,) or (h, c), each `[B, H]`;
nothing is remembered between calls. The recurrent layers are Keras' own objects: on a GPU they run (cuDNN), on a
CPU `recurrence.py` runs with their weights. A cell that Keras does not have runs in `recurrence.py` everywhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import keras
import tensorflow as tf

from charlm.cells import CELLS, State, Tensor
from charlm.config import ModelConfig
from charlm.machine import Machine
from charlm.recurrence import Blocks, Operands, Weights, in_blocks, unroll, with_biases
from charlm.runtime import kernel

ModelState: TypeAlias = tuple[State, ...]

KERAS_LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}


class GateWeights(keras.layers.Layer):
    """The weights of a layer whose cell is not in Keras, named and laid out as Keras' own layers have them."""

    def __init__(
        self, units: int, gates: int, kernel_initializer: Any, recurrent_initializer: Any, **base: Any
    ) -> None:
        super().__init__(**base)
        self._rows, self._columns = units, gates * units
        self._initializers = kernel_initializer, recurrent_initializer

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Makes them for inputs [batch, time, features]."""
        kernel, recurrent_kernel = self._initializers
        self.add_weight(shape=(shape[-1], self._columns), initializer=kernel, name="kernel")
        self.add_weight(shape=(self._rows, self._columns), initializer=recurrent_kernel, name="recurrent_kernel")
        self.add_weight(shape=(self._columns,), initializer="zeros", name="bias")


class CharLM(keras.Model):
    """A recurrent language model over ids; build it with `build_model`.

    Attributes:
        config: what it was built from.
        engine: "recurrence" (ours) or "keras" (Keras' layers, which are cuDNN's on a GPU).
        precision: of the operands of matrix products: float32, bfloat16 or float16. Weights and state are float32.
    """

    def __init__(self, config: ModelConfig, seed: int, engine: str, precision: str, dtype: str) -> None:
        super().__init__(dtype=dtype, name="charlm")
        self.config, self.engine, self.precision = config, engine, precision
        self.cell = CELLS[config.cell]
        seeds = itertools.count(seed * 1000)
        scale = 1 / math.sqrt(config.features)
        self.embedding = self.add_weight(
            shape=(config.vocabulary, config.features),
            initializer=keras.initializers.RandomNormal(stddev=scale if config.tie else 1.0, seed=next(seeds)),
            name="embedding",
        )
        self.recurrent_layers = []
        for n in range(config.layers):
            settings = {
                "kernel_initializer": keras.initializers.GlorotUniform(seed=next(seeds)),
                "recurrent_initializer": keras.initializers.Orthogonal(seed=next(seeds)),
                "dtype": keras.DTypePolicy(dtype if precision == "float32" else f"mixed_{precision}"),
                "name": f"{config.cell}_{n}",
            }
            if config.cell in KERAS_LAYERS:
                stock = KERAS_LAYERS[config.cell]
                layer = stock(config.units, return_sequences=True, return_state=True, **settings)
            else:
                layer = GateWeights(config.units, self.cell.gates, **settings)
            layer.build((None, None, config.features if n == 0 else config.units))
            self.recurrent_layers.append(layer)
        if not config.tie:
            self.projection = self.add_weight(
                shape=(config.units, config.vocabulary),
                initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
                name="projection",
            )
        self.bias = self.add_weight(shape=(config.vocabulary,), initializer="zeros", name="bias")
        self.built = True

    def named_weights(self) -> dict[str, Any]:
        """Every weight by the name it has in a checkpoint; recurrent ones are laid out as Keras' layers have them."""
        named = {"embedding": self.embedding}
        for n, layer in enumerate(self.recurrent_layers):
            for kind, value in zip(Weights._fields, layer.weights, strict=True):
                named[f"layers.{n}.{kind}"] = value
        if not self.config.tie:
            named["projection"] = self.projection
        return {**named, "bias": self.bias}

    def named_state(self, state: ModelState) -> dict[str, Tensor]:
        """A state's tensors by the names they have in a checkpoint."""
        layers = (zip(self.cell.states, layer, strict=True) for layer in state)
        return {f"state.{n}.{name}": value for n, layer in enumerate(layers) for name, value in layer}

    def state_of(self, named: Mapping[str, Any]) -> ModelState:
        """The state that `named_state` took apart."""
        layers = range(self.config.layers)
        return tuple(tuple(tf.constant(named[f"state.{n}.{name}"]) for name in self.cell.states) for n in layers)

    def initial_state(self, batch: int | Tensor) -> ModelState:
        """Zeros for `batch` lanes: a tuple over layers of (h,) or (h, c), each [batch, H]."""
        zeros = tf.zeros((batch, self.config.units), self.compute_dtype)
        return tuple(tuple(zeros for _ in self.cell.states) for _ in self.recurrent_layers)

    def call(
        self,
        ids: Tensor,
        state: ModelState,
        *,
        carry: int | None = None,
        resets: Tensor | None = None,
        dropout_seed: Tensor | None = None,
    ) -> tuple[Tensor, ModelState]:
        """Runs a window.

        Args:
            ids: [T, B] int32, T and B known when the graph is built.
            state: before the window.
            carry: after how many symbols the returned state is taken; the whole window if None. A state from inside
                the window carries no gradient.
            resets: [T, B], nonzero where a lane's state is zeroed before the symbol.
            dropout_seed: [2] integers; dropout is on if given. Every window draws one mask for each lane and place,
                the same at all its steps (Gal and Ghahramani 2016, "variational").

        Returns:
            logits of the next symbol [T, B, V], and the state.
        """
        blocks, state = self.unfold(ids, state, carry=carry, resets=resets, dropout_seed=dropout_seed)
        return tf.concat(blocks, 0), state

    def unfold(
        self,
        ids: Tensor,
        state: ModelState,
        *,
        carry: int | None = None,
        resets: Tensor | None = None,
        dropout_seed: Tensor | None = None,
    ) -> tuple[Blocks, ModelState]:
        """`call` with the logits in blocks along the time, each there as soon as its last layer is."""
        if self.engine == "keras" and resets is None:
            hidden, state = self._keras_window(ids, state, carry, dropout_seed)
        else:
            hidden, state = self._recurrence_window(ids, state, carry, resets, dropout_seed)
        return tuple(map(self._logits, self._dropped(hidden, self.config.layers, dropout_seed))), state

    def _logits(self, hidden: Tensor) -> Tensor:
        """[S, H, B] -> [S, B, V]."""
        steps, units, lanes = hidden.shape
        rows = tf.cast(tf.reshape(tf.transpose(hidden, (0, 2, 1)), (-1, units)), self.compute_dtype)
        return tf.reshape(tf.matmul(rows, self.output_projection()) + self.bias, (steps, lanes, -1))

    def output_projection(self) -> Tensor:
        return tf.transpose(self.embedding) if self.config.tie else tf.convert_to_tensor(self.projection)

    def _layer_weights(self, n: int) -> Weights:
        return Weights(*map(tf.convert_to_tensor, self.recurrent_layers[n].weights))

    def _dropped(self, sequence: Blocks, place: int, seed: Tensor | None) -> Blocks:
        """A sequence [T, F, B] with one mask over features and lanes."""
        rate = self.config.dropout
        if seed is None or rate == 0:
            return sequence
        drawn = tf.random.stateless_uniform(sequence[0].shape[1:], tf.random.fold_in(seed, place), alg="philox")
        mask = tf.cast(drawn >= rate, sequence[0].dtype) / (1 - rate)  # [F, B]
        return tuple(block * mask for block in sequence)

    def _recurrence_window(
        self, ids: Tensor, state: ModelState, carry: int | None, resets: Tensor | None, seed: Tensor | None
    ) -> tuple[Blocks, ModelState]:
        """Hidden values [T, H, B] and the state, by recurrence.py."""
        precision = tf.as_dtype(self.compute_dtype if self.precision == "float32" else self.precision)
        dropping = seed is not None and self.config.dropout > 0
        # One-hot columns times (embedding @ kernel): fewer products than rows of the embedding, where V is small.
        tabled = self.config.vocabulary <= self.config.features and not dropping
        if tabled:
            sequence = tuple(tf.one_hot(s, self.config.vocabulary, axis=1, dtype=precision) for s in in_blocks(ids))
        else:
            embedding = tf.convert_to_tensor(self.embedding)
            sequence = tuple(tf.transpose(tf.gather(embedding, s), (0, 2, 1)) for s in in_blocks(ids))  # [S, E, B]
        carried = []
        for n, layer_state in enumerate(state):
            weights = self._layer_weights(n)
            if n == 0 and tabled:
                weights = weights._replace(kernel=tf.matmul(self.embedding, weights.kernel))
            sequence, after = unroll(
                self.cell,
                self._dropped(sequence, n, seed),
                weights,
                tuple(map(tf.transpose, layer_state)),
                resets,
                precision,
                carry=carry,
                differentiate_inputs=not (n == 0 and tabled),
            )
            carried.append(tuple(map(tf.transpose, after)))
        return sequence, tuple(carried)

    def _keras_window(
        self, ids: Tensor, state: ModelState, carry: int | None, seed: Tensor | None
    ) -> tuple[Blocks, ModelState]:
        """Hidden values [T, H, B] and the state, by Keras' layers; run twice where the state inside is wanted."""
        length, carried = ids.shape[0], []
        cut = length if carry is None else carry
        sequence = tf.transpose(tf.gather(tf.convert_to_tensor(self.embedding), ids), (0, 2, 1))  # [T, E, B]
        for n, (layer, layer_state) in enumerate(zip(self.recurrent_layers, state, strict=True)):
            (dropped,) = self._dropped((sequence,), n, seed)
            inputs = tf.transpose(dropped, (2, 0, 1))  # [B, T, E]
            hidden, *after = layer(inputs[:, :cut], initial_state=list(layer_state))
            kept = tuple(tf.cast(s, self.compute_dtype) for s in after)
            carried.append(kept if carry is None else tuple(map(tf.stop_gradient, kept)))
            if cut < length:
                rest, *_ = layer(inputs[:, cut:], initial_state=after)
                hidden = tf.concat([hidden, rest], 1)
            sequence = tf.transpose(tf.cast(hidden, self.compute_dtype), (1, 2, 0))
        return (sequence,), tuple(carried)


class Decoder(NamedTuple):
    """A model made ready to go one symbol at a time: no loop, no gradient, no dropout; a tree that graphs can take.

    The matrices of products may have rows of zeros below.
    """

    cell: str
    table: Tensor  # [V, G], what each symbol adds to the first layer's gates
    kernels: tuple[Tensor, ...]  # of the layers after the first, transposed, each [G, H]
    recurrent_kernels: tuple[Tensor, ...]  # of every layer, transposed, each [G, H]
    biases: tuple[tuple[Tensor, ...], ...]  # of every layer, one or two, each [G, 1]
    projection: Tensor  # [V, H]
    bias: Tensor  # [V, 1]

    @classmethod
    def of(cls, model: CharLM, precision: str | None = None) -> Decoder:
        """Takes the weights that the model has now; `precision` is of the recurrent layers' products."""
        dtype = None if precision is None else tf.as_dtype(precision)
        weights = [model._layer_weights(n) for n in range(model.config.layers)]
        layers = [Operands.of(w, dtype) for w in weights]
        return cls(
            model.cell.name,
            tf.matmul(model.embedding, weights[0].kernel),
            tuple(layer.kernel_t for layer in layers[1:]),
            tuple(layer.recurrent_kernel_t for layer in layers),
            tuple(layer.biases for layer in layers),
            tf.transpose(model.output_projection()),
            model.bias[:, None],
        )

    def step(self, ids: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        """One symbol for each row: ids [B] and state (each [B, H]) give logits [B, V] and the state after it."""
        after = self.read(ids, state)
        return self.logits(after[-1][0]), after

    def logits(self, outputs: Tensor) -> Tensor:
        """The logits [B, V] of the last layer's outputs [B, H]."""
        return _product(self.projection, outputs, self.bias.shape[0], 1) + tf.transpose(self.bias)

    def read(self, ids: Tensor, state: ModelState) -> ModelState:
        """`step` without the logits."""
        return self._after(tf.gather(self.table, ids), state, 1)

    def step_columns(self, ids: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        """`step` with every state as columns, [H, B]."""
        after = self._after(tf.transpose(tf.gather(self.table, ids)), state, 0)
        return tf.transpose(_product(self.projection, after[-1][0], self.bias.shape[0], 0) + self.bias), after

    def padded(self, multiple: int) -> Decoder:
        """The same with rows of zeros below every matrix, to a multiple of so many."""

        def padded(weights: Tensor) -> Tensor:
            return tf.pad(weights, [[0, -weights.shape[0] % multiple], [0, 0]])

        kernels, recurrent_kernels = tuple(map(padded, self.kernels)), tuple(map(padded, self.recurrent_kernels))
        return self._replace(kernels=kernels, recurrent_kernels=recurrent_kernels, projection=padded(self.projection))

    def _after(self, projected: Tensor, state: ModelState, axis: int) -> ModelState:
        """The state after a step; features are along `axis`."""
        after: list[State] = []
        gates = self.table.shape[1]
        for n, (recurrent_kernel, before) in enumerate(zip(self.recurrent_kernels, state, strict=True)):
            if n:
                projected = _product(self.kernels[n - 1], after[-1][0], gates, axis)
            recurrent = _product(recurrent_kernel, before[0], gates, axis)
            biases = tuple(map(tf.transpose, self.biases[n])) if axis else self.biases[n]
            after.append(_decoded(self.cell, projected, recurrent, before, biases, axis))
        return tuple(after)


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
    return CELLS[cell].forward(*with_biases(projected, recurrent, biases), state, axis)[0]


def build_model(
    config: ModelConfig, *, seed: int = 1, engine: str | None = None, precision: str = "float32", dtype: str = "float32"
) -> CharLM:
    """The network of `config`, with orthogonal recurrent weights and a forget-gate bias of one.

    Args:
        config: with the tokenizer's vocabulary size in it.
        seed: of the initial weights.
        engine: "recurrence" or "keras"; None takes Keras' layers (cuDNN) where there is a GPU and Keras has the cell.
        precision: of the operands of products.
        dtype: of weights and state; float64 is for checking gradients.
    """
    chosen = engine or ("keras" if Machine.here().gpu and config.cell in KERAS_LAYERS else "recurrence")
    return CharLM(config, seed, chosen, precision, dtype)
