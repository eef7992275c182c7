"""Text from a model as it comes: chunks of symbols from the decode loop, decoded to text that is certain.

Every sample is a row; a step takes one symbol a row, from the prompt while it lasts and drawn from then on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from charlm.config import SampleConfig
from charlm.decoder import decoder_of
from charlm.decoding import DecodeState, decode
from charlm.machine import Machine, check_bfloat16, threads
from charlm.model import CharLM
from charlm.runtime import kernel
from charlm.sampling import RECENT, settings_of
from charlm.tokenizer import StreamDecoder, Tokenizer

FIRST_CHUNK, LONGEST_CHUNK = 32, 256  # symbols between two looks from outside
CHUNK_SECONDS = 0.05  # that a chunk should take at most

# In float32 the whole loop is one compiled kernel. XLA has no bfloat16 products of the processor's, TensorFlow has.
DECODE = {"float32": kernel(decode), "bfloat16": tf.function(decode, autograph=False)}


class Generator:
    """A model with one set of sampler settings; ids in, ids out."""

    def __init__(self, model: CharLM, config: SampleConfig, blocked: npt.NDArray[np.int32]) -> None:
        """`blocked` are ids that are never drawn, such as the unknown symbol; raises UsageError as `check_bfloat16`."""
        if config.precision == "bfloat16":
            check_bfloat16("sample.precision")
        self.model, self.precision = model, config.precision
        self.settings = {name: tf.constant(value) for name, value in settings_of(config).items()}
        self._blocked = tf.constant(np.isin(np.arange(model.config.vocabulary), blocked))

    def start(self, prompt: int, rows: int) -> DecodeState:
        """Rows before a prompt of that many symbols."""
        return DecodeState(
            tf.zeros((rows, self.model.config.vocabulary)),
            self.model.initial_state(rows),
            tf.fill((rows, RECENT), -1),
            tf.constant(-prompt),
        )

    def stream(
        self, prompt: Sequence[int], length: int, seeds: Sequence[int]
    ) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]:
        """The continuation of `prompt`, in pieces: ids [n, B] and their nats [n, B], `length` symbols in all.

        One row a seed. The prompt has at least one symbol. Pieces grow while they come fast.
        """
        compiled, decoder = DECODE[self.precision], decoder_of(self.model, self.precision, columns=True)
        groups = Machine.here().lane_groups(len(seeds), 1) if self.precision == "bfloat16" and threads() == 1 else 1
        rows = self.start(len(prompt), len(seeds))
        row_seeds = tf.constant(seeds, tf.int32)
        forced = np.full(len(prompt) + LONGEST_CHUNK, -1, np.int32)
        forced[: len(prompt)] = prompt
        at, count = 0, FIRST_CHUNK
        while at < len(prompt) + length:
            began = time.perf_counter()
            count = min(count, len(prompt) + length - at)
            first = min(at, len(prompt))
            chunk = tf.constant(forced[first : first + LONGEST_CHUNK])
            decoded, rows = compiled(
                decoder, rows, tf.constant(count), chunk, row_seeds, self.settings, self._blocked, groups
            )
            new = slice(max(0, len(prompt) - at), count)
            piece = decoded.ids.numpy()[new], decoded.nats.numpy()[new]
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
    """A sentence, without its end, on the characters of a prompt that were never seen; empty if there are none."""
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
