"""charlm cache"""

from __future__ import annotations

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

    from charlm.idcache import cache_folder

    folder = cache_folder() / "ids"
    files = sorted(folder.glob("*.npy*"))  # those that a process was writing when it was killed as well
    size = sum(file.stat().st_size for file in files)
    if clear:
        for file in files:
            file.unlink(missing_ok=True)
    if as_json:
        print_json({"path": str(folder), "files": len(files), "bytes": size, "cleared": clear})
        return
    print(f"{folder}: {'removed ' if clear else ''}{len(files)} files, {tqdm.format_sizeof(size, 'B')}")
