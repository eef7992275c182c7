"""Bits that flip, and ends that are cut off, in the files that loading a run reads."""

from pathlib import Path

from faults import damages
from small_runs import trained

from charlm.checkpoint import verify_record
from charlm.errors import ModelError

NOTE = ""
SEED = 1
FLIPS, CUTS = 1000, 200


def refused(record: Path) -> bool:
    try:
        verify_record(record)
    except ModelError:
        return True
    return False


def measure(folder: Path) -> list[dict[str, str]]:
    run = trained(folder)
    last = run.last()
    config, noticed = run.record["config"], 0
    files = [run.path / "config.json", *sorted(last.path.iterdir())]
    for file, _ in damages(files, FLIPS, CUTS, SEED):
        if file.parent == run.path:
            noticed += run.record["config"] == config and refused(file)
        else:
            noticed += run.last().step < last.step
    return [
        {
            "what": "a bit flipped, or the end cut off, in a file that loading reads",
            "tried": f"{FLIPS:,} flips and {CUTS} cuts in {len(files)} files",
            "survived": f"{noticed:,} of {FLIPS + CUTS:,} noticed, and the checkpoint before is taken",
        }
    ]
