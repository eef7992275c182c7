"""The ids of a corpus on disk: encoded once, then memory-mapped, however large the corpus is.

A cached file is named by a digest of everything its ids depend on: the text, the tokenizer and the range of characters.
So a changed corpus or tokenizer never meets ids that are not its own; old files are only in the way of disk space.
"""

import contextlib
import functools
import hashlib
import logging
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from charlm.corpus import Corpus
from charlm.errors import CharlmError
from charlm.files import replacing
from charlm.records import NO_STARTS, Records, encoded
from charlm.tokenizer import Ids, Tokenizer

Progress = Callable[[int], None]
DRAFT_SECONDS = 86_400.0  # since it was last written to, a draft is nobody's

_log = logging.getLogger("charlm")


def cache_folder() -> Path:
    """Where ids are kept: $CHARLM_CACHE, or `charlm` in the folder that the platform has for caches.

    A temporary folder of the user's, where there is no home or it cannot be written, as in containers.
    """
    if chosen := os.environ.get("CHARLM_CACHE"):
        return Path(chosen)
    place = _platform_folder()
    return place if place is not None and _may_be_written(place) else _temporary_folder()


def _platform_folder() -> Path | None:
    """None where nobody knows the user's home."""
    try:
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "charlm"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "charlm"
    except RuntimeError:
        return None


def _may_be_written(place: Path) -> bool:
    """Tells whether a folder can be written, or be made."""
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


@functools.cache
def _temporary_folder() -> Path:
    """The user's alone: a folder of that name which is another's, or a link, is not taken."""
    place = Path(tempfile.gettempdir(), f"charlm-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    state = place.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o077:
        place = Path(tempfile.mkdtemp(prefix="charlm-"))
    _log.warning("no home that can be written: ids are kept in %s (CHARLM_CACHE chooses another folder)", place)
    return place


def cached_records(
    corpus: Corpus,
    bounds: tuple[int, int],
    tokenizer: Tokenizer,
    cache: Path | None = None,
    progress: Progress | None = None,
    starts: Ids = NO_STARTS,
) -> Records:
    """The symbols of a range of characters, memory-mapped: encoded now, or found in the cache.

    Args:
        corpus: the text.
        bounds: its characters [start, stop).
        tokenizer: what encodes them.
        starts: the characters of the text at which documents begin, sorted.
        cache: a folder; by default `cache_folder()`.
        progress: called with the number of characters encoded since the last call; not at all if the ids were there.

    Raises:
        CharlmError: the cache cannot be written.
    """
    if bounds[0] == bounds[1]:
        return Records(np.zeros(0, tokenizer.dtype), NO_STARTS)
    starts = starts[(starts > bounds[0]) & (starts < bounds[1])] - bounds[0]
    key = f"1 {corpus.sha256} {tokenizer.fingerprint} {bounds[0]} {bounds[1]}"
    if len(starts):
        key += f" {hashlib.sha256(starts.tobytes()).hexdigest()}"
    path = (cache or cache_folder()) / "ids" / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"
    at = path.with_suffix(".starts.npy")
    ids, places = _mapped(path, tokenizer.dtype), _mapped(at, starts.dtype) if len(starts) else NO_STARTS
    if ids is not None and places is not None:
        return Records(ids, places)
    pieces, found = _counted(corpus.pieces(*bounds), progress), list[int]()
    blocks = _noted(encoded(pieces, starts.tolist(), tokenizer.encode_pieces), found)
    try:
        _write(path, blocks, tokenizer.dtype)
        places = np.unique(np.array(found, starts.dtype))
        if len(starts):
            _write(at, iter([places]), starts.dtype)
        return Records(np.load(path, mmap_mode="r"), places)
    except OSError as error:
        place = f"{path.parent}: the cache of ids cannot be written ({error.strerror})"
        raise CharlmError(f"{place}; make room or set CHARLM_CACHE to another folder") from None


def _noted(blocks: Iterator[tuple[bool, Ids]], starts: list[int]) -> Iterator[Ids]:
    """The blocks; where documents begin after the first, in symbols, is appended to `starts`."""
    count = 0
    for begins, ids in blocks:
        if begins and count:
            starts.append(count)
        count += len(ids)
        yield ids


def _mapped(path: Path, dtype: npt.DTypeLike) -> Ids | None:
    """The values in a file, None if it is not there or not whole."""
    try:
        ids = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    whole = isinstance(ids, np.memmap) and ids.dtype == dtype and ids.ndim == 1
    return ids if whole and path.stat().st_size == ids.offset + ids.nbytes else None


def _write(path: Path, blocks: Iterator[Ids], dtype: npt.DTypeLike) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for draft in path.parent.glob(".*"):  # of processes that were killed while they wrote
        if time.time() - draft.stat().st_mtime > DRAFT_SECONDS:
            draft.unlink(missing_ok=True)
    with replacing(path) as beside, beside.open("wb") as file:
        count = 0
        _write_header(file, count, dtype)
        for block in blocks:
            file.write(block.data)
            count += len(block)
        file.seek(0)
        _write_header(file, count, dtype)


def _write_header(file: IO[bytes], count: int, dtype: npt.DTypeLike) -> None:
    # NumPy pads this header so that its size does not depend on the length, which is known only in the end.
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)


def _counted(pieces: Iterator[str], progress: Progress | None) -> Iterator[str]:
    for piece in pieces:
        yield piece
        if progress:
            progress(len(piece))
