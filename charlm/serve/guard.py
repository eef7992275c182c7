"""What stands before the application: the API key, the size of a body, the access log, the metrics of requests."""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from charlm.serve.metrics import Metrics

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

PROBES = ("/health", "/ready")  # not in the access log: they come every few seconds
OPEN = ("/", "/docs", "/openapi.json", *PROBES)  # to everybody
FILES = "/docs-files"  # what /docs loads, open too

_log = logging.getLogger("charlm.access")


class Guard:
    """An ASGI application around another.

    Args:
        app: the other.
        largest: bytes of a body.
        api_key: that a request must bear, if there is one.
        metrics: what counts requests.
        refusal: makes the answer to a refused request out of its path, a status and a message.
    """

    def __init__(
        self,
        app: Application,
        largest: int,
        api_key: str | None,
        metrics: Metrics,
        refusal: Callable[[str, int, str], Application],
    ) -> None:
        self._app, self._largest, self._api_key = app, largest, api_key
        self._metrics, self._refusal = metrics, refusal

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request: refused, or given on with its whole body read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refused = self._refused(scope)
            body = [] if refused else await self._body(receive)
            if body is None:
                refused = 413, f"a body of more than {self._largest:,} bytes"
            if refused:
                await self._refusal(scope["path"], *refused)(scope, receive, noted)
            else:
                await self._app(_as_json(scope), _replayed(body or [], receive), noted)
        finally:
            seconds = time.monotonic() - began
            self._metrics.answered(scope["method"], status, seconds)
            if scope["path"] not in PROBES:
                line = {"method": scope["method"], "path": scope["path"], "status": status}
                _log.info(json.dumps({**line, "seconds": round(seconds, 4)}))

    def _refused(self, scope: Message) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        if self._api_key is None:
            if scope["method"] == "POST" and _from_elsewhere(headers):
                return 403, "asked by another site's page"
            return None
        if scope["path"] in OPEN or scope["path"].startswith(FILES + "/"):
            return None
        scheme, _, borne = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(borne.strip(), self._api_key.encode()):
            return None
        return 401, "a wrong API key, or none: send it as a header, Authorization: Bearer KEY"

    async def _body(self, receive: Receive) -> list[Message] | None:
        """The messages of a whole body; None if it is too large."""
        messages, size, more = [], 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._largest:
                return None
            messages.append(message)
            more = message.get("more_body", False)
        return messages


def _from_elsewhere(headers: dict[bytes, bytes]) -> bool:
    """Whether a browser sends this for a page of another site, which it does without asking.

    Over plain HTTP, but to this machine itself, a browser does not say so, and the page's origin has to be this host.
    """
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site == b"cross-site"
    return b"origin" in headers and headers[b"origin"].partition(b"://")[2] != headers.get(b"host")


def _as_json(scope: Message) -> Message:
    """Every body is JSON, whatever it is called: `curl -d` calls it a form, and TensorFlow Serving takes it so."""
    others = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*others, (b"content-type", b"application/json")]}


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    left = iter(messages)

    async def replayed() -> Message:
        message = next(left, None)
        return await receive() if message is None else message

    return replayed
