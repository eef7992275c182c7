"""The HTTP application: OpenAI's completions and TensorFlow Serving's predictions over one engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from charlm import __version__
from charlm.config import KNOBS
from charlm.language_model import LanguageModel
from charlm.page import element, page, source
from charlm.serve import answers
from charlm.serve.access import AccessLog, Application
from charlm.serve.completions import add_completions
from charlm.serve.document import describe
from charlm.serve.engine import Engine
from charlm.serve.guard import FILES, Guard
from charlm.serve.limits import Limits
from charlm.serve.predictions import add_models, add_predictions
from charlm.serve.refusals import answer, nowhere, sentence
from charlm.serve.service import Service
from charlm.serve.site import Site
from charlm.serve.tokens import add_tokens

INTRODUCTION = """
A recurrent language model: it goes on with a text. It does not chat and follows no instructions.

A [page to write in](.) stands beside this one. A request is a row of one batch; the same seed gives the same text,
alone or among others. Where it says nothing, a text is written by the model's own settings: {}.

Fields of other servers are taken where they ask for nothing, and refused by their names where they do.

| a request may have at most | | option of `charlm serve` |
|---|---|---|
"""
ONE_SERVER = (  # a choice among servers, of which there is one, and its frame where no key is asked for
    ".swagger-ui .schemes-server-container, .swagger-ui .scheme-container:not(:has(.auth-wrapper)) { display: none }"
)
TAGS = {
    "OpenAI": "Completions, whole or streamed, for OpenAI's clients: their base URL ends in `/v1`. Tokens are symbols.",
    "TensorFlow Serving": "Predictions in rows or columns, and the state of the model.",
    "The tokenizer": "Symbols and their ids, as vLLM has them.",
    "The server": "Whether it lives and takes requests, and its metrics.",
}


def build(
    language_model: LanguageModel,
    name: str,
    engine: Engine,
    limits: Limits,
    api_key: str | None,
    site: Site | None = None,
    announce: Callable[[str], object] = str,
) -> Application:
    """The application.

    Args:
        language_model: what writes.
        name: of the model, in addresses and answers.
        engine: started and closed with the application.
        limits: of one request.
        api_key: that every request must bear but those for health, the page and the documentation, if there is one.
        site: what is before the server, and whose pages may ask.
        announce: told when the engine is ready.
    """
    service, site = Service(language_model, name, engine, limits), site or Site()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        """Starts the engine with the application and closes it in the end."""

        async def announced() -> None:
            await service.loaded()
            announce(service.status)

        engine.start()
        loading = asyncio.ensure_future(announced())
        yield
        loading.cancel()
        await asyncio.to_thread(engine.close)

    app = FastAPIOffline(
        docs_url=None,
        title=f"charlm: {name}",
        description=_introduction(service),
        openapi_tags=[{"name": tag, "description": about} for tag, about in TAGS.items()],
        version=__version__,
        lifespan=lifespan,
        dependencies=[Depends(HTTPBearer(auto_error=False))] if api_key else [],  # a field for the key in /docs
        servers=[{"url": "."}],
        redirect_slashes=False,
        redoc_url=None,
        static_url=FILES,
    )
    note = 'The addresses are described in <a href="docs">docs</a>.'
    _page(app, page(language_model, name, element(source("serve/engine.js"), "engine"), note, limits.length))
    for routes in (_docs, _health, add_completions, add_predictions, add_models, add_tokens):
        routes(app, service)
    _errors(app, site.prefix, name)
    describe(app, service)
    guarded: Application = Guard(app, limits, api_key, site, answer)
    if site.origins:
        guarded = CORSMiddleware(
            guarded, site.origins, allow_methods=("GET", "POST"), allow_headers=("*",), allow_private_network=True
        )
    return AccessLog(guarded, service.metrics)


def _introduction(service: Service) -> str:
    """What stands above the addresses in /docs."""
    rows = {f"max-{name}": (getattr(service.limits, name), about) for name, (_, about) in Limits.about().items()}
    rows["queue"] = service.engine.waiting, "Texts that may wait when all rows are taken."
    own = service.sample
    said = ", ".join([f"{own.length:,} symbols", *(f"{name} {getattr(own, name):g}" for name in KNOBS)])
    limited = (f"| {about} | {value:,} | `--{name}` |\n" for name, (value, about) in rows.items())
    return INTRODUCTION.format(said) + "".join(limited)


def _errors(app: FastAPI, prefix: str, name: str) -> None:
    known = {route.path for route in app.routes if isinstance(route, APIRoute)}

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        """Answers a refused request with a sentence that says what to do."""
        path, message, code = request.url.path, str(error.detail), getattr(error, "code", None)
        if error.status_code == 404 and message == "Not Found":
            message, code = nowhere(path, prefix, name, known), "unknown_url"
        elif error.status_code == 405 and error.headers:
            message = f"{prefix}{path} takes {error.headers['Allow']}, not {request.method}"
            if ":" in path:
                message = (
                    f"there is no {path.rpartition('/')[2]}; predictions are POST {prefix}/v1/models/{name}:predict"
                )
        elif error.status_code == 400 and isinstance(error.__cause__, ValueError | RecursionError):
            message = "the request cannot be read as JSON in UTF-8"
        return answer(path, error.status_code, message, error.headers, getattr(error, "param", None), code)

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> Response:
        first = dict(error.errors()[0])
        first["loc"] = () if first["type"] == "json_invalid" else first["loc"][1:]
        message, param = sentence(first)
        return answer(request.url.path, 400, message, param=param)


def _docs(app: FastAPI, service: Service) -> None:
    """By relative addresses, which hold below any prefix that a proxy puts before them."""
    files = FILES.removeprefix("/")
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=app.title,
        swagger_js_url=f"{files}/swagger-ui-bundle.js",
        swagger_css_url=f"{files}/swagger-ui.css",
        swagger_favicon_url=f"{files}/favicon.png",
    )
    shown = HTMLResponse(bytes(page.body).decode().replace("</head>", f"<style>{ONE_SERVER}</style></head>"))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return shown


def _page(app: FastAPI, content: str) -> None:
    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return HTMLResponse(content)


def _health(app: FastAPI, service: Service) -> None:
    engine = service.engine

    @app.get(
        "/health",
        summary="Whether the engine lives",
        tags=["The server"],
        responses={status: {"model": answers.Health} for status in (200, 503)},
    )
    async def health() -> Response:
        status = service.status if service.loading or engine.failure else "ok"
        return JSONResponse({"status": status}, 503 if engine.failure else 200)

    @app.get(
        "/ready",
        summary="Whether requests are answered at once, or wait for the model to load",
        tags=["The server"],
        responses={status: {"model": answers.Ready} for status in (200, 503)},
    )
    async def ready() -> Response:
        taken = engine.ready.is_set() and engine.failure is None
        return JSONResponse({"ready": taken, "status": service.status}, 200 if taken else 503)

    @app.get("/metrics", summary="Prometheus' metrics", tags=["The server"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")
