"""Truncated back-propagation through time: the loss, the optimizer, and the compiled train and evaluation steps.

BPTT(k2; k1), which Williams and Peng (1990) write BPTT(h; h'): every k1 symbols the gradient of the newest k1 losses
passes back through the newest k2 symbols and no further; the state that enters the window is a constant.

On a processor the layers of a stack run side by side; where there are more cores than layers, the lanes are computed
in groups, side by side in the same graph. A group's sums are added at the end, so the number of groups changes nothing
but rounding.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from charlm.cells import Tensor
from charlm.config import TrainConfig
from charlm.model import CharLM, ModelState
from charlm.recurrence import Blocks
from charlm.runtime import kernel


class Update(NamedTuple):
    """What one update did."""

    nats_sum: Tensor  # over the scored symbols
    gradient_norm: Tensor  # global, of the gradient of nats per scored symbol, before clipping; 0 if it was skipped
    state: ModelState  # the next window's


def nats(logits: Tensor, y: Tensor) -> Tensor:
    """-log p(y) in nats for logits [..., V] and ids y [...]; the cross entropy of Shannon (1948)."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)


def scheduled_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The learning rate of update `step` (from 0) of `steps`: linear warm-up, then cosine to the floor.

    The warm-up takes a tenth of the steps at most. Loshchilov and Hutter, "SGDR" (2017), without restarts.
    """
    warmup = min(config.warmup, steps // 10)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, steps - warmup))
    return config.learning_rate * (config.floor + (1 - config.floor) * (1 + math.cos(math.pi * share)) / 2)


def build_optimizer(config: TrainConfig, model: CharLM) -> Any:
    """AdamW (Loshchilov and Hutter 2019), SGD with Nesterov momentum, or RMSprop; biases and embedding do not decay.

    In float16 the loss is scaled, and an update whose gradient overflows is skipped (Micikevicius et al. 2018).
    """
    rate, decay = config.learning_rate, config.weight_decay
    match config.optimizer:
        case "adamw":
            optimizer = keras.optimizers.AdamW(rate, weight_decay=decay, beta_1=0.9, beta_2=0.99, epsilon=1e-8)
        case "sgd":
            optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay)
        case "rmsprop":
            optimizer = keras.optimizers.RMSprop(rate, rho=0.95, weight_decay=decay)
    optimizer.exclude_from_weight_decay(var_list=[v for n, v in model.named_weights().items() if "kernel" not in n])
    if model.precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


class Trainer:
    """A model with its optimizer, and their compiled train step.

    Attributes:
        optimizer: its variables, with the model's weights, are all that an update changes.
        groups: how many groups the lanes are computed in; they divide the lanes.
    """

    def __init__(self, model: CharLM, config: TrainConfig, groups: int) -> None:
        self.model, self.config, self.groups = model, config, groups
        self.optimizer = build_optimizer(config, model)

    def __call__(self, x: Any, y: Any, state: ModelState, scored: int, learning_rate: float, seed: Any) -> Update:
        """One update.

        Args:
            x, y: [k2, B] ids and their successors.
            state: at the window's start.
            scored: how many of the newest losses count: k1, or k2 in an epoch's first window.
            learning_rate: of this update.
            seed: [2] integers for this update's dropout masks.
        """
        self.optimizer.learning_rate = learning_rate
        return self._train(tf.constant(x), tf.constant(y), state, tf.constant(seed), tf.constant(scored))

    @tf.function(autograph=False)
    def _train(self, x: Tensor, y: Tensor, state: ModelState, seed: Tensor, scored: Tensor) -> Update:
        k2, lanes = x.shape
        variables = self.model.trainable_variables
        scaled = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        scale = tf.identity(self.optimizer.dynamic_scale) if scaled else 1.0
        counted = tf.broadcast_to((tf.range(k2) >= k2 - scored)[:, None], (k2, lanes))
        parts = []
        for g, (x_g, y_g, counted_g, state_g) in enumerate(_grouped(self.groups, (x, y, counted), state)):
            with tf.GradientTape() as tape:
                logits, after = self.model.unfold(
                    x_g, state_g, carry=self.config.k1, dropout_seed=tf.random.fold_in(seed, g)
                )
                nats_sum = _counted_nats(logits, y_g, counted_g)
                loss = nats_sum * scale / tf.cast(scored * lanes, nats_sum.dtype)
            parts.append((nats_sum, tape.gradient(loss, variables), after))
        sums, gradients, after = zip(*parts, strict=True)
        total = [tf.add_n(list(map(tf.convert_to_tensor, g))) for g in zip(*gradients, strict=True)]
        clipped, norm = tf.clip_by_global_norm(total, self.config.clip * scale)
        if scaled:  # the optimizer skips an overflow, and unscales
            norm = tf.where(tf.math.is_finite(norm), norm / scale, 0.0)
        self.optimizer.apply(clipped, variables)
        return Update(tf.add_n(sums), norm, _joined(list(after)))


class Evaluator:
    """A model's compiled evaluation step, lanes in groups as in training."""

    def __init__(self, model: CharLM, groups: int) -> None:
        self.model, self.groups = model, groups

    def __call__(self, x: Any, y: Any, counted: Any, cleared: Any, state: ModelState) -> tuple[Tensor, ModelState]:
        """The nats of the counted symbols, summed, and the state after the window.

        Args:
            x, y: [T, B] ids and their successors.
            counted: [T, B] booleans.
            cleared: [B] booleans, the lanes whose state is zeroed first.
            state: before the window.
        """
        return self._evaluate(*map(tf.constant, (x, y, counted, cleared)), state)

    @tf.function(autograph=False)
    def _evaluate(
        self, x: Tensor, y: Tensor, counted: Tensor, cleared: Tensor, state: ModelState
    ) -> tuple[Tensor, ModelState]:
        state = tf.nest.map_structure(lambda s: tf.where(cleared[:, None], tf.zeros_like(s), s), state)
        sums, states = [], []
        for x_g, y_g, counted_g, state_g in _grouped(self.groups, (x, y, counted), state):
            logits, after = self.model.unfold(x_g, state_g)
            sums.append(_counted_nats(logits, y_g, counted_g))
            states.append(after)
        return tf.add_n(sums), _joined(states)


def _counted_nats(logits: Blocks, y: Tensor, counted: Tensor) -> Tensor:
    """The nats of the symbols y [T, B] that are counted, summed; logits [T, B, V] in blocks along the time."""
    sizes = [block.shape[0] for block in logits]
    blocks = zip(logits, tf.split(y, sizes), tf.split(counted, sizes), strict=True)
    return tf.add_n([_nats_of_block(*block) for block in blocks])


@tf.custom_gradient
def _nats_of_block(logits: Tensor, y: Tensor, counted: Tensor) -> tuple[Tensor, Any]:
    nats_sum, d_logits = _nats_and_derivative(logits, y, counted)
    return nats_sum, lambda upstream: (upstream * d_logits, None, None)


@kernel
def _nats_and_derivative(logits: Tensor, y: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(logits)
        nats_sum = tf.reduce_sum(tf.where(counted, nats(logits, y), 0.0))
    return nats_sum, tape.gradient(nats_sum, logits)


def _grouped(groups: int, sequences: tuple[Tensor, ...], state: ModelState) -> list[tuple[Any, ...]]:
    """Every group's share of the lanes of each sequence [T, B] and of the state; one group if they do not divide."""
    groups = groups if sequences[0].shape[1] % groups == 0 else 1
    cut = [tf.split(sequence, groups, 1) for sequence in sequences]
    states = [tf.split(s, groups, 0) for s in tf.nest.flatten(state)]
    return [(*(c[g] for c in cut), tf.nest.pack_sequence_as(state, [s[g] for s in states])) for g in range(groups)]


def _joined(states: list[ModelState]) -> ModelState:
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *states)
