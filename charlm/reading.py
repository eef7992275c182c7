"""One file's bytes as text: decompressed, decoded, in pieces."""

import bz2
import codecs
import contextlib
import functools
import gzip
import io
import itertools
import lzma
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import zstandard

from charlm.errors import DataError, UsageError, named

PIECE_BYTES = 1 << 20
HEAD_BYTES = 8192
# Four bytes of zstandard can hold a block of 128 KB: this is what bounds a piece, at 32 MB for a hostile file.
STEP_BYTES = 1024
MOST_XZ_BYTES = 256 << 20  # of memory; xz -9 wants 65 MB
MOST_PROMPT_BYTES = 10_000_000
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
        as_bytes: whether what is no text could be read byte by byte, which the errors then advise.

    Raises:
        UsageError: an unknown encoding, or another value.
    """

    encoding: str = "utf-8"
    errors: str = "strict"
    newlines: str = "keep"
    as_bytes: bool = True

    def __post_init__(self) -> None:
        try:
            "a".encode(self.encoding)
            codecs.getincrementaldecoder(self.encoding)
        except (LookupError, ValueError):
            raise UsageError(
                f"{named('data.encoding')} {self.encoding}: unknown text encoding; try utf-8, utf-16 or cp1252"
            ) from None
        for option, value, known in (
            ("errors", self.errors, ("strict", "replace", "surrogateescape")),
            ("newlines", self.newlines, ("keep", "normalise")),
        ):
            if value not in known:
                raise UsageError(f"{named(f'data.{option}')} {value}: use one of {', '.join(known)}")

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


def unreadable(path: str | Path, error: OSError) -> UsageError:
    """The error of a file that the system does not let read."""
    return UsageError(f"{path}: cannot be read ({error.strerror}); check its permissions")


def open_file(path: Path) -> IO[bytes]:
    """A file opened for reading; raises UsageError if it cannot be."""
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from None


def _reads(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    return iter(lambda: read(size), b"")


def _frames(fresh: Callable[[], Any], raw: IO[bytes], size: int) -> Iterator[bytes]:
    # Not zstandard's stream_reader, which takes a file that was cut short for a whole one, nor lzma's, which takes any
    # memory that a file asks for.
    frame, data, ready = None, b"", bytearray()
    while data := data or raw.read(STEP_BYTES):
        if frame is None and not (data := data.lstrip(b"\0")):  # padding between streams
            continue
        frame = frame or fresh()
        ready += frame.decompress(data)
        data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
        while len(ready) >= size:
            yield bytes(ready[:size])
            del ready[:size]
    if frame:
        raise EOFError("it ends early")
    yield bytes(ready)


DECOMPRESSORS: dict[str, Callable[[IO[bytes], int], Iterator[bytes]]] = {
    ".gz": lambda raw, size: _reads(gzip.GzipFile(fileobj=raw).read, size),
    ".bz2": lambda raw, size: _reads(bz2.BZ2File(raw).read, size),
    ".xz": functools.partial(_frames, lambda: lzma.LZMADecompressor(memlimit=MOST_XZ_BYTES)),
    ".zst": functools.partial(_frames, lambda: zstandard.ZstdDecompressor().decompressobj()),
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
        if encoding := wide_encoding(head):
            known = named("data.encoding", encoding)
            raise DataError(f"{name}: looks like {encoding.upper()} text, not {reading.encoding}; use {known}")
        way_out = f", or use {named('data.tokenizer', 'byte')} to read any bytes" if reading.as_bytes else ""
        raise DataError(f"{name}: looks like a binary file (NUL in its first 8 KB); leave it out{way_out}")


def wide_encoding(head: bytes) -> str | None:
    """The UTF-32 or UTF-16 that a text begins in, None if it is in neither: by its byte order mark, or by its NULs."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    controls = sum(byte < 32 and byte not in b"\t\n\f\r" for byte in head)
    if b"\0" not in head or (controls < len(head) / 4 and "\ufffd" not in head.decode("utf-8", "replace")[:-3]):
        return None  # text in an encoding of bytes, with a NUL here and there if at all
    found = {}
    for encoding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        with contextlib.suppress(UnicodeDecodeError):
            text = codecs.getincrementaldecoder(encoding)("strict").decode(head, final=len(head) < HEAD_BYTES)
            strange = sum(unicodedata.category(c) in ("Cc", "Cn", "Co") and c not in "\t\n\r\f\ufeff" for c in text)
            if strange <= len(text) / 100:
                found[encoding] = sum(c in " \t\n\r" or c.isascii() for c in text)
    # Every script has its line ends and spaces from ASCII; the other byte order makes them something else.
    best = max(found, key=found.__getitem__, default=None)
    return best if best and found[best] else None


def read_prompt(stream: IO[bytes], name: str) -> bytes:
    """The bytes of a prompt.

    Raises:
        DataError: there are more than there may be, which a device or a pipe could give.
        UsageError: it cannot be read.
    """
    try:
        data = stream.read(MOST_PROMPT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror})") from None
    if len(data) > MOST_PROMPT_BYTES:
        raise DataError(f"{name}: has more than {MOST_PROMPT_BYTES:,} bytes, which is no prompt; give its end alone")
    return data


def prompt_text(data: bytes, name: str) -> str:
    """A prompt as a file of a corpus is read: UTF-8, less a byte order mark.

    Raises:
        DataError: it is in another encoding.
    """
    if encoding := wide_encoding(data[:HEAD_BYTES]):
        raise DataError(f"{name}: looks like {encoding.upper()} text; a prompt is UTF-8 (iconv -f {encoding} -t utf-8)")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: byte {error.start} is not UTF-8, which a prompt is; save it as UTF-8") from None


def _undecodable(error: UnicodeError, name: Path, end: int, reading: Reading) -> DataError:
    encoding, any_bytes = reading.encoding, f" or {named('data.tokenizer', 'byte')}" if reading.as_bytes else ""
    ways_out = f"set {named('data.encoding')}, or use {named('data.errors', 'replace')}{any_bytes}"
    if not isinstance(error, UnicodeDecodeError):
        return DataError(f"{name}: not {encoding} ({error}); {ways_out}")
    # What the decoder was looking at ends where the bytes it was given end, and may begin in an earlier block.
    offset = end - len(error.object) + error.start
    where = " of its decompressed bytes" if name.suffix in DECOMPRESSORS else ""
    return DataError(f"{name}: not {encoding} at byte {offset}{where} ({error.reason}); {ways_out}")


class Mark(NamedTuple):
    """A place in a file from which it can be decoded: the bytes before it, and what they leave to a decoder."""

    offset: int = 0  # in bytes, decompressed
    decoder: Any = None
    newlines: Any = None
    begun: bool = False  # a byte order mark would be text


START = Mark()
HALF_PAIR = re.compile("[\\ud800-\\udc7f\\udd00-\\udfff]")  # the others stand for bytes, by `surrogateescape`


def file_pieces(
    path: Path, name: Path, reading: Reading, begin: Mark = START, progress: Progress | None = None
) -> Iterator[tuple[Mark, str]]:
    """The text of one file in pieces, each with the place where it begins.

    Args:
        path: where its bytes are.
        name: as the user knows it.
        reading: how it is decoded.
        begin: where to begin; a compressed file can be read from its start alone.
        progress: called with the bytes read since the last call.
    """
    decoder = codecs.getincrementaldecoder(reading.encoding)(reading.errors)
    newlines = io.IncrementalNewlineDecoder(None, translate=True) if reading.newlines == "normalise" else None
    end, begun = begin.offset, begin.begun or reading.takes_any_bytes
    if begin != START:
        decoder.setstate(begin.decoder)
        if newlines:
            newlines.setstate(begin.newlines)
    with open_file(path) as raw:
        consumed = raw.seek(end)
        for block in itertools.chain(_blocks(raw, name, PIECE_BYTES), [b""]):
            mark = Mark(end, decoder.getstate(), newlines and newlines.getstate(), begun) if end else START
            try:
                if end == 0 and not reading.takes_any_bytes:
                    _refuse_binary(block[:HEAD_BYTES], name, reading)
                end += len(block)
                text = decoder.decode(block, not block)
            except UnicodeError as error:
                raise _undecodable(error, name, end, reading) from None
            if reading.encoding != "utf-8" and (half := HALF_PAIR.search(text)):
                problem = f"holds half of a surrogate pair, U+{ord(half[0]):04X}, which is no character"
                raise DataError(f"{name}: {problem}; set {named('data.encoding')}")
            if text and not begun:
                text, begun = text.removeprefix("\ufeff"), True
            if newlines:
                text = newlines.decode(text, not block)
            if text:
                yield mark, text
            if progress:
                progress(raw.tell() - consumed)
                consumed = raw.tell()


def looks_like_text(file: Path, reading: Reading) -> bool:
    """Tells whether a file of a folder can be read as text."""
    if reading.takes_any_bytes:
        return True
    try:
        with open_file(file) as raw:
            head = next(_blocks(raw, file, HEAD_BYTES), b"")[:HEAD_BYTES]
        decoder = codecs.getincrementaldecoder(reading.encoding)(reading.errors)
        return "\0" not in decoder.decode(head, final=len(head) < HEAD_BYTES)
    except (DataError, UnicodeError):
        return False
