"""What the addresses share: the rows of a request, and their text as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from fastapi import HTTPException, Request

from charlm.generation import never_seen, prompt_ids
from charlm.language_model import LanguageModel
from charlm.serve.access import note
from charlm.serve.engine import Closed, Engine, Full
from charlm.serve.limits import Limits
from charlm.serve.metrics import Metrics
from charlm.serve.refusals import Refused
from charlm.serve.slot import Piece
from charlm.serve.slot import Request as Row

Prompt: TypeAlias = str | list[int]
VERSION = "1"  # of the model, for TensorFlow Serving's clients


class Outbox:
    """Takes pieces from the engine's thread into the event loop, as many at a time as there are."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[tuple[asyncio.Queue[Any], Any]] = deque()
        self._called = False

    def put(self, queue: asyncio.Queue[Any], piece: Any) -> None:
        """Called in the engine's thread."""
        self._pieces.append((queue, piece))
        if not self._called:
            self._called = True
            with contextlib.suppress(RuntimeError):  # the loop has gone
                self._loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self._called = False
        while self._pieces:
            queue, piece = self._pieces.popleft()
            queue.put_nowait(piece)


class Writing:
    """The rows of one request on their way.

    Attributes:
        cancel: stops what is left of them.
    """

    def __init__(self, service: Service, rows: Sequence[Row], request: Request) -> None:
        """Raises HTTPException: 429 if too many wait, 503 if nothing is taken.

        How many symbols are read and written is counted for the request's line in the log. While the engine loads, a
        request waits, and a line says so.
        """
        self._metrics, self._asked, self._count = service.metrics, time.monotonic(), len(rows)
        self._counted = request.state.counted
        self._counted |= {"read": sum(len(row.prompt) for row in rows), "written": 0}
        self._arrived: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        outbox = service.outbox
        try:
            self.cancel = service.engine.submit(rows, lambda n, piece: outbox.put(self._arrived, (n, piece)))
        except Full as error:
            raise HTTPException(429, f"{error}; try again", {"Retry-After": "1"}) from None
        except Closed as error:
            raise HTTPException(503, str(error)) from None
        if service.loading:
            note(request.scope, waits="the model is loading")

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Every piece with its row's index, until all rows have ended.

        Raises:
            HTTPException: the engine died.
        """
        begun: set[int] = set()
        left = self._count
        while left:
            index, piece = await self._arrived.get()
            if piece.stopped == "failed":
                raise HTTPException(500, "the engine has died")
            if piece.ids and index not in begun:
                begun.add(index)
                self._metrics.first_symbol(time.monotonic() - self._asked)
            self._counted["written"] += len(piece.ids)
            left -= piece.stopped is not None
            yield index, piece

    async def whole(self, request: Request) -> list[list[Piece]]:
        """All pieces of every row; stops when the client goes away."""

        async def gathered() -> list[list[Piece]]:
            rows: list[list[Piece]] = [[] for _ in range(self._count)]
            async for index, piece in self.pieces():
                rows[index].append(piece)
            return rows

        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        written, left = asyncio.ensure_future(gathered()), asyncio.ensure_future(gone())
        try:
            await asyncio.wait([written, left], return_when=asyncio.FIRST_COMPLETED)
            if not written.done():
                raise HTTPException(499, "the client went away")
            return written.result()
        finally:
            written.cancel()
            left.cancel()
            self.cancel()


class Service:
    """What the addresses share.

    Attributes:
        sample: how a text is drawn where a request says nothing: as the run says, within the limits.
    """

    def __init__(self, language_model: LanguageModel, name: str, engine: Engine, limits: Limits) -> None:
        self.model, self.tokenizer = language_model.model, language_model.tokenizer
        self.name, self.engine, self.limits = name, engine, limits
        self.metrics = Metrics(engine)
        own = language_model.config.sample
        self.sample = replace(own, length=min(own.length, limits.length))
        self.created = int(time.time())

    @functools.cached_property
    def outbox(self) -> Outbox:
        """Of the event loop that first asks for it."""
        return Outbox()

    @property
    def loading(self) -> bool:
        """Whether requests wait until the engine is ready."""
        return not self.engine.ready.is_set() and self.engine.failure is None

    @property
    def status(self) -> str:
        """In words: loading, ready after so many seconds, or that the engine has died."""
        seconds = self.engine.seconds_to_ready
        return self.engine.failure or ("loading" if seconds is None else f"ready after {seconds:.0f} s")

    async def loaded(self) -> None:
        """Waits until the engine is ready, or dead."""
        while self.loading:
            await asyncio.sleep(0.05)

    def known(self, name: str, version: str = VERSION) -> None:
        """Raises 404 for another model, or another version of it."""
        if version != VERSION:
            raise Refused(404, f"there is no version {version!r} of {self.name!r}, only {VERSION}")
        if ":" in name:
            raise Refused(404, f"there is no {name!r} to get; predictions are POST /v1/models/{self.name}:predict")
        if name != self.name:
            raise Refused(404, f"there is no model {name!r}, only {self.name!r}", "model", "model_not_found")

    def checked(self, what: str, value: int, most: int, param: str | None = None) -> None:
        """Raises 400 for more than may be."""
        if value > most:
            raise Refused(400, f"{what}: {value:,} is more than {most:,}", param)

    def allowed(self, texts: int, longest: int, symbols: int, param: str | None = None) -> None:
        """Raises 400 for too many texts, or too many symbols in one or in all of them."""
        self.checked("texts", texts, self.limits.texts, "n")
        self.checked("symbols to write in all texts", symbols, self.limits.symbols, param)
        self.checked("symbols to write", longest, self.limits.length, param)

    async def read(self, prompts: Sequence[Prompt], param: str | None = None) -> list[list[int]]:
        """The ids of prompts.

        Raises:
            Refused: 400 for one that is too long, or has an id that the model does not have.
        """
        for n, prompt in enumerate(prompts):
            what = "characters" if isinstance(prompt, str) else "ids"
            self.checked(f"{what} of a prompt", len(prompt), self.limits.prompt, param)
            if not isinstance(prompt, str):
                self.checked_ids(prompt, f"prompt[{n}]" if len(prompts) > 1 else "prompt", param)

        def read() -> list[list[int]]:
            return [prompt_ids(self.tokenizer, p) if isinstance(p, str) else p for p in prompts]

        return await asyncio.to_thread(read)

    async def warnings(self, prompts: Sequence[Prompt]) -> dict[str, list[str]]:
        """A field of an answer: which characters of the prompts the model has never seen. None if it knows them all."""
        texts = "".join(dict.fromkeys(prompt for prompt in prompts if isinstance(prompt, str)))
        message = await asyncio.to_thread(never_seen, self.tokenizer, texts)
        return {"warnings": [f"{message}; it reads the unknown symbol there"]} if message else {}

    def checked_ids(self, ids: Sequence[int], name: str, param: str | None) -> None:
        """Raises 400 for an id that the model does not have."""
        most = self.tokenizer.vocabulary - 1
        for i in ids:
            if not 0 <= i <= most:
                raise Refused(400, f"{name}: {i} is no id of this model, whose ids are 0 to {most:,}", param)
