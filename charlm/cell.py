"""A recurrent layer as equations: weights, and one time step that is a function of them.

A cell needs no more than `weights` and `step`: training, evaluation, generation and the SavedModel follow (scan.py,
decoding.py). A `GatedCell` says besides how a step comes out of two products, and what its derivative is; faster paths
take that. δ stands for dL/d.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeAlias

import tensorflow as tf

Tensor: TypeAlias = tf.Tensor
State: TypeAlias = tuple[Tensor, ...]
Weights: TypeAlias = Mapping[str, Tensor]


class Spec(NamedTuple):
    """The shape of a weight, and what it is at first: "glorot", "orthogonal", "zeros", "ones", or a function of shape
    and dtype."""

    shape: tuple[int, ...]
    initial: str | Callable[..., Any] = "zeros"


class Cell(ABC):
    """A recurrent layer's equations: B lanes, E inputs, H units.

    Attributes:
        name: as `--cell` takes it.
        states: the state's tensors, each [B, H]; the first is the layer's output.
    """

    name: ClassVar[str]
    states: ClassVar[tuple[str, ...]]

    @abstractmethod
    def weights(self, inputs: int, units: int) -> dict[str, Spec]:
        """The layer's weights by name; weight decay is for those with "kernel" in it."""

    @abstractmethod
    def step(self, weights: Weights, x: Tensor, state: State) -> State:
        """The state after one time step, from the input x [B, E] and the state before; rows do not meet."""


class GatedCell(Cell):
    """A cell whose gates come of two products, W'x and U'h.

    Its `forward` and `backward` are feature-major: x is [E, B], the state and every gate [H, B], so that each gate is a
    contiguous block of rows; forward it can be lane-major too, with every shape the other way round. docs/bptt.md
    derives the backward equations.

    Attributes:
        gates: how many; G is that many times H.
        direct: the states whose derivative also passes to the step before without passing through U'h.
    """

    gates: ClassVar[int]
    direct: ClassVar[tuple[str, ...]]

    @abstractmethod
    def forward(
        self, projected: Tensor, recurrent: Tensor, state: State, axis: int = 0
    ) -> tuple[State, tuple[Tensor, ...]]:
        """One step.

        Args:
            projected: W'x + b, [G, B].
            recurrent: U'h (GRU: + its recurrent bias), [G, B].
            state: before the step.
            axis: of the gates; 1 where lanes come first.

        Returns:
            The state after the step, and the activations that `backward` needs, each [H, B].
        """

    @abstractmethod
    def backward(self, d_state: State, activations: tuple[Tensor, ...], state: State) -> tuple[Tensor, Tensor, State]:
        """The step's derivative.

        Args:
            d_state: dL/d the state after the step.
            activations: what `forward` returned.
            state: before the step.

        Returns:
            dL/d projected [G, B]; dL/d recurrent [G, B], the same tensor where the two are added; and for each of
            `direct` the part of dL/d state before the step that does not pass through `recurrent`.
        """

    def weights(self, inputs: int, units: int) -> dict[str, Spec]:
        """W [E, G], U [H, G] and b [G], laid out and named as Keras' layers have them."""
        gates = self.gates * units
        return {
            "kernel": Spec((inputs, gates), "glorot"),
            "recurrent_kernel": Spec((units, gates), "orthogonal"),
            "bias": Spec((gates,)),
        }

    def step(self, weights: Weights, x: Tensor, state: State) -> State:
        """`forward` on the products."""
        biases = tf.reshape(weights["bias"], (-1, weights["kernel"].shape[1]))
        products = x @ weights["kernel"] + biases[0], state[0] @ weights["recurrent_kernel"]
        recurrent = products[1] + biases[1] if biases.shape[0] == 2 else products[1]
        return self.forward(products[0], recurrent, state, 1)[0]
