"""What stands before the application: the path as it is meant, the API key, the page that asks, the size of a body."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable

from starlette.responses import RedirectResponse

from charlm.serve.access import PROBES, Application, Message, Receive, Send
from charlm.serve.limits import Limits
from charlm.serve.site import Site

FILES = "/docs-files"  # what /docs loads
OPEN = ("/", "/docs", "/openapi.json", *PROBES)  # to everybody, as FILES are


class Guard:
    """An ASGI application around another.

    Args:
        app: the other.
        limits: of a body.
        api_key: that a request must bear, if there is one.
        site: what is before the server, and who may ask.
        refusal: makes the answer to a refused request out of its path, a status and a message.
    """

    def __init__(
        self,
        app: Application,
        limits: Limits,
        api_key: str | None,
        site: Site,
        refusal: Callable[[str, int, str], Application],
    ) -> None:
        self._app, self._limits, self._api_key, self._site, self._refusal = app, limits, api_key, site, refusal

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request: refused, or given on with its whole body read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._site.prefix and scope["path"] == self._site.prefix:  # a page's own links want the last slash
            await RedirectResponse(self._site.prefix + "/")(scope, receive, send)
            return
        method = "GET" if scope["method"] == "HEAD" else scope["method"]  # the server leaves a HEAD's body out
        scope = _as_json({**scope, "method": method, "path": self._site.within(scope["path"])})
        body: list[Message] = []
        if refused := self._refused(scope) or await self._received(receive, body):
            await self._refusal(scope["path"], *refused)(scope, receive, send)
        else:
            await self._app(scope, _replayed(body, receive), send)

    def _refused(self, scope: Message) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
        if encoding != "identity":
            return 415, f"a body in {encoding}: send it as it is"
        if int(headers.get(b"content-length", b"0")) > self._limits.body:
            return self._too_large()
        if self._api_key is None:
            if astray := self._site.misses(headers):
                return 421, astray
            why = self._site.refuses(headers) if scope["method"] == "POST" else None
            return (403, why) if why else None
        if scope["path"] in OPEN or scope["path"].startswith(FILES + "/"):
            return None
        scheme, _, borne = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(borne.strip(), self._api_key.encode()):
            return None
        return 401, "a wrong API key, or none: send it as a header, Authorization: Bearer KEY"

    def _too_large(self) -> tuple[int, str]:
        return 413, f"a body of more than {self._limits.body:,} bytes"

    async def _received(self, receive: Receive, body: list[Message]) -> tuple[int, str] | None:
        """Appends the messages of a whole body, unless it is refused."""
        size, more = 0, True
        try:
            async with asyncio.timeout(self._limits.arrival):
                while more:
                    body.append(await receive())
                    size += len(body[-1].get("body", b""))
                    if size > self._limits.body:
                        return self._too_large()
                    more = body[-1].get("more_body", False)
        except TimeoutError:
            return 408, f"a body that has not arrived within {self._limits.arrival:,} seconds"
        return None


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
