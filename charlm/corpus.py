"""Text in: from files, folders, globs, compressed files and standard input, always in pieces, never as a whole."""

import bisect
import hashlib
import itertools
import math
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Self

from charlm.errors import CharlmError, DataError, UsageError, named
from charlm.reading import DECOMPRESSORS, START, Mark, Progress, Reading, file_pieces, open_file, text_bytes
from charlm.records import Ids
from charlm.sources import STDIN, Sources, raw_bytes, resolve

Announce = Callable[[int], Progress]
PART_CHARS = 1 << 18  # the least that is worth a part of its own


class _Piece(NamedTuple):
    """A piece as the first reading found it."""

    file: int
    mark: Mark  # its beginning in the file
    start: int  # its first character in the text
    line: int  # the character after its last line end; 0 if it has none
    check: int  # CRC-32 of its UTF-8 bytes


class Corpus:
    """A text that may be larger than memory, read again from its files whenever `pieces` is called.

    Made by `open_corpus`; a context manager, which drops the copy it keeps of standard input.

    Attributes:
        paths: what it was asked for.
        files: what that came to, in reading order; `STDIN` for standard input.
        sources: the same, and what was left out.
        raw_bytes: size of those files, compressed where they are.
        chars, bytes: length of the text in characters and in UTF-8 bytes.
        file_starts: the characters at which files begin.
        sha256: hex digest of those UTF-8 bytes (see `text_bytes`).
        reading: how it is decoded.
    """

    def __init__(self, paths: Sequence[str], sources: Sources, reading: Reading, announce: Announce) -> None:
        self.paths, self.sources, self.files, self.reading = tuple(paths), sources, sources.files, reading
        self.chars, self.bytes = 0, 0
        self._pieces: list[_Piece] = []
        self.file_starts: list[int] = []
        with ExitStack() as closing:
            self._sources = tuple(
                file if file != STDIN and file.is_file() else _spool(file, closing) for file in self.files
            )
            self.raw_bytes = raw_bytes(self._sources)
            digest = hashlib.sha256()
            progress = announce(self.raw_bytes)
            for file, (path, name) in enumerate(zip(self._sources, self.files, strict=True)):
                self.file_starts.append(self.chars)
                for mark, piece in file_pieces(path, name, reading, progress=progress):
                    encoded = text_bytes(piece)
                    digest.update(encoded)
                    line = self.chars + piece.rfind("\n") + 1 if "\n" in piece else 0
                    self._pieces.append(_Piece(file, mark, self.chars, line, zlib.crc32(encoded)))
                    self.chars += len(piece)
                    self.bytes += len(encoded)
            self.sha256 = digest.hexdigest()
            if self.chars == 0:
                raise DataError(f"{' '.join(paths)}: no text in there; name files that are not empty")
            self._closing = closing.pop_all()

    def __str__(self) -> str:
        count = len(self.files)
        return f"{count:,} file{'s' if count > 1 else ''}, {self.chars:,} characters: {self.sources}"

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """The text of the characters [start, stop), at most a million characters at a time.

        Raises:
            DataError: it is no longer the text that was measured.
        """
        first = bisect.bisect_right(self._pieces, start, key=lambda piece: piece.start) - 1
        if self._compressed(file := self._pieces[first].file):
            first = bisect.bisect_left(self._pieces, file, key=lambda piece: piece.file)
        at = self._pieces[first].start
        known = (self._pieces[n].check for n in range(first, len(self._pieces)))
        for check, piece in itertools.zip_longest(known, self._read(self._pieces[first])):
            if piece is None or zlib.crc32(text_bytes(piece)) != check:
                raise DataError(f"{' '.join(self.paths)}: changed while it was read; try again when it no longer does")
            part = piece[max(start - at, 0) : None if stop is None else max(stop - at, 0)]
            if part:
                yield part
            at += len(piece)
            if stop is not None and at >= stop:
                return

    @property
    def seekable(self) -> bool:
        """True if a part can be read without all that is before it."""
        return not any(map(self._compressed, range(len(self.files))))

    def cuts(self, start: int, stop: int, documents: Ids, line_chars: int | None) -> list[int]:
        """Where the characters [start, stop) can be cut, so that a tokenizer gives the ids of the whole.

        Args:
            start, stop: themselves where it can be cut.
            documents: the characters at which documents begin, sorted.
            line_chars: of the tokenizer.

        Returns:
            Characters from `start` to `stop`, at least `PART_CHARS` from one another but for the last.
        """
        cuts, line = [start], start
        ends = [*(piece.start for piece in self._pieces[1:]), self.chars]
        for piece, end in zip(self._pieces, ends, strict=True):
            if end >= stop:
                break
            cut = end
            if line_chars is not None:
                begun = bisect.bisect_right(documents, end)
                line = max(line, piece.line, int(documents[begun - 1]) if begun else 0)
                cut = line + (end - line) // line_chars * line_chars
            if cut - cuts[-1] >= PART_CHARS:
                cuts.append(cut)
        return [*cuts, stop]

    def parts(self, cuts: Sequence[int]) -> Iterator[str]:
        """The text between each of these characters, sorted, and the next."""
        held, at, following = "", cuts[0], 1
        for piece in self.pieces(cuts[0], cuts[-1]):
            held += piece
            while following < len(cuts) and (size := cuts[following] - at) <= len(held):
                yield held[:size]
                held, at, following = held[size:], cuts[following], following + 1

    def _compressed(self, file: int) -> bool:
        return self.files[file].suffix in DECOMPRESSORS

    def close(self) -> None:
        """Drops the copy of standard input, if there is one."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """A copy for another process, which reads the text; the files stay with this one."""
        return {**self.__dict__, "_closing": ExitStack()}

    def _read(self, first: _Piece) -> Iterator[str]:
        for file in range(first.file, len(self.files)):
            begin = first.mark if file == first.file else START
            for _, piece in file_pieces(self._sources[file], self.files[file], self.reading, begin):
                yield piece


def _spool(name: Path, closing: ExitStack) -> Path:
    """A temporary copy of standard input or of a pipe: a corpus is read more than once."""
    copy = closing.enter_context(tempfile.NamedTemporaryFile(prefix="charlm-"))  # noqa: SIM115
    try:
        with nullcontext(sys.stdin.buffer) if name == STDIN else open_file(name) as stream:
            shutil.copyfileobj(stream, copy)
        copy.flush()
    except OSError as error:
        raise CharlmError(f"{name}: cannot be copied to {copy.name} ({error.strerror}); set TMPDIR") from None
    return Path(copy.name)


def open_corpus(
    paths: Sequence[str],
    reading: Reading | None = None,
    announce: Announce = lambda size: lambda count: None,
    *,
    everything: bool = False,
) -> Corpus:
    """Reads through the files that `paths` mean once, to measure and check their text.

    Args:
        paths: see `charlm.sources`.
        reading: how to decode them; by default strict UTF-8.
        announce: given the size of the files in bytes, returns what is called with the number read since the last call.
        everything: see `charlm.sources.resolve`.

    Raises:
        UsageError: a path that does not exist or may not be read.
        DataError: no text, bytes that are not in the encoding, a damaged compressed file, a binary file.
    """
    reading = reading or Reading()
    return Corpus(paths, resolve(paths, reading, everything=everything), reading, announce)


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
        raise UsageError(
            f"{named('data.split')} {given}: give three fractions that sum to 1, the first above 0, such as 0.9 0.1 0"
        )
    first, second = round(chars * (train / total)), round(chars * ((train + valid) / total))
    return {"train": (0, first), "valid": (first, second), "test": (second, chars), "all": (0, chars)}
