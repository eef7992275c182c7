"""One byte at a time."""

from typing import Self

import numpy as np

from charlm.reading import text_bytes
from charlm.tokenizer import Ids, Pieces, Tokenizer, from_json, to_json


class ByteTokenizer(Tokenizer):
    """One id per byte of UTF-8: 256 ids, nothing unknown, nothing to learn.

    Together with a `surrogateescape` reading, any bytes at all go through unharmed.
    """

    name = "byte"
    about = "one id for each byte of UTF-8"
    fixed = "every byte has a symbol"

    def __init__(self) -> None:
        super().__init__([bytes([byte]) for byte in range(256)], unknown=None, blocked=[], content=b"")

    @classmethod
    def train(cls, pieces: Pieces, vocabulary: int) -> Self:
        """Reads nothing: there are always 256 ids, however many were asked for."""
        return cls()

    def encode(self, text: str) -> Ids:
        """The bytes of a text, uint8 [bytes], read-only."""
        return np.frombuffer(text_bytes(text), np.uint8)

    def content(self) -> bytes:
        """JSON that says which tokenizer this is."""
        return to_json(self.name)

    @classmethod
    def from_content(cls, content: bytes) -> Self:
        """Raises ValueError for anything but what `content` gives."""
        if from_json(content, cls.name):
            raise ValueError("other keys or values than expected")
        return cls()
