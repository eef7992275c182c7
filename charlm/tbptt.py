"""Truncated back-propagation through time: the loss, the optimizer, and the compiled train and evaluation steps.

BPTT(k2; k1), which Williams and Peng (1990) write BPTT(h; h'): every k1 symbols the gradient of the newest k1 losses
passes back through the newest k2 symbols and no further; the state that enters the window is a constant.

On a processor the layers of a stack run side by side; where there are more cores than layers, the lanes are computed
in groups, side by side in the same graph. A group's sums are added at the end, so the number of groups changes nothing
but rounding. Replicas on other devices and machines compute groups of lanes likewise: `replicas`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import safetensors.numpy
import tensorflow as tf

from charlm.cell import Tensor
from charlm.checkpoint import Arrays, assign, named_slots, slots_by_name, to_arrays
from charlm.config import Config, ModelConfig, TrainConfig
from charlm.divergence import BACK_OFF
from charlm.errors import ModelError, UsageError, named
from charlm.machine import Machine
from charlm.model import CharLM, ModelState, build_model, check_layers
from charlm.replicas import Command, Replicas
from charlm.runtime import kernel
from charlm.windows import Window

_log = logging.getLogger("charlm")


class Update(NamedTuple):
    """The result of one update."""

    nats_sum: Tensor  # over the scored symbols
    gradient_norm: Tensor  # global, of the gradient of nats per scored symbol, before clipping; 0 if it was skipped
    weights_sum: Tensor  # of all weights after it: not finite if one of them is not
    state: ModelState  # the next window's


def nats(logits: Tensor, y: Tensor) -> Tensor:
    """-log p(y) in nats for logits [..., V] and ids y [...]; the cross entropy of Shannon (1948)."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)


def scheduled_rate(config: TrainConfig, step: int, steps: int, back_offs: int = 0) -> float:
    """The learning rate of update `step` (from 0) of `steps`: linear warm-up, then cosine to the floor.

    The warm-up takes a tenth of the steps at most. Loshchilov and Hutter, "SGDR" (2017), without restarts. Each time
    that a training backed off, `BACK_OFF` of the rate was left.
    """
    highest = config.learning_rate * BACK_OFF**back_offs
    warmup = min(config.warmup, steps // 10)
    if step < warmup:
        return highest * (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, steps - warmup))
    return highest * (config.floor + (1 - config.floor) * (1 + math.cos(math.pi * share)) / 2)


def build_trained(model: ModelConfig, config: TrainConfig, resets: bool, weights: Arrays | None = None) -> CharLM:
    """A new network in the precision of a training on this machine; it warns where resets keep cuDNN out.

    Raises:
        UsageError: a precision that the cell or this machine has not.
        ModelError: the weights that it is to have, where there are any, are of other layers.
    """
    if weights:
        check_layers(model, weights)
    built = build_model(model, seed=config.seed, precision=Machine.here().precision(config.precision))
    if config.precision not in ("auto", built.precision):
        cell = f"the cell {model.cell} computes in {built.precision}"
        raise UsageError(f"{named('train.precision')} {config.precision}: {cell}")
    if built.engine == "keras" and resets:
        _log.warning("cuDNN resets no state inside a window: charlm's own recurrence computes those with documents")
    return built


def replica_groups(replicas: Replicas, config: Config) -> int:
    """The groups that each replica computes its lanes in."""
    return Machine.here().lane_groups(config.train.lanes // replicas.count, config.model.layers)


def build_optimizer(config: TrainConfig, model: CharLM) -> Any:
    """AdamW (Loshchilov and Hutter 2019), SGD with Nesterov momentum, or RMSprop; the recurrent layers' kernels decay.

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
        groups: how many groups a replica computes its lanes in; they divide the lanes.
        replicas: what lanes are divided among.
    """

    def __init__(self, model: CharLM, config: TrainConfig, groups: int, replicas: Replicas | None = None) -> None:
        self.model, self.config, self.groups = model, config, groups
        self.replicas = replicas or Replicas()
        self.optimizer = build_optimizer(config, model)

    def __call__(self, window: Window, state: ModelState, learning_rate: float, seed: Any) -> Update:
        """One update.

        Args:
            window: the symbols of all lanes.
            state: before the window, of the lanes of this process.
            learning_rate: of this update.
            seed: [2] integers for this update's dropout masks.
        """
        self.optimizer.learning_rate = learning_rate
        return self._train(_tensors(window), state, tf.constant(seed), _resets_inside(window))

    def initial_state(self) -> ModelState:
        """Zeros for the lanes of this process."""
        return self.model.initial_state(self.config.lanes // len(self.replicas.cluster.workers))

    def slots(self) -> dict[str, Any]:
        """The optimizer's variables by the names that they have in a checkpoint."""
        return named_slots(self.optimizer.variables, self.model.named_weights())

    def arrays(self, state: ModelState) -> tuple[Arrays, Arrays]:
        """The weights, and what resuming needs besides: the optimizer's slots and the state of all lanes."""
        self.replicas.announce(Command.GATHER)
        named = self.model.named_state(self.replicas.gathered(state))
        return to_arrays(self.model.named_weights()), to_arrays(self.slots() | named)

    def take(self, weights: Arrays, training: Arrays, where: Path) -> ModelState:
        """Goes on from what `arrays` returned; returns the state of this process' lanes.

        Args:
            weights, training: the two.
            where: their place, for messages.

        Raises:
            ModelError: names or shapes differ.
        """
        for name, state in self.model.named_state(self.model.initial_state(self.config.lanes)).items():
            if name not in training or training[name].shape != tuple(state.shape):
                raise ModelError(f"{where}: {name} is not the state of {self.config.lanes} lanes")
        if self.replicas.announces:
            self.replicas.announce(Command.TAKE)
            for arrays in (weights, training):
                self.replicas.broadcast(safetensors.numpy.save(arrays))
        slots = self.slots()
        assign(self.model.named_weights(), weights, where)
        assign(slots, slots_by_name(training, slots), where)
        own = {name: self.replicas.mine(a) if name.startswith("state.") else a for name, a in training.items()}
        return self.model.state_of(own)

    @tf.function(autograph=False)
    def _train(self, window: Window, state: ModelState, seed: Tensor, resets_inside: bool) -> Update:
        weights = self.model.named_weights()
        variables = self.model.trainable_variables
        scaled = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        scale = tf.identity(self.optimizer.dynamic_scale) if scaled else 1.0
        masks = self.model.dropout_masks(seed, window.x.shape[1])
        scored = tf.cast(tf.maximum(tf.math.count_nonzero(window.loss_mask), 1), self.model.compute_dtype)

        def summed(window: Window, masks: tuple[Tensor, ...], state: ModelState) -> tuple[list[Tensor], ModelState]:
            """The nats and their gradients over all lanes, and the state of this replica's."""
            own = Window(*(self.replicas.own(tensor, 1) for tensor in window))
            own_masks = tuple(self.replicas.own(mask, 1) for mask in masks)
            own_state = tf.nest.map_structure(lambda s: self.replicas.own(s, 0, of_process=True), state)
            parts = []
            for group in _grouped(self.groups, own, own_masks, own_state):
                with tf.GradientTape() as tape:
                    found, after = _nats(self.model, weights, *group, resets_inside, self.config.k1)
                    nats_sum = tf.reduce_sum(found)
                    loss = nats_sum * scale / scored
                parts.append((nats_sum, tape.gradient(loss, variables), after))
            sums, gradients, states = zip(*parts, strict=True)
            added = [tf.add_n(list(map(tf.convert_to_tensor, g))) for g in zip(*gradients, strict=True)]
            return self.replicas.total([tf.add_n(sums), *added]), _joined(list(states))

        totals, states = zip(*self.replicas.run(summed, window, masks, state), strict=True)
        nats_sum, *total = totals[0]
        clipped, norm = tf.clip_by_global_norm(total, self.config.clip * scale)
        if scaled:  # the optimizer skips an overflow, and unscales
            norm = tf.where(tf.math.is_finite(norm), norm / scale, 0.0)
        self.optimizer.apply(clipped, variables)
        weights_sum = tf.add_n([tf.reduce_sum(variable) for variable in variables])
        return Update(nats_sum, norm, weights_sum, _joined(list(states)))


class Evaluator:
    """A model's compiled evaluation step, lanes in groups as in training."""

    def __init__(self, model: CharLM, groups: int) -> None:
        self.model, self.groups = model, groups

    def __call__(self, window: Window, state: ModelState) -> tuple[Tensor, ModelState]:
        """The nats of every symbol [T, B], 0 where it does not count, and the state after the window."""
        return self._evaluate(_tensors(window), state, _resets_inside(window))

    @tf.function(autograph=False)
    def _evaluate(self, window: Window, state: ModelState, resets_inside: bool) -> tuple[Tensor, ModelState]:
        weights = self.model.named_weights()
        groups = _grouped(self.groups, window, (), state)
        found, states = zip(*(_nats(self.model, weights, *group, resets_inside) for group in groups), strict=True)
        return tf.concat(found, 1), _joined(list(states))


def _tensors(window: Window) -> Window:
    return Window(*map(tf.constant, window))


def _resets_inside(window: Window) -> bool:
    """True if a state is zeroed after the first step; a graph that does not need to is faster."""
    return bool(window.reset_mask[1:].any())


def _nats(
    model: CharLM,
    weights: Mapping[str, Any],
    window: Window,
    masks: tuple[Tensor, ...],
    state: ModelState,
    resets_inside: bool,
    carry: int | None = None,
) -> tuple[Tensor, ModelState]:
    """The nats of every symbol [T, B], 0 where it does not count; and the state after `carry` steps, or all."""
    first = window.reset_mask[0][:, None]
    state = tf.nest.map_structure(lambda s: tf.where(first, tf.zeros_like(s), s), state)
    resets = window.reset_mask if resets_inside else None
    logits, after = model.apply_in_blocks(weights, window.x, state, carry=carry, resets=resets, masks=masks)
    targets = tf.split(window.y, [block.shape[0] for block in logits])
    found = tf.concat([_nats_of_block(*block) for block in zip(logits, targets, strict=True)], 0)
    return tf.where(window.loss_mask, found, tf.zeros_like(found)), after


@tf.custom_gradient
def _nats_of_block(logits: Tensor, y: Tensor) -> tuple[Tensor, Any]:
    found, d_logits = _nats_and_derivative(logits, y)
    return found, lambda upstream: (upstream[..., None] * d_logits, None)


@kernel
def _nats_and_derivative(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The nats [S, B] for logits [S, B, V], and dL/d logits where dL/d nats is 1."""
    with tf.GradientTape() as tape:
        tape.watch(logits)
        found = nats(logits, y)
    return found, tape.gradient(found, logits)


def _grouped(
    groups: int, window: Window, masks: tuple[Tensor, ...], state: ModelState
) -> list[tuple[Window, tuple[Tensor, ...], ModelState]]:
    """Every group's share of the lanes; one group if they do not divide."""
    groups = groups if window.x.shape[1] % groups == 0 else 1
    by_lane = [tf.split(tensor, groups, 1) for tensor in (*window, *masks)]
    rows = [tf.split(s, groups, 0) for s in tf.nest.flatten(state)]
    shares = []
    for g in range(groups):
        lanes, own = [cut[g] for cut in by_lane], [cut[g] for cut in rows]
        shares.append((Window(*lanes[:4]), tuple(lanes[4:]), tf.nest.pack_sequence_as(state, own)))
    return shares


def _joined(states: list[ModelState]) -> ModelState:
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *states)
