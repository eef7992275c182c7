"""A disk that fails: what a block of code does to files is counted, and any of it can fail or be the last that happens.

Counted are, below one folder: making a file, each write to it, syncs, making, renaming and removing of files and
folders. `Disk` stands for Python's own functions; what C++ writes is not counted, but a loss of power takes it too.
"""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
LOSSES = ("empty files", "files of zeros", "names lost")  # what a loss of power makes of what was not synced
KINDS = (*ERRORS, *LOSSES)


class PowerLoss(BaseException):
    """Nothing more happens."""


class Disk:
    """What is below a folder, on a disk that fails.

    Args:
        root: the folder; all that is there now is on the disk.
        at: which operation fails, from 0 on; None for none.
        kind: of `KINDS`.
    """

    def __init__(self, root: Path, at: int | None = None, kind: str = "EIO") -> None:
        self.root, self.at, self.kind = root.resolve(), at, kind
        self.operations: list[str] = []
        self._synced = {self._identity(path) for path in self.root.rglob("*") if path.is_file()}
        self._changes: list[tuple[set[int], Callable[[], object]]] = []  # folders to sync, and what undoes each
        self._lost = False
        self._real = {name: getattr(os, name) for name in ("rename", "replace", "unlink", "rmdir", "mkdir")}
        self._open = io.open
        self._removed = Path(tempfile.mkdtemp(prefix="removed-", dir=self.root.parent))
        self._numbers = itertools.count()

    @contextmanager
    def failing(self) -> Iterator[Disk]:
        """The block's operations are counted, and the one that was asked for fails."""
        patches = [mock.patch.object(os, name, getattr(self, f"_{name}")) for name in self._real]
        patches += [mock.patch.object(os, "remove", self._unlink), mock.patch.object(os, "fsync", self._fsync)]
        patches += [mock.patch.object(module, "open", self._opened) for module in (io, builtins)]
        for patch in patches:
            patch.start()
        try:
            yield self
        finally:
            for patch in patches:
                patch.stop()
            if self._lost:
                self._lose()
            shutil.rmtree(self._removed)

    def _happens(self, what: str, path: Path) -> None:
        """Counts an operation; raises instead where it is the one that fails, or power is lost already."""
        if self._lost:
            raise PowerLoss
        self.operations.append(f"{what} {path.relative_to(self.root)}")
        if self.at != len(self.operations) - 1:
            return
        if self.kind in LOSSES:
            self._lost = True
            raise PowerLoss
        raise OSError(ERRORS[self.kind], os.strerror(ERRORS[self.kind]), str(path))

    def _place(self, path: object, folder: int | None = None) -> Path | None:
        """A path, if it is below the folder."""
        base = Path.cwd() if folder is None else Path(f"/proc/self/fd/{folder}").readlink()
        named = Path(f"/proc/self/fd/{path}").readlink() if isinstance(path, int) else base / os.fspath(path)
        place = Path(os.path.normpath(named))
        return place if place.is_relative_to(self.root) else None

    @staticmethod
    def _identity(path: Path) -> tuple[int, ...]:
        state = path.stat()
        return state.st_ino, state.st_size, state.st_mtime_ns

    # ---- what stands for Python's functions

    def _opened(self, file: object, mode: str = "r", buffering: int = -1, *rest: object, **more: object) -> object:
        place = None if isinstance(file, int) else self._place(file)
        if place is None or mode.strip("bt") == "r":
            return self._open(file, mode, buffering, *rest, **more)
        self._happens("open", place)
        if not place.exists():
            self._changed(place, lambda now: self._real["unlink"](now(place)))
        raw = _File(self, place, mode.replace("b", "").replace("t", ""))
        buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *rest, **more)

    def _fsync(self, descriptor: int) -> None:
        if place := self._place(descriptor):
            self._happens("sync", place)
            if place.is_dir():
                folder = place.stat().st_ino
                self._changes = [(folders - {folder}, undo) for folders, undo in self._changes if folders - {folder}]
            else:
                self._synced.add(self._identity(place))

    def _mkdir(self, path: object, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        place = self._place(path, dir_fd)
        if place and not place.exists():
            self._happens("mkdir", place)
            self._changed(place, lambda now: shutil.rmtree(now(place)))
        self._real["mkdir"](path, mode, dir_fd=dir_fd)

    def _rename(self, old: object, new: object) -> None:
        source, target = self._place(old), self._place(new)
        if source is None or target is None:
            self._real["rename"](old, new)
            return
        self._happens("rename", target)
        kept = self._keep(target) if target.exists() else None

        def undo(now: Callable[[Path], Path]) -> None:
            self._real["rename"](now(target), now(source))
            if kept:
                self._real["rename"](kept, now(target))

        self._changed(target, undo, source)
        self._real["rename"](old, new)

    _replace = _rename

    def _unlink(self, path: object, *, dir_fd: int | None = None) -> None:
        self._remove("unlink", path, dir_fd)

    def _rmdir(self, path: object, *, dir_fd: int | None = None) -> None:
        self._remove("rmdir", path, dir_fd)

    def _remove(self, call: str, path: object, folder: int | None) -> None:
        place = self._place(path, folder)
        if place is None or not os.path.lexists(place):
            self._real[call](path, dir_fd=folder)
            return
        self._happens(call, place)
        kept = self._keep(place)
        self._changed(place, lambda now: self._real["rename"](kept, now(place)))

    def _keep(self, place: Path) -> Path:
        """Puts what a change of names would remove away."""
        kept = self._removed / str(next(self._numbers))
        self._real["rename"](place, kept)
        return kept

    def _changed(self, place: Path, undo: Callable[[Callable[[Path], Path]], object], *others: Path) -> None:
        """Notes a change of names that is on the disk once the folders of all are synced.

        Args:
            place, others: the names.
            undo: is given what tells where a name is when power is lost, for its folder may have another name then.
        """
        folders = {one: one.parent.stat().st_ino for one in (place, *others)}

        def now(one: Path) -> Path:
            known = (self.root, *self.root.rglob("*"), *self._removed.rglob("*"))
            return next(path for path in known if path.stat().st_ino == folders[one]) / one.name

        self._changes.append(({*folders.values()}, lambda: undo(now)))

    # ---- after the power is lost

    def _lose(self) -> None:
        """Takes from the disk what was never synced to it."""
        for path in list(self.root.rglob("*")):
            if path.is_file() and self._identity(path) not in self._synced:
                size = path.stat().st_size if self.kind == "files of zeros" else 0
                with self._open(path, "wb") as file:
                    file.write(bytes(size))
        if self.kind == "names lost":
            for _, undo in reversed(self._changes):
                undo()


def every_fault(
    before: Path, act: Callable[[Path], object], kinds: tuple[str, ...] = KINDS
) -> Iterator[tuple[Path, str, str, BaseException | None]]:
    """Lets every operation of `act` fail, in each way, each time in a copy of a folder.

    Yields:
        The copy as it was left, the way, the operation, and what `act` raised.
    """
    for kind in kinds:
        for n in itertools.count():
            with tempfile.TemporaryDirectory(dir=before.parent) as folder:
                place = Path(folder, before.name)
                shutil.copytree(before, place)
                error: BaseException | None = None
                with Disk(place, n, kind).failing() as disk:
                    try:
                        act(place)
                    except (Exception, PowerLoss) as found:
                        error = found
                if n >= len(disk.operations):
                    break
                yield place, kind, disk.operations[n], error


class _File(io.FileIO):
    """A file each write to which is counted; one that fails for want of room has written half."""

    def __init__(self, disk: Disk, place: Path, mode: str) -> None:
        self._disk, self._place = disk, place
        super().__init__(place, mode)

    def write(self, data: object) -> int:
        try:
            self._disk._happens("write", self._place)
        except OSError:
            super().write(memoryview(data)[: len(data) // 2])
            raise
        return super().write(data)


def damages(files: Sequence[Path], flips: int, cuts: int, seed: int = 0) -> Iterator[tuple[Path, str]]:
    """Files, each damaged while it is yielded: one bit flipped somewhere, or the end cut off; and what was done."""
    rng = random.Random(seed)
    sizes = {file: file.stat().st_size for file in files}
    for n in range(flips + cuts):
        file = rng.choice(files) if n % 2 else rng.choices(files, [sizes[file] for file in files])[0]
        content, place = file.read_bytes(), rng.randrange(sizes[file])
        if n < flips:
            bit = 1 << rng.randrange(8)
            file.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            what = f"bit {bit} of byte {place}"
        else:
            file.write_bytes(content[:place])
            what = f"cut at byte {place}"
        yield file, what
        file.write_bytes(content)
