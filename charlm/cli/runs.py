"""charlm runs"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from charlm.cli.options import json_option, models_option
from charlm.cli.output import print_json


@click.command()
@models_option
@json_option
def command(models: Path, as_json: bool) -> None:
    """List runs, the newest first: it is the one that other commands read. A published model stands behind them.

    The score is the best one on held-out text, in bits per character, or per value of number series (lower is better);
    the size is on disk. With --json, one object a line for each run.
    """
    from charlm.cli.listing import described, row, table
    from charlm.shelf import runs

    found = [described(run) for run in reversed(runs(models))]
    if as_json:
        for about in found:
            print_json(about)
    elif found:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print("\n".join(table([row(about) for about in found], width)))
    else:
        click.echo(f"no runs under {models}/ yet; train one with: charlm train TEXT", err=True)
