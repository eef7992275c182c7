"""The network: embedding, recurrent layers, dropout, projection to logits. A function of weights; state in, state out.

    logits, state = model(ids, state)
    logits, state = model.apply(weights, ids, state)

Ids are `[T, B]` (time, lanes), logits `[T, B, V]`. State is a tuple over layers of the cell's states, each `[B, H]`;
nothing is remembered between calls. Weights are a value, tensors by the names that they have in a checkpoint;
`model(...)` takes the model's own. On a GPU Keras' layers run (cuDNN) where Keras has the cell, else `scan.unroll`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from charlm.cell import Cell, GatedCell, State, Tensor, Weights
from charlm.cells import cell_of
from charlm.config import ModelConfig
from charlm.errors import ModelError
from charlm.machine import Machine
from charlm.recurrence import Blocks, in_blocks
from charlm.runtime import kernel
from charlm.scan import unroll

ModelState: TypeAlias = tuple[State, ...]

KERAS_LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}
INITIALIZERS = {
    "glorot": keras.initializers.GlorotUniform,
    "orthogonal": keras.initializers.Orthogonal,
    "normal": keras.initializers.RandomNormal,
}


class Initial:
    """The first values of weights, each with a seed of its own; zeros if there is no seed."""

    def __init__(self, seed: int | None) -> None:
        self._seeds = None if seed is None else itertools.count(seed * 1000)

    def __call__(self, initial: str | Callable[..., Any], **settings: Any) -> Any:
        """An initializer: one of `INITIALIZERS`, or what Keras takes for one."""
        if self._seeds is None:
            return "zeros"
        drawn = INITIALIZERS.get(initial) if isinstance(initial, str) else None
        return drawn(seed=next(self._seeds), **settings) if drawn else initial


def check_layers(config: ModelConfig, weights: Mapping[str, Any]) -> None:
    """Holds the arrays of recurrent layers against a configuration, before any of its size is allocated.

    Raises:
        ModelError: they are of other layers.
    """
    cell, inputs = cell_of(config.cell), [config.features] + [config.units] * (config.layers - 1)
    for n, width in enumerate(inputs):
        for kind, spec in cell.weights(width, config.units).items():
            found = weights.get(name := f"layers.{n}.{kind}")
            if found is None or tuple(found.shape) != spec.shape:
                has = "missing" if found is None else tuple(found.shape)
                raise ModelError(f"weights.safetensors: {name} is {has}; a layer of {config.cell} has {spec.shape}")


class CellLayer(keras.layers.Layer):
    """The weights of a cell as a Keras layer; `scan.unroll` computes with them."""

    def __init__(self, cell: Cell, inputs: int, units: int, initial: Initial, **base: Any) -> None:
        super().__init__(**base)
        for name, spec in cell.weights(inputs, units).items():
            self.add_weight(shape=spec.shape, initializer=initial(spec.initial), name=name)
        self.built = True


class CharLM(keras.Model):
    """A recurrent language model over ids; build it with `build_model`.

    Attributes:
        config: what it was built from.
        engine: "recurrence" (derived by hand), "step" (the cell's own step) or "keras" (cuDNN on a GPU).
        precision: of the operands of matrix products: float32, bfloat16 or float16. Weights and state are float32.
    """

    def __init__(self, config: ModelConfig, seed: int | None, engine: str, precision: str, dtype: str) -> None:
        super().__init__(dtype=dtype, name="charlm")
        self.config, self.engine, self.precision = config, engine, precision
        self.cell = cell_of(config.cell)
        initial, scale = Initial(seed), 1 / math.sqrt(config.features)
        self.embedding = self.add_weight(
            shape=(config.vocabulary, config.features),
            initializer=initial("normal", stddev=scale if config.tie else 1.0),
            name="embedding",
        )
        self.recurrent_layers = []
        for n in range(config.layers):
            inputs, name = config.features if n == 0 else config.units, f"{config.cell}_{n}"
            if engine == "keras":
                layer = KERAS_LAYERS[config.cell](
                    config.units,
                    return_sequences=True,
                    return_state=True,
                    kernel_initializer=initial("glorot"),
                    recurrent_initializer=initial("orthogonal"),
                    dtype=keras.DTypePolicy(dtype if precision == "float32" else f"mixed_{precision}"),
                    name=name,
                )
                layer.build((None, None, inputs))
            else:
                layer = CellLayer(self.cell, inputs, config.units, initial, dtype=dtype, name=name)
            self.recurrent_layers.append(layer)
        if not config.tie:
            self.projection = self.add_weight(
                shape=(config.units, config.vocabulary),
                initializer=initial("glorot"),
                name="projection",
            )
        self.bias = self.add_weight(shape=(config.vocabulary,), initializer="zeros", name="bias")
        self.built = True

    def named_weights(self) -> dict[str, Any]:
        """Every weight by the name it has in a checkpoint; recurrent ones are laid out as Keras' layers have them."""
        named = {"embedding": self.embedding}
        for n, layer in enumerate(self.recurrent_layers):
            for kind, value in zip(self.cell.weights(1, 1), layer.weights, strict=True):
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
        """Zeros for `batch` lanes: a tuple over layers of the cell's states, each [batch, H]."""
        zeros = tf.zeros((batch, self.config.units), self.compute_dtype)
        return tuple(tuple(zeros for _ in self.cell.states) for _ in self.recurrent_layers)

    def dropout_masks(self, seed: Tensor, lanes: int) -> tuple[Tensor, ...]:
        """The masks of a window for all its lanes: of the input of each layer, and of the output of the last, [F, B].

        A mask holds for all steps (Gal and Ghahramani 2016, "variational"). None are drawn where the rate is 0.
        """
        rate, config = self.config.dropout, self.config
        if rate == 0:
            return ()
        widths = [config.features] + [config.units] * config.layers
        drawn = (
            tf.random.stateless_uniform((width, lanes), tf.random.fold_in(seed, place), alg="philox")
            for place, width in enumerate(widths)
        )
        return tuple(tf.cast(d >= rate, self.compute_dtype) / (1 - rate) for d in drawn)

    def call(self, ids: Tensor, state: ModelState, **options: Any) -> tuple[Tensor, ModelState]:
        """`apply` with the model's own weights."""
        return self.apply(self.named_weights(), ids, state, **options)

    def apply(self, weights: Weights, ids: Tensor, state: ModelState, **options: Any) -> tuple[Tensor, ModelState]:
        """Runs a window.

        Args:
            weights: tensors by the names of `named_weights`.
            ids: [T, B] int32, T and B known when the graph is built.
            state: before the window.
            options: as `apply_in_blocks` takes them.

        Returns:
            logits of the next symbol [T, B, V], and the state.
        """
        blocks, state = self.apply_in_blocks(weights, ids, state, **options)
        return tf.concat(blocks, 0), state

    def apply_in_blocks(
        self,
        weights: Weights,
        ids: Tensor,
        state: ModelState,
        *,
        carry: int | None = None,
        resets: Tensor | None = None,
        masks: tuple[Tensor, ...] = (),
    ) -> tuple[Blocks, ModelState]:
        """`apply` with the logits in blocks along the time, each there as soon as its last layer is.

        Args:
            weights, ids, state: as `apply` takes them.
            carry: after how many symbols the returned state is taken; the whole window if None. A state from inside
                the window carries no gradient.
            resets: [T, B] booleans, true where a lane's state is zeroed before the symbol.
            masks: of `dropout_masks`, for these lanes; no dropout if there are none.
        """
        weights = {name: tf.convert_to_tensor(weight) for name, weight in weights.items()}
        by_keras = self.engine == "keras" and resets is None
        window = self._keras_window if by_keras else self._scanned_window
        hidden, state = window(weights, ids, state, carry, masks, *(() if by_keras else (resets,)))
        last = masks[-1] if masks else None
        return tuple(self._logits(weights, _dropped(block, last)) for block in hidden), state

    def _logits(self, weights: Weights, hidden: Tensor) -> Tensor:
        """[S, H, B] -> [S, B, V]."""
        steps, units, lanes = hidden.shape
        rows = tf.cast(tf.reshape(tf.transpose(hidden, (0, 2, 1)), (-1, units)), self.compute_dtype)
        return tf.reshape(tf.matmul(rows, projection_of(weights)) + weights["bias"], (steps, lanes, -1))

    def _scanned_window(
        self,
        weights: Weights,
        ids: Tensor,
        state: ModelState,
        carry: int | None,
        masks: tuple[Tensor, ...],
        resets: Tensor | None,
    ) -> tuple[Blocks, ModelState]:
        """Hidden values [T, H, B] and the state, by `scan.unroll`."""
        precision = tf.as_dtype(self.compute_dtype if self.precision == "float32" else self.precision)
        # One-hot columns times (embedding @ kernel): fewer products than rows of the embedding, where V is small.
        tabled = isinstance(self.cell, GatedCell) and self.config.vocabulary <= self.config.features and not masks
        if tabled:
            sequence = tuple(tf.one_hot(s, self.config.vocabulary, axis=1, dtype=precision) for s in in_blocks(ids))
        else:
            embedding = weights["embedding"]
            sequence = tuple(tf.transpose(tf.gather(embedding, s), (0, 2, 1)) for s in in_blocks(ids))  # [S, E, B]
        carried = []
        for n, layer_state in enumerate(state):
            layer = layer_weights(weights, n)
            if n == 0 and tabled:
                layer["kernel"] = tf.matmul(weights["embedding"], layer["kernel"])
            sequence, after = unroll(
                self.cell,
                tuple(_dropped(block, masks[n] if masks else None) for block in sequence),
                layer,
                layer_state,
                resets,
                precision,
                carry=carry,
                differentiate_inputs=not (n == 0 and tabled),
            )
            carried.append(after)
        return sequence, tuple(carried)

    def _keras_window(
        self, weights: Weights, ids: Tensor, state: ModelState, carry: int | None, masks: tuple[Tensor, ...]
    ) -> tuple[Blocks, ModelState]:
        """Hidden values [T, H, B] and the state, by Keras' layers; run twice where the state inside is wanted."""
        length, carried = ids.shape[0], []
        cut = length if carry is None else carry
        sequence = tf.transpose(tf.gather(weights["embedding"], ids), (0, 2, 1))  # [T, E, B]
        for n, (layer, layer_state) in enumerate(zip(self.recurrent_layers, state, strict=True)):
            values = zip(layer.trainable_variables, layer_weights(weights, n).values(), strict=True)
            inputs = tf.transpose(_dropped(sequence, masks[n] if masks else None), (2, 0, 1))  # [B, T, E]
            with keras.StatelessScope(state_mapping=values):  # for `stateless_call` casts to no layer's precision
                hidden, *after = layer(inputs[:, :cut], initial_state=list(layer_state))
                rest = layer(inputs[:, cut:], initial_state=after)[:1] if cut < length else []
            kept = tuple(tf.cast(s, self.compute_dtype) for s in after)
            carried.append(kept if carry is None else tuple(map(tf.stop_gradient, kept)))
            sequence = tf.transpose(tf.cast(tf.concat([hidden, *rest], 1), self.compute_dtype), (1, 2, 0))
        return (sequence,), tuple(carried)


def layer_weights(weights: Weights, n: int) -> dict[str, Tensor]:
    """The weights of one recurrent layer by their names in it."""
    prefix = f"layers.{n}."
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


def projection_of(weights: Weights) -> Tensor:
    """[H, V]; the embedding's transpose where the two are tied."""
    return weights["projection"] if "projection" in weights else tf.transpose(weights["embedding"])


@kernel
def _dropped_exactly(block: Tensor, mask: Tensor) -> Tensor:
    return tf.cast(tf.cast(block, mask.dtype) * mask, block.dtype)


def _dropped(block: Tensor, mask: Tensor | None) -> Tensor:
    """Steps [S, F, B] times a mask [F, B] in the mask's precision, for bfloat16 would round its 1/(1 − p)."""
    if mask is None:
        return block
    return block * mask if block.dtype == mask.dtype else _dropped_exactly(block, mask)


def build_model(
    config: ModelConfig,
    *,
    seed: int | None = 1,
    engine: str | None = None,
    precision: str = "float32",
    dtype: str = "float32",
) -> CharLM:
    """The network of `config`, with orthogonal recurrent weights and a forget-gate bias of one.

    Args:
        config: with the tokenizer's vocabulary size in it.
        seed: of the initial weights; None if others follow, for drawing them takes time.
        engine: "recurrence" or "keras"; None takes Keras' layers (cuDNN) where there is a GPU and Keras has the cell.
            A cell that has no faster path than its own step takes that.
        precision: of the operands of products; those of a cell's own step are of `dtype`.
        dtype: of weights and state; float64 is for checking gradients.
    """
    chosen = engine or ("keras" if Machine.here().gpu and config.cell in KERAS_LAYERS else "recurrence")
    if not isinstance(cell_of(config.cell), GatedCell):
        chosen, precision = "step", "float32"
    return CharLM(config, seed, chosen, precision, dtype)
