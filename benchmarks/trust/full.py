"""Small disks that fill up while a checkpoint is saved or a model is exported; root alone can mount them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from disk import whole_export
from processes import charlm
from small_runs import saving, trained, whole_after

from charlm.errors import CharlmError
from charlm.runs import Run

NOTE = ""
LEVELS = 20
FULL = "No space left on device"


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@contextmanager
def small_disk(place: Path, room: int) -> Iterator[None]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "none", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()


def filled(there: Path, more: int, act: Callable[[Path], bool], whole: Callable[[Path], bool]) -> tuple[int, int]:
    """How many of the disks were too small, and on how many all was whole afterwards.

    Args:
        there: the folder that is on the disk before.
        more: bytes that are written beside it.
        act: tells whether it was refused for want of room.
    """
    refused = kept = 0
    for level in range(LEVELS):
        disk = there.parent / "disk"
        with small_disk(disk, size_of(there) + 65_536 + int(more * 1.2 * level / LEVELS)):
            shutil.copytree(there, disk / there.name)
            refused += act(disk / there.name)
            kept += whole(disk / there.name)
    return refused, kept


def row(what: str, refused: int, kept: int, whole: str) -> dict[str, str]:
    return {
        "what": f"a disk that is full: {what}",
        "tried": f"{LEVELS} sizes of a tmpfs, of which {refused} have no room for it, and one line says so",
        "survived": f"{kept} of {LEVELS}: the old {whole} or the new one, whole",
    }


def save_row(run: Run) -> dict[str, str]:
    save, step = saving(run), run.last().step

    def act(place: Path) -> bool:
        try:
            save(place)
        except CharlmError as error:
            return FULL in str(error)
        return False

    found = filled(run.path, size_of(run.last().path), act, lambda place: whole_after(place, step))
    return row("a save", *found, "checkpoint")


def export_row(run: Run, folder: Path) -> dict[str, str]:
    """An export takes the place of another checkpoint's; TensorFlow itself writes it."""
    known, exports = set(), folder / "exports"
    exports.mkdir()
    for checkpoint in run.checkpoints()[-2:]:
        written = charlm("export", "--model", checkpoint.path, "exports/serving", "--force", folder=folder)
        assert written.code == 0, written
        known.add(networks(exports / "serving"))

    def act(place: Path) -> bool:
        ended = charlm("export", "--model", run.path, place / "serving", "--force", folder=folder)
        one = [line for line in ended.said.splitlines() if line.startswith("charlm: ")]
        assert (ended.code, len(one)) in ((0, 0), (1, 1)), ended
        return ended.code == 1 and FULL in one[0]

    def whole(place: Path) -> bool:
        left = {path.name for path in place.iterdir()}
        return left == {"serving"} and networks(place / "serving") in known

    return row("an export", *filled(exports, size_of(exports), act, whole), "export")


def networks(export: Path) -> tuple[str, ...] | None:
    """The digests of an export's variables, if all its files are whole; graphs are never written twice alike."""
    sums = whole_export(export)
    return None if sums is None else tuple(line for line in sums.splitlines() if "variables.data" in line)


def measure(folder: Path) -> list[dict[str, str]]:
    if os.geteuid():
        sys.exit("full: not tried, for only root can mount a small disk")
    run = trained(folder)
    return [save_row(run), export_row(run, folder)]
