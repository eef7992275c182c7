"""What the addresses share: the rows of a request, and their text as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import HTTPException, Request
from pydantic import Field

from charlm.api import LanguageModel
from charlm.generation import prompt_ids
from charlm.serve.engine import Closed, Engine, Full, Piece
from charlm.serve.engine import Request as Row
from charlm.serve.limits import Limits
from charlm.serve.metrics import Metrics

LENGTH, TEMPERATURE = 200, 0.8  # where a request says nothing
GONE_SECONDS = 0.02  # between two looks whether a client is still there

Temperature = Annotated[float, Field(ge=0, le=1000)]
Probability = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=0)]


class Writing:
    """One row on its way: pieces come from the engine's thread into the event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._loop, self._metrics, self._asked = asyncio.get_running_loop(), metrics, time.monotonic()
        self._pieces: asyncio.Queue[Piece] = asyncio.Queue()

    def deliver(self, piece: Piece) -> None:
        """Called in the engine's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has gone
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    async def pieces(self) -> AsyncIterator[Piece]:
        """Every piece, the last included.

        Raises:
            HTTPException: the engine died.
        """
        stopped = None
        while stopped is None:
            piece = await self._pieces.get()
            if piece.stopped == "failed":
                raise HTTPException(500, "the engine has died")
            if piece.ids and self._asked:
                self._metrics.first_symbol(time.monotonic() - self._asked)
                self._asked = 0.0
            yield piece
            stopped = piece.stopped


class Service:
    """What the addresses share."""

    def __init__(self, language_model: LanguageModel, name: str, engine: Engine, limits: Limits) -> None:
        self.model, self.tokenizer = language_model.model, language_model.tokenizer
        self.name, self.engine, self.limits = name, engine, limits
        self.metrics = Metrics(engine)
        self.created = int(time.time())

    def known(self, name: str) -> None:
        """Raises 404 for another model."""
        if name != self.name:
            raise HTTPException(404, f"there is no model {name!r}, only {self.name!r}")

    def checked(self, what: str, value: int, most: int) -> None:
        """Raises 400 for more than may be."""
        if value > most:
            raise HTTPException(400, f"{what}: {value:,} is more than {most:,}")

    def row(self, prompt: str, length: int, seed: int, **settings: Any) -> tuple[Row, Writing]:
        """A row for the engine, and where its text will be."""
        self.checked("characters of a prompt", len(prompt), self.limits.prompt)
        self.checked("symbols to write", length, self.limits.length)
        writing = Writing(self.metrics)
        return Row(prompt_ids(self.tokenizer, prompt), writing.deliver, length, seed % 2**31, **settings), writing

    @contextlib.asynccontextmanager
    async def writing(self, rows: Sequence[tuple[Row, Writing]]) -> AsyncIterator[list[Writing]]:
        """Submits rows; cancels what is left of them at the end.

        Raises:
            HTTPException: 429 if too many wait, 503 if nothing is taken.
        """
        self.checked("texts", len(rows), self.limits.texts)
        try:
            cancel = self.engine.submit(*(row for row, _ in rows))
        except Full as error:
            raise HTTPException(429, f"{error}; try again", {"Retry-After": "1"}) from None
        except Closed as error:
            raise HTTPException(503, str(error)) from None
        try:
            yield [writing for _, writing in rows]
        finally:
            cancel()

    async def whole(self, request: Request, writings: Sequence[Writing]) -> list[list[Piece]]:
        """All pieces of all rows; stops when the client goes away."""

        async def gathered(writing: Writing) -> list[Piece]:
            return [piece async for piece in writing.pieces()]

        task = asyncio.ensure_future(asyncio.gather(*map(gathered, writings)))
        try:
            while not (await asyncio.wait([task], timeout=GONE_SECONDS))[0]:
                if await request.is_disconnected():
                    raise HTTPException(499, "the client went away")
            return list(task.result())
        finally:
            task.cancel()

    def symbol(self, i: int) -> str:
        """A symbol as text."""
        return self.tokenizer.decode_bytes([i]).decode("utf-8", "replace")
