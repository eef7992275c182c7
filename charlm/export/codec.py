"""Tokenizers in plain TensorFlow operations: strings to ids and back inside a graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from charlm.cell import Tensor
from charlm.tokenizer import Tokenizer
from charlm.tokenizers.char import CharTokenizer
from charlm.tokenizers.sentencepiece import SentencePieceTokenizer

NEWLINE, MARK = ord("\n"), ord("▁")  # a line's end, and what sentencepiece cannot take
POINT_BITS = 21  # of a Unicode code point


class Codec(ABC):
    """A tokenizer in a graph. Bytes that are not UTF-8 are read as U+FFFD where it has characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._bytes = tf.constant(tokenizer.id_bytes)

    @abstractmethod
    def encode(self, texts: Tensor) -> tf.RaggedTensor:
        """Ids, int32 [B, (symbols)], of strings [B]."""

    def decode(self, ids: tf.RaggedTensor) -> Tensor:
        """Strings [B] of ids [B, (symbols)]; bytes that are not UTF-8 become U+FFFD."""
        joined = tf.strings.reduce_join(ids.with_flat_values(tf.gather(self._bytes, ids.flat_values)), 1)
        return tf.strings.unicode_transcode(joined, "UTF-8", "UTF-8", errors="replace")


class Bytes(Codec):
    """`ByteTokenizer`."""

    def encode(self, texts: Tensor) -> tf.RaggedTensor:
        """Latin-1 has a character for each byte, with its number."""
        return tf.cast(tf.strings.unicode_decode(texts, "LATIN1"), tf.int32)


class Characters(Codec):
    """`CharTokenizer`."""

    def __init__(self, tokenizer: CharTokenizer) -> None:
        super().__init__(tokenizer)
        ids = sorted(range(1, tokenizer.vocabulary), key=lambda i: tokenizer.characters[i - 1])
        self._points = tf.constant([ord(tokenizer.characters[i - 1]) for i in ids], tf.int32)
        self._ids = tf.constant(ids, tf.int32)

    def encode(self, texts: Tensor) -> tf.RaggedTensor:
        """The id at the place of each character among the tokenizer's in order; 0 is the unknown."""
        found = _points(texts)
        at = tf.minimum(tf.searchsorted(self._points, found.flat_values), tf.size(self._points) - 1)
        known = tf.gather(self._points, at) == found.flat_values
        return found.with_flat_values(tf.where(known, tf.gather(self._ids, at), 0))


class Trie(NamedTuple):
    """Pieces by their code points: node 0 is the root.

    Attributes:
        edges: int64 [edges], in order, a node's number and a code point in one.
        nodes: int32 [edges], where they lead.
        ids: int32 [nodes], the piece that ends there, or -1.
        depth: code points of the longest piece.
    """

    edges: npt.NDArray[np.int64]
    nodes: npt.NDArray[np.int32]
    ids: npt.NDArray[np.int32]
    depth: int

    @classmethod
    def of(cls, pieces: dict[str, int]) -> Trie:
        """Of texts and their ids."""
        edges: dict[int, int] = {}
        ids = [-1]
        for text, i in pieces.items():
            node = 0
            for character in text:
                edge = (node << POINT_BITS) + ord(character)
                if edge not in edges:
                    edges[edge] = len(ids)
                    ids.append(-1)
                node = edges[edge]
            ids[node] = i
        keys = np.array(sorted(edges), np.int64)
        nodes = np.array([edges[int(key)] for key in keys], np.int32)
        return cls(keys, nodes, np.array(ids, np.int32), max(map(len, pieces)))


class Pieces(Codec):
    """`SentencePieceTokenizer`: every line is cut into the pieces whose scores have the largest sum.

    The unigram model's Viterbi search (Kudo, "Subword regularization", 2018), in float32 and in sentencepiece's order,
    so that equal sums are cut as sentencepiece cuts them.
    """

    def __init__(self, tokenizer: SentencePieceTokenizer) -> None:
        super().__init__(tokenizer)
        pieces = tokenizer.scored_pieces
        self._unknown, self._line = tokenizer.unknown, tokenizer.LINE_CHARS
        self._trie = Trie.of({text: i for text, (i, _) in pieces.items()})
        scores, lengths = np.zeros(tokenizer.vocabulary, np.float32), np.ones(tokenizer.vocabulary, np.int32)
        for text, (i, score) in pieces.items():
            scores[i], lengths[i] = score, len(text)
        scores[tokenizer.unknown] = tokenizer.unknown_score
        self._scores, self._lengths = tf.constant(scores), tf.constant(lengths)
        self._byte_ids = tf.constant([tokenizer.byte_ids[byte] for byte in range(256)], tf.int32)

    def encode(self, texts: Tensor) -> tf.RaggedTensor:
        """Characters that no piece has become the ids of their bytes."""
        ragged = _points(texts)
        points = tf.pad(ragged.to_tensor(-1), [[0, 0], [0, 1]], constant_values=-1)  # [B, T], T > 0
        best = self._best(points)
        ends = self._ends(best, tf.cast(ragged.row_lengths(), tf.int32))
        unknown = best == self._unknown
        flat = tf.strings.unicode_encode(tf.reshape(tf.maximum(points, 0), (-1, 1)), "UTF-8")
        text = tf.reshape(flat, tf.shape(points))
        byte_ids = tf.gather(self._byte_ids, tf.cast(tf.io.decode_raw(text, tf.uint8, fixed_length=4), tf.int32))
        ids = tf.where(unknown[..., None], byte_ids, best[..., None])  # [B, T, 4]
        count = tf.where(ends, tf.where(unknown, tf.strings.length(text), 1), 0)
        four = tf.shape(points)[0], 4 * tf.shape(points)[1]
        return tf.ragged.boolean_mask(tf.reshape(ids, four), tf.reshape(tf.range(4) < count[..., None], four))

    def _begins(self, points: Tensor) -> Tensor:
        """[B, T]: whether a part that is cut by itself begins: a line, the next `LINE_CHARS` of one, or a mark."""
        shape, at = tf.shape(points), tf.range(tf.size(points))
        before = tf.pad(points, [[0, 0], [1, 0]], constant_values=NEWLINE)[:, :-1]
        line = tf.reshape(before == NEWLINE, [-1])
        since = at - tf.gather(tf.boolean_mask(at, line), tf.cumsum(tf.cast(line, tf.int32)) - 1)
        return tf.reshape(since % self._line == 0, shape) | (points == MARK) | (before == MARK)

    def _found(self, points: Tensor, begins: Tensor) -> Tensor:
        """[B, T, depth]: the piece that begins at a place and has so many characters, less 1; -1 where there is none.

        The unknown is a piece of one character where there is no other.
        """
        edges = tf.constant(self._trie.edges)
        length, depth = tf.shape(points)[1], self._trie.depth
        points = tf.pad(points, [[0, 0], [0, depth]], constant_values=-1)
        begins = tf.pad(begins, [[0, 0], [0, depth]], constant_values=True)
        node, found = tf.zeros_like(points[:, :length]), []
        for n in range(depth):
            point = points[:, n : length + n]
            dead = (node < 0) | (point < 0) | (begins[:, n : length + n] if n else False)
            edge = tf.bitwise.left_shift(tf.cast(node, tf.int64), tf.constant(POINT_BITS, tf.int64))
            edge += tf.cast(point, tf.int64)
            at = tf.reshape(tf.searchsorted(edges, tf.reshape(edge, [-1])), tf.shape(edge))
            at = tf.minimum(at, len(self._trie.edges) - 1)
            there = (tf.gather(edges, at) == edge) & ~dead
            node = tf.where(there, tf.gather(self._trie.nodes, at), -1)
            ids = tf.where(there, tf.gather(self._trie.ids, tf.maximum(node, 0)), -1)
            found.append(ids if n else tf.where(ids < 0, self._unknown, ids))
        return tf.stack(found, 2)

    def _best(self, points: Tensor) -> Tensor:
        """[B, T]: the last piece of the best cut of the text that ends with this character."""
        begins, rows, depth = self._begins(points), tf.shape(points)[0], self._trie.depth
        found = self._found(points, begins)

        def body(t: Tensor, here: Tensor, sums: Tensor, last: Tensor, best: Any) -> tuple[Any, ...]:
            new = found[:, t]
            here = tf.where(begins[:, t], 0.0, here)
            sums_by_it = tf.where(new < 0, float("-inf"), tf.gather(self._scores, tf.maximum(new, 0)) + here[:, None])
            better = sums_by_it > sums
            sums, last = tf.where(better, sums_by_it, sums), tf.where(better, new, last)
            best = best.write(t, last[:, 0])
            next_sums = tf.pad(sums[:, 1:], [[0, 0], [0, 1]], constant_values=float("-inf"))
            return t + 1, sums[:, 0], next_sums, tf.pad(last[:, 1:], [[0, 0], [0, 1]]), best

        # Of the texts that end with the next `depth` characters: the best sums, and the last pieces.
        sums, last = tf.fill((rows, depth), float("-inf")), tf.zeros((rows, depth), tf.int32)
        length = tf.shape(points)[1]
        start = 0, tf.zeros(rows), sums, last, tf.TensorArray(tf.int32, length, element_shape=[None])
        *_, best = tf.while_loop(lambda t, *_: t < length, body, start, parallel_iterations=1)
        return tf.transpose(best.stack())

    def _ends(self, best: Tensor, lengths: Tensor) -> Tensor:
        """[B, T]: whether a piece of the best cut ends with this character."""
        pieces, length = tf.gather(self._lengths, best), tf.shape(best)[1]

        def body(t: Tensor, end: Tensor, ends: Any) -> tuple[Any, ...]:
            here = end == t
            return t - 1, tf.where(here, end - pieces[:, t - 1], end), ends.write(t - 1, here)

        start = length, lengths, tf.TensorArray(tf.bool, length, element_shape=[None])
        *_, ends = tf.while_loop(lambda t, *_: t > 0, body, start, parallel_iterations=1)
        return tf.transpose(ends.stack())


CODECS: dict[str, Callable[[Any], Codec]] = {"char": Characters, "byte": Bytes, "sentencepiece": Pieces}


def codec_of(tokenizer: Tokenizer) -> Codec:
    """The tokenizer in a graph."""
    return CODECS[tokenizer.name](tokenizer)


def _points(texts: Tensor) -> tf.RaggedTensor:
    """Code points, int32 [B, (characters)]."""
    return tf.strings.unicode_decode(texts, "UTF-8", errors="replace", replacement_char=0xFFFD)
