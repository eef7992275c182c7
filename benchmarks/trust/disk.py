"""A disk that fails while a checkpoint is saved, a model is exported, or ids are kept."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
from faults import ERRORS, LOSSES, PowerLoss, every_fault
from small_runs import CHARLM, saving, trained, whole_after

import charlm.export
from charlm.config import Config
from charlm.corpus import open_corpus
from charlm.errors import CharlmError
from charlm.export import SUMS
from charlm.files import EXPORT_TITLE
from charlm.idcache import cached_records
from charlm.runs import Run

NOTE = (
    f"disk: operations fail by {' and '.join(ERRORS)}. When power is lost, what was never synced to the disk\n"
    f"is taken from it in three ways: {', '.join(LOSSES)}. The files of the exports are those of real SavedModels,\n"
    "copied by Python in the place of TensorFlow; what TensorFlow's own writes do on a full disk is in the row below."
)


def tried(before: Path, act: Callable[[Path], object], whole: Callable[[Path], bool]) -> tuple[Counter[str], int]:
    """How often each kind of fault happened to `act` in a copy of a folder, and how often all was whole after it."""
    kinds: Counter[str] = Counter()
    kept = 0
    for place, kind, _, error in every_fault(before, act):
        said = isinstance(error, PowerLoss if kind in LOSSES else CharlmError) or error is None
        kinds[kind] += 1
        kept += said and whole(place)
    return kinds, kept


def row(what: str, kinds: Counter[str], kept: int, whole: str) -> dict[str, str]:
    return {
        "what": f"each operation of {what} fails, or is the last before power is lost",
        "tried": ", ".join(f"{kind} {count}" for kind, count in kinds.items()),
        "survived": f"{kept} of {kinds.total()}: {whole}",
    }


def saves(run: Run) -> dict[str, str]:
    step = run.last().step
    kinds, kept = tried(run.path, saving(run), lambda place: whole_after(place, step))
    return row("a save", kinds, kept, "the old checkpoint or the new one, whole")


def whole_export(place: Path) -> str | None:
    """What an export is told by: the digests of its files, if they are right."""
    check = ["sha256sum", "--check", "--strict", "--status", SUMS]
    return (place / SUMS).read_text() if not subprocess.run(check, cwd=place).returncode else None


def exporting(written: Path, config: Config) -> Callable[..., object]:
    """What exports a SavedModel that there is already."""
    copied = SimpleNamespace(WEIGHTS=np.float32, PLAYS=(), usage=lambda *_: "")
    copied.write = lambda model, path: shutil.copytree(written, path)

    def export(place: Path, **how: object) -> None:
        with (
            mock.patch("charlm.export.format_of", return_value=copied),
            mock.patch("charlm.export.parity.script_of"),
            mock.patch("charlm.export.parity.Reference"),
            mock.patch("charlm.export.card.card", return_value=EXPORT_TITLE),
        ):
            charlm.export.export(SimpleNamespace(config=config), place, "savedmodel", **how)

    return export


def exports(run: Run, folder: Path) -> list[dict[str, str]]:
    """An export takes the place of another checkpoint's, or is a version beside it."""
    old, new = (folder / f"written-{checkpoint.step}" for checkpoint in run.checkpoints()[-2:])
    for checkpoint, written in zip(run.checkpoints()[-2:], (old, new), strict=True):
        subprocess.run([CHARLM, "export", "--model", checkpoint.path, written], check=True, capture_output=True)
        (written / SUMS).unlink()
    config, before = run.last().config(), folder / "exports"
    before.mkdir()
    exporting(old, config)(before / "serving")
    exporting(old, config)(before / "writer", version=1)
    exporting(new, config)(folder / "new")
    first, second = whole_export(before / "serving"), whole_export(folder / "new")
    assert None not in (first, second)
    assert first != second

    def replaced(place: Path) -> bool:
        charlm.export.put_back(place / "serving")  # the next export
        return whole_export(place / "serving") in (first, second)

    def beside(place: Path) -> bool:
        found = {path.name: whole_export(path) for path in (place / "writer").iterdir() if path.name.isdecimal()}
        return found in ({"1": first}, {"1": first, "2": second})

    export = exporting(new, config)
    kinds, kept = tried(before, lambda place: export(place / "serving", force=True), replaced)
    again, also = tried(before, lambda place: export(place / "writer", version=2), beside)
    return [
        row("an export in the place of another", kinds, kept, "the old export or the new one, whole"),
        row("an export of a version", again, also, "the versions before, or they and the new one, whole"),
    ]


def caches(run: Run, folder: Path) -> dict[str, str]:
    """Ids are kept, and asked for again."""
    tokenizer, empty = run.last().tokenizer(), folder / "cache"
    empty.mkdir()
    with open_corpus([str(folder / "pydocs.txt")]) as corpus:
        expected = tokenizer.encode("".join(corpus.pieces()))

        def keep(place: Path) -> object:
            return cached_records(corpus, (0, corpus.chars), tokenizer, place)

        kinds, kept = tried(empty, keep, lambda place: bool((np.asarray(keep(place).ids) == expected).all()))
    return row("keeping ids", kinds, kept, "the next start has the right ids")


def measure(folder: Path) -> list[dict[str, str]]:
    run = trained(folder)
    return [saves(run), *exports(run, folder), caches(run, folder)]
