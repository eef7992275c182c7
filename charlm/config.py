"""What a run is made of: frozen dataclasses, presets, TOML in, strict JSON in and out."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from charlm.errors import UsageError


def _check(name: str, value: object, holds: bool, wanted: str) -> None:
    if not holds:
        raise UsageError(f"{name} must be {wanted}, not {value!r}")


def _typed(value: object, kind: Any) -> Any:
    """`value` as the annotated type `kind`; TypeError if it is of another. An int is a float, a bool is no int."""
    options = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return None if value is None else _typed(value, options[0])
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or (options[-1] is not Ellipsis and len(value) != len(options)):
            raise TypeError
        return tuple(_typed(v, options[0]) for v in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TypeError
    return value


def _wanted(kind: Any) -> str:
    return str(kind).replace("<class '", "").replace("'>", "").replace(" | None", "")


class Strict:
    """JSON in and out for a dataclass, strictly: unknown and ill-typed keys are errors that name the key."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> Self:
        """Builds one from plain values.

        Raises:
            UsageError: a key is unknown, of the wrong type, or out of range; the message names it and `where`.
        """
        if not isinstance(values, Mapping):
            raise UsageError(f"{where}: expected a table of settings, not {values!r}")
        hints = typing.get_type_hints(cls)
        found: dict[str, Any] = {}
        for key, value in values.items():
            if key not in hints:
                raise UsageError(f"{where}: unknown key '{key}' (known: {', '.join(sorted(hints))})")
            kind = hints[key]
            try:
                found[key] = (
                    kind.from_dict(value, f"{where}.{key}")
                    if isinstance(kind, type) and issubclass(kind, Strict)
                    else _typed(value, kind)
                )
            except (TypeError, OverflowError):
                raise UsageError(f"{where}: '{key}' must be of type {_wanted(kind)}, not {value!r}") from None
        try:
            return cls(**found)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[call-overload]


@dataclass(frozen=True)
class ModelConfig(Strict):
    """The network. `vocabulary` is the tokenizer's; it is set when the tokenizer is known."""

    cell: str = "lstm"
    layers: int = 1
    units: int = 256
    embedding: int | None = None  # features; the units if None
    dropout: float = 0.0
    tie: bool = False  # the projection is the embedding transposed
    vocabulary: int = 0

    def __post_init__(self) -> None:
        _check("cell", self.cell, self.cell in CELL_NAMES, f"one of {', '.join(CELL_NAMES)}")
        _check("layers", self.layers, self.layers >= 1, "at least 1")
        _check("units", self.units, self.units >= 1, "at least 1")
        _check("embedding", self.embedding, self.embedding is None or self.embedding >= 1, "at least 1")
        _check("dropout", self.dropout, 0 <= self.dropout < 1, "at least 0 and below 1")
        _check("embedding", self.embedding, not self.tie or self.features == self.units, "the units when tie is on")

    @property
    def features(self) -> int:
        """Width of the embedding."""
        return self.units if self.embedding is None else self.embedding


@dataclass(frozen=True)
class DataConfig(Strict):
    """How text is read, split and tokenized."""

    tokenizer: str = "char"
    vocabulary: int = 1000  # pieces, for sentencepiece
    encoding: str = "utf-8"
    errors: str = "strict"
    newlines: str = "keep"
    split: tuple[float, float, float] = (0.9, 0.1, 0.0)

    def __post_init__(self) -> None:
        _check("tokenizer", self.tokenizer, self.tokenizer in TOKENIZER_NAMES, f"one of {', '.join(TOKENIZER_NAMES)}")
        _check("vocabulary", self.vocabulary, self.vocabulary >= 1, "at least 1")
        _check("errors", self.errors, self.errors in ("strict", "replace"), "strict or replace")
        _check("newlines", self.newlines, self.newlines in ("keep", "normalise"), "keep or normalise")
        fits = all(f >= 0 for f in self.split) and self.split[0] > 0 and math.isclose(sum(self.split), 1, abs_tol=1e-6)
        _check("split", self.split, fits, "three fractions of 0 or more that sum to 1, the first above 0")


@dataclass(frozen=True)
class TrainConfig(Strict):
    """How the network is trained. One of epochs, steps and minutes says for how long."""

    bptt: int = 64  # k2, symbols in a window
    stride: int | None = None  # k1, symbols between updates; the window if None
    lanes: int = 32
    epochs: int | None = None
    steps: int | None = None
    minutes: float | None = None  # of the whole command
    learning_rate: float = 2e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    warmup: int = 50  # steps; at most a tenth of them
    floor: float = 0.02  # where the cosine ends, as a share of the learning rate
    clip: float = 1.0  # global norm of the gradient of nats per symbol
    evaluate_every: int | None = None  # steps; about eight times a run if None
    save_every: int | None = None  # steps; with every evaluation if None
    patience: int | None = None  # evaluations without a better score before it stops
    precision: str = "auto"
    seed: int = 1

    def __post_init__(self) -> None:
        _check("bptt", self.bptt, self.bptt >= 1, "at least 1")
        _check("stride", self.stride, 1 <= self.k1 <= self.bptt, f"from 1 to the window's {self.bptt} symbols (--bptt)")
        _check("lanes", self.lanes, self.lanes >= 1, "at least 1")
        for name in ("epochs", "steps", "evaluate_every", "save_every", "patience"):
            value = getattr(self, name)
            _check(name, value, value is None or value >= 1, "at least 1")
        given = [name for name in LENGTHS if getattr(self, name) is not None]
        _check("length", " and ".join(given), len(given) <= 1, "one of epochs, steps and minutes")
        _check("minutes", self.minutes, self.minutes is None or 0 < self.minutes < math.inf, "above 0")
        _check("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "above 0")
        _check("optimizer", self.optimizer, self.optimizer in OPTIMIZER_NAMES, f"one of {', '.join(OPTIMIZER_NAMES)}")
        _check("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "at least 0")
        _check("warmup", self.warmup, self.warmup >= 0, "at least 0")
        _check("floor", self.floor, 0 <= self.floor <= 1, "from 0 to 1")
        _check("clip", self.clip, 0 < self.clip < math.inf, "above 0")
        _check("precision", self.precision, self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        _check("seed", self.seed, 0 <= self.seed < 2**31, "from 0 to 2147483647")

    @property
    def k1(self) -> int:
        """The stride, in symbols."""
        return self.bptt if self.stride is None else self.stride


@dataclass(frozen=True)
class SampleConfig(Strict):
    """How text is drawn from a model."""

    length: int = 500  # symbols
    samples: int = 1
    temperature: float = 0.8  # 0 is greedy
    top_k: int = 0  # 0 is off
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None  # a random one, reported, if None
    precision: str = "float32"  # of products' operands

    def __post_init__(self) -> None:
        _check("length", self.length, self.length >= 0, "at least 0")
        _check("samples", self.samples, self.samples >= 1, "at least 1")
        warm = self.temperature == 0 or 1e-3 <= self.temperature <= 1e3  # what float32 logits can be divided by
        _check("temperature", self.temperature, warm, "0, or from 0.001 to 1000")
        _check("top_k", self.top_k, 0 <= self.top_k < 2**31, "from 0 to 2147483647")
        _check("top_p", self.top_p, 1e-6 <= self.top_p <= 1, "from 0.000001 to 1")
        _check("min_p", self.min_p, 0 <= self.min_p <= 1, "from 0 to 1")
        _check("repetition_penalty", self.repetition_penalty, 1 <= self.repetition_penalty <= 1e6, "from 1 to 1000000")
        _check("stop", self.stop, all(self.stop), "texts that are not empty")
        _check("seed", self.seed, self.seed is None or 0 <= self.seed < 2**31, "from 0 to 2147483647")
        _check("precision", self.precision, self.precision in SAMPLE_PRECISIONS, "float32 or bfloat16")


CELL_NAMES = ("lstm", "gru", "rnn")
TOKENIZER_NAMES = ("char", "byte", "sentencepiece")
OPTIMIZER_NAMES = ("adamw", "sgd", "rmsprop")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
SAMPLE_PRECISIONS = ("float32", "bfloat16")
LENGTHS = ("epochs", "steps", "minutes")


@dataclass(frozen=True)
class Config(Strict):
    """A run's whole configuration, one table each."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)


Tables = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Preset:
    """Settings that go together, and what they are for."""

    purpose: str
    tables: Tables


def _preset(purpose: str, minutes: float, model: dict[str, Any], train: dict[str, Any]) -> Preset:
    return Preset(purpose, {"model": model, "train": {"minutes": minutes, **train}})


PRESETS = {
    "tiny": _preset(
        "LSTM 128 x 1; texts under 200 KB; a minute",
        1.0,
        {"units": 128, "layers": 1},
        {"lanes": 16, "bptt": 64, "learning_rate": 5e-3},
    ),
    "small": _preset(
        "LSTM 256 x 1 with a little dropout; texts of about 1 MB; two minutes on a laptop",
        2.0,
        {"units": 256, "layers": 1, "embedding": 64, "dropout": 0.1},
        {"lanes": 64, "bptt": 64, "learning_rate": 5e-3},
    ),
    "medium": _preset(
        "LSTM 512 x 1 with dropout; 1 MB thoroughly or several MB; ten minutes",
        10.0,
        {"units": 512, "layers": 1, "embedding": 64, "dropout": 0.3},
        {"lanes": 64, "bptt": 64, "learning_rate": 4e-3},
    ),
    "large": _preset(
        "LSTM 512 x 2; texts over 40 MB, or a GPU; two hours",
        120.0,
        {"units": 512, "layers": 2, "embedding": 128, "dropout": 0.1},
        {"lanes": 64, "bptt": 128, "learning_rate": 2e-3},
    ),
    "enwik8": Preset(
        "LSTM 1840 x 3 on bytes, the size published for the 100 MB of enwik8 (Merity et al. 2018); 50 epochs; a GPU",
        {
            "model": {"units": 1840, "layers": 3, "embedding": 400, "dropout": 0.1},
            "data": {"tokenizer": "byte", "split": (0.9, 0.05, 0.05)},
            "train": {"lanes": 128, "bptt": 200, "learning_rate": 1e-3, "weight_decay": 1.2e-6, "epochs": 50},
        },
    ),
}
LONGER = 4  # times a preset's own minutes: from there on the next one scores better


def choose_preset(chars: int, gpu: bool, minutes: float | None = None) -> tuple[str, str]:
    """The preset for a corpus of so many characters on this hardware, in so many minutes if given, and why."""
    names = ["tiny", "small", "medium", "large"]
    size = next((n for n, most in enumerate((200_000, 4_000_000, 40_000_000)) if chars < most), 3)
    index, why = min(size + gpu, 3), f"{chars:,} characters of text, {'a GPU' if gpu else 'no GPU'}"
    if minutes is not None:
        why += f", {minutes:g} minutes"
        while index < 3 and minutes >= LONGER * PRESETS[names[index]].tables["train"]["minutes"]:
            index += 1
        while index and minutes <= PRESETS[names[index]].tables["train"]["minutes"] / LONGER:
            index -= 1
    return names[index], why


def read_toml(path: Path) -> Tables:
    """The tables of a configuration file.

    Raises:
        UsageError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: is not TOML: {error}") from None


def overlay(*layers: Tables) -> Tables:
    """Settings laid over one another, later ones on top. A length of training replaces another kind of length."""
    merged: Tables = {}
    for layer in layers:
        for table, values in layer.items():
            below = merged.get(table, {})
            if table == "train" and any(name in values for name in LENGTHS):
                below = {key: value for key, value in below.items() if key not in LENGTHS}
            merged[table] = {**below, **values}
    return merged


def resolve(*layers: Tables) -> Config:
    """The configuration that settings laid over one another make, over the defaults.

    Raises:
        UsageError: a value is out of range.
    """
    return Config.from_dict(overlay(*layers), "settings")
