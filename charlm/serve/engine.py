"""Continuous batching: a request is a row of one batch, and rows come and go between two chunks of symbols.

Recurrent state has a fixed size, so a row's whole past is its row of `[rows, units]`. Prompts are read a piece at a
time, together, beside the batch; a row that has read all but the last symbol joins it. A chunk is a few steps of all
rows in one compiled loop. The engine is a thread of its own: requests are handed to it, and what it writes is handed to
a function that each request brings.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from charlm.decoding import Decoded
from charlm.errors import CharlmError
from charlm.generation import LONGEST_CHUNK
from charlm.language_model import LanguageModel
from charlm.sampling import settings_of_rows
from charlm.serve.batch import SCORERS, Batch
from charlm.serve.slot import Piece, Request, Slot

CHUNK_SECONDS = 0.03  # that a chunk of a few rows should take at most, and the prompts that are read between two
ROW_SECONDS = 0.0004  # more for each: what a chunk writes has to find its way to every client
_log = logging.getLogger("charlm")


class Full(CharlmError):
    """As many requests wait as may."""


class Closed(CharlmError):
    """The engine takes no more requests."""


class Engine:
    """Writes many texts at once.

    Attributes:
        ready: set when it writes, which one size of batch is enough for.
        seconds_to_ready: from the start; None before.
        complete: set when all sizes are compiled.

    Args:
        language_model: the model; float32 products, so that a seeded text is the same alone or among others.
        waiting: requests that may wait for a row.
    """

    def __init__(self, language_model: LanguageModel, waiting: int = 256) -> None:
        self.tokenizer, self._batch = language_model.tokenizer, Batch(language_model)
        self.waiting = waiting
        self._waiting: deque[Slot] = deque()
        self._reading: list[Slot] = []
        self._slots: list[Slot | None] = [None] * self._batch.size
        self._condition = threading.Condition()
        self._closing = False
        self.ready, self.complete = threading.Event(), threading.Event()
        self.seconds_to_ready: float | None = None
        self.failure: str | None = None
        self.symbols, self.rate = 0, 0.0  # written so far, and a second in the latest chunk
        self._thread = threading.Thread(target=self._run, name="charlm-engine", daemon=True)

    def start(self) -> None:
        """Starts the thread, which prepares one size of batch and is then `ready`; the others follow beside it."""
        self._thread.start()

    @property
    def busy(self) -> int:
        """Requests that read or write."""
        return len(self._reading) + sum(slot is not None for slot in self._slots)

    @property
    def rows(self) -> int:
        """Requests that can be read or written at once."""
        return self._batch.sizes[-1]

    @property
    def _seconds(self) -> float:
        """For a chunk, and for prompts between two."""
        return CHUNK_SECONDS + ROW_SECONDS * self.busy

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    def submit(self, requests: Sequence[Request], deliver: Callable[[int, Piece], object]) -> Callable[[], None]:
        """Takes all of some requests or none, and returns what cancels them.

        Args:
            requests: the texts to write.
            deliver: takes a request's index and a piece of it, in the engine's thread; a text's last piece says why it
                is the last.

        Raises:
            Full: they would wait behind too many.
            Closed: the engine is closing, or has died.
        """
        slots = [Slot(r, self.tokenizer, functools.partial(deliver, n)) for n, r in enumerate(requests)]
        with self._condition:
            if self._closing or self.failure:
                raise Closed(self.failure or "the server is shutting down")
            free = self.rows - self.busy
            if len(self._waiting) + len(slots) > self.waiting + free:
                raise Full(f"{self.busy} texts are being written, and {len(self._waiting)} wait")
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
        began = time.monotonic()
        others = threading.Thread(target=self._extend, name="charlm-sizes", daemon=True)
        try:
            self._batch.prepare()
            self.seconds_to_ready = time.monotonic() - began
            self.ready.set()
            others.start()
            while self._next():
                self._read()
                self._arrange()
                self._advance()
        except BaseException:  # whatever ends the thread
            _log.exception("the engine died")
            self.failure = "the engine has died, of what the server's log says; it has to be started anew"
        with self._condition:
            self._closing = True
            left = [slot for slot in (*self._slots, *self._reading, *self._waiting) if slot is not None]
            self._slots, self._reading, self.rate = [None] * len(self._slots), [], 0.0
            self._waiting.clear()
        for slot in left:
            slot.deliver(Piece("", (), (), "failed"))
        if others.ident is not None:
            others.join()

    def _extend(self) -> None:
        """Compiles the other sizes, one after another, until all are there or the engine closes."""
        try:
            for _ in self._batch.extend():
                if self._closing:
                    return
            self.complete.set()
        except Exception:  # the sizes that are there go on: without these it is slower, not wrong
            _log.exception("some sizes of batches are left out")

    def _next(self) -> bool:
        """Waits for work, and takes what there is room for; false when there is none left and none to come."""
        with self._condition:
            self._drop_cancelled()
            while not self._waiting and not self.busy:
                if self._closing:
                    return False
                self.rate = 0.0
                self._condition.wait()
                self._drop_cancelled()
            for _ in range(min(len(self._waiting), self.rows - self.busy)):
                slot = self._waiting.popleft()
                slot.state = self._batch.fresh
                self._reading.append(slot)
        return True

    def _drop_cancelled(self) -> None:
        self._slots = [None if slot is None or slot.cancelled else slot for slot in self._slots]
        self._reading = [slot for slot in self._reading if not slot.cancelled]
        self._waiting = deque(slot for slot in self._waiting if not slot.cancelled)

    def _read(self) -> None:
        """Reads prompts while there is time: half of them the oldest, half those that have the least left.

        So no prompt waits for as many long ones as there are, or for short ones that come without end.
        """
        until, half = time.monotonic() + self._seconds, (self._batch.readers + 1) // 2
        while time.monotonic() < until:
            unread = [slot for slot in self._reading if slot.unread]
            if not unread:
                return
            shortest = sorted(unread[half:], key=lambda slot: slot.unread)
            slots = unread[:half] + shortest[: self._batch.readers - half]
            plain = [slot for slot in slots if slot.told is None]
            if plain:
                states = self._batch.read([slot.piece for slot in plain], [slot.state for slot in plain])
                for slot, state in zip(plain, states, strict=True):
                    slot.reads(state)
            scored = [slot for slot in slots if slot.told is not None][:SCORERS]
            if scored:
                pieces, following = [slot.piece for slot in scored], [slot.following for slot in scored]
                found = self._batch.score(pieces, following, [slot.state for slot in scored])
                for slot, state, told in zip(scored, *found, strict=True):
                    slot.reads(state, told)

    def _arrange(self) -> None:
        """Lets those who have read their prompt join the batch, in the smallest size that there is.

        `source` has, for every row, the one that it was. When B joins A and C:

            slots  A . C .      same size:  source  0 -1  2  3      another:  source  0  2 -1 -1 ...
                                            slots   A  B  C  .                slots   A  C  B  . ...
        """
        new = [slot for slot in self._reading if not slot.unread]
        kept = [n for n, slot in enumerate(self._slots) if slot is not None]
        size = next(s for s in self._batch.sizes if s >= len(kept) + len(new))
        if not new and size == len(self._slots):
            return
        source = list(range(size)) if size == len(self._slots) else kept + [-1] * (size - len(kept))
        slots = [None if n < 0 else self._slots[n] for n in source]
        free = [n for n, slot in enumerate(slots) if slot is None]
        states = {}
        for n, slot in zip(free, new, strict=False):
            slots[n], source[n], states[n] = slot, -1, slot.state
            slot.state = []
        positions = [slot.written - slot.begins if slot else 0 for slot in slots]
        read = {n: slot.request.prompt[:-1] for n, slot in zip(free, new, strict=False)}
        self._batch.arrange(source, states, positions, read)
        self._reading = [slot for slot in self._reading if slot.unread]
        self._slots = slots

    def _advance(self) -> None:
        """A chunk of every row."""
        slots, written, began = self._slots, self.symbols, time.monotonic()
        there = [(n, slot) for n, slot in enumerate(slots) if slot is not None]
        if not there:
            return
        steps = int(self._seconds / self._batch.seconds[len(slots)])
        count = max(1, min(LONGEST_CHUNK, steps, max(slot.left for _, slot in there)))
        forced = np.full((LONGEST_CHUNK, len(slots)), -1, np.int32)
        active = [slot.request if slot else None for slot in slots]
        settings = settings_of_rows([r.settings if r else {} for r in active])
        told = np.array([bool(r and r.alternatives) for r in active])
        seeds = np.array([r.seed if r else 0 for r in active], np.int32)
        for n, slot in there:
            if slot.begins:
                forced[0, n] = slot.request.prompt[-1]
        drawn = self._batch.advance(count, forced, seeds, settings, told)
        for n, slot in there:
            if not slot.cancelled:
                before = slot.written
                slot.take(Decoded(*(part[slot.begins : count, n] for part in drawn)))
                slot.begins = False
                self.symbols += slot.written - before
                if slot.stopped:
                    self._slots[n] = None
        self.rate = (self.symbols - written) / (time.monotonic() - began)
