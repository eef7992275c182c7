"""One character at a time."""

from collections.abc import Iterable
from typing import Self

import numpy as np

from charlm.reading import text_bytes
from charlm.tokenizer import UNKNOWN_BYTES, Ids, Pieces, Tokenizer, code_points, from_json, to_json


class CharTokenizer(Tokenizer):
    """One id per character (code point) seen in training, in the order of code points; id 0 is the unknown.

    Characters of later texts have the ids after those of the first.
    """

    name = "char"
    about = "one id for each character seen in training, from 1 on, in the order below; 0 is every other one"

    def __init__(self, characters: str, first: int | None = None) -> None:
        """Takes the vocabulary: distinct characters, `first` of them (all if None) in the order of code points."""
        points = code_points(characters)
        if (np.diff(points[:first].astype(np.int64)) <= 0).any() or len(set(characters)) < len(characters):
            raise ValueError("its characters are not distinct and sorted")
        self.characters, self._first = characters, len(characters) if first is None else first
        id_bytes = [UNKNOWN_BYTES, *map(text_bytes, characters)]
        super().__init__(id_bytes, unknown=0, blocked=[0], content=text_bytes(characters))
        self._ids = np.zeros(0x110000, self.dtype)
        self._ids[points] = np.arange(1, self.vocabulary)

    @classmethod
    def train(cls, pieces: Pieces, vocabulary: int) -> Self:
        """Takes every character of the text, however many were asked for."""
        return cls(_characters(pieces()))

    def grown(self, pieces: Pieces) -> Self:
        """Takes the characters of a new text that have no id yet."""
        return type(self)(self.characters + self.unseen(_characters(pieces())), self._first)

    def encode(self, text: str) -> Ids:
        """The ids of a text, `dtype` [characters]."""
        return self._ids[code_points(text)]

    def unseen(self, text: str) -> str:
        """The distinct characters of a text that are not in the vocabulary, in order of appearance."""
        return "".join(dict.fromkeys(text[i] for i in np.flatnonzero(self.encode(text) == 0)))

    def content(self) -> bytes:
        """JSON with the characters, in ASCII."""
        first = {"first": self._first} if self._first < len(self.characters) else {}
        return to_json(self.name, characters=self.characters, **first)

    @classmethod
    def from_content(cls, content: bytes) -> Self:
        """Raises ValueError for anything but what `content` gives."""
        values = from_json(content, cls.name)
        characters, first = values.pop("characters", None), values.pop("first", None)
        if values or not isinstance(characters, str):
            raise ValueError("other keys or values than expected")
        if first is not None and (type(first) is not int or not 0 <= first < len(characters)):
            raise ValueError("other keys or values than expected")
        return cls(characters, first)


def _characters(pieces: Iterable[str]) -> str:
    """The distinct characters of a text, in the order of their code points."""
    seen = np.zeros(0x110000, bool)
    for piece in pieces:
        points = code_points(piece)
        if not seen[points].all():  # reading is twice as fast as writing
            seen[points] = True
    return "".join(map(chr, np.flatnonzero(seen)))
