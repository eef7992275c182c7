"""From paths to files. What a path means:

    book.txt              that file, whatever its name; it is an error if it is not text
    book.txt.gz           the same, decompressed on the way (.gz .bz2 .xz .zst)
    books/                every file below that looks like text (see `resolve`), in the order of their paths
    'books/**/*.txt'      the files that match, in the order of their paths (quoted, else the shell expands it)
    -                     standard input

Files follow one another directly, with nothing put between them; a path that is given twice is read twice.
"""

import glob
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from charlm.errors import DataError, UsageError, named
from charlm.reading import Reading, looks_like_text, unreadable

STDIN = Path("-")


def resolve(paths: Sequence[str], reading: Reading | None = None) -> tuple[Path, ...]:
    """The files that the paths mean, in reading order; standard input is `STDIN`.

    Of a folder it takes every regular file below, hidden files and folders (`.git`) and links to folders aside, whose
    first 8 KB decode and hold no NUL character. A reading that takes any bytes takes every such file.

    Raises:
        UsageError: a path that does not exist or may not be read, a pattern that matches nothing.
        DataError: a folder with no text in it.
    """
    return tuple(file for path in paths for file in _resolve(path, reading or Reading()))


def raw_bytes(files: Iterable[Path]) -> int:
    """The size on disk of the files, in bytes: what `open_corpus` will report as progress. Streams count as 0."""
    return sum(file.stat().st_size for file in files if file != STDIN)


def _resolve(path: str, reading: Reading) -> list[Path]:
    if path == str(STDIN):
        return [STDIN]
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (Path("") is the current folder)
    except (FileNotFoundError, NotADirectoryError):
        matches = map(Path, glob.glob(path, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
        files = sorted((file for file in matches if file.is_file()), key=lambda file: file.parts)
        if not files:
            what = "no file matches it" if glob.has_magic(path) else "no such file or folder"
            raise UsageError(f"{path}: {what}; check the path of the corpus") from None
        return files
    except OSError as error:
        raise unreadable(path, error) from None
    if not stat.S_ISDIR(mode):
        file = Path(path)
        return [file.absolute() if file == STDIN else file]  # ./- is a file of that name
    files = [file for file in _below(path) if looks_like_text(file, reading)]
    if not files:
        ways_out = f"name the files, or use {named('data.encoding')} if they are not UTF-8"
        raise DataError(f"{path}: no text files in this folder; {ways_out}")
    return files


def _below(folder: str) -> list[Path]:
    def fail(error: OSError) -> None:
        raise unreadable(error.filename, error)

    files: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted((file for file in files if file.is_file()), key=lambda file: file.parts)
