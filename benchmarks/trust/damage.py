"""Bits that flip, and ends that are cut off, in the files that loading a run or an export reads."""

import subprocess
from pathlib import Path

from disk import whole_export
from faults import damages
from small_runs import CHARLM, trained

from charlm.checkpoint import verify_record
from charlm.errors import ModelError
from charlm.export import SUMS
from charlm.runs import Run

NOTE = ""
SEED = 1
FLIPS, CUTS = 1000, 200


def refused(record: Path) -> bool:
    try:
        verify_record(record)
    except ModelError:
        return True
    return False


def in_run(run: Run) -> dict[str, str]:
    last = run.last()
    config, noticed = run.record["config"], 0
    files = [run.path / "config.json", *sorted(last.path.iterdir())]
    for file, _ in damages(files, FLIPS, CUTS, SEED):
        if file.parent == run.path:
            noticed += run.record["config"] == config and refused(file)
        else:
            noticed += run.last().step < last.step
    return row("a file that loading a run reads", files, f"{noticed:,}", ", and the checkpoint before is taken")


def in_export(export: Path) -> dict[str, str]:
    """A SavedModel, which TensorFlow reads and charlm does not: its digests are asked."""
    files = sorted(path for path in export.rglob("*") if path.is_file() and path.name != SUMS)
    noticed = sum(whole_export(export) is None for _ in damages(files, FLIPS, CUTS, SEED))
    return row("a SavedModel", files, f"{noticed:,}", f" by `sha256sum --check --strict {SUMS}`")


def row(what: str, files: list[Path], noticed: str, how: str) -> dict[str, str]:
    return {
        "what": f"a bit flipped, or the end cut off, in {what}",
        "tried": f"{FLIPS:,} flips and {CUTS} cuts in {len(files)} files",
        "survived": f"{noticed} of {FLIPS + CUTS:,} noticed{how}",
    }


def measure(folder: Path) -> list[dict[str, str]]:
    run, export = trained(folder), folder / "serving"
    subprocess.run([CHARLM, "export", "--model", run.path, export], check=True, capture_output=True)
    return [in_run(run), in_export(export)]
