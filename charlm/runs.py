"""The run directory: made, locked and written.

    models/NAME/
      config.json             the resolved configuration, versions, corpus and seed
      metrics.jsonl           one line per event (a log: not needed to load)
      lock                    held by the process that trains the run
      checkpoints/step-00001200/

A checkpoint is written beside its place, synced and renamed: it is whole or it is not there.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

import safetensors.numpy

from charlm.checkpoint import Arrays, Checkpoint, Record, read_record, verify_record
from charlm.errors import CharlmError, ModelError, UsageError, named
from charlm.files import (
    MANIFEST,
    UNSUPPORTED,
    cut_half_line,
    is_replaced,
    read_json,
    real_path,
    remove_folder,
    replace_folder,
    replacing,
    sealed,
    sync,
    to_json,
    verify_manifest,
    write_manifest,
    write_synced,
)
from charlm.tokenizer import Alphabet

KEPT, MOST_DIGITS = 3, 20
WRITTEN = ("config.json", "metrics.jsonl", "lock", "checkpoints")  # by a training
_STEP = re.compile(r"step-(\d{8,})")
_log = logging.getLogger("charlm")


class Run:
    """A run directory, or a checkpoint that was copied out of one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._locked: os.stat_result | None = None  # the file of the lock, whoever holds it

    @property
    def name(self) -> str:
        """Its folder's, also where it is called `.`"""
        return self.path.name if self.path.name.strip(".") else self.path.resolve().name

    @property
    def record(self) -> Record:
        """The record of the run, `config.json`; if it is damaged, its last checkpoint's, with a warning."""
        path = self.path / "config.json"
        try:
            verify_record(path)
        except ModelError as error:
            last = self.last()
            if last is None:
                raise
            _log.warning("%s; the record of step %d is taken", error, last.step)
            return last.record
        return read_record(path)

    @classmethod
    def create(cls, path: Path, record: Mapping[str, Any]) -> Run:
        """Makes a new run directory with its record.

        Raises:
            FileExistsError: there is something of that name.
            CharlmError: the disk is full or refuses.
        """
        run = cls(path)
        try:
            path.mkdir(parents=True)
            (path / "checkpoints").mkdir()
            sync(path.parent)
        except FileExistsError:
            raise
        except OSError as error:
            raise _unwritable(path, error) from None
        run.record_again(record)
        return run

    def record_again(self, record: Mapping[str, Any]) -> None:
        """Replaces what `config.json` says; raises CharlmError if the disk is full or refuses."""
        self._refuse_another()
        try:
            with replacing(self.path / "config.json") as beside:
                beside.write_bytes(to_json(sealed(record), indent=2))
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def lock(self) -> IO[bytes]:
        """Holds the run against other processes that would train it, and mends what a killed one left in it.

        Returns:
            What holds it until it is closed; it warns where the file system has no locks.

        Raises:
            CharlmError: another process holds it, or the run may not be written.
            ModelError: what a training writes is a link to somewhere else, or a pipe or a device.
        """
        path = self.path / "lock"
        self._refuse_links()
        with ExitStack() as closing:
            try:
                file = closing.enter_context(path.open("ab"))
            except OSError as error:
                raise _unwritable(path, error) from None
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise CharlmError(f"{self.path}: is being trained by another process") from None
                _log.warning("%s: cannot be locked here (%s); train it in one process", self.path, error.strerror)
            try:
                cut_half_line(self.path / "metrics.jsonl")
                self._clear_drafts()
            except OSError as error:
                raise _unwritable(self.path, error) from None
            closing.pop_all()
            self._locked = os.fstat(file.fileno())
            return file

    def _refuse_another(self) -> None:
        """Somebody may move or remove a run that is trained, and begin another of its name."""
        if self._locked and is_replaced(self._locked, self.path / "lock"):
            raise CharlmError(f"{self.path}: another run has taken this name while it was trained")

    def _refuse_links(self) -> None:
        """A run that somebody else made could have a training write to any file of the user's."""
        for name in WRITTEN:
            place = self.path / name
            if place.is_symlink() and not real_path(place).is_relative_to(real_path(self.path)):
                raise ModelError(f"{place}: is a link out of the run, and training writes there; put the real one here")
            if place.exists() and not (place.is_file() or place.is_dir()):
                raise ModelError(f"{place}: is a pipe or a device, and training writes there; take it away")

    def _clear_drafts(self) -> None:
        """Puts back a whole checkpoint that was moved aside for one that never came, and removes all other drafts."""
        for draft in (self.path / "checkpoints").glob(".step-*"):
            place = draft.with_name(draft.name.split(".")[1])
            if draft.name.endswith("before") and not place.exists():
                with suppress(ModelError):
                    verify_manifest(draft)
                    draft.rename(place)
            shutil.rmtree(draft, ignore_errors=True)
        for draft in self.path.glob(".*-config.json"):
            draft.unlink()

    def log(self, event: Mapping[str, Any]) -> None:
        """Appends a line to metrics.jsonl; raises CharlmError if the disk is full or refuses."""
        path = self.path / "metrics.jsonl"
        self._refuse_another()
        try:
            with path.open("ab") as file:
                file.write(to_json(event))
        except OSError as error:
            raise _unwritable(path, error) from None

    def checkpoints(self) -> list[Checkpoint]:
        """Its checkpoints, oldest first."""
        if (self.path / MANIFEST).is_file():  # it is one itself
            step = read_json(self.path / "progress.json").get("step")
            return [Checkpoint(self.path, step if type(step) is int else 0)]
        folder = self.path / "checkpoints"
        entries = [entry for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
        found = [(_STEP.fullmatch(entry.name), entry) for entry in entries]
        return sorted((Checkpoint(p, int(m[1])) for m, p in found if m), key=lambda c: c.step)

    def save(
        self, step: int, weights: Arrays, training: Arrays, progress: Mapping[str, Any], tokenizer: Alphabet
    ) -> Checkpoint:
        """Writes the checkpoint of `step`, in place of a damaged one, then removes all but the last three and the best.

        Args:
            step: updates done.
            weights: what generation needs.
            training: what resuming needs besides.
            progress: with "best" and perhaps "scheduled_best", the steps of the best scores so far, or None.
            tokenizer: the run's.

        Raises:
            CharlmError: the disk is full or refuses.
        """
        saved = self.write(
            step,
            {
                "config.json": (self.path / "config.json").read_bytes(),
                tokenizer.file_name: tokenizer.content(),
                "weights.safetensors": safetensors.numpy.save(weights),
                "training.safetensors": safetensors.numpy.save(training),
                "progress.json": to_json(progress, indent=2),
            },
        )
        checkpoints = self.checkpoints()
        done = [c for c in checkpoints if c.step <= step]
        best = progress["best"], progress.get("scheduled_best")
        # Later ones are damaged: a run goes on from the last whole one.
        for old in (c for c in checkpoints if c not in done[-KEPT:] and c.step not in best):
            remove_folder(old.path)
        return saved

    def write(self, step: int, contents: Mapping[str, bytes]) -> Checkpoint:
        """Writes a checkpoint's files and their manifest: beside its place, synced, then renamed.

        Raises:
            CharlmError: the disk is full or refuses.
        """
        self._refuse_another()
        place = self.path / "checkpoints" / f"step-{step:08}"
        beside = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            self._clear_drafts()
            beside.mkdir()
            for name, content in contents.items():
                write_synced(beside / name, content)
            write_manifest(beside, written=time.time())
            sync(beside)
            replace_folder(beside, place)
        except OSError as error:
            self._clear_drafts()
            raise CharlmError(f"{place}: cannot be written: {error.strerror}; earlier checkpoints are whole") from None
        return Checkpoint(place, step)

    def last(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None if there is none yet; warns of damaged ones it passes over.

        Raises:
            ModelError: there are checkpoints and all are damaged.
        """
        checkpoints = self.checkpoints()
        for checkpoint in reversed(checkpoints):
            try:
                checkpoint.verify()
            except ModelError as error:
                _log.warning("%s", error)
                continue
            return checkpoint
        if checkpoints:
            raise ModelError(f"{self.path}: every checkpoint is damaged")
        return None

    def pick(self, which: str) -> Checkpoint:
        """The checkpoint called "best", "last", or by its step or its folder; verified.

        The best falls back on the last whole one, with a warning, if it is damaged. A newer one without a score is
        warned of.

        Raises:
            ModelError: there is none.
            UsageError: it is called something else.
        """
        number = which.removeprefix("step-")
        if which not in ("best", "last") and not (number.isdecimal() and len(number) < MOST_DIGITS):
            raise UsageError(f"a checkpoint is best, last or a step, not {which!r}")
        last = self.last()
        if last is None:
            raise ModelError(f"{self.path}: has no checkpoint yet; train it further with {named('resume', True)}")
        if which == "last":
            return last
        progress = last.progress()
        if "best" not in progress:
            raise ModelError(f"{last.path}/progress.json: is not charlm's: it does not name the best checkpoint")
        standing = last.standing()
        step = standing.best if which == "best" else int(number)
        found = next((c for c in self.checkpoints() if c.step == step), None)
        if found is None and which != "best":
            known = ", ".join(str(c.step) for c in self.checkpoints())
            raise ModelError(f"{self.path}: has no checkpoint of step {which}; there are {known}")
        if found is None or found == last:
            return last
        try:
            found.verify()
        except ModelError as error:
            if which != "best":
                raise
            _log.warning("%s; using step %d", error, last.step)
            return last
        if which == "best" and standing.scored < last.step:
            newest = named("checkpoint", "last")
            _log.warning("using step %d; step %d has no score yet (%s takes it)", found.step, last.step, newest)
        return found


def _unwritable(path: Path, error: OSError) -> CharlmError:
    return CharlmError(f"{path}: cannot be written: {error.strerror}")


def publish(checkpoint: Checkpoint, place: Path) -> Checkpoint:
    """Makes a run directory of a checkpoint alone, without what only resuming needs and where its corpus lay.

    Raises:
        FileExistsError: there is something at `place`.
        CharlmError: the disk is full or refuses.
    """
    record = checkpoint.record
    record["corpus"]["paths"] = [Path(path).name for path in record["corpus"]["paths"]]
    record.get("from", {}).pop("checkpoint", None)
    run = Run.create(place, record)
    names = verify_manifest(checkpoint.path)["files"].keys() - {"training.safetensors", "config.json"}
    contents = {name: (checkpoint.path / name).read_bytes() for name in sorted(names)}
    return run.write(checkpoint.step, {"config.json": (place / "config.json").read_bytes(), **contents})
