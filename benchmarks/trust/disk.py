"""A disk that fails while a checkpoint is saved."""

from collections import Counter
from pathlib import Path

from faults import ERRORS, LOSSES, PowerLoss, every_fault
from small_runs import saving, trained, whole_after

from charlm.errors import CharlmError

NOTE = (
    f"disk: a save's operations fail by {' and '.join(ERRORS)}. When power is lost, what was never synced to the disk\n"
    f"is taken from it in three ways: {', '.join(LOSSES)}."
)


def measure(folder: Path) -> list[dict[str, str]]:
    run = trained(folder)
    save, step = saving(run), run.last().step
    kinds: Counter[str] = Counter()
    kept = 0
    for place, kind, _, error in every_fault(run.path, save):
        said = isinstance(error, PowerLoss if kind in LOSSES else CharlmError) or error is None
        kinds[kind] += 1
        kept += said and whole_after(place, step)
    return [
        {
            "what": "each operation of a save fails, or is the last before power is lost",
            "tried": ", ".join(f"{kind} {count}" for kind, count in kinds.items()),
            "survived": f"{kept} of {kinds.total()}: the old checkpoint or the new one, whole",
        }
    ]
