"""charlm cache"""

from __future__ import annotations

from contextlib import suppress

import click

from charlm.cli.options import json_option
from charlm.cli.output import print_json


@click.command()
@click.option("--clear", is_flag=True, help="Remove them; they are made again when they are needed.")
@json_option
def command(clear: bool, as_json: bool) -> None:
    """Show where ids are kept and how much they are, or remove them.

    A text is encoded once and its ids are kept, for every tokenizer. The folder is that of the platform's caches, or
    CHARLM_CACHE. Nothing else is kept outside of the folder of runs.
    """
    from tqdm import tqdm

    from charlm.drafts import left_over
    from charlm.idcache import cache_folder

    folder = cache_folder() / "ids"
    sizes = []
    # A draft that a process is writing is its own; what it was writing when it was killed is nobody's.
    for file in sorted([*folder.glob("[!.]*.npy*"), *(left_over(folder) if clear else folder.glob(".*.npy*"))]):
        with suppress(FileNotFoundError):  # another process has finished it, or removed it
            sizes.append(file.stat().st_size)
            if clear:
                file.unlink()
    if as_json:
        print_json({"path": str(folder), "files": len(sizes), "bytes": sum(sizes), "cleared": clear})
        return
    print(f"{folder}: {'removed ' if clear else ''}{len(sizes)} files, {tqdm.format_sizeof(sum(sizes), 'B')}")
