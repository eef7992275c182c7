"""The HTTP application: OpenAI's completions and TensorFlow Serving's predictions over one engine."""

from __future__ import annotations

import asyncio
import contextlib
import html
import importlib.resources
import string
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from charlm import __version__
from charlm.api import LanguageModel
from charlm.serve.completions import add_completions
from charlm.serve.engine import Engine
from charlm.serve.guard import FILES, Guard
from charlm.serve.limits import Limits
from charlm.serve.predictions import add_models, add_predictions
from charlm.serve.service import Service


def build(language_model: LanguageModel, name: str, engine: Engine, limits: Limits, api_key: str | None) -> Guard:
    """The application.

    Args:
        language_model: what writes.
        name: of the model, in addresses and answers.
        engine: started and closed with the application.
        limits: of one request.
        api_key: that every request must bear but those for health, the page and the documentation, if there is one.
    """
    service = Service(language_model, name, engine, limits)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await asyncio.to_thread(engine.close)

    bearer = [Depends(HTTPBearer(auto_error=False))] if api_key else []  # a field for the key in /docs
    app = FastAPIOffline(
        title=f"charlm: {name}",
        version=__version__,
        lifespan=lifespan,
        dependencies=bearer,
        redoc_url=None,
        static_url=FILES,
    )
    for routes in (_page, _health, add_completions, add_models, add_predictions):
        routes(app, service)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        return _error(request.url.path, error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = "" if first["type"] == "json_invalid" else ".".join(str(part) for part in first["loc"][1:])
        return _error(request.url.path, 400, f"{where or 'body'}: {first['msg']}")

    return Guard(app, limits.body, api_key, service.metrics, _error)


def _error(path: str, status: int, message: str, headers: Any = None) -> JSONResponse:
    """An error, in TensorFlow Serving's shape at its addresses and OpenAI's at the others."""
    message = message.encode(errors="replace").decode()
    if ":predict" in path:
        return JSONResponse({"error": message}, status, headers)
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status, headers)


def _page(app: FastAPI, service: Service) -> None:
    files, model = importlib.resources.files("charlm"), service.model
    page = string.Template(files.joinpath("serve/page.html").read_text("utf-8")).substitute(
        style=files.joinpath("page.css").read_text("utf-8"),
        title=html.escape(service.name),
        about=f"A recurrent language model: {model.config.cell.upper()}, {model.config.layers} x {model.config.units} "
        f"units, {model.count_params():,} parameters, {model.config.vocabulary} symbols.",
        longest=service.limits.length,
    )

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return HTMLResponse(page)


def _health(app: FastAPI, service: Service) -> None:
    engine = service.engine

    @app.head("/health", include_in_schema=False)
    @app.get("/health", summary="Whether the engine lives")
    async def health() -> Response:
        alive = engine.failure is None
        return JSONResponse({"status": "ok" if alive else engine.failure}, 200 if alive else 503)

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", summary="Whether requests are taken")
    async def ready() -> Response:
        taken = engine.ready.is_set() and engine.failure is None
        return JSONResponse({"ready": taken}, 200 if taken else 503)

    @app.get("/metrics", summary="Prometheus' metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")
