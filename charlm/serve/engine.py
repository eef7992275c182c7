"""Continuous batching: a request is a row of one batch, and rows come and go between two chunks of symbols.

Recurrent state has a fixed size, so a row's whole past is its column of `[units, rows]`. A row reads its prompt and
then writes, a symbol a step like every other row; a chunk is a few steps of all rows in one compiled loop. The engine
is a thread of its own: requests are handed to it, and what it writes is handed to a function that each request brings.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from charlm.api import LanguageModel
from charlm.errors import CharlmError
from charlm.generation import ADVANCE, LONGEST_CHUNK, Drawn, Rows, TextRow
from charlm.model import Decoder
from charlm.sampling import RECENT
from charlm.tokenizers import Tokenizer

SIZES = (64, 128, 256)  # rows of a batch; products give a row the same to the last bit in each of them
ALTERNATIVES = 5
CHUNK_SECONDS = 0.03  # that a chunk should take at most
_log = logging.getLogger("charlm")


class Full(CharlmError):
    """As many requests wait as may."""


class Closed(CharlmError):
    """The engine takes no more requests."""


@dataclass(frozen=True)
class Piece:
    """What a request has written in a chunk.

    Attributes:
        text: that has become certain.
        ids, nats: the symbols and what each cost under the model, before the samplers.
        stopped: "length" or "stop" in the last piece, "failed" if the engine died; None before.
        likeliest: for each symbol, the likeliest ones in its place with their log probabilities, if asked for.
    """

    text: str
    ids: tuple[int, ...]
    nats: tuple[float, ...]
    stopped: str | None = None
    likeliest: tuple[dict[int, float], ...] = ()


@dataclass(frozen=True)
class Request:
    """One text to write.

    Attributes:
        prompt: ids to read, at least one.
        deliver: what takes the pieces, in the engine's thread; the last one says why it is the last.
        length, temperature, top_k, top_p, stop, seed: as in `SampleConfig`.
        alternatives: how many of the likeliest symbols to tell in each place, up to `ALTERNATIVES`.
    """

    prompt: Sequence[int]
    deliver: Callable[[Piece], object]
    length: int
    seed: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    alternatives: int = 0


class _Slot:
    """A request in the batch."""

    def __init__(self, request: Request, tokenizer: Tokenizer) -> None:
        self.request = request
        self.text = TextRow(tokenizer, "", request.stop, request.seed)
        self.read = self.written = 0
        self.cancelled = False

    @property
    def position(self) -> int:
        """Of the symbol that it writes next; below 0 in the prompt."""
        return self.written if self.written else self.read - len(self.request.prompt)

    def take(self, drawn: Drawn) -> None:
        """Delivers what a chunk wrote, of which the prompt's share is not given."""
        left, most = self.request.length - self.written, self.request.alternatives
        text = self.text.feed(drawn.ids[:left], drawn.nats[:left])
        count = self.text.sample.symbols - self.written
        self.written += count
        if self.written == self.request.length:
            text += self.text.finish()
        if count or self.stopped:
            ids, nats, likeliest, log_probabilities = (part[:count].tolist() for part in drawn)
            best = zip(likeliest, log_probabilities, strict=True)
            told = tuple(dict(zip(i[:most], p, strict=False)) for i, p in best) if most else ()
            self.request.deliver(Piece(text, tuple(ids), tuple(nats), self.stopped, told))

    @property
    def stopped(self) -> str | None:
        return self.text.sample.stopped or None


class Engine:
    """Writes many texts at once.

    Args:
        language_model: the model; float32 products, so that a seeded text is the same alone or among others.
        waiting: requests that may wait for a row.
    """

    def __init__(self, language_model: LanguageModel, waiting: int = 256) -> None:
        model, self.tokenizer = language_model.model, language_model.tokenizer
        self._decoder, self._vocabulary = Decoder.of(model, "float32"), model.config.vocabulary
        self._model = model
        self._blocked = tf.constant(np.isin(np.arange(self._vocabulary), self.tokenizer.blocked))
        self._most_waiting, self._alternatives = waiting, min(ALTERNATIVES, self._vocabulary)
        self._waiting: deque[_Slot] = deque()
        self._slots: list[_Slot | None] = [None] * SIZES[0]
        self._rows = self._empty(SIZES[0])
        self._count = 1
        self._condition = threading.Condition()
        self._closing = False
        self.ready = threading.Event()
        self.failure: str | None = None
        self.symbols, self.rate = 0, 0.0  # written so far, and a second in the latest chunk
        self._thread = threading.Thread(target=self._run, name="charlm-engine", daemon=True)

    def start(self) -> None:
        """Starts the thread, which compiles every size of batch and is then `ready`."""
        self._thread.start()

    @property
    def busy(self) -> int:
        """Requests in the batch."""
        return sum(slot is not None for slot in self._slots)

    @property
    def size(self) -> int:
        """Rows of the batch."""
        return len(self._slots)

    @property
    def closing(self) -> bool:
        """Whether it takes no more."""
        return self._closing

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    def submit(self, *requests: Request) -> Callable[[], None]:
        """Takes all of some requests or none, and returns what cancels them.

        Raises:
            Full: they would wait behind too many.
            Closed: the engine is closing, or has died.
        """
        slots = [_Slot(request, self.tokenizer) for request in requests]
        with self._condition:
            if self._closing or self.failure:
                raise Closed(self.failure or "the server is shutting down")
            free = SIZES[-1] - self.busy
            if len(self._waiting) + len(slots) > self._most_waiting + free:
                raise Full(f"{len(self._waiting)} requests are waiting")
            self._waiting.extend(slots)
            self._condition.notify()

        def cancel() -> None:
            for slot in slots:
                slot.cancelled = True

        return cancel

    def close(self, seconds: float = 30.0) -> None:
        """Takes no more, and returns when all that is taken is written, or after so many seconds."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            for size in SIZES:
                self._compile(size)
            self.ready.set()
            while self._next():
                self._advance()
        except Exception as error:
            _log.exception("the engine died")
            self.failure = f"{type(error).__name__}: {error}"
        with self._condition:
            self._closing = True
            left = [slot for slot in (*self._slots, *self._waiting) if slot is not None]
            self._waiting.clear()
        for slot in left:
            slot.request.deliver(Piece("", (), (), "failed"))

    def _empty(self, size: int) -> Rows:
        zeros = tf.zeros((size, self._vocabulary))
        state = tf.nest.map_structure(tf.transpose, self._model.initial_state(size))
        return Rows(zeros, state, tf.fill((size, RECENT), -1), tf.zeros((size, 1), tf.int32))

    def _compile(self, size: int) -> None:
        forced, ones = np.zeros((LONGEST_CHUNK, size), np.int32), np.ones(size, np.float32)
        restricted = {"temperature": ones, "top_k": np.zeros(size, np.int32), "top_p": ones}
        for settings in {"temperature": ones}, restricted:
            for alternatives in 0, self._alternatives:
                self._step(self._empty(size), 1, forced, np.zeros(size, np.int32), settings, alternatives)

    def _step(
        self, rows: Rows, count: int, forced: Any, seeds: Any, settings: dict[str, Any], alternatives: int
    ) -> tuple[Drawn, Rows]:
        tensors = {name: tf.constant(value) for name, value in settings.items()}
        at = tf.constant(count), tf.constant(forced), tf.constant(seeds), tensors
        drawn, rows = ADVANCE["float32"](self._decoder, rows, *at, self._blocked, 1, alternatives)
        return Drawn(*(part.numpy() for part in drawn)), rows

    def _next(self) -> bool:
        """Waits for work and arranges the batch; false when there is none left and none to come."""
        with self._condition:
            self._drop_cancelled()
            while not self._waiting and not self.busy:
                if self._closing:
                    return False
                self._condition.wait()
                self._drop_cancelled()
            new = [self._waiting.popleft() for _ in range(min(len(self._waiting), SIZES[-1] - self.busy))]
            kept = [n for n, slot in enumerate(self._slots) if slot is not None]
            wanted = len(kept) + len(new)
            size = len(self._slots)
            if wanted > size or wanted <= size // 4:
                size = next(s for s in SIZES if s >= wanted)
            if new or size != len(self._slots):
                self._arrange(kept, new, size)
        return True

    def _drop_cancelled(self) -> None:
        for n, slot in enumerate(self._slots):
            if slot is not None and slot.cancelled:
                self._slots[n] = None
        self._waiting = deque(slot for slot in self._waiting if not slot.cancelled)

    def _arrange(self, kept: list[int], new: list[_Slot], size: int) -> None:
        """Puts the rows that go on, and new ones at their beginning, into a batch of this size."""
        source = list(range(size)) if size == len(self._slots) else kept + [-1] * (size - len(kept))
        slots = [None if n < 0 else self._slots[n] for n in source]
        free = [n for n, slot in enumerate(slots) if slot is None]
        for n, slot in zip(free, new, strict=False):
            slots[n], source[n] = slot, -1
        position = [[slot.position if slot else 0] for slot in slots]
        self._slots = slots
        self._rows = _arranged(self._rows, tf.constant(source), tf.constant(position))

    def _advance(self) -> None:
        """A chunk of every row."""
        slots, count = self._slots, self._count
        began, written = time.monotonic(), self.symbols
        forced = np.full((LONGEST_CHUNK, len(slots)), -1, np.int32)
        read = [0] * len(slots)
        for n, slot in enumerate(slots):
            if slot is None:
                forced[:, n] = 0
            elif slot.read < len(slot.request.prompt):
                part = slot.request.prompt[slot.read : slot.read + count]
                forced[: len(part), n] = part
                read[n] = len(part)
        active = [slot.request if slot else None for slot in slots]
        settings = {"temperature": np.array([r.temperature if r else 1.0 for r in active], np.float32)}
        if any(r and (r.top_k or r.top_p < 1) for r in active):
            settings["top_k"] = np.array([r.top_k if r else 0 for r in active], np.int32)
            settings["top_p"] = np.array([r.top_p if r else 1.0 for r in active], np.float32)
        seeds = np.array([r.seed if r else 0 for r in active], np.int32)
        alternatives = self._alternatives if any(r and r.alternatives for r in active) else 0
        drawn, self._rows = self._step(self._rows, count, forced, seeds, settings, alternatives)
        for n, slot in enumerate(slots):
            if slot is None or slot.cancelled:
                continue
            slot.read += read[n]
            before = slot.written
            slot.take(Drawn(*(part[read[n] : count, n] for part in drawn)))
            self.symbols += slot.written - before
            if slot.stopped:
                self._slots[n] = None
        seconds = time.monotonic() - began
        self.rate = (self.symbols - written) / seconds if self.busy else 0.0
        each = seconds / count
        self._count = min(LONGEST_CHUNK, 2 * count, max(1, int(CHUNK_SECONDS / each)))


@tf.function(autograph=False)
def _arranged(rows: Rows, source: Any, position: Any) -> Rows:
    """Rows by their place before; zero state where it is -1."""
    fresh, at = source < 0, tf.maximum(source, 0)
    logits = tf.where(fresh[:, None], 0.0, tf.gather(rows.logits, at))
    recent = tf.where(fresh[:, None], -1, tf.gather(rows.recent, at))
    state = tf.nest.map_structure(lambda s: tf.where(fresh[None], 0.0, tf.gather(s, at, axis=1)), rows.state)
    return Rows(logits, state, recent, position)
