"""What the Tab key completes: names of runs, their checkpoints, files. It reads folders alone, so that it is quick."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem


def _models(ctx: click.Context) -> Path:
    return Path(ctx.params.get("models") or "models")


def run_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The runs under --models whose names begin so; folders, once there is a slash."""
    if "/" in incomplete:
        return [CompletionItem(incomplete, type="dir")]
    names = sorted(path.parent.name for path in _models(ctx).glob("*/config.json"))
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def checkpoints(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """best, last, and the steps that the run of --model has, a name or a folder; without one, those of all runs."""
    model = ctx.params.get("model")
    runs = [Path(model), _models(ctx) / model] if model else list(_models(ctx).glob("*"))
    names = (path.name.removeprefix("step-") for run in runs for path in (run / "checkpoints").glob("step-*"))
    steps = {int(name) for name in names if name.isdecimal()}
    known = ["best", "last", *map(str, sorted(steps))]
    return [CompletionItem(one) for one in known if one.startswith(incomplete)]


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files and folders."""
    return [CompletionItem(incomplete, type="file")]
