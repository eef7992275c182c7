"""Arrays on their way to their files, which another start goes on with after a stop, a kill or a loss of power."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from charlm.errors import ModelError
from charlm.files import UNSUPPORTED, is_sealed, read_json, replacing, sealed, sync, to_json

KEPT_SECONDS = 7 * 86_400.0  # since it was last written to, a draft is nobody's
READ_BYTES = 1 << 24


class Growing:
    """A .npy file of one dimension that grows.

    Attributes:
        count: of its values.
    """

    def __init__(self, file: IO[bytes], dtype: npt.DTypeLike) -> None:
        self._file, self._dtype = file, np.dtype(dtype)
        self.count, self._digest = 0, hashlib.sha256()

    @property
    def state(self) -> list[Any]:
        """The count and the digest that `resume` goes on with."""
        return [self.count, self._digest.hexdigest()]

    def append(self, values: npt.NDArray[Any]) -> None:
        """Adds values, which are on the disk after `sync`."""
        self._file.write(values.data)
        self._digest.update(values.data)
        self.count += len(values)

    def sync(self) -> None:
        """Writes all that there is to the disk."""
        end = self._file.tell()
        self._file.seek(0)
        self._begin()
        self._file.seek(end)
        self._file.flush()
        os.fsync(self._file.fileno())

    def resume(self, count: int, digest: str) -> bool:
        """Takes the first values of what is there, and says whether they are those that `state` told of."""
        self._file.seek(0)
        self._begin()
        left = count * self._dtype.itemsize
        while left and (block := self._file.read(min(left, READ_BYTES))):
            self._digest.update(block)
            left -= len(block)
        self.count = count
        self._file.truncate()
        return not left and self.state == [count, digest]

    def restart(self) -> None:
        """Begins with no values."""
        self.count, self._digest = 0, hashlib.sha256()
        self._file.seek(0)
        self._begin()
        self._file.truncate()

    def _begin(self) -> None:
        # NumPy pads this header so that its size does not depend on the length, which is known only in the end.
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self.count,)}
        np.lib.format.write_array_header_1_0(self._file, header)


class Draft:
    """Arrays as far as they are.

    Attributes:
        arrays: in the order of their places.
        done: how far they were when they were last saved, in whatever they are made of.
    """

    def __init__(self, arrays: list[Growing], state: Path | None) -> None:
        """Goes on with what a file of state tells of; None keeps nothing until they are in their places."""
        self.arrays, self._state, self.done = arrays, state, 0
        if state is not None and state.exists():
            try:
                known = read_json(state)
                whole = is_sealed(state, known)
            except ModelError:
                whole = False
            if whole and all(one.resume(*told) for one, told in zip(arrays, known["arrays"], strict=True)):
                self.done = known["done"]
        if not self.done:
            for one in arrays:
                one.restart()

    def save(self, done: int) -> None:
        """Keeps what there is for another start."""
        if self._state is not None:
            for one in self.arrays:
                one.sync()
            state = {"done": done, "arrays": [one.state for one in self.arrays]}
            with replacing(self._state) as beside:
                beside.write_bytes(to_json(sealed(state), indent=2))
            self.done = done


@contextmanager
def drafting(places: Mapping[Path, npt.DTypeLike]) -> Iterator[Draft]:
    """Arrays that take their places, which are in one folder, when they are whole.

    They hold what an earlier start has saved. While another process makes them, this one makes its own.
    """
    first = next(iter(places))
    first.parent.mkdir(parents=True, exist_ok=True)
    _clear(first.parent)
    with ExitStack() as closing:
        held = _held(_beside(first))
        own = "" if held else secrets.token_hex(8)
        drafts = {place: _beside(place, own) for place in places}
        state = drafts[first].with_suffix(".npy.json")
        files = [closing.enter_context(held or _held(drafts[first]) or drafts[first].open("w+b"))]
        files += [closing.enter_context(_opened(drafts[place])) for place in list(places)[1:]]
        draft = None
        try:
            arrays = [Growing(file, dtype) for file, dtype in zip(files, places.values(), strict=True)]
            draft = Draft(arrays, state if held else None)
            yield draft
            for one in arrays:
                one.sync()
            for place, beside in drafts.items():
                beside.replace(place)
            sync(first.parent)
            state.unlink(missing_ok=True)
        except BaseException:
            if draft is None or not draft.done:
                for path in (*drafts.values(), state):
                    path.unlink(missing_ok=True)
            raise


def left_over(folder: Path) -> list[Path]:
    """The files of drafts in a folder that no process holds."""
    held: dict[str, bool] = {}
    drafts = sorted(folder.glob(".*.npy*"))
    for draft in drafts:
        first = f".{draft.name.split('.')[1]}.npy"
        if first not in held:
            held[first] = _is_held(folder / first)
    return [draft for draft in drafts if not held[f".{draft.name.split('.')[1]}.npy"]]


def _is_held(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _beside(place: Path, own: str = "") -> Path:
    return place.with_name(f".{own}{place.name}")


def _opened(path: Path) -> IO[bytes]:
    path.open("ab").close()
    return path.open("r+b")


def _held(path: Path) -> IO[bytes] | None:
    """A draft that no other process holds; None if one does, or if the file system has no locks."""
    with ExitStack() as closing:
        try:
            file = closing.enter_context(_opened(path))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return None  # it is in its place, or gone
        except (BlockingIOError, FileNotFoundError):
            return None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            return None
        closing.pop_all()
        return file


def _clear(folder: Path) -> None:
    """Removes what killed processes left and nobody went on with."""
    for draft in folder.glob(".*.npy*"):
        with suppress(FileNotFoundError):  # another process has finished it
            if draft.is_file() and time.time() - draft.stat().st_mtime > KEPT_SECONDS:
                draft.unlink()
