"""The contract of alphabets, and of tokenizers: text to ids and back.

The bytes behind every id are a table, so that decoding, counting characters and counting bytes are the same few lines
for all tokenizers.
"""

import codecs
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from charlm.errors import ModelError
from charlm.files import open_regular, parsed

Ids = npt.NDArray[Any]
Pieces = Callable[[], Iterator[str]]
UNKNOWN_BYTES = "\ufffd".encode()
LARGEST_FILE = 64 << 20
HEADER = {"format": "charlm tokenizer", "version": 1}


class Alphabet(ABC):
    """The symbols of a model, as a checkpoint holds them.

    Attributes:
        name, file_name: the kind's, and its file in a checkpoint.
        vocabulary: number of ids.
        dtype: of ids: the smallest of uint8, uint16 and int32 that holds them.
        unknown: the id of whatever is not in the vocabulary, None if there is no such thing.
        blocked: the ids that must never be generated, int32.
        bytes_per_id, chars_per_id: int64 [vocabulary]; summed over the ids of a text, its length in UTF-8 bytes and in
            characters (a character is counted at its first byte). A step of a number series is one character.
        fingerprint: SHA-256, in hex, of the name and of what defines the ids.
        fixed: why there are no ids for what a new text brings; empty where `grown` makes some.
    """

    name: ClassVar[str]
    fixed: ClassVar[str] = ""
    file_name: ClassVar[str]

    def __init__(
        self,
        chars_per_id: Sequence[int],
        bytes_per_id: Sequence[int],
        unknown: int | None,
        blocked: Sequence[int],
        content: bytes,
    ) -> None:
        self.vocabulary = len(chars_per_id)
        self.dtype = next(np.dtype(t) for t in ("uint8", "uint16", "int32") if self.vocabulary - 1 <= np.iinfo(t).max)
        self.unknown = unknown
        self.blocked = np.array(blocked, np.int32)
        self.chars_per_id, self.bytes_per_id = np.array(chars_per_id, np.int64), np.array(bytes_per_id, np.int64)
        self.fingerprint = hashlib.sha256(self.name.encode() + b"\0" + content).hexdigest()

    @abstractmethod
    def content(self) -> bytes:
        """The content of its file."""

    @classmethod
    @abstractmethod
    def from_content(cls, content: bytes) -> Self:
        """The alphabet whose file has this content; raises ValueError or RuntimeError if it is not one."""

    def save(self, directory: Path) -> None:
        """Writes `file_name` into a directory."""
        (directory / self.file_name).write_bytes(self.content())

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Reads what `save` wrote.

        Raises:
            ModelError: no such file, one that is damaged or larger than 64 MB, or one that charlm did not write.
        """
        path = directory / cls.file_name
        try:
            with open_regular(path) as file:
                content = file.read(LARGEST_FILE + 1)
            if len(content) > LARGEST_FILE:
                raise ModelError(f"{path}: larger than any tokenizer (64 MB); use another checkpoint")
            return cls.from_content(content)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror}); use another checkpoint") from None
        except (ValueError, RuntimeError) as error:
            what = f"not a {cls.name} tokenizer of charlm, or damaged ({error})"
            raise ModelError(f"{path}: {what}; use another checkpoint") from None


class Tokenizer(Alphabet):
    """Text to ids and back.

    Attributes:
        about: what its ids are, in a line, for whoever gets an export.
        id_bytes: the bytes behind every id.
        LINE_CHARS: lines are encoded by themselves, and longer ones in parts of so many characters; None if every
            character is.
    """

    about: ClassVar[str]
    LINE_CHARS: ClassVar[int | None] = None
    file_name: ClassVar[str] = "tokenizer.json"

    def __init__(self, id_bytes: Sequence[bytes], unknown: int | None, blocked: Sequence[int], content: bytes) -> None:
        self.id_bytes = tuple(id_bytes)
        characters = [sum(byte & 0xC0 != 0x80 for byte in b) for b in self.id_bytes]
        super().__init__(characters, list(map(len, self.id_bytes)), unknown, blocked, content)

    @classmethod
    @abstractmethod
    def train(cls, pieces: Pieces, vocabulary: int) -> Self:
        """Makes one for a text.

        Args:
            pieces: gives the text in pieces, from the beginning each time it is called.
            vocabulary: how many ids are asked for. Only sentencepiece has a choice.
        """

    def grown(self, pieces: Pieces) -> Self:
        """The tokenizer that has ids for a new text too, after the old ones, which stay as they are."""
        return self

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """The ids of a text, `dtype` [ids]."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that ids stand for."""
        return b"".join(map(self.id_bytes.__getitem__, ids.tolist() if isinstance(ids, np.ndarray) else ids))

    def decode(self, ids: Iterable[int]) -> str:
        """The text that ids stand for; bytes that are not UTF-8 are escaped so that `encode` gives them back."""
        return self.decode_bytes(ids).decode("utf-8", "surrogateescape")

    def unseen(self, text: str) -> str:
        """The distinct characters of a text that encode to `unknown`, in order of appearance."""
        return ""


class StreamDecoder:
    """Text from ids as they come: what could still become a character is held back, invalid bytes become U+FFFD."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, ids: Iterable[int]) -> str:
        """The text that is certain once these ids have come, which may be empty."""
        return self._decoder.decode(self._tokenizer.decode_bytes(ids))

    def flush(self) -> str:
        """The bytes that were held back, as text, at the end of the ids; the decoder can be used again."""
        return self._decoder.decode(b"", final=True)


def lines_of(text: str, line_chars: int) -> list[str]:
    """The lines of a text, with their line ends; longer ones cut every `line_chars` characters."""
    *whole, last = text.split("\n")
    lines = [f"{line}\n" for line in whole] + ([last] if last else [])
    if max(map(len, lines), default=0) <= line_chars:
        return lines
    return [line[i : i + line_chars] for line in lines for i in range(0, len(line), line_chars)]


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """The code points of a text [characters]."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def to_json(name: str, **values: Any) -> bytes:
    """The file of a tokenizer of a name."""
    return json.dumps(HEADER | {"tokenizer": name} | values).encode()


def from_json(content: bytes, name: str) -> dict[str, Any]:
    """The values that `to_json` was given; raises ValueError for another file."""
    found = parsed(content)
    expected = HEADER | {"tokenizer": name}
    if not isinstance(found, dict) or expected != {key: found.pop(key, None) for key in expected}:
        raise ValueError("other keys or values than expected")
    return found
