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
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from charlm.corpus import Corpus
from charlm.drafts import Draft, drafting
from charlm.encoding import encoded
from charlm.errors import CharlmError, Interrupted
from charlm.records import NO_STARTS, Records
from charlm.tokenizer import Ids, Tokenizer

Progress = Callable[[int], None]
SAVE_CHARS = 1 << 26  # an encoding that is stopped loses no more than so many characters

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
    there = next(folder for folder in (place, *place.parents) if os.access(folder, os.F_OK))
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
        progress: called with the number of characters encoded since the last call, first with those that an earlier
            start encoded; not at all if all ids were there.

    Raises:
        CharlmError: the cache cannot be written.
        Interrupted: by Ctrl-C, after something was kept for another start.
    """
    if bounds[0] == bounds[1]:
        return Records(np.zeros(0, tokenizer.dtype), NO_STARTS)
    documents = starts[(starts > bounds[0]) & (starts < bounds[1])]
    key = f"1 {corpus.sha256} {tokenizer.fingerprint} {bounds[0]} {bounds[1]}"
    if len(documents):
        key += f" {hashlib.sha256((documents - bounds[0]).tobytes()).hexdigest()}"
    path = (cache or cache_folder()) / "ids" / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"
    places = {path: tokenizer.dtype} | ({path.with_suffix(".starts.npy"): documents.dtype} if len(documents) else {})
    if (known := _mapped(places)) is not None:
        return known
    try:
        with drafting(places) as draft:
            _encode(draft, corpus, bounds, documents, tokenizer, progress)
        made = _mapped(places)
    except OSError as error:
        place = f"{path.parent}: the cache of ids cannot be written ({error.strerror})"
        raise CharlmError(f"{place}; make room or set CHARLM_CACHE to another folder") from None
    assert made is not None
    return made


def _encode(
    draft: Draft,
    corpus: Corpus,
    bounds: tuple[int, int],
    documents: Ids,
    tokenizer: Tokenizer,
    progress: Progress | None,
) -> None:
    """Adds to a draft what of the ids is not in it; what is made of characters [start, stop) is saved now and then."""
    (start, stop), (ids, *starts), done = bounds, draft.arrays, draft.done
    if progress and done:
        progress(done)
    try:
        with closing(encoded(corpus, start + done, stop, documents, tokenizer)) as parts:
            for part in parts:
                for array in starts:
                    array.append(part.documents + ids.count)
                ids.append(part.ids)
                done += part.chars
                if done - draft.done >= SAVE_CHARS:
                    draft.save(done)
                if progress:
                    progress(part.chars)
    except KeyboardInterrupt:
        if not draft.done:
            raise
        kept = f"{draft.done:,} of {stop - start:,} characters are encoded and kept"
        raise Interrupted(f"{kept}; the same command goes on from there") from None


def _mapped(places: Mapping[Path, npt.DTypeLike]) -> Records | None:
    """The ids and the documents' starts in files, None if they are not there or not whole."""
    arrays = []
    for path, dtype in places.items():
        try:
            array = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            return None
        whole = isinstance(array, np.memmap) and array.dtype == dtype and array.ndim == 1
        if not whole or path.stat().st_size != array.offset + array.nbytes:
            return None
        arrays.append(array)
    return Records(*(arrays if len(arrays) > 1 else [*arrays, NO_STARTS]))
