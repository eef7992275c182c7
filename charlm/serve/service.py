"""What the addresses share: the rows of a request, and their text as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import HTTPException, Request

from charlm.api import LanguageModel
from charlm.generation import prompt_ids
from charlm.serve.engine import Closed, Engine, Full
from charlm.serve.limits import Limits
from charlm.serve.metrics import Metrics
from charlm.serve.slot import Piece
from charlm.serve.slot import Request as Row


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

    def __init__(self, service: Service, rows: Sequence[Row]) -> None:
        """Raises HTTPException: 429 if too many wait, 503 if nothing is taken."""
        self._metrics, self._asked, self._count = service.metrics, time.monotonic(), len(rows)
        self._arrived: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        outbox = service.outbox
        try:
            self.cancel = service.engine.submit(rows, lambda n, piece: outbox.put(self._arrived, (n, piece)))
        except Full as error:
            raise HTTPException(429, f"{error}; try again", {"Retry-After": "1"}) from None
        except Closed as error:
            raise HTTPException(503, str(error)) from None

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
    """What the addresses share."""

    def __init__(self, language_model: LanguageModel, name: str, engine: Engine, limits: Limits) -> None:
        self.model, self.tokenizer = language_model.model, language_model.tokenizer
        self.name, self.engine, self.limits = name, engine, limits
        self.metrics = Metrics(engine)
        self.created = int(time.time())

    @functools.cached_property
    def outbox(self) -> Outbox:
        """Of the event loop that first asks for it."""
        return Outbox()

    def known(self, name: str) -> None:
        """Raises 404 for another model."""
        if name != self.name:
            raise HTTPException(404, f"there is no model {name!r}, only {self.name!r}")

    def checked(self, what: str, value: int, most: int) -> None:
        """Raises 400 for more than may be."""
        if value > most:
            raise HTTPException(400, f"{what}: {value:,} is more than {most:,}")

    def allowed(self, texts: int, longest: int, symbols: int) -> None:
        """Raises 400 for too many texts, or too many symbols in one or in all of them."""
        self.checked("texts", texts, self.limits.texts)
        self.checked("symbols to write in all texts", symbols, self.limits.symbols)
        self.checked("symbols to write", longest, self.limits.length)

    async def read(self, prompts: Sequence[str]) -> list[list[int]]:
        """The ids of prompts. Raises 400 for one that is too long."""
        for prompt in prompts:
            self.checked("characters of a prompt", len(prompt), self.limits.prompt)
        return await asyncio.to_thread(lambda: [prompt_ids(self.tokenizer, prompt) for prompt in prompts])
