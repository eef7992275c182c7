"""Small disks that fill up while a checkpoint is saved; root alone can mount them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from small_runs import saving, trained, whole_after

from charlm.errors import CharlmError

NOTE = ""
LEVELS = 20


def measure(folder: Path) -> list[dict[str, str]]:
    if os.geteuid():
        sys.exit("full: not tried, for only root can mount a small disk")
    run = trained(folder)
    save, step = saving(run), run.last().step
    size = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    more = sum(file.stat().st_size for file in run.last().path.iterdir())
    kept, refused = 0, 0
    for level in range(LEVELS):
        room = size + 65_536 + int(more * 1.2 * level / LEVELS)
        place = folder / f"disk-{level}"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "none", place], check=True)
        try:
            shutil.copytree(run.path, place / "run")
            try:
                save(place / "run")
            except CharlmError as error:
                refused += "No space left on device" in str(error)
            kept += whole_after(place / "run", step)
        finally:
            subprocess.run(["umount", place], check=True)
    return [
        {
            "what": "a disk that is full",
            "tried": f"{LEVELS} sizes of a tmpfs, of which {refused} have no room for the save",
            "survived": f"{kept} of {LEVELS}: the old checkpoint or the new one, whole, and one line says what failed",
        }
    ]
