"""A client's connection, which is given up where the client sends or reads nothing more."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from charlm.serve.access import Application
from charlm.serve.limits import Limits

SLOW_SECONDS = 60.0  # in which a client has to read something of what waits for it
WATCHED_EVERY = 1.0  # seconds


class Connection(H11Protocol):
    """HTTP/1.1 that waits for no one without end.

    Attributes:
        arrival: seconds that a request may take from its first byte, or a new connection, to its last byte. The guard
            refuses a late body in words; this ends what it does not see: half a head, and a body that was refused.
    """

    arrival = float(Limits.arrival)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begun: float | None = self.loop.time()
        self._unsent, self._read_at = 0, self._begun
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._begun = None  # it is whole
        elif self._begun is None:
            self._begun = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watching.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        if unsent != self._unsent or not unsent:
            self._unsent, self._read_at = unsent, now
        late = self._begun is not None and now - self._begun > self.arrival + WATCHED_EVERY
        if late or now - self._read_at > SLOW_SECONDS:
            self.transport.abort()
            return
        self._watching = self.loop.call_later(WATCHED_EVERY, self._watch)


def served(app: Application, limits: Limits, **more: Any) -> Config:
    """How an application is served: by connections that hold to its limits.

    Args:
        app: the application.
        limits: of a request.
        more: of uvicorn's configuration.
    """
    connection = type("Connection", (Connection,), {"arrival": float(limits.arrival)})
    return Config(app, http=connection, log_level="warning", access_log=False, **more)
