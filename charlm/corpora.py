"""Corpora that need no download: written out of what is installed. One function for each, and a line in `CORPORA`."""

import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from charlm.errors import CharlmError


def write_pydocs(out: Path) -> int:
    """Writes the reference text behind Python's `help()` (465 KB of English), one topic after another.

    Returns:
        The number of characters written.
    """
    from pydoc_data.topics import topics  # not at the top: half a megabyte that only this needs

    return _write(out, (topics[name].strip("\n") + "\n\n" for name in sorted(topics)))


def write_stdlib(out: Path) -> int:
    """Writes the sources of the running Python's standard library (13 MB), tests and installed packages left out.

    Each begins with a comment line that names its path.

    Returns:
        The number of characters written.
    """
    return _write(out, _stdlib_sources(Path(sysconfig.get_path("stdlib"))))


def _stdlib_sources(root: Path) -> Iterator[str]:
    left_out = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    for path in sorted(path.relative_to(root) for path in root.rglob("*.py")):
        if left_out.isdisjoint(path.parts):
            try:
                yield f"# {path.as_posix()}\n{(root / path).read_bytes().decode()}\n"
            except UnicodeDecodeError:
                continue


def _write(out: Path, parts: Iterable[str]) -> int:
    beside = out.parent / f".{out.name}.{os.getpid()}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("w", encoding="utf-8", newline="") as file:
                chars = sum(map(file.write, parts))
            beside.replace(out)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise CharlmError(f"{out}: cannot be written ({error.strerror}); choose another place") from None
    return chars


CORPORA: dict[str, Callable[[Path], int]] = {"pydocs": write_pydocs, "stdlib": write_stdlib}
