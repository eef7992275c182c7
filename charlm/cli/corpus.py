"""charlm corpus"""

from __future__ import annotations

from pathlib import Path

import click

KINDS = ("pydocs", "stdlib", "kjv")


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace a file that is there and holds something else.")
def command(kind: str, out: Path, force: bool) -> None:
    """Write a corpus out of what is installed, to have something to train on.

    \b
    pydocs  Python's own reference text (465 KB of English).
    stdlib  The sources of its standard library (over 10 MB of Python).
    kjv     The King James Bible (4 MB of English), from the package of the extra charlm[kjv].
    """
    from charlm.corpora import write_corpus

    chars = write_corpus(kind, out, force)
    click.echo(f"{out}: {chars:,} characters", err=True)
