"""From text to ids and back: one character, one byte or one sentencepiece at a time.

A tokenizer is one class with the interface of `Tokenizer`, and one line in `TOKENIZERS`. The bytes behind every id are
a table, so that decoding, counting characters and counting bytes are the same few lines for all of them.
"""

import codecs
import hashlib
import io
import json
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import sentencepiece

from charlm.errors import DataError, ModelError, UsageError, named
from charlm.reading import text_bytes

Ids = npt.NDArray[Any]
Pieces = Callable[[], Iterator[str]]
UNKNOWN_BYTES = "\ufffd".encode()
LARGEST_FILE = 64 << 20
SENTENCE_CHARS = 2048
# What sentencepiece cannot take as it is: its mark for a space, and escaped bytes.
UNSAFE = re.compile("([▁\ud800-\udfff]+)")
# What must not be in a line it learns from: the same, its mark for the unknown, and what has an id in any case.
UNLEARNT = re.compile("[▁▅\ud800-\udfff\n\t]+")
AFTER_NEWLINE = re.compile("(?<=\n)")
LOSSLESS: dict[str, Any] = {
    "hard_vocab_limit": False,
    "model_type": "unigram",
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "user_defined_symbols": ["\n", "\t"],
    "byte_fallback": True,
    "character_coverage": 0.9995,
    "required_chars": "▁",  # else a text of few spaces has them as the bytes of this mark
    "unk_id": 0,
    "bos_id": -1,
    "eos_id": -1,
    "pad_id": -1,
    "max_sentence_length": 4 * SENTENCE_CHARS,
    "num_threads": 4,  # a fixed number: the sums, and so the model, depend on it
    "minloglevel": 2,
}
PROBE = "  Two  spaces,\ttab\r\n\n\0 ﬁ ½ é ▁ ⁇ <s>"


class Tokenizer(ABC):
    """What every tokenizer is.

    Attributes:
        name, file_name: its name in `TOKENIZERS`, and its file in a checkpoint.
        about: what its ids are, in a line, for whoever gets an export.
        vocabulary: number of ids.
        dtype: of ids: the smallest of uint8, uint16 and int32 that holds them.
        unknown: the id of whatever is not in the vocabulary, None if there is no such thing.
        blocked: the ids that must never be generated, int32.
        id_bytes: the bytes behind every id.
        bytes_per_id, chars_per_id: int64 [vocabulary]; summed over the ids of a text, its length in UTF-8 bytes and in
            characters (a character is counted at its first byte).
        fingerprint: SHA-256, in hex, of the name and of what defines the ids.
        fixed: why there are no ids for what a new text brings; empty where `grown` makes some.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    fixed: ClassVar[str] = ""
    file_name: ClassVar[str] = "tokenizer.json"

    def __init__(self, id_bytes: Sequence[bytes], unknown: int | None, blocked: Sequence[int], content: bytes) -> None:
        self.id_bytes = tuple(id_bytes)
        self.vocabulary = len(self.id_bytes)
        self.dtype = next(np.dtype(t) for t in ("uint8", "uint16", "int32") if self.vocabulary - 1 <= np.iinfo(t).max)
        self.unknown = unknown
        self.blocked = np.array(blocked, np.int32)
        self.bytes_per_id = np.array([len(b) for b in self.id_bytes], np.int64)
        self.chars_per_id = np.array([sum(byte & 0xC0 != 0x80 for byte in b) for b in self.id_bytes], np.int64)
        self.fingerprint = hashlib.sha256(self.name.encode() + b"\0" + content).hexdigest()

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

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Ids]:
        """The ids of a text given in pieces, in pieces: joined, what `encode` gives for the joined text."""
        return map(self.encode, pieces)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that ids stand for."""
        return b"".join(map(self.id_bytes.__getitem__, ids.tolist() if isinstance(ids, np.ndarray) else ids))

    def decode(self, ids: Iterable[int]) -> str:
        """The text that ids stand for; bytes that are not UTF-8 are escaped so that `encode` gives them back."""
        return self.decode_bytes(ids).decode("utf-8", "surrogateescape")

    def unseen(self, text: str) -> str:
        """The distinct characters of a text that encode to `unknown`, in order of appearance."""
        return ""

    @abstractmethod
    def content(self) -> bytes:
        """The content of its file."""

    @classmethod
    @abstractmethod
    def from_content(cls, content: bytes) -> Self:
        """The tokenizer whose file has this content; raises ValueError or RuntimeError if it is not one."""

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
            if path.stat().st_size > LARGEST_FILE:
                raise ModelError(f"{path}: larger than any tokenizer (64 MB); use another checkpoint")
            return cls.from_content(path.read_bytes())
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror}); use another checkpoint") from None
        except (ValueError, RuntimeError) as error:
            what = f"not a {cls.name} tokenizer of charlm, or damaged ({error})"
            raise ModelError(f"{path}: {what}; use another checkpoint") from None


class CharTokenizer(Tokenizer):
    """One id per character (code point) seen in training, in the order of code points; id 0 is the unknown.

    Characters of later texts have the ids after those of the first.
    """

    name = "char"
    about = "one id for each character seen in training, from 1 on, in the order below; 0 is every other one"

    def __init__(self, characters: str, first: int | None = None) -> None:
        """Takes the vocabulary: distinct characters, `first` of them (all if None) in the order of code points."""
        points = _code_points(characters)
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
        return self._ids[_code_points(text)]

    def unseen(self, text: str) -> str:
        """The distinct characters of a text that are not in the vocabulary, in order of appearance."""
        return "".join(dict.fromkeys(text[i] for i in np.flatnonzero(self.encode(text) == 0)))

    def content(self) -> bytes:
        """JSON with the characters, in ASCII."""
        first = {"first": self._first} if self._first < len(self.characters) else {}
        return json.dumps(_header(self.name) | {"characters": self.characters} | first).encode()

    @classmethod
    def from_content(cls, content: bytes) -> Self:
        """Raises ValueError for anything but what `content` gives."""
        document = _document(content)
        characters, first = document.pop("characters", None), document.pop("first", None)
        if document != _header(cls.name) or not isinstance(characters, str):
            raise ValueError("other keys or values than expected")
        if first is not None and (type(first) is not int or not 0 <= first < len(characters)):
            raise ValueError("other keys or values than expected")
        return cls(characters, first)


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
        return json.dumps(_header(self.name)).encode()

    @classmethod
    def from_content(cls, content: bytes) -> Self:
        """Raises ValueError for anything but what `content` gives."""
        if _document(content) != _header(cls.name):
            raise ValueError("other keys or values than expected")
        return cls()


class SentencePieceTokenizer(Tokenizer):
    """Pieces of words from a unigram model, over a base of single bytes, so that nothing is unknown.

    sentencepiece is set up to lose nothing: no normalisation, no added or dropped spaces, newline and tab as ids of
    their own, bytes for characters too rare for an id. Its own mark for a space, U+2581, and escaped bytes would be
    lost all the same: they are encoded around it, as bytes.

    A text is encoded line by line, and a line of more than 8192 characters (`LINE_CHARS`) in pieces of that length, so
    that what a line encodes to depends on nothing else, and memory is bounded. (Encoding a whole book at once resolves
    ties between segmentations by rounding errors, and fails on one very long line.)

    Attributes:
        byte_ids: the id of each single byte.
    """

    name = "sentencepiece"
    about = (
        "pieces of words, and single bytes for what has no piece: `tokenizer.model`, which is in the checkpoint, and "
        "in a directory that is exported"
    )
    fixed = "its sentencepieces cannot grow; characters that have no piece are read as bytes"
    file_name = "tokenizer.model"
    LINE_CHARS: ClassVar[int] = 8192
    TRAINING_CHARS: ClassVar[int] = 4_000_000
    FEWEST_FOR_MANY_CHARACTERS: ClassVar[int] = 512

    def __init__(self, model: bytes) -> None:
        """Takes a serialized sentencepiece model that `train` made."""
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        self._processor.LoadFromSerializedProto(model)
        ids = range(self._processor.vocab_size())
        id_bytes = [self._bytes_of(i) for i in ids]
        single = {id_bytes[i][0]: i for i in ids if self._processor.is_byte(i)}
        if len(single) < 256:
            raise ValueError("it has no ids for single bytes")
        blocked = [i for i in ids if self._processor.is_unknown(i) or self._processor.is_control(i)]
        super().__init__(id_bytes, self._processor.unk_id(), blocked, content=model)
        self.byte_ids = single
        if self.decode(self.encode(PROBE)) != PROBE:
            raise ValueError("it changes the text")

    def _bytes_of(self, i: int) -> bytes:
        piece = self._processor.id_to_piece(i)
        if self._processor.is_unknown(i):
            return UNKNOWN_BYTES
        if self._processor.is_control(i):
            return b""
        return bytes([int(piece[1:-1], 16)]) if self._processor.is_byte(i) else piece.replace("▁", " ").encode()

    @classmethod
    def train(cls, pieces: Pieces, vocabulary: int) -> Self:
        """Learns pieces from the text, or from lines drawn at random if it has more than `TRAINING_CHARS` characters.

        The same text gives the same model, to the byte. A small text can give fewer ids than were asked for. Where a
        text has more characters than ids were asked for, as Chinese has, its commonest ones have three quarters of the
        ids that the bytes leave, and the others are bytes (sentencepiece itself leaves out 2% at most).

        Raises:
            UsageError: a vocabulary that is too small for 256 bytes, newline, tab, the unknown and the characters.
            DataError: a text of nothing but white space, or a short one that repeats itself.
        """
        if vocabulary < 1:
            raise UsageError(f"{named('data.vocabulary')} {vocabulary}: must be positive; use 300 or more")
        share = cls.TRAINING_CHARS / max(1, sum(map(len, pieces())))
        try:
            return cls(_learnt(_sentences(pieces(), share), vocabulary))
        except RuntimeError as error:
            needed = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error))
            if not needed:
                problem = f"sentencepiece finds nothing to learn in this text ({error})"
                raise DataError(f"{problem}; use {named('data.tokenizer', 'char')}") from None
        least = min(int(needed[1]), cls.FEWEST_FOR_MANY_CHARACTERS)
        if vocabulary < least:
            problem = f"{named('data.vocabulary')} {vocabulary}: too small for this text"
            raise UsageError(f"{problem}; use {least} or more")
        rare = _rare(_sentences(pieces(), share), (vocabulary - 260) * 3 // 4)
        parts = (part for line in _sentences(pieces(), share) for part in line.translate(rare).split("\n"))
        return cls(_learnt(parts, vocabulary))

    def encode(self, text: str) -> Ids:
        """The ids of a text, `dtype` [ids]."""
        return np.concatenate([np.zeros(0, self.dtype), *self.encode_pieces([text])])

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[Ids]:
        """The ids of a text given in pieces, in pieces: joined, what `encode` gives for the joined text."""
        return map(self._encode_lines, _lines(pieces, self.LINE_CHARS))

    def _encode_lines(self, lines: list[str]) -> Ids:
        if UNSAFE.search("".join(lines)):
            ids = (part for line in lines for part in self._encode_unsafe(line))
        else:
            ids = self._processor.encode(lines, num_threads=1)
        return np.fromiter(chain.from_iterable(ids), self.dtype)

    def _encode_unsafe(self, line: str) -> Iterator[list[int]]:
        for i, part in enumerate(UNSAFE.split(line)):
            yield [self.byte_ids[byte] for byte in text_bytes(part)] if i % 2 else self._processor.encode(part)

    @property
    def scored_pieces(self) -> dict[str, tuple[int, float]]:
        """What a line is cut into, so that the float32 sum of scores is largest: each text's id and score.

        A line end or a tab scores as sentencepiece has it score, so that it is always cut out.
        """
        pieces = {self._processor.id_to_piece(i): i for i in range(self.vocabulary) if self._is_text(i)}
        always = LOSSLESS["user_defined_symbols"]
        scores = {piece: self._processor.get_score(i) for piece, i in pieces.items() if piece not in always}
        scores |= dict.fromkeys(always, max(scores.values()) - 0.1)
        return {piece.replace("▁", " "): (i, scores[piece]) for piece, i in pieces.items()}

    @property
    def unknown_score(self) -> float:
        """Of a character that no piece has, whose bytes become ids: ten less than the least of the others."""
        return min(score for _, score in self.scored_pieces.values()) - 10

    def _is_text(self, i: int) -> bool:
        kinds = (self._processor.is_unknown, self._processor.is_control, self._processor.is_byte)
        return not any(kind(i) for kind in kinds)

    def content(self) -> bytes:
        """The sentencepiece model."""
        return self._model

    @classmethod
    def from_content(cls, content: bytes) -> Self:
        """Raises RuntimeError or ValueError for anything but a model that `train` made."""
        return cls(content)


TOKENIZERS: dict[str, type[Tokenizer]] = {
    "char": CharTokenizer,
    "byte": ByteTokenizer,
    "sentencepiece": SentencePieceTokenizer,
}


def load_tokenizer(directory: Path, name: str) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote into a directory; raises ModelError as `Tokenizer.load` does."""
    return TOKENIZERS[name].load(directory)


class StreamDecoder:
    """Text from ids as they come: what could still become a character is held back, invalid bytes become U+FFFD."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, ids: Iterable[int]) -> str:
        """The text that is certain once these ids have come, which may be empty."""
        return self._decoder.decode(self._tokenizer.decode_bytes(ids))

    def flush(self) -> str:
        """What was held back, now that nothing more will come; after it the decoder is as new."""
        return self._decoder.decode(b"", final=True)


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _characters(pieces: Iterable[str]) -> str:
    """The distinct characters of a text, in the order of their code points."""
    seen = np.zeros(0x110000, bool)
    for piece in pieces:
        seen[_code_points(piece)] = True
    return "".join(map(chr, np.flatnonzero(seen)))


def _header(name: str) -> dict[str, Any]:
    return {"format": "charlm tokenizer", "version": 1, "tokenizer": name}


def _document(content: bytes) -> dict[str, Any]:
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


def _lines(pieces: Iterable[str], longest: int) -> Iterator[list[str]]:
    """The lines of a text, with their newlines, some at a time; longer ones cut every `longest` characters.

    Where the cuts are does not depend on where the pieces were cut.
    """
    rest = ""
    for piece in pieces:
        lines = AFTER_NEWLINE.split(rest + piece)
        *cut, rest = (line[i : i + longest] for line in lines for i in range(0, max(1, len(line)), longest))
        if cut:
            yield cut
    if rest:
        yield [rest]


def _sentences(pieces: Iterable[str], share: float) -> Iterator[str]:
    """What sentencepiece learns from: about this share of the lines, the same ones every time."""
    draw = random.Random(0)
    for lines in _lines(pieces, SENTENCE_CHARS):
        yield from (UNLEARNT.sub("", line) for line in lines if draw.random() < share)


def _learnt(sentences: Iterator[str], vocabulary: int) -> bytes:
    """The sentencepiece model of some lines; raises RuntimeError."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences, model_writer=model, vocab_size=vocabulary, **LOSSLESS
    )
    return model.getvalue()


def _rare(sentences: Iterator[str], most: int) -> dict[int, str]:
    """All but the commonest characters, as a table that puts a line end in their place."""
    counts = np.zeros(0x110000, np.int64)
    for sentence in sentences:
        np.add.at(counts, _code_points(sentence), 1)
    by_count = np.argsort(-counts, kind="stable")
    return dict.fromkeys(by_count[most : np.count_nonzero(counts)].tolist(), "\n")
