"""The events of the training loop, and how each reads in metrics.jsonl."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlm.config import Config
from charlm.score import Score


@dataclass(frozen=True)
class Started:
    """Training begins or goes on."""

    run: Path
    config: Config
    step: int  # updates already done
    epoch: int
    seconds: float
    steps: int | None  # in all; None until --minutes has measured how many fit
    minutes: float | None  # of the whole run, where they say its length
    steps_per_epoch: int
    parameters: int
    vocabulary: int
    train_symbols: int
    valid_symbols: int
    valid_scored: int  # of those, the symbols that are predicted: not a document's first
    chars_per_symbol: float
    unscored: int  # training symbols that no window of an epoch scores
    engine: str
    precision: str
    groups: int  # of a replica's lanes
    replicas: int  # devices that the lanes are divided among


@dataclass(frozen=True)
class Planned:
    """The number of updates is known, or known better; or a resumed run has been given another length."""

    step: int
    epoch: int
    seconds: float
    steps: int
    every: int  # updates from one evaluation to the next
    previous: int | None  # the number of updates before
    learning_rate: float  # of the next update


@dataclass(frozen=True)
class Stepped:
    """An update was made."""

    step: int
    epoch: int
    seconds: float
    steps: int
    nats_per_symbol: float
    bits_per_char: float
    symbols_per_second: float
    gradient_norm: float
    learning_rate: float


@dataclass(frozen=True)
class Evaluated:
    """The validation split was scored."""

    step: int
    epoch: int
    seconds: float
    score: Score
    best: bool
    scheduled: bool  # at its step, or one that the time or an interruption added


@dataclass(frozen=True)
class Sampled:
    """A text was drawn from the model as it stands."""

    step: int
    epoch: int
    seconds: float
    prompt: str
    text: str


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written."""

    step: int
    epoch: int
    seconds: float
    path: Path


@dataclass(frozen=True)
class Remembered:
    """A run that began from another was scored on what that one's text held out, before its training and after."""

    step: int
    epoch: int
    seconds: float
    run: str  # that it began from
    text: str
    before: float | None  # bits per character, by that run
    after: float | None  # by this run at its best
    missing: str  # why the text was not scored; empty if it was


@dataclass(frozen=True)
class Finished:
    """The loop is over. `reason` is "done", "early" (no better score) or "interrupted"."""

    step: int
    epoch: int
    seconds: float
    reason: str
    best: float | None  # nats per symbol on the validation split


@dataclass(frozen=True)
class BackedOff:
    """The training diverged, and went back to its last checkpoint, the one of `step`, with a lower learning rate."""

    step: int
    epoch: int
    seconds: float
    diverged: int  # the step that it came to
    found: str  # what was not finite
    back_offs: int  # so far; each halves the learning rate


Event = BackedOff | Started | Planned | Stepped | Evaluated | Sampled | Saved | Remembered | Finished


def to_log(event: Event) -> dict[str, Any]:
    """The event as a line of metrics.jsonl."""
    line: dict[str, Any] = {"event": type(event).__name__.lower()}
    for name, value in vars(event).items():
        if isinstance(value, Score):
            line.update({k: v for k, v in value.to_dict().items() if k != "seconds"})
        elif not isinstance(value, Config):
            line[name] = str(value) if isinstance(value, Path) else value
    return line
