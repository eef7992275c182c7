"""Whether an export computes what the model computes: the gate of every export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from charlm.api import LanguageModel
from charlm.config import SampleConfig
from charlm.generation import Generator
from charlm.model import build_model

SYMBOLS = 1000  # that the model and its export read
GREEDY = 500  # that each then writes
BOUND = 1e-5  # of the largest logit


class Script(NamedTuple):
    """What is played through a model."""

    ids: list[int]
    length: int  # of the greedy continuation
    blocked: list[int]


class Played(NamedTuple):
    """What a model made of a script."""

    engine: str
    logits: npt.NDArray[np.float32]  # [ids, V]; of an export that has several ways to them, [ways, ids, V]
    greedy: list[int]


@dataclass(frozen=True)
class Parity:
    """How far an export is from its model.

    Attributes:
        engine: what ran the export; why nothing did, if it was not checked.
        difference: the largest one between logits, relative to the largest logit; None if it was not checked.
        greedy: whether the likeliest text is the same.
    """

    engine: str
    difference: float | None = None
    greedy: bool = False

    @property
    def holds(self) -> bool:
        """False if it was checked and failed."""
        return self.difference is None or (self.difference <= BOUND and self.greedy)

    def __str__(self) -> str:
        if self.difference is None:
            return f"not checked: {self.engine}"
        text = "equal" if self.greedy else "different"
        return (
            f"{self.engine}: logits of {SYMBOLS} symbols within {self.difference:.1e} of the largest "
            f"(bound {BOUND:.0e}), {GREEDY} greedy symbols {text}"
        )


def script_of(language_model: LanguageModel) -> Script:
    """Symbols that the model itself draws, so that they are like what it has learned."""
    tokenizer, config = language_model.tokenizer, SampleConfig(length=SYMBOLS, temperature=1.0)
    generator = Generator(language_model.model, config, tokenizer.blocked)
    allowed = np.setdiff1d(np.arange(tokenizer.vocabulary), tokenizer.blocked)
    drawn = [ids[:, 0] for ids, _ in generator.stream(allowed[:1].tolist(), SYMBOLS, [1])]
    return Script(np.concatenate(drawn).tolist(), GREEDY, tokenizer.blocked.tolist())


def played_live(language_model: LanguageModel, script: Script, weights: npt.DTypeLike) -> Played:
    """The model itself, in float32: logits of the whole window at once, and its own generation.

    Its weights are rounded as the export has them.
    """
    model, blocked = build_model(language_model.config.model), language_model.tokenizer.blocked
    for name, weight in language_model.model.named_weights().items():
        model.named_weights()[name].assign(weight.numpy().astype(weights).astype(np.float32))
    logits, _ = model(tf.constant(script.ids)[:, None], model.initial_state(1))
    generator = Generator(model, SampleConfig(length=script.length, temperature=0.0), blocked)
    greedy: list[Any] = [ids[:, 0] for ids, _ in generator.stream(script.ids, script.length, [0])]
    return Played("live", logits[:, 0].numpy(), np.concatenate(greedy).tolist())


def compared(live: Played, play: Callable[[Path, Script], Played], path: Path, script: Script) -> Parity:
    """What an export plays in an engine against what the model did."""
    try:
        exported = play(path, script)
    except ModuleNotFoundError as error:
        return Parity(f"{error.name} is not installed")
    difference = float(np.abs(live.logits - exported.logits).max() / np.abs(live.logits).max())
    return Parity(exported.engine, difference, live.greedy == exported.greedy)
