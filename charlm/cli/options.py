"""Bundles of options that several commands share, or that build a configuration."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from charlm.cli import completion
from charlm.config import DataConfig, ModelConfig, SampleConfig, Tables, TrainConfig, overlay
from charlm.errors import UsageError, in_python, nearest
from charlm.questions import EvaluationConfig, ForecastConfig, TranslationConfig
from charlm.settings import Setting, in_file

Command = Callable[..., Any]
DEFAULT_MODELS = Path("models")


class Choice(click.Choice[str]):
    """One of a few words; a near miss is told which was meant."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        return super().get_invalid_choice_message(value, ctx).rstrip(".") + nearest(str(value), self.choices)


class _Text(click.ParamType[str]):
    """A text; from the environment too it is one, with its blanks."""

    name = "text"

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


def _type(parts: tuple[Any, ...], kind: Any, multiple: bool) -> Any:
    return _Text() if multiple and parts[0] is str else (parts or (kind,))[0]


def _option(setting: Setting) -> Callable[[Command], Command]:
    """The option that sets a setting."""
    flag, name = "--" + setting.key.replace("_", "-"), f"{setting.table}__{setting.key}"
    if setting.kind is bool:
        return click.option(flag, name, is_flag=True, default=None, help=setting.help)
    parts = get_args(setting.kind)
    multiple = Ellipsis in parts
    return click.option(
        flag,
        name,
        type=Choice(setting.choices) if setting.choices else _type(parts, setting.kind, multiple),
        default=None,
        help=setting.help,
        multiple=multiple,
        nargs=len(parts) if parts and not multiple else 1,
    )


TOML = "charlm.toml"  # in a context's `meta`: the configuration file and its tables


def as_typed(setting: str, value: object = None) -> str:
    """A setting as it was set: by a flag, a variable of the environment, or a key of the TOML file."""
    table, _, key = setting.rpartition(".")
    flag = "--" + key.replace("_", "-")
    ctx = click.get_current_context(silent=True)
    option = next((one for one in ctx.command.params if flag in one.opts or key == one.name), None) if ctx else None
    if ctx is None or option is None:
        return in_python(setting, value)
    flag = option.opts[-1]
    if value is not None:
        return flag if value is True else f"{flag} {value}"
    if set_by_environment(ctx, option):
        return str(option.envvar)
    toml, tables = ctx.meta.get(TOML, ("", {}))
    unset = ctx.get_parameter_source(str(option.name)) is ParameterSource.DEFAULT
    return in_file(toml, setting) if unset and key in tables.get(table, ()) else flag


def set_by_environment(ctx: click.Context, option: click.Parameter) -> bool:
    """Whether an option has its value from its environment variable."""
    return ctx.get_parameter_source(str(option.name)) is ParameterSource.ENVIRONMENT


def settings(bundle: Sequence[Setting]) -> Callable[[Command], Command]:
    """Adds a bundle's options to a command, which gets what was set of them as `settings`, by table."""

    def decorate(command: Command) -> Command:
        wrapped: Command

        @functools.wraps(command)
        def collected(**values: Any) -> Any:
            environment: Tables = {}
            flags: Tables = {}
            ctx = click.get_current_context()
            for setting in bundle:
                name = f"{setting.table}__{setting.key}"
                value, source = values.pop(name), ctx.get_parameter_source(name)
                if value is not None and value != ():
                    layer = environment if source is ParameterSource.ENVIRONMENT else flags
                    layer.setdefault(setting.table, {})[setting.key] = value
            return command(settings=overlay(environment, flags), **values)

        wrapped = collected
        for setting in reversed(bundle):
            wrapped = _option(setting)(wrapped)
        return wrapped

    return decorate


TRAINING = [one for table in (ModelConfig, DataConfig, TrainConfig) for one in table.settings()]
SAMPLING, EVALUATION = SampleConfig.settings(), EvaluationConfig.settings()
FORECASTING, TRANSLATION = ForecastConfig.settings(), TranslationConfig.settings()
COLUMNS = [
    one for one in DataConfig.settings() if one.key in ("id_column", "time_column", "value_column", "date_format")
]


def _checkpoint(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value not in ("best", "last") and not value.removeprefix("step-").isdecimal():
        raise UsageError(f"--checkpoint must be best, last or a step, not {value!r}")
    return value


def models_option(command: Command) -> Command:
    """Where runs are."""
    return click.option(
        "--models", type=click.Path(path_type=Path), default=DEFAULT_MODELS, show_default=True, help="Folder of runs."
    )(command)


def model_options(command: Command) -> Command:
    """Which trained model a command reads."""
    command = click.option(
        "--checkpoint",
        default="best",
        show_default=True,
        callback=_checkpoint,
        shell_complete=completion.checkpoints,
        help="best, last, or a step.",
    )(command)
    command = models_option(command)
    return click.option(
        "--model", shell_complete=completion.run_names, help="A run directory or its name [the newest run]."
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON.")
