"""The settings of a run, and how they are laid over one another."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from charlm.cells import CELL_NAMES
from charlm.errors import UsageError, named
from charlm.settings import ABOVE_0, SEEDS, Allowed, Strict, at_least, between, one_of, setting, within

TOKENIZER_NAMES = ("char", "byte", "sentencepiece", "series")
FORM_NAMES = ("whole", "reversed", "aligned")
OPTIMIZER_NAMES = ("adamw", "sgd", "rmsprop")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
SAMPLE_PRECISIONS = ("float32", "bfloat16")
LENGTHS = ("epochs", "steps", "minutes")
BY_PRESET = "by preset"


FRACTION = Allowed("at least 0 and below 1", lambda value: 0 <= value < 1)
SHARES = Allowed(
    "three fractions of 0 or more that sum to 1, the first above 0",
    lambda split: all(f >= 0 for f in split) and split[0] > 0 and math.isclose(sum(split), 1, abs_tol=1e-6),
)
# What float32 logits can be divided by.
WARM = within("0, or from 0.001 to 1000", (0, 0), (1e-3, 1e3))
TEXTS = Allowed("texts that are not empty", all)


def _compiles(pattern: str) -> bool:
    try:
        return bool(re.compile(pattern))
    except (re.error, OverflowError, RecursionError):
        return False


PATTERN = Allowed("a regular expression", _compiles)


@dataclass(frozen=True)
class ModelConfig(Strict):
    """The network. `vocabulary` is the tokenizer's; it is set when the tokenizer is known."""

    TABLE = "model"

    cell: str = setting("lstm", one_of(*CELL_NAMES), "Recurrent cell")
    layers: int = setting(1, at_least(1), "Recurrent layers", BY_PRESET)
    units: int = setting(256, at_least(1), "Units in each layer", BY_PRESET)
    embedding: int | None = setting(None, at_least(1), "Width of the embedding", "by preset, else the units")
    dropout: float = setting(0.0, FRACTION, "Dropout on inputs, between layers and before the projection", BY_PRESET)
    tie: bool = setting(False, None, "Tie the projection to the embedding", "")
    vocabulary: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(
            "embedding", not self.tie or self.features == self.units, f"the units when {named('model.tie')} is on"
        )

    @property
    def features(self) -> int:
        """Width of the embedding."""
        return self.units if self.embedding is None else self.embedding


@dataclass(frozen=True)
class DataConfig(Strict):
    """The reading, splitting and tokenizing of text."""

    TABLE = "data"

    tokenizer: str = setting(
        "char", one_of(*TOKENIZER_NAMES), "What a symbol is; series: a step of number series in a table"
    )
    vocabulary: int = setting(1000, at_least(1), "Pieces, for sentencepiece")
    encoding: str = setting("utf-8", None, "Text encoding of the corpus")
    errors: str = setting("strict", one_of("strict", "replace"), "Undecodable bytes: refuse (strict) or replace")
    newlines: str = setting("keep", one_of("keep", "normalise"), "CRLF and CR: keep, or turn into LF (normalise)")
    reset_on: str | None = setting(
        None, PATTERN, "Begin a document, from zero state, after each match of this regular expression", ""
    )
    join_files: bool = setting(False, None, "Read files as one document; else each begins one, from zero state", "")
    split: tuple[float, float, float] = setting(
        (0.9, 0.1, 0.0), SHARES, "Contiguous shares for training, validation, test; of every series", "0.9 0.1 0"
    )
    pairs: bool = setting(False, None, "Lines are pairs: a source, a tab, and the target that it is turned into", "")
    form: str = setting("auto", one_of("auto", *FORM_NAMES), "Pairs: how they are laid out", "auto: by trial")
    lookahead: int = setting(3, at_least(0), "Pairs, aligned: source symbols after the own one that are seen")
    id_column: str = setting("unique_id", None, "Series: the column with the names of series, in a long table")
    time_column: str = setting("ds", None, "Series: the column with the times")
    value_column: str = setting("y", None, "Series: the column with the values, in a long table")
    date_format: str | None = setting(None, None, "Series: how dates are written, as %d/%m/%Y", "found out")
    season: int | None = setting(
        None, at_least(1), "Series: steps in a season", "by the times: 12 of months; 1 is none"
    )
    bins: int | None = setting(None, at_least(2), "Series: symbols, at most", "one for 100 values, from 10 to 100")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(
            "pairs", not self.pairs or self.tokenizer == "char", f"off unless {named('data.tokenizer')} is char"
        )

    @property
    def alphabet(self) -> str:
        """The kind of its symbols: "pairs" or the tokenizer's name."""
        return "pairs" if self.pairs else self.tokenizer


@dataclass(frozen=True)
class TrainConfig(Strict):
    """The training of the network. One of epochs, steps and minutes sets its length."""

    TABLE = "train"

    bptt: int = setting(64, at_least(1), "Window: symbols that a gradient passes through (k2)", BY_PRESET)
    stride: int | None = setting(None, at_least(1), "Symbols between two updates (k1)", "the window")
    lanes: int = setting(32, at_least(1), "Parallel lanes that the text is cut into", BY_PRESET)
    epochs: int | None = setting(None, at_least(1), "Train for so many passes over the text", "")
    steps: int | None = setting(None, at_least(1), "Train for so many updates", "")
    minutes: float | None = setting(
        None,
        ABOVE_0,
        "Train for so long, start-up and evaluation included",
        "by preset, unless epochs or steps are given",
    )
    learning_rate: float = setting(
        2e-3, ABOVE_0, "Highest learning rate; warm-up before it, cosine after it", BY_PRESET
    )
    optimizer: str = setting("adamw", one_of(*OPTIMIZER_NAMES), "Optimizer")
    weight_decay: float = setting(0.0, at_least(0), "Decoupled weight decay of the recurrent layers' kernels", "0")
    warmup: int = setting(50, at_least(0), "Steps of linear warm-up, at most a tenth of all")
    floor: float = setting(0.02, between(0, 1), "Where the cosine ends, as a share of the learning rate")
    clip: float = setting(1.0, ABOVE_0, "Largest global norm of the gradient of nats per symbol", "1")
    evaluate_every: int | None = setting(None, at_least(1), "Steps between validations", "an eighth of the run")
    save_every: int | None = setting(None, at_least(1), "Steps between checkpoints", "with every validation")
    patience: int | None = setting(None, at_least(1), "Stop after so many validations without a better score", "never")
    on_divergence: str = setting(
        "stop",
        one_of("stop", "back-off"),
        "Where the loss is no number: stop, or go back a checkpoint at half the rate",
    )
    precision: str = setting("auto", one_of(*PRECISIONS), "Operands of matrix products", "auto: as the hardware does")
    seed: int = setting(1, SEEDS, "Seed of weights, dropout and lane offsets")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("stride", self.k1 <= self.bptt, f"at most the window's {self.bptt} symbols ({named('train.bptt')})")
        given = [named(f"train.{name}") for name in LENGTHS if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} exclude each other: give one of {', '.join(LENGTHS)}")

    @property
    def k1(self) -> int:
        """The stride, in symbols."""
        return self.bptt if self.stride is None else self.stride


@dataclass(frozen=True)
class SampleConfig(Strict):
    """The drawing of text from a model."""

    TABLE = "sample"

    length: int = setting(500, at_least(0), "Symbols to generate")
    samples: int = setting(1, at_least(1), "Texts to generate side by side")
    temperature: float = setting(
        0.8, WARM, "Below 1 safer, above 1 wilder, 0 always the likeliest", neutral=1.0, slider=(0, 1.5)
    )
    top_k: int = setting(0, SEEDS, "Draw from the K likeliest symbols", "0: all", 0, (0, 100))
    top_p: float = setting(
        1.0,
        between(1e-6, 1),
        "Draw from the fewest likeliest symbols that reach this probability",
        "1: all",
        1.0,
        (0.05, 1),
    )
    min_p: float = setting(
        0.0, between(0, 1), "Draw from symbols at least so probable relative to the likeliest", "0: all", 0.0, (0, 0.5)
    )
    repetition_penalty: float = setting(
        1.0, between(1, 1e6), "Divide by this the probability of the last 64 symbols", "1: off", 1.0, (1, 2)
    )
    stop: tuple[str, ...] = setting((), TEXTS, "Stop before this text; there may be several", "")
    seed: int | None = setting(None, SEEDS, "The same seed gives the same text", "random")
    beam: int | None = setting(
        None, between(1, 64), "Follow so many likely texts and write the likeliest; nothing is drawn", "texts are drawn"
    )
    precision: str = setting(
        "float32",
        one_of(*SAMPLE_PRECISIONS),
        "Operands of matrix products",
        "float32; bfloat16 writes many samples faster",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("beam", self.beam is None or self.samples == 1, "left out where several texts are drawn")


# The settings of samplers, each declared once, above: options, keys, fields, inputs and tensors are made from these.
KNOBS = {one.key: one for one in SampleConfig.settings() if one.neutral is not None}


@dataclass(frozen=True)
class Config(Strict):
    """A run's whole configuration, one table each."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    @classmethod
    def recorded(cls, values: Any, where: str) -> Config:
        """The configuration in a file that charlm wrote. Runs that do not say so have joined their files."""
        config = cls.from_dict(values, where)
        if "join_files" in values.get("data", {}):
            return config
        return replace(config, data=replace(config.data, join_files=True))


Tables = dict[str, dict[str, Any]]


def read_toml(path: Path) -> Tables:
    """The tables of a configuration file.

    Raises:
        UsageError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))  # some editors begin a file with a byte order mark
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not TOML: byte {error.start} is not UTF-8") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is one, and so is a number of too many digits
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
        UsageError: a value is out of range, or two do not go together.
    """
    return Config.from_dict(overlay(*layers))


def check(tables: Tables, presets: Iterable[Tables]) -> None:
    """Refuses settings that can make no configuration with any of the presets.

    Raises:
        UsageError: as `resolve`.
    """
    Config.checked(tables)
    refusals = []
    for preset in presets:
        try:
            resolve(preset, tables)
        except UsageError as error:
            refusals.append(error)
        else:
            return
    raise refusals[0]
