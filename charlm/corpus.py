"""Text in: from files, folders, globs, compressed files and standard input, always in pieces, never as a whole.

What a path means:

    book.txt              that file, whatever its name; it is an error if it is not text
    book.txt.gz           the same, decompressed on the way (.gz .bz2 .xz .zst)
    books/                every file below that looks like text (see `resolve`), in the order of their paths
    'books/**/*.txt'      the files that match, in the order of their paths (quoted, else the shell expands it)
    -                     standard input

Files follow one another directly, with nothing put between them; a path that is given twice is read twice.
"""

import bz2
import codecs
import glob
import gzip
import hashlib
import io
import itertools
import lzma
import math
import os
import shutil
import stat
import sys
import sysconfig
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import zstandard

from charlm.errors import CharlmError, DataError, UsageError

STDIN = Path("-")
PIECE_BYTES = 1 << 20
HEAD_BYTES = 8192
# Four bytes of zstandard can hold a block of 128 KB: this is what bounds a piece, at 32 MB for a hostile file.
ZSTD_STEP_BYTES = 1024
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Reading:
    """How bytes become text.

    Attributes:
        encoding: any text encoding Python knows.
        errors: what becomes of bytes that are not valid in it: "strict" (an error that names the byte), "replace"
            (U+FFFD), or "surrogateescape" (kept: `text_bytes` gives them back, which is what a byte tokenizer needs;
            nothing counts as binary then, and a byte order mark is kept like every other byte).
        newlines: "keep", or "normalise" CRLF and CR to LF.

    Raises:
        UsageError: an unknown encoding, or another value.
    """

    encoding: str = "utf-8"
    errors: str = "strict"
    newlines: str = "keep"

    def __post_init__(self) -> None:
        try:
            "a".encode(self.encoding)
            codecs.getincrementaldecoder(self.encoding)
        except (LookupError, ValueError):
            raise UsageError(
                f"--encoding {self.encoding}: unknown text encoding; try utf-8, utf-16 or cp1252"
            ) from None
        for option, value, known in (
            ("errors", self.errors, ("strict", "replace", "surrogateescape")),
            ("newlines", self.newlines, ("keep", "normalise")),
        ):
            if value not in known:
                raise UsageError(f"--{option} {value}: use one of {', '.join(known)}")

    @property
    def takes_any_bytes(self) -> bool:
        """Whether the bytes come through whatever they are."""
        return self.errors == "surrogateescape"


def text_bytes(text: str) -> bytes:
    """The UTF-8 bytes of a text: a byte that was escaped as U+DC80..U+DCFF as that byte, so that any bytes round-trip.

    Any other lone surrogate, which no file holds but a JSON request can, becomes its three bytes.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        handlers = ("surrogatepass", "surrogateescape")
        return b"".join(c.encode("utf-8", handlers["\udc80" <= c <= "\udcff"]) for c in text)


# ---- from paths to files


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
        raise _unreadable(path, error) from None
    if not stat.S_ISDIR(mode):
        file = Path(path)
        return [file.absolute() if file == STDIN else file]  # ./- is a file of that name
    files = [file for file in _below(path) if _looks_like_text(file, reading)]
    if not files:
        raise DataError(
            f"{path}: no text files in this folder; name the files, or use --encoding if they are not UTF-8"
        )
    return files


def _below(folder: str) -> list[Path]:
    def fail(error: OSError) -> None:
        raise _unreadable(error.filename, error)

    files: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted((file for file in files if file.is_file()), key=lambda file: file.parts)


def _looks_like_text(file: Path, reading: Reading) -> bool:
    if reading.takes_any_bytes:
        return True
    try:
        with _open(file) as raw:
            head = next(_blocks(raw, file, HEAD_BYTES), b"")[:HEAD_BYTES]
        decoder = codecs.getincrementaldecoder(reading.encoding)(reading.errors)
        return "\0" not in decoder.decode(head, final=len(head) < HEAD_BYTES)
    except (DataError, UnicodeError):
        return False


def _unreadable(path: str | Path, error: OSError) -> UsageError:
    return UsageError(f"{path}: cannot be read ({error.strerror}); check its permissions")


# ---- from files to text


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from None


def _reads(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    return iter(lambda: read(size), b"")


def _unzstd(raw: IO[bytes], size: int) -> Iterator[bytes]:
    # Not zstandard's stream_reader: it takes a file that was cut short for a whole one.
    frame, data, ready = None, b"", bytearray()
    while data := data or raw.read(ZSTD_STEP_BYTES):
        frame = frame or zstandard.ZstdDecompressor().decompressobj()
        ready += frame.decompress(data)
        data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
        if len(ready) >= size:
            yield bytes(ready)
            ready.clear()
    if frame:
        raise EOFError("it ends early")
    yield bytes(ready)


DECOMPRESSORS: dict[str, Callable[[IO[bytes], int], Iterator[bytes]]] = {
    ".gz": lambda raw, size: _reads(gzip.GzipFile(fileobj=raw).read, size),
    ".bz2": lambda raw, size: _reads(bz2.BZ2File(raw).read, size),
    ".xz": lambda raw, size: _reads(lzma.LZMAFile(raw).read, size),  # noqa: SIM115 (`raw` is closed)
    ".zst": _unzstd,
}


def _blocks(raw: IO[bytes], name: Path, size: int) -> Iterator[bytes]:
    """The bytes of an open file, about `size` at a time, decompressed as the suffix of `name` says."""
    decompress = DECOMPRESSORS.get(name.suffix)
    try:
        yield from decompress(raw, size) if decompress else _reads(raw.read, size)
    except DAMAGE as error:
        what = f"damaged, or not {name.suffix} data" if decompress else "reading failed"
        raise DataError(f"{name}: {what} ({error}); replace this file or leave it out") from None


def _refuse_binary(head: bytes, name: Path, reading: Reading) -> None:
    text = codecs.getincrementaldecoder(reading.encoding)("replace").decode(head)
    if "\0" in text:
        utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        way_out = "--encoding utf-16, as its first two bytes say" if utf16 else "--tokenizer byte to read any bytes"
        raise DataError(f"{name}: looks like a binary file (NUL in its first 8 KB); leave it out, or use {way_out}")


def _undecodable(error: UnicodeError, name: Path, end: int, encoding: str) -> DataError:
    ways_out = "set --encoding, or use --errors replace or --tokenizer byte"
    if not isinstance(error, UnicodeDecodeError):
        return DataError(f"{name}: not {encoding} ({error}); {ways_out}")
    # What the decoder was looking at ends where the bytes it was given end, and may begin in an earlier block.
    offset = end - len(error.object) + error.start
    where = " of its decompressed bytes" if name.suffix in DECOMPRESSORS else ""
    return DataError(f"{name}: not {encoding} at byte {offset}{where} ({error.reason}); {ways_out}")


def _file_pieces(path: Path, name: Path, reading: Reading, progress: Progress | None) -> Iterator[str]:
    """The text of one file, whose bytes are at `path` and which the user knows as `name`."""
    decoder = codecs.getincrementaldecoder(reading.encoding)(reading.errors)
    newlines = io.IncrementalNewlineDecoder(None, translate=True) if reading.newlines == "normalise" else None
    end, consumed, begun = 0, 0, reading.takes_any_bytes
    with _open(path) as raw:
        for block in itertools.chain(_blocks(raw, name, PIECE_BYTES), [b""]):
            try:
                if end == 0 and not reading.takes_any_bytes:
                    _refuse_binary(block[:HEAD_BYTES], name, reading)
                end += len(block)
                text = decoder.decode(block, not block)
            except UnicodeError as error:
                raise _undecodable(error, name, end, reading.encoding) from None
            if text and not begun:
                text, begun = text.removeprefix("\ufeff"), True
            if newlines:
                text = newlines.decode(text, not block)
            if text:
                yield text
            if progress:
                progress(raw.tell() - consumed)
                consumed = raw.tell()


class Corpus:
    """A text that may be larger than memory, read again from its files whenever `pieces` is called.

    Made by `open_corpus`; a context manager, which drops the copy it keeps of standard input.

    Attributes:
        paths: what it was asked for.
        files: what that came to, in reading order; `STDIN` for standard input.
        raw_bytes: size of those files, compressed where they are.
        chars, bytes: length of the text in characters and in UTF-8 bytes.
        sha256: hex digest of those UTF-8 bytes (see `text_bytes`).
        reading: how it is decoded.
    """

    def __init__(self, paths: Sequence[str], reading: Reading, progress: Progress | None) -> None:
        self.paths, self.files, self.reading = tuple(paths), resolve(paths, reading), reading
        self.chars, self.bytes = 0, 0
        with ExitStack() as closing:
            self._sources = tuple(
                file if file != STDIN and file.is_file() else _spool(file, closing) for file in self.files
            )
            self.raw_bytes = raw_bytes(self._sources)
            digest = hashlib.sha256()
            for piece in self._pieces(progress):
                encoded = text_bytes(piece)
                digest.update(encoded)
                self.chars += len(piece)
                self.bytes += len(encoded)
            self.sha256 = digest.hexdigest()
            if self.chars == 0:
                raise DataError(f"{' '.join(paths)}: no text in there; name files that are not empty")
            self._closing = closing.pop_all()

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """The text of the characters [start, stop), at most a million characters at a time."""
        at = 0
        for piece in self._pieces(None):
            part = piece[max(start - at, 0) : None if stop is None else max(stop - at, 0)]
            if part:
                yield part
            at += len(piece)
            if stop is not None and at >= stop:
                return

    def close(self) -> None:
        """Drops the copy of standard input, if there is one."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pieces(self, progress: Progress | None) -> Iterator[str]:
        for path, name in zip(self._sources, self.files, strict=True):
            yield from _file_pieces(path, name, self.reading, progress)


def _spool(name: Path, closing: ExitStack) -> Path:
    """A temporary copy of standard input or of a pipe: a corpus is read more than once."""
    copy = closing.enter_context(tempfile.NamedTemporaryFile(prefix="charlm-"))  # noqa: SIM115
    try:
        with nullcontext(sys.stdin.buffer) if name == STDIN else _open(name) as stream:
            shutil.copyfileobj(stream, copy)
        copy.flush()
    except OSError as error:
        raise CharlmError(f"{name}: cannot be copied to {copy.name} ({error.strerror}); set TMPDIR") from None
    return Path(copy.name)


def open_corpus(paths: Sequence[str], reading: Reading | None = None, progress: Progress | None = None) -> Corpus:
    """Reads through the files that `paths` mean once, to measure and check their text.

    Args:
        paths: see the top of this file, and `resolve`.
        reading: how to decode them; by default strict UTF-8.
        progress: called with the number of bytes read from disk since the last call; see `raw_bytes`.

    Raises:
        UsageError: a path that does not exist or may not be read.
        DataError: no text, bytes that are not in the encoding, a damaged compressed file, a binary file.
    """
    return Corpus(paths, reading or Reading(), progress)


def split_bounds(chars: int, fractions: tuple[float, float, float]) -> dict[str, tuple[int, int]]:
    """Cuts a text of `chars` characters, in this order, into "train", "valid" and "test"; "all" is the whole.

    Returns:
        For each name its characters [start, stop).

    Raises:
        UsageError: fractions that are negative, not finite or do not sum to 1, or nothing to train on.
    """
    train, valid, _ = fractions
    total = sum(fractions)
    if not all(math.isfinite(f) and f >= 0 for f in fractions) or abs(total - 1) > 1e-6 or train <= 0:
        given = " ".join(map(str, fractions))
        raise UsageError(f"--split {given}: give three fractions that sum to 1, the first above 0, such as 0.9 0.1 0")
    first, second = round(chars * (train / total)), round(chars * ((train + valid) / total))
    return {"train": (0, first), "valid": (first, second), "test": (second, chars), "all": (0, chars)}


# ---- corpora that need no download


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
