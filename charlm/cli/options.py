"""Bundles of options that several commands share, or that build a configuration."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from charlm.config import CELL_NAMES, OPTIMIZER_NAMES, PRECISIONS, SAMPLE_PRECISIONS, TOKENIZER_NAMES, Tables
from charlm.errors import UsageError

Command = Callable[..., Any]


@dataclass(frozen=True)
class Setting:
    """An option that sets one key of a configuration table."""

    table: str
    key: str
    kind: Any
    help: str
    flag: str = ""
    multiple: bool = False
    many: int = 1

    @property
    def option(self) -> str:
        return self.flag or "--" + self.key.replace("_", "-")

    def decorate(self, command: Command) -> Command:
        name = f"{self.table}__{self.key}"
        if self.kind is bool:
            return click.option(self.option, name, is_flag=True, default=None, help=self.help)(command)
        return click.option(
            self.option, name, type=self.kind, default=None, help=self.help, multiple=self.multiple, nargs=self.many
        )(command)


def settings(bundle: Sequence[Setting]) -> Callable[[Command], Command]:
    """Adds a bundle's options to a command, which gets what was set of them as `settings`, by table."""

    def decorate(command: Command) -> Command:
        wrapped: Command

        @functools.wraps(command)
        def collected(**values: Any) -> Any:
            tables: Tables = {}
            for setting in bundle:
                value = values.pop(f"{setting.table}__{setting.key}")
                if value is not None and value != ():
                    tables.setdefault(setting.table, {})[setting.key] = value
            return command(settings=tables, **values)

        wrapped = collected
        for setting in reversed(bundle):
            wrapped = setting.decorate(wrapped)
        return wrapped

    return decorate


READING = [
    Setting("data", "encoding", str, "Text encoding of the corpus [utf-8]."),
    Setting("data", "errors", click.Choice(["strict", "replace"]), "Undecodable bytes: refuse or replace [strict]."),
    Setting("data", "newlines", click.Choice(["keep", "normalise"]), "CRLF and CR: keep, or turn into LF [keep]."),
]

TRAINING = [
    Setting("model", "cell", click.Choice(CELL_NAMES), "Recurrent cell [lstm]."),
    Setting("model", "layers", int, "Recurrent layers."),
    Setting("model", "units", int, "Units in each layer."),
    Setting("model", "embedding", int, "Width of the embedding [the units]."),
    Setting("model", "dropout", float, "Dropout on inputs, between layers and before the projection."),
    Setting("model", "tie", bool, "Tie the projection to the embedding."),
    Setting("data", "tokenizer", click.Choice(TOKENIZER_NAMES), "What a symbol is [char]."),
    Setting("data", "vocabulary", int, "Pieces, for sentencepiece [1000]."),
    *READING,
    Setting("data", "split", float, "Contiguous shares for training, validation, test [0.9 0.1 0].", many=3),
    Setting("train", "bptt", int, "Window: symbols that a gradient passes through (k2)."),
    Setting("train", "stride", int, "Symbols between two updates (k1) [the window]."),
    Setting("train", "lanes", int, "Parallel lanes that the text is cut into."),
    Setting("train", "epochs", int, "Train for so many passes over the text."),
    Setting("train", "steps", int, "Train for so many updates."),
    Setting("train", "minutes", float, "Train for so long, start-up and evaluation included."),
    Setting("train", "learning_rate", float, "Highest learning rate; warm-up before it, cosine after it."),
    Setting("train", "optimizer", click.Choice(OPTIMIZER_NAMES), "Optimizer [adamw]."),
    Setting("train", "weight_decay", float, "Decoupled weight decay of the recurrent layers' kernels [0]."),
    Setting("train", "warmup", int, "Steps of linear warm-up, at most a tenth of all [50]."),
    Setting("train", "clip", float, "Largest global norm of the gradient [1]."),
    Setting("train", "evaluate_every", int, "Steps between validations [an eighth of the run]."),
    Setting("train", "save_every", int, "Steps between checkpoints [with every validation]."),
    Setting("train", "patience", int, "Stop after so many validations without a better score [never]."),
    Setting(
        "train", "precision", click.Choice(PRECISIONS), "Operands of matrix products [auto: as the hardware does]."
    ),
    Setting("train", "seed", int, "Seed of weights, dropout and lane offsets [1]."),
]

SAMPLING = [
    Setting("sample", "length", int, "Symbols to generate [500]."),
    Setting("sample", "samples", int, "Texts to generate side by side [1]."),
    Setting("sample", "temperature", float, "Below 1 safer, above 1 wilder, 0 always the likeliest [0.8]."),
    Setting("sample", "top_k", int, "Draw from the K likeliest symbols [0: all]."),
    Setting("sample", "top_p", float, "Draw from the fewest likeliest symbols that reach this probability [1: all]."),
    Setting("sample", "min_p", float, "Draw from symbols at least so probable relative to the likeliest [0: all]."),
    Setting("sample", "repetition_penalty", float, "Divide by this the probability of the last 64 symbols [1: off]."),
    Setting("sample", "stop", str, "Stop before this text; may be given several times.", multiple=True),
    Setting("sample", "seed", int, "The same seed gives the same text [random]."),
    Setting(
        "sample",
        "precision",
        click.Choice(SAMPLE_PRECISIONS),
        "Operands of matrix products [float32; bfloat16 writes many samples faster].",
    ),
]


def _checkpoint(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value not in ("best", "last") and not value.isdecimal():
        raise UsageError(f"--checkpoint must be best, last or a step, not {value!r}")
    return value


def models_option(command: Command) -> Command:
    """Where runs are."""
    return click.option(
        "--models", type=click.Path(path_type=Path), default="models", show_default=True, help="Folder of runs."
    )(command)


def model_options(command: Command) -> Command:
    """Which trained model a command reads."""
    command = click.option(
        "--checkpoint", default="best", show_default=True, callback=_checkpoint, help="best, last, or a step."
    )(command)
    command = models_option(command)
    return click.option("--model", help="A run directory or its name [the newest run].")(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON.")
