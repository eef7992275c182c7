"""One sentencepiece at a time."""

import io
import random
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, ClassVar, Self

import numpy as np
import sentencepiece

from charlm.errors import DataError, UsageError, named
from charlm.reading import text_bytes
from charlm.tokenizer import UNKNOWN_BYTES, Ids, Pieces, Tokenizer, code_points, lines_of

SENTENCE_CHARS = 2048
# What sentencepiece cannot take as it is: its mark for a space, and escaped bytes.
UNSAFE = re.compile("([▁\ud800-\udfff]+)")
# What must not be in a line it learns from: the same, its mark for the unknown, and what has an id in any case.
UNLEARNT = re.compile("[▁▅\ud800-\udfff\n\t]+")
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
            DataError: a text of nothing but white space.
        """
        if vocabulary < 1:
            raise UsageError(f"{named('data.vocabulary')} {vocabulary}: must be positive; use 300 or more")
        share = cls.TRAINING_CHARS / max(1, sum(map(len, pieces())))
        try:
            return cls(_learnt(_sentences(pieces(), share), vocabulary))
        except RuntimeError as error:
            needed = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error))
        if not needed:  # a short text that repeats itself has no pieces unless its characters are lines too
            characters = sorted(set(chain.from_iterable(_sentences(pieces(), share))))
            try:
                return cls(_learnt(chain(_sentences(pieces(), share), characters), vocabulary))
            except RuntimeError as error:
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
        lines = lines_of(text, self.LINE_CHARS)
        if UNSAFE.search(text):
            ids = (part for line in lines for part in self._encode_unsafe(line))
        else:
            ids = self._processor.encode(lines, num_threads=1)
        return np.fromiter(chain.from_iterable(ids), self.dtype)

    def _encode_unsafe(self, line: str) -> Iterator[list[int]]:
        for i, part in enumerate(UNSAFE.split(line)):
            yield [self.byte_ids[byte] for byte in text_bytes(part)] if i % 2 else self._processor.encode(part)

    @property
    def scored_pieces(self) -> dict[str, tuple[int, float]]:
        """The pieces that a line is cut into, so that the float32 sum of scores is largest: each text's id and score.

        A line end or a tab scores as sentencepiece has it score, so that it is always cut out.
        """
        pieces = {self._processor.id_to_piece(i): i for i in range(self.vocabulary) if self._is_text(i)}
        always = LOSSLESS["user_defined_symbols"]
        scores = {piece: self._processor.get_score(i) for piece, i in pieces.items() if piece not in always}
        scores |= dict.fromkeys(always, max(scores.values()) - 0.1)
        return {piece.replace("▁", " "): (i, scores[piece]) for piece, i in pieces.items()}

    @property
    def unknown_score(self) -> float:
        """The score of a character that no piece has, whose bytes become ids: ten less than the least of the others."""
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


def _sentences(pieces: Iterable[str], share: float) -> Iterator[str]:
    """The lines that sentencepiece learns from: about this share of all, the same ones every time."""
    draw, rest = random.Random(0), ""
    for piece in chain(pieces, [""]):
        lines = lines_of(rest + piece, SENTENCE_CHARS)
        rest = lines.pop() if piece else ""  # it may go on
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
        np.add.at(counts, code_points(sentence), 1)
    by_count = np.argsort(-counts, kind="stable")
    return dict.fromkeys(by_count[most : np.count_nonzero(counts)].tolist(), "\n")
