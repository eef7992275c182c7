"""The access log, a line of JSON for each request, and the metrics of requests."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from charlm.serve.metrics import Metrics

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

PROBES = ("/health", "/ready")  # not in the log: they come every few seconds

_log = logging.getLogger("charlm.access")


def note(scope: Message, **more: Any) -> None:
    """A line: when, who, what, and more; never a word of a text."""
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "client": (scope.get("client") or (None,))[0],
        "method": scope["method"],
        "path": scope["path"],
    }
    _log.info(json.dumps(line | more))


class AccessLog:
    """An ASGI application around another.

    What the other puts under "counted" into the state of a request stands in its line.
    """

    def __init__(self, app: Application, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, noted when it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500
        counted: dict[str, int] = {}
        scope.setdefault("state", {})["counted"] = counted

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            seconds = time.monotonic() - began
            self._metrics.answered(scope["method"], status, seconds)
            if not scope["path"].endswith(PROBES):
                note(scope, status=status, seconds=round(seconds, 4), **counted)
