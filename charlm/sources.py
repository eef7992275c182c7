"""From paths to files. What a path means:

    book.txt              that file, whatever its name; it is an error if it is not text
    book.txt.gz           the same, decompressed on the way (.gz .bz2 .xz .zst)
    books/                every file below that looks like text (see `resolve`), in the order of their paths
    'books/**/*.txt'      the files that match, in the order of their paths (quoted, else the shell expands it)
    -                     standard input

Files follow one another directly, with nothing put between them; a path that is given twice is read twice.

Below a folder, and among the files that match a pattern, what systems and programs made is left out: hidden files,
runs and exports of charlm, caches, virtual environments, and the file that this command itself writes to. A file or
folder that is named is read, whatever made it.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from charlm.errors import DataError, UsageError, named
from charlm.files import EXPORT_TITLE, MANIFEST, left_by_system
from charlm.reading import Reading, looks_like_text, unreadable

STDIN = Path("-")
NAMED = 5
NO_TEXT = "no text"
# What is in a folder that a program made, all of it, and what that makes the folder.
MARKS = {
    ("config.json", "checkpoints"): "a run",
    (MANIFEST, "weights.safetensors"): "a checkpoint",
    ("saved_model.pb",): "a SavedModel",
    ("pyvenv.cfg",): "a virtual environment",
    ("CACHEDIR.TAG",): "a cache",
}
PROGRAMS = {"node_modules": "packages", "__pycache__": "a cache"}


@dataclass(frozen=True)
class Sources:
    """What paths came to.

    Attributes:
        files: in reading order; standard input is `STDIN`.
        left_out: the files and folders that were met and not taken, each with what it is.
    """

    files: tuple[Path, ...]
    left_out: tuple[tuple[Path, str], ...] = ()

    def __str__(self) -> str:
        """Says which files they are, the first of them by name, and what was left out."""
        names = ["standard input" if file == STDIN else str(file) for file in self.files]
        made = [f"{path} ({what})" for path, what in self.left_out if what != NO_TEXT]
        others = len(self.left_out) - len(made)
        left = f"; left out: {_listed(made)}" if made else ""
        return _listed(names) + left + (f"; files that are no text: {others}" if others else "")


def _listed(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def resolve(paths: Sequence[str], reading: Reading | None = None, *, everything: bool = False) -> Sources:
    """The files that the paths mean.

    Of a folder it takes every regular file below, links to folders aside, whose first 8 KB decode and hold no NUL
    character. A reading that takes any bytes takes every such file.

    Args:
        paths: see the top of this file.
        reading: how they will be decoded; by default strict UTF-8.
        everything: leave out hidden files alone, as the first runs did.

    Raises:
        UsageError: a path that does not exist or may not be read, a pattern that matches nothing.
        DataError: a folder with no text in it.
    """
    try:
        found = [_resolve(path, reading or Reading(), everything) for path in paths]
    except OSError as error:  # a folder that may be listed, and nothing in it looked at
        raise unreadable(error.filename, error) from None
    files = tuple(file for sources in found for file in sources.files)
    if paths and not files:
        raise DataError(f"{' '.join(paths)}: all that is there was made by programs; name the files to read")
    return Sources(files, tuple(left for sources in found for left in sources.left_out))


def raw_bytes(files: Iterable[Path]) -> int:
    """The size on disk of the files, in bytes: what `open_corpus` will report as progress. Streams count as 0."""
    return sum(file.stat().st_size for file in files if file != STDIN)


def _resolve(path: str, reading: Reading, everything: bool) -> Sources:
    if path == str(STDIN):
        with contextlib.suppress(OSError):  # it is closed
            _refuse_device("standard input", os.fstat(0), os.isatty(0))
        return Sources((STDIN,))
    try:
        state = os.stat(path)  # noqa: PTH116 (Path("") is the current folder)
    except (FileNotFoundError, NotADirectoryError):
        return _matching(path, everything)
    except ValueError:  # it has a NUL, or half a surrogate pair
        raise UsageError(f"{path}: is no name that a file can have") from None
    if stat.S_ISDIR(state.st_mode):
        return _below(path, reading, everything)
    _refuse_device(path, state)
    file = Path(path)
    return Sources((file.absolute() if file == STDIN else file,))  # ./- is a file of that name


def _refuse_device(name: str, state: os.stat_result, terminal: bool = False) -> None:
    """Refuses what may never end; a socket has no name that can be read."""
    empty = stat.S_ISCHR(state.st_mode) and state.st_rdev == os.stat(os.devnull).st_rdev  # noqa: PTH116
    named_socket = stat.S_ISSOCK(state.st_mode) and name != "standard input"
    if named_socket or ((stat.S_ISBLK(state.st_mode) or stat.S_ISCHR(state.st_mode)) and not (empty or terminal)):
        what = "a socket" if named_socket else "a device"
        raise UsageError(f"{name}: is {what}, which may never end; name a file")


def _matching(pattern: str, everything: bool) -> Sources:
    matches = map(Path, glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    files = _in_order(matches)
    if not files:
        problem = "no file matches it" if glob.has_magic(pattern) else "no such file or folder"
        raise UsageError(f"{pattern}: {problem}; check the path of the corpus")
    literal = sum(1 for _ in itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    left_out: dict[Path, str] = {}
    made = functools.cache(_made)
    for file in () if everything else files:
        for place in (*(Path(*file.parts[:n]) for n in range(literal + 1, len(file.parts))), file):
            if (what := made(place)) is not None:
                left_out[place] = what
                break
    taken = (file for file in files if left_out.keys().isdisjoint((file, *file.parents)))
    return Sources(tuple(taken), tuple(left_out.items()))


def _below(folder: str, reading: Reading, everything: bool) -> Sources:
    def fail(error: OSError) -> None:
        raise unreadable(error.filename, error)

    files: list[Path] = []
    left_out: list[tuple[Path, str]] = []

    def taken(root: str, names: list[str]) -> Iterator[str]:
        for name in names:
            what = None if everything else _made(Path(root, name))
            if what is not None:
                left_out.append((Path(root, name), what))
            elif not name.startswith("."):
                yield name

    for root, folders, names in os.walk(folder, onerror=fail):
        folders[:] = taken(root, folders)
        files += [Path(root, name) for name in taken(root, names)]
    regular = _in_order(files)
    text = [file for file in regular if looks_like_text(file, reading)]
    taken_up = set(text)
    if not text and not left_out:
        ways_out = f"name the files, or use {named('data.encoding')} if they are not UTF-8"
        raise DataError(f"{folder}: no text files in this folder; {ways_out}")
    return Sources(tuple(text), (*sorted(left_out), *((file, NO_TEXT) for file in regular if file not in taken_up)))


def _in_order(files: Iterable[Path]) -> list[Path]:
    return sorted((file for file in files if file.is_file()), key=lambda file: file.parts)


def _made(path: Path) -> str | None:
    """What a file or folder is, if a system or a program made it; hidden ones are not asked about."""
    if path.name.startswith("."):
        return None
    if left_by_system(path.name):
        return "a system's"
    if not path.is_dir():
        return _made_file(path)
    try:
        names = {entry.name for entry in path.iterdir()}
    except OSError:  # whoever reads it will say so
        return None
    known = (what for marks, what in MARKS.items() if names.issuperset(marks))
    return PROGRAMS.get(path.name) or next(known, "an export" if _is_card(path / "README.md") else None)


def _made_file(file: Path) -> str | None:
    if (file.suffix == ".md" and _is_card(file)) or _is_card(file.with_name(f"{file.name}.md")):
        return "an export"
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # it is closed, or the file is not there
            if os.path.samestat(file.stat(), os.fstat(descriptor)):
                return "what this command writes"
    return None


def _is_card(path: Path) -> bool:
    """Whether a file is the README of an export."""
    try:
        with path.open("rb") as file:
            return EXPORT_TITLE.encode() in file.read(4096)
    except OSError:
        return False
