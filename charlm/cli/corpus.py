"""charlm corpus"""

from __future__ import annotations

from pathlib import Path

import click

KINDS = ("pydocs", "stdlib")


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("out", type=click.Path(path_type=Path))
def command(kind: str, out: Path) -> None:
    """Write a corpus out of the running Python, so that nothing has to be downloaded.

    \b
    pydocs  Python's own reference text (465 KB of English).
    stdlib  The sources of its standard library (over 10 MB of Python).
    """
    from charlm.corpora import CORPORA

    chars = CORPORA[kind](out)
    click.echo(f"{out}: {chars:,} characters", err=True)
