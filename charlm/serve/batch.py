"""The rows that are written at once, as tensors: batches of a few sizes, a loop compiled for each.

A row's symbols must not depend on how many others there are. Its draws do not (sampling.py), and its logits are the
same to the last bit in every size as long as products are: XLA's float32 products on a processor are so where the last
dimension of their result is a multiple of 64. In small batches that is the features, in large ones the rows, for states
are columns there. One size is compiled first and is enough to begin with; the others follow while it is used, and each
is left out if it computes anything else than the first one does.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from charlm.cell import Tensor
from charlm.decoder import Decoder, decoder_of
from charlm.decoding import Decoded, DecodeState, decode, prefill
from charlm.generation import LONGEST_CHUNK
from charlm.language_model import LanguageModel
from charlm.model import ModelState
from charlm.runtime import kernel
from charlm.sampling import RECENT, settings_of_rows

SIZES = (2, 8, 64, 128, 256)
FIRST = 64  # the size that is compiled first, and that all others are compared with
BLOCK = 64  # what the last dimension of a product is a multiple of
PIECE = 16  # symbols of a prompt that are read in one go
READERS = FIRST  # prompts that are read at once
SCORERS = 8  # prompts that are scored at once
ALTERNATIVES = 5  # likeliest symbols that are told in each place

RowState: TypeAlias = list[npt.NDArray[np.float32]]  # one row's: each state of each layer, [H]

_log = logging.getLogger("charlm")


class Told(NamedTuple):
    """What some symbols cost, and what else was likely in the place of each.

    Attributes:
        nats: [n], before any sampler.
        likeliest: for each symbol the ids of the likeliest with their log probabilities.
    """

    nats: list[float]
    likeliest: list[dict[int, float]]


class Batch:
    """Rows of one size at a time, with float32 products."""

    def __init__(self, language_model: LanguageModel) -> None:
        model, tokenizer = language_model.model, language_model.tokenizer
        self._decoder = decoder_of(model, "float32").arranged(columns=False, multiple=BLOCK)
        self._model, self._vocabulary = model, model.config.vocabulary
        self._alternatives = min(ALTERNATIVES, self._vocabulary)
        self._blocked = tf.constant(np.isin(np.arange(self._vocabulary), tokenizer.blocked))
        self.sizes: tuple[int, ...] = (FIRST,)
        self._reading: tuple[int, ...] = (READERS,)
        self.seconds = dict.fromkeys(SIZES, 0.0)  # of a symbol a row, when last seen
        self._rows = self._empty(FIRST)

    @property
    def size(self) -> int:
        """The number of rows, taken or not."""
        return int(self._rows.logits.shape[0])

    @functools.cached_property
    def fresh(self) -> RowState:
        """The state of a row that has read nothing."""
        return [np.zeros(s.shape[1], np.float32) for s in tf.nest.flatten(self._model.initial_state(1))]

    @property
    def readers(self) -> int:
        """The number of rows that can be read at once."""
        return self._reading[-1]

    def prepare(self) -> None:
        """Compiles the first size, which is enough to write and to read with."""
        self._expected = self._written(FIRST), self._read_of(READERS)

    def extend(self) -> Iterator[int]:
        """Compiles the other sizes and takes those that compute what the first does; yields each before it begins.

        It may run in a thread of its own while the others are used. Scores, which have a size of their own, come first.
        """
        written, read = self._expected
        yield SCORERS
        self.score([[0]], [[0]], [self.fresh])
        for size in (size for size in SIZES if size != FIRST):
            yield size
            same = np.array_equal(self._written(size), written[np.arange(size) % FIRST])
            if size <= READERS:
                same &= np.array_equal(self._read_of(size), read[:size])
            if not same:
                _log.warning("batches of %d rows are left out: they differ here in the last bits", size)
                continue
            self._reading = tuple(sorted({*self._reading, min(size, READERS)}))
            self.sizes = tuple(sorted({*self.sizes, size}))

    def _written(self, size: int) -> npt.NDArray[np.float32]:
        """The logits [size, V] after given symbols, the same ones in every `FIRST` rows."""
        forced = self._symbols()[:, np.arange(size) % FIRST]
        rows, zeros, settings = self._empty(size), np.zeros(size, np.int32), settings_of_rows([{}] * size)
        for _ in range(2):  # the second time for its time
            _, after = self._advanced(rows, PIECE, forced, zeros, settings, zeros > 0)
        logits: npt.NDArray[np.float32] = after.logits.numpy()
        return logits

    def _read_of(self, size: int) -> npt.NDArray[np.float32]:
        """The states [size, ...] after given symbols."""
        state = self._packed([self.fresh] * size, size)
        read = _unpacked(_read(self._decoder, tf.constant(self._symbols()[:PIECE, :size]), state), size)
        return np.stack([np.concatenate(state) for state in read])

    def _symbols(self) -> npt.NDArray[np.int32]:
        """[LONGEST_CHUNK, FIRST] ids to compare sizes with."""
        return np.random.default_rng(0).integers(self._vocabulary, size=(LONGEST_CHUNK, FIRST), dtype=np.int32)

    def advance(self, count: int, forced: Any, seeds: Any, settings: dict[str, Any], told: Any) -> Decoded:
        """`count` symbols of every row; arrays as `decode` takes them, NumPy's in and out."""
        found, self._rows = self._advanced(self._rows, count, forced, seeds, settings, told)
        return found

    def _advanced(
        self, rows: DecodeState, count: int, forced: Any, seeds: Any, settings: dict[str, Any], told: Any
    ) -> tuple[Decoded, DecodeState]:
        began, size = time.monotonic(), int(rows.logits.shape[0])
        tensors = {name: tf.constant(value) for name, value in settings.items()}
        at = tf.constant(count), tf.constant(forced), tf.constant(seeds), tensors
        decoder = self._decoder.arranged(columns=size % BLOCK == 0)
        decoded, after = _program(size)(decoder, rows, *at, self._blocked, 1, self._alternatives, tf.constant(told))
        found = Decoded(*(part.numpy() for part in decoded))
        self.seconds[size] = (time.monotonic() - began) / count
        return found, after

    def read(self, pieces: Sequence[Sequence[int]], states: Sequence[RowState]) -> list[RowState]:
        """The states of up to `readers` rows after up to `PIECE` symbols each."""
        size = next(s for s in self._reading if s >= len(pieces))
        after = _read(self._decoder, _columns(pieces, size), self._packed(states, size))
        return _unpacked(after, len(pieces))

    def score(
        self, pieces: Sequence[Sequence[int]], following: Sequence[Sequence[int]], states: Sequence[RowState]
    ) -> tuple[list[RowState], list[Told]]:
        """`read` of up to `SCORERS` rows, with what the symbol that follows each one cost.

        It has one size: a score is the same to the last bit alone or among others.
        """
        at = _columns(pieces, SCORERS), _columns(following, SCORERS), self._packed(states, SCORERS)
        after, *arrays = _score(self._decoder, *at, self._alternatives)
        nats, ids, best = (array.numpy() for array in arrays)
        found = []
        for n, piece in enumerate(pieces):
            places = zip(ids[: len(piece), n].tolist(), best[: len(piece), n].tolist(), strict=True)
            found.append(Told(nats[: len(piece), n].tolist(), [dict(zip(*place, strict=True)) for place in places]))
        return _unpacked(after, len(pieces)), found

    def _packed(self, states: Sequence[RowState], size: int) -> ModelState:
        """The states of rows as one batch's."""
        packed = [np.zeros((size, len(values)), np.float32) for values in states[0]]
        for n, state in enumerate(states):
            for rows, values in zip(packed, state, strict=True):
                rows[n] = values
        packed_state: ModelState = tf.nest.pack_sequence_as(
            self._model.initial_state(1), list(map(tf.constant, packed))
        )
        return packed_state

    def arrange(
        self,
        source: Sequence[int],
        states: Mapping[int, RowState],
        positions: Sequence[int],
        read: Mapping[int, Sequence[int]],
    ) -> None:
        """Makes a batch anew.

        Args:
            source: for each row the one that it was, or -1 for one that is new.
            states: what new rows have read, by place; zeros where nothing is told.
            positions: each row's, as `DecodeState.position` has them.
            read: the symbols that new rows have read, by place, which the repetition penalty looks back on.
        """
        old, new = self._rows, np.array(source) < 0

        def gathered(tensor: Tensor, empty: int) -> npt.NDArray[Any]:
            rows: npt.NDArray[Any] = tensor.numpy()[list(source)]
            rows[new] = empty
            return rows

        state = [gathered(part, 0) for part in tf.nest.flatten(old.state)]
        for n, values in states.items():
            for rows, value in zip(state, values, strict=True):
                rows[n] = value
        recent = gathered(old.recent, -1)
        for n, symbols in read.items():
            last = symbols[-RECENT:]
            recent[n, RECENT - len(last) :] = last
        self._rows = DecodeState(
            tf.constant(gathered(old.logits, 0)),
            tf.nest.pack_sequence_as(old.state, list(map(tf.constant, state))),
            tf.constant(recent),
            tf.constant(np.reshape(positions, (-1, 1)).astype(np.int32)),
        )

    def _empty(self, size: int) -> DecodeState:
        zeros = tf.zeros((size, self._vocabulary))
        return DecodeState(
            zeros, self._model.initial_state(size), tf.fill((size, RECENT), -1), tf.zeros((size, 1), tf.int32)
        )


def _columns(pieces: Sequence[Sequence[int]], size: int) -> Tensor:
    """[PIECE, size]: a piece in each column, -1 where there is none."""
    symbols = np.full((PIECE, size), -1, np.int32)
    for n, piece in enumerate(pieces):
        symbols[: len(piece), n] = piece
    return tf.constant(symbols)


def _unpacked(state: ModelState, count: int) -> list[RowState]:
    arrays = [part.numpy() for part in tf.nest.flatten(state)]
    return [[array[n] for array in arrays] for n in range(count)]


@functools.cache
def _program(size: int) -> Any:
    """`decode` for a size: a function of its own, for one that is being traced makes all its callers wait."""
    return kernel(decode)


@kernel
def _read(decoder: Decoder, symbols: Tensor, state: ModelState) -> ModelState:
    return prefill(decoder, symbols, state)[0]


@kernel
def _score(
    decoder: Decoder, symbols: Tensor, following: Tensor, state: ModelState, alternatives: int
) -> tuple[ModelState, Tensor, Tensor, Tensor]:
    """The state after symbols [PIECE, B]; of what follows each the nats [PIECE, B], and the likeliest [PIECE, B, n]."""
    after, places = prefill(decoder, symbols, state)  # [PIECE, B, H]
    logits = decoder.logits_of(tf.reshape(places, [-1, places.shape[2]]))
    told = tf.reshape(tf.nn.log_softmax(logits), [PIECE, symbols.shape[1], -1])  # [PIECE, B, V]
    best, likeliest = tf.math.top_k(told, alternatives)
    nats = -tf.gather(told, tf.maximum(following, 0), batch_dims=2)
    return after, nats, likeliest, best
