"""Text from a model: prefill and decode in one compiled loop, and text pieces as they come.

Every sample is a row; a step takes one symbol a row, from the prompt while it lasts and drawn from then on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from charlm.cells import Tensor
from charlm.config import SampleConfig
from charlm.machine import Machine, threads
from charlm.model import CharLM, Decoder, ModelState
from charlm.runtime import kernel
from charlm.sampling import RECENT, Setting, draw, likeliest, restrict, settings_of
from charlm.tokenizers import StreamDecoder, Tokenizer

FIRST_CHUNK, LONGEST_CHUNK = 32, 256  # symbols between two looks from outside
CHUNK_SECONDS = 0.05  # that a chunk should take at most


class Rows(NamedTuple):
    """Where B samples stand between chunks."""

    logits: Tensor  # [B, V] of the next symbol
    state: ModelState  # as columns, each [H, B], or as rows
    recent: Tensor  # [B, RECENT] the last ids, -1 before the first
    position: Tensor  # symbols drawn so far; below 0 in the prompt


class Drawn(NamedTuple):
    """What every row took at each step of a chunk, [steps, B]."""

    ids: Tensor
    nats: Tensor  # that they cost under the model, before any sampler
    likeliest: Tensor  # [steps, B, n] the ids of the n likeliest symbols, in the rows that are told them
    log_probabilities: Tensor  # [steps, B, n] theirs


def advance(
    decoder: Decoder,
    rows: Rows,
    count: Tensor,
    forced: Tensor,
    seeds: Tensor,
    settings: dict[str, Setting],
    blocked: Tensor,
    groups: int = 1,
    alternatives: int = 0,
    columns: bool = True,
    told: Tensor | None = None,
) -> tuple[Drawn, Rows]:
    """Some symbols of every row, in one loop for each group of rows; the loops run side by side.

    Args:
        decoder: the model.
        rows: where the samples stand.
        count: how many symbols.
        forced: [LONGEST_CHUNK] or [LONGEST_CHUNK, B] int32, the symbol that a row takes at a step; -1 where it draws
            its own. Groups want the same for all rows.
        seeds: [B] int32.
        settings: of the samplers that are on, by their names; of one row each, [B], in one group alone.
        blocked: [V] booleans, true for what is never drawn.
        groups: how many; they divide the rows.
        alternatives: how many of the likeliest symbols are told at every step.
        columns: whether states are columns; groups want it.
        told: [B] booleans, the rows that are told them; of one group alone.

    Returns:
        what was drawn, of which the first `count` of LONGEST_CHUNK steps are set, and the rows after them.
    """
    many, step = rows.logits.shape[0] // groups, decoder.step_columns if columns else decoder.step
    one, several = [many], [many, alternatives]
    arrays = (tf.int32, one), (tf.float32, one), (tf.int32, several), (tf.float32, several)
    told = tf.fill(one, False) if told is None else told

    def group(rows: Rows, seeds: Tensor) -> tuple[Drawn, Rows]:
        def body(t: Tensor, rows: Rows, written: tuple[tf.TensorArray, ...]) -> tuple[Any, ...]:
            symbol, cost, recent = _chosen(rows.logits, rows.recent, rows.position, forced[t], seeds, settings, blocked)
            likely = likeliest(rows.logits, alternatives, told)
            logits, state = step(symbol, rows.state)
            values = zip(written, (symbol, cost, *likely), strict=True)
            written = tuple(array.write(t, value) for array, value in values)
            return t + 1, Rows(logits, state, recent, rows.position + 1), written

        empty = tuple(tf.TensorArray(dtype, LONGEST_CHUNK, element_shape=shape) for dtype, shape in arrays)
        _, rows, written = tf.while_loop(lambda t, *_: t < count, body, (0, rows, empty), parallel_iterations=1)
        return Drawn(*(array.stack() for array in written)), rows

    drawn, after = zip(*map(group, _split(rows, groups), tf.split(seeds, groups)), strict=True)
    return Drawn(*(tf.concat(parts, 1) for parts in zip(*drawn, strict=True))), _joined(after)


def _split(rows: Rows, groups: int) -> list[Rows]:
    logits, recent = tf.split(rows.logits, groups), tf.split(rows.recent, groups)
    states = zip(*(tf.split(s, groups, 1) for s in tf.nest.flatten(rows.state)), strict=True)
    packed = (tf.nest.pack_sequence_as(rows.state, list(state)) for state in states)
    return [Rows(*parts, rows.position) for parts in zip(logits, packed, recent, strict=True)]


def _joined(groups: Sequence[Rows]) -> Rows:
    logits, states, recent, position = zip(*groups, strict=True)
    state = tf.nest.map_structure(lambda *parts: tf.concat(parts, 1), *states)
    return Rows(tf.concat(logits, 0), state, tf.concat(recent, 0), position[0])


@kernel
def _chosen(
    logits: Tensor,
    recent: Tensor,
    position: Tensor,
    forced: Tensor,
    seeds: Tensor,
    settings: dict[str, Setting],
    blocked: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Every row's next symbol, its nats, and the recent ids with it."""
    allowed = tf.where(blocked, float("-inf"), logits)
    drawn = draw(restrict(allowed, settings, recent), seeds, position)
    symbol = tf.where(forced >= 0, forced, drawn)
    cost = tf.nn.sparse_softmax_cross_entropy_with_logits(symbol, logits)
    return symbol, cost, tf.concat([recent[:, 1:], symbol[:, None]], 1)


# In float32 the whole loop is one compiled kernel. XLA has no bfloat16 products of the processor's, TensorFlow has.
ADVANCE = {"float32": kernel(advance), "bfloat16": tf.function(advance, autograph=False)}


class Generator:
    """A model with one set of sampler settings; ids in, ids out."""

    def __init__(self, model: CharLM, config: SampleConfig, blocked: npt.NDArray[np.int32]) -> None:
        """`blocked` are ids that are never drawn, such as the unknown symbol."""
        self.model, self.precision = model, config.precision
        self.settings = {name: tf.constant(value) for name, value in settings_of(config).items()}
        self._blocked = tf.constant(np.isin(np.arange(model.config.vocabulary), blocked))

    def start(self, prompt: int, rows: int) -> Rows:
        """Rows before a prompt of that many symbols."""
        return Rows(
            tf.zeros((rows, self.model.config.vocabulary)),
            tf.nest.map_structure(tf.transpose, self.model.initial_state(rows)),
            tf.fill((rows, RECENT), -1),
            tf.constant(-prompt),
        )

    def stream(
        self, prompt: Sequence[int], length: int, seeds: Sequence[int]
    ) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]:
        """What follows `prompt`, in pieces: ids [n, B] and their nats [n, B], `length` symbols in all.

        One row a seed. The prompt has at least one symbol. Pieces grow while they come fast.
        """
        compiled, decoder = ADVANCE[self.precision], Decoder.of(self.model, self.precision)
        groups = Machine.here().lane_groups(len(seeds), 1) if self.precision == "bfloat16" and threads() == 1 else 1
        rows = self.start(len(prompt), len(seeds))
        row_seeds = tf.constant(seeds, tf.int32)
        forced = np.full(len(prompt) + length + LONGEST_CHUNK, -1, np.int32)
        forced[: len(prompt)] = prompt
        at, count = 0, FIRST_CHUNK
        while at < len(prompt) + length:
            began = time.perf_counter()
            count = min(count, len(prompt) + length - at)
            chunk = tf.constant(forced[at : at + LONGEST_CHUNK])
            drawn, rows = compiled(
                decoder, rows, tf.constant(count), chunk, row_seeds, self.settings, self._blocked, groups
            )
            new = slice(max(0, len(prompt) - at), count)
            piece = drawn.ids.numpy()[new], drawn.nats.numpy()[new]
            spent = time.perf_counter() - began
            if len(piece[0]):
                yield piece
            at += count
            count = min(LONGEST_CHUNK, max(1, int(count * min(2.0, CHUNK_SECONDS / spent))))


@dataclass
class Sample:
    """One finished text. `nats` is of what was generated; `stopped` is "length" or "stop"."""

    prompt: str
    text: str
    symbols: int
    seed: int
    nats: float
    stopped: str


class TextRow:
    """One sample's text as it comes: decodes, looks for stop texts, holds back what may become one."""

    def __init__(self, tokenizer: Tokenizer, prompt: str, stops: Sequence[str], seed: int) -> None:
        self._decoder, self._stops, self._held = StreamDecoder(tokenizer), stops, ""
        self.sample = Sample(prompt, "", 0, seed, 0.0, "")

    def feed(self, ids: npt.NDArray[np.int32], nats: npt.NDArray[np.float32]) -> str:
        """Takes symbols until a stop text is complete; returns the text that is certain by then."""
        if not self._stops:
            self.sample.symbols += len(ids)
            self.sample.nats = sum(nats.tolist(), self.sample.nats)
            return self._emit(self._decoder.feed(ids.tolist()))
        text = ""
        for symbol, cost in zip(ids.tolist(), nats.tolist(), strict=True):
            if self.sample.stopped:
                break
            self.sample.symbols += 1
            self.sample.nats += cost
            text += self._certain(self._decoder.feed([symbol]))
        return self._emit(text)

    def finish(self) -> str:
        """At the end of the length: what was held back."""
        if self.sample.stopped:
            return ""
        text = self._certain(self._decoder.flush())
        if not self.sample.stopped:
            text += self._held
            self.sample.stopped = "length"
        return self._emit(text)

    def _emit(self, text: str) -> str:
        self.sample.text += text
        return text

    def _certain(self, text: str) -> str:
        held = self._held + text
        found = min((at for at in (held.find(stop) for stop in self._stops) if at >= 0), default=None)
        if found is not None:
            self.sample.stopped = "stop"
            return held[:found]
        starts = ((stop, min(len(stop), len(held) + 1)) for stop in self._stops)
        keep = max((n for stop, most in starts for n in range(most) if held.endswith(stop[:n])), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids that a generation reads first, at least one.

    An empty prompt is a line end, or the first symbol there is if that one is unknown.
    """
    ids = tokenizer.encode(prompt or "\n")
    if not prompt and np.isin(ids, tokenizer.blocked).any():
        ids = np.setdiff1d(np.arange(tokenizer.vocabulary), tokenizer.blocked)[:1]
    return [int(i) for i in ids]


def never_seen(tokenizer: Tokenizer, prompt: str) -> str:
    """Which characters of a prompt the model has never seen, in a sentence without its end; empty if there are none."""
    unseen = tokenizer.unseen(prompt)
    shown = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unseen[:8]) + (", ..." if len(unseen) > 8 else "")
    return f"the model has never seen {shown} in the prompt" if unseen else ""


def stream_text(
    generator: Generator, tokenizer: Tokenizer, prompt: str, config: SampleConfig, seed: int
) -> Iterator[tuple[int, str] | Sample]:
    """Generates `config.samples` texts side by side, with the samplers that `generator` was made for.

    Yields (row, text) as text becomes certain, and at last every row's `Sample`. Row n draws with seed + n.
    """
    ids = prompt_ids(tokenizer, prompt)
    rows = [TextRow(tokenizer, prompt, config.stop, (seed + n) % 2**31) for n in range(config.samples)]
    for new, nats in generator.stream(ids, config.length, [row.sample.seed for row in rows]):
        for n, row in enumerate(rows):
            if text := row.feed(new[:, n], nats[:, n]):
                yield n, text
        if all(row.sample.stopped for row in rows):
            break
    for n, row in enumerate(rows):
        if text := row.finish():
            yield n, text
    yield from (row.sample for row in rows)
