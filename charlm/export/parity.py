"""The gate of every export: it must compute what the model computes.

No two engines round alike, and a recurrence may make much of a rounding, so that no fixed bound parts a fault from the
processor's own way. An export is held against the model in float64, and what it may differ by is what float32 itself
does to this model on this text: the largest error so far of some runs in float32 whose states are moved by a last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from charlm.cell import Tensor
from charlm.config import SampleConfig
from charlm.generation import Generator
from charlm.language_model import LanguageModel
from charlm.machine import whole_float32
from charlm.model import CharLM, ModelState, build_model
from charlm.runtime import portable

SYMBOLS = 1000  # that the model and its export read
GREEDY = 500  # that the export then writes
RUNS = 8  # in float32, of which the first is the model as it is
MOVED = 8 * 2.0**-23  # of a state, up or down, after every symbol of the others: an engine's tanh may miss as much
BOUND = 10.0  # times float32's own error; the coarsest fault, weights in half precision, is some thousand times it
FLOOR = 4 * 2.0**-23  # of the largest logit: no error of float32 is taken for less

Array = npt.NDArray[Any]


class Script(NamedTuple):
    """The symbols and the text that are played through a model."""

    ids: list[int]
    length: int  # of the greedy continuation
    blocked: list[int]
    text: str = ""  # whose ids they are


class Texts(NamedTuple):
    """The answers of an export that takes texts to the text of a script."""

    nats: float  # of all symbols but the first
    symbols: int  # so many
    ids: list[int]  # of the greedy continuation
    text: str  # that they stand for
    log_probabilities: list[float]  # of each


class Played(NamedTuple):
    """The answers of an export to a script."""

    engine: str
    logits: npt.NDArray[np.float32]  # [ids, V]; of an export that has several ways to them, [ways, ids, V]
    greedy: list[int]
    texts: Texts | None = None


@dataclass(frozen=True)
class Parity:
    """The distance of an export from its model.

    Attributes:
        engine: what ran the export; why nothing did, if it was not checked.
        difference: the largest one between logits, relative to the largest logit; None if it was not checked.
        noise: the largest one in terms of what float32's rounding does to the model by then.
        greedy: whether every symbol that it wrote is the likeliest one, or as likely up to that rounding.
        symbols: that it read.
        texts: whether its texts are encoded, scored, written and decoded as the model does; None if it has none.
    """

    engine: str
    difference: float | None = None
    noise: float | None = None
    greedy: bool = False
    symbols: int = 0
    texts: bool | None = None

    @property
    def holds(self) -> bool:
        """False if it was checked and failed."""
        return self.noise is None or (self.noise <= BOUND and self.greedy and self.texts is not False)

    def __str__(self) -> str:
        if self.noise is None:
            return f"not checked: {self.engine}"
        likeliest = "all" if self.greedy else "not all"
        texts = {True: ", texts as the model has them", False: ", texts not as the model has them", None: ""}
        return (
            f"{self.engine}: logits of {self.symbols} symbols within {self.difference:.1e} of the largest, "
            f"{self.noise:.1f} times float32's own rounding (bound {BOUND:.0f}), {GREEDY} greedy symbols {likeliest} "
            f"the likeliest{texts[self.texts]}"
        )


def script_of(language_model: LanguageModel) -> Script:
    """Symbols that the model itself draws, so that they are like what it has learned."""
    tokenizer, config = language_model.tokenizer, SampleConfig(length=SYMBOLS, temperature=1.0)
    generator = Generator(language_model.model, config, tokenizer.blocked)
    allowed = np.setdiff1d(np.arange(tokenizer.vocabulary), tokenizer.blocked)
    drawn = [ids[:, 0] for ids, _ in generator.stream(allowed[:1].tolist(), SYMBOLS, [1])]
    text = tokenizer.decode_bytes(np.concatenate(drawn)).decode("utf-8", "ignore") or "\n"
    return Script(tokenizer.encode(text).tolist(), GREEDY, tokenizer.blocked.tolist(), text)


class Reference:
    """A model in float64, and what float32 makes of it."""

    def __init__(self, language_model: LanguageModel, weights: npt.DTypeLike) -> None:
        """`weights` is the type that the export has them in: they are rounded so."""
        self.tokenizer = language_model.tokenizer
        self._known: dict[tuple[int, ...], tuple[Array, Array]] = {}
        self._models = []
        for dtype in "float64", "float32":
            with tf.device("/cpu:0"):  # whose products have all bits of float32
                model = build_model(language_model.config.model, seed=None, engine="recurrence", dtype=dtype)
            for name, weight in language_model.model.named_weights().items():
                model.named_weights()[name].assign(weight.numpy().astype(weights).astype(dtype))
            self._models.append(model)

    def after(self, ids: list[int]) -> tuple[Array, Array]:
        """The logits after each symbol, [ids, V] in float64, and float32's error there, [ids]: the largest so far."""
        key = tuple(ids)
        if key not in self._known:
            exact, rounded = (_logits(model, ids, runs) for model, runs in zip(self._models, (1, RUNS), strict=True))
            errors = np.maximum.accumulate(np.abs(rounded - exact).max((1, 2)))
            self._known[key] = exact[:, 0], np.maximum(errors, FLOOR * np.abs(exact).max())
        return self._known[key]


def _logits(model: CharLM, ids: list[int], runs: int) -> Array:
    """[ids, runs, V]: every run reads the ids; those after the first have the last bits of their states moved."""
    moved = tf.constant([[0.0]] + [[MOVED]] * (runs - 1), model.dtype)

    def body(t: Tensor, state: ModelState, logits: tf.TensorArray) -> tuple[Any, ...]:
        found, after = model(tf.fill((1, runs), symbols[t]), state)
        parts = tf.nest.flatten(after)
        chances = (tf.random.stateless_uniform(s.shape, (n, t), -1, 1, s.dtype) for n, s in enumerate(parts))
        parts = [s * (1 + moved * chance) for s, chance in zip(parts, chances, strict=True)]
        return t + 1, tf.nest.pack_sequence_as(after, parts), logits.write(t, found[0])

    def read() -> Tensor:
        logits = tf.TensorArray(model.dtype, len(ids), element_shape=(runs, model.config.vocabulary))
        start = 0, model.initial_state(runs), logits
        return tf.while_loop(lambda t, *_: t < len(ids), body, start, parallel_iterations=1)[2].stack()

    with portable(), tf.device("/cpu:0"):
        symbols = tf.constant(ids, tf.int32)
        found: Array = tf.function(read, autograph=False)().numpy()
    return found


@whole_float32()
def compared(reference: Reference, play: Callable[[Path, Script], Played], path: Path, script: Script) -> Parity:
    """The distance of what an export plays in an engine from what the model does."""
    try:
        exported = play(path, script)
    except ModuleNotFoundError as error:
        return Parity(f"{error.name} is not installed")
    exact, rounding = reference.after(script.ids + exported.greedy)
    read = len(script.ids)
    apart = np.abs(exported.logits - exact[:read]).max(-1)  # [ids] or [ways, ids]
    return Parity(
        exported.engine,
        float(apart.max() / np.abs(exact[:read]).max()),
        float((apart / rounding[:read]).max()),
        _likeliest(exact, rounding, script, exported.greedy),
        read,
        None if exported.texts is None else _are_the_models(exported.texts, reference, script),
    )


def _likeliest(exact: Array, rounding: Array, script: Script, greedy: list[int]) -> bool:
    """True if every symbol of a continuation is the likeliest one, up to what float32 may miss."""
    allowed = exact.copy()
    allowed[:, script.blocked] = -np.inf
    written, missed = (array[len(script.ids) - 1 : -1] for array in (allowed, rounding))
    margins = written.max(-1) - written[np.arange(script.length), greedy]
    return bool((margins <= 2 * BOUND * missed).all())


def _are_the_models(texts: Texts, reference: Reference, script: Script) -> bool:
    """True if texts are scored, continued and decoded as by the model, up to what float32 may miss."""
    read, ids = len(script.ids), script.ids + texts.ids
    exact, rounding = reference.after(ids)
    missed = 2 * BOUND * rounding[:-1]
    costs = np.log(np.exp(exact - exact.max(-1, keepdims=True)).sum(-1)) + exact.max(-1)
    costs = costs[:-1] - exact[np.arange(len(ids) - 1), ids[1:]]
    apart = np.abs(costs[read - 1 :] + texts.log_probabilities)
    return (
        texts.symbols == read - 1
        and bool(abs(costs[: read - 1].sum() - texts.nats) <= missed[: read - 1].sum())
        and _likeliest(exact, rounding, script, texts.ids)
        and bool((apart <= missed[read - 1 :]).all())
        and texts.text == reference.tokenizer.decode_bytes(texts.ids).decode("utf-8", "replace")
    )
