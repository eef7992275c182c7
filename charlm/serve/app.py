"""The HTTP application: OpenAI's completions and TensorFlow Serving's predictions over one engine."""

from __future__ import annotations

import asyncio
import contextlib
import html
import importlib.resources
import json
import secrets
import string
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as AnyHTTPException

from charlm import __version__
from charlm.api import LanguageModel
from charlm.generation import prompt_ids
from charlm.serve.engine import ALTERNATIVES, Closed, Engine, Full, Piece
from charlm.serve.engine import Request as Row
from charlm.serve.guard import Guard
from charlm.serve.limits import Limits
from charlm.serve.metrics import Metrics

LENGTH, TEMPERATURE = 200, 0.8  # where a request says nothing
GONE_SECONDS = 0.02  # between two looks whether a client is still there

Temperature = Annotated[float, Field(ge=0, le=1000)]
Probability = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=0)]


class StreamOptions(BaseModel):
    """OpenAI's options of a stream."""

    include_usage: bool = False


class Completion(BaseModel):
    """OpenAI's completion request. Tokens are the model's symbols."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "Once upon a time", "max_tokens": 100, "temperature": 0.7, "seed": 1}]
        }
    )
    prompt: str | list[str] = ""
    model: str | None = None
    max_tokens: Count = LENGTH
    temperature: Temperature = TEMPERATURE
    top_p: Probability = 1.0
    n: Annotated[int, Field(ge=1)] = 1
    seed: Seed | None = None
    stop: str | list[str] | None = None
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=ALTERNATIVES)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None


class Instance(BaseModel):
    """One row of a prediction: the inputs of the exported model's `generate`."""

    model_config = ConfigDict(extra="forbid")
    prompt: str
    length: Count = LENGTH
    temperature: Temperature = TEMPERATURE
    top_k: Count = 0
    top_p: Probability = 1.0
    seed: Seed | None = None


class Prediction(BaseModel):
    """TensorFlow Serving's request: rows (`instances`) or columns (`inputs`)."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"instances": [{"prompt": "Once upon a time", "length": 100}]}]}
    )
    signature_name: str = "serving_default"
    instances: list[str | Instance] | None = None
    inputs: dict[str, Any] | list[str] | None = None


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
        self.model, self.tokenizer, self.name = (
            language_model.model,
            language_model.tokenizer,
            name,
        )
        self.engine, self.limits = engine, limits
        self.metrics = Metrics(engine)
        self.created = int(time.time())

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


def build(language_model: LanguageModel, name: str, engine: Engine, limits: Limits, api_key: str | None) -> Guard:
    """The application.

    Args:
        language_model: what writes.
        name: of the model, in addresses and answers.
        engine: started and closed with the application.
        limits: of one request.
        api_key: that every request must bear but those for health, if there is one.
    """
    service = Service(language_model, name, engine, limits)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await asyncio.to_thread(engine.close)

    app = FastAPI(title=f"charlm: {name}", version=__version__, lifespan=lifespan)
    for routes in (_page, _health, _completions, _models, _predictions):
        routes(app, service)

    @app.exception_handler(AnyHTTPException)
    async def failed(request: Request, error: AnyHTTPException) -> Response:
        return _error(request.url.path, error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return _error(request.url.path, 400, f"{where or 'body'}: {first['msg']}")

    return Guard(app, limits.body, api_key, service.metrics, _error)


def _error(path: str, status: int, message: str, headers: Any = None) -> JSONResponse:
    """An error, in TensorFlow Serving's shape at its addresses and OpenAI's at the others."""
    if ":predict" in path:
        return JSONResponse({"error": message}, status, headers)
    kind = "invalid_request_error" if status < 500 else "server_error"
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

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return HTMLResponse(page)


def _health(app: FastAPI, service: Service) -> None:
    engine = service.engine

    @app.get("/health", summary="Whether the engine lives")
    async def health() -> Response:
        alive = engine.failure is None
        return JSONResponse({"status": "ok" if alive else engine.failure}, 200 if alive else 503)

    @app.get("/ready", summary="Whether requests are taken")
    async def ready() -> Response:
        taken = engine.ready.is_set() and engine.failure is None and not engine.closing
        return JSONResponse({"ready": taken}, 200 if taken else 503)

    @app.get("/metrics", summary="Prometheus' metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _completions(app: FastAPI, service: Service) -> None:
    @app.post("/v1/completions", summary="Text that goes on from a prompt (OpenAI)")
    async def completions(body: Completion, request: Request) -> Response:
        if body.model not in (None, service.name):
            raise HTTPException(404, f"there is no model {body.model!r}, only {service.name!r}")
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        service.checked("texts", len(prompts) * body.n, service.limits.texts)
        seed = secrets.randbelow(2**31) if body.seed is None else body.seed
        stop = tuple(s for s in ([body.stop] if isinstance(body.stop, str) else body.stop or ()) if s)
        settings = {"temperature": body.temperature, "top_p": body.top_p, "stop": stop}
        settings["alternatives"] = body.logprobs or 0
        rows = [service.row(prompt, body.max_tokens, seed + k, **settings) for prompt in prompts for k in range(body.n)]
        echoes = [prompt if body.echo else "" for prompt in prompts for _ in range(body.n)]
        read = sum(len(row.prompt) for row, _ in rows[:: body.n])
        head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": service.name,
        }
        if body.stream:
            return await _streamed(service, body, head, rows, echoes, read)
        async with service.writing(rows) as writings:
            pieces = await service.whole(request, writings)
        choices = []
        for index, (echo, parts) in enumerate(zip(echoes, pieces, strict=True)):
            text = echo + "".join(part.text for part in parts)
            choices.append(_choice(service, body, index, text, parts, len(echo)))
        written = sum(len(part.ids) for parts in pieces for part in parts)
        return JSONResponse({**head, "choices": choices, "usage": _usage(read, written)})


def _usage(read: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _choice(
    service: Service, body: Completion, index: int, text: str, pieces: Sequence[Piece], offset: int
) -> dict[str, Any]:
    stopped = pieces[-1].stopped if pieces else None
    told = None if body.logprobs is None else _logprobs(service, pieces, offset)
    return {"text": text, "index": index, "logprobs": told, "finish_reason": stopped}


def _logprobs(service: Service, pieces: Sequence[Piece], offset: int) -> dict[str, Any]:
    symbols = [service.symbol(i) for piece in pieces for i in piece.ids]
    offsets = [offset + n for n in _sums(map(len, symbols))]
    best = [{service.symbol(i): p for i, p in told.items()} for piece in pieces for told in piece.likeliest]
    return {
        "tokens": symbols,
        "token_logprobs": [-nats for piece in pieces for nats in piece.nats],
        "top_logprobs": best or None,
        "text_offset": offsets,
    }


def _sums(lengths: Any) -> list[int]:
    sums = [0]
    for length in lengths:
        sums.append(sums[-1] + length)
    return sums[:-1]


async def _streamed(
    service: Service,
    body: Completion,
    head: dict[str, Any],
    rows: list[tuple[Row, Writing]],
    echoes: list[str],
    read: int,
) -> Response:
    """Server-sent events, one for each piece; errors before the first are answers of their own."""
    context = service.writing(rows)
    writings = await context.__aenter__()
    arrived: asyncio.Queue[tuple[int, Piece | None]] = asyncio.Queue()

    async def forwarded(index: int, writing: Writing) -> None:
        try:
            async for piece in writing.pieces():
                await arrived.put((index, piece))
        except HTTPException:
            await arrived.put((index, None))

    async def events() -> AsyncIterator[str]:
        tasks = [asyncio.ensure_future(forwarded(n, writing)) for n, writing in enumerate(writings)]
        left, written, offsets = len(rows), 0, list(map(len, echoes))
        try:
            for index, echo in enumerate(echoes):
                if echo:
                    yield _event({**head, "choices": [_choice(service, body, index, echo, (), 0)]})
            while left:
                index, piece = await arrived.get()
                if piece is None:
                    yield _event({"error": {"message": "the engine has died", "type": "server_error"}})
                    return
                left -= piece.stopped is not None
                written += len(piece.ids)
                if piece.text or piece.stopped or body.logprobs is not None:
                    choice = _choice(service, body, index, piece.text, (piece,), offsets[index])
                    yield _event({**head, "choices": [choice]})
                offsets[index] += sum(len(service.symbol(i)) for i in piece.ids) if body.logprobs is not None else 0
            if body.stream_options and body.stream_options.include_usage:
                yield _event({**head, "choices": [], "usage": _usage(read, written)})
            yield "data: [DONE]\n\n"
        finally:
            for task in tasks:
                task.cancel()
            await context.__aexit__(None, None, None)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _models(app: FastAPI, service: Service) -> None:
    def described() -> dict[str, Any]:
        state = "AVAILABLE" if service.engine.ready.is_set() else "LOADING"
        status = {"version": "1", "state": state, "status": {"error_code": "OK", "error_message": ""}}
        about = {"id": service.name, "object": "model", "created": service.created, "owned_by": "charlm"}
        return about | {"model_version_status": [status]}

    def known(name: str) -> None:
        if name != service.name:
            raise HTTPException(404, f"there is no model {name!r}, only {service.name!r}")

    @app.get("/v1/models", summary="The models there are (OpenAI)")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [described()]}

    @app.get("/v1/models/{name}", summary="A model (OpenAI) and its state (TensorFlow Serving)")
    async def model(name: str) -> dict[str, Any]:
        known(name)
        return described()

    @app.get("/v1/models/{name}/metadata", summary="What goes into a prediction and comes out (TensorFlow Serving)")
    async def metadata(name: str) -> dict[str, Any]:
        known(name)
        kinds = {"prompt": "DT_STRING", "length": "DT_INT32", "temperature": "DT_FLOAT", "top_k": "DT_INT32"}
        kinds |= {"top_p": "DT_FLOAT", "seed": "DT_INT32"}
        out = {"text": "DT_STRING", "symbols": "DT_INT32"}
        wide = {"ids": "DT_INT32", "log_probabilities": "DT_FLOAT"}
        signature = {
            "inputs": {key: _tensor(key, kind, ["-1"]) for key, kind in kinds.items()},
            "outputs": {key: _tensor(key, kind, ["-1"]) for key, kind in out.items()}
            | {key: _tensor(key, kind, ["-1", "-1"]) for key, kind in wide.items()},
            "method_name": "tensorflow/serving/predict",
        }
        return {
            "model_spec": {"name": name, "signature_name": "", "version": "1"},
            "metadata": {"signature_def": {"signature_def": {"serving_default": signature, "generate": signature}}},
        }


def _tensor(name: str, kind: str, shape: list[str]) -> dict[str, Any]:
    dimensions = [{"size": size, "name": ""} for size in shape]
    return {"dtype": kind, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": name}


def _predictions(app: FastAPI, service: Service) -> None:
    @app.post("/v1/models/{name}:predict", summary="Text for rows or columns of inputs (TensorFlow Serving)")
    async def predict(name: str, body: Prediction, request: Request) -> dict[str, Any]:
        if name != service.name:
            raise HTTPException(404, f"there is no model {name!r}, only {service.name!r}")
        if body.signature_name not in ("serving_default", "generate"):
            raise HTTPException(
                404, f"there is no signature {body.signature_name!r}, only serving_default and generate"
            )
        if (body.instances is None) == (body.inputs is None):
            raise HTTPException(400, "either instances or inputs must be there")
        instances = body.instances if body.instances is not None else _rows_of(body.inputs)
        asked = [Instance(prompt=i) if isinstance(i, str) else i for i in instances]
        rows = []
        for instance in asked:
            seed = secrets.randbelow(2**31) if instance.seed is None else instance.seed
            settings = {"temperature": instance.temperature, "top_k": instance.top_k, "top_p": instance.top_p}
            rows.append(service.row(instance.prompt, instance.length, seed, **settings))
        async with service.writing(rows) as writings:
            pieces = await service.whole(request, writings)
        found: list[dict[str, Any]] = [
            {
                "text": "".join(part.text for part in parts),
                "ids": [i for part in parts for i in part.ids],
                "log_probabilities": [-nats for part in parts for nats in part.nats],
                "symbols": sum(len(part.ids) for part in parts),
            }
            for parts in pieces
        ]
        if body.instances is not None:
            return {"predictions": found}
        longest = max((row["symbols"] for row in found), default=0)
        for row in found:
            for key in ("ids", "log_probabilities"):
                row[key] += [0] * (longest - row["symbols"])
        return {"outputs": {key: [row[key] for row in found] for key in found[0]} if found else {}}


def _rows_of(inputs: Any) -> list[Instance]:
    """The rows of columns; a column of one value, or a single value, is every row's."""
    columns = inputs if isinstance(inputs, dict) else {"prompt": inputs}
    prompts = columns.get("prompt")
    if not isinstance(prompts, list):
        prompts = [prompts]
    rows = []
    for n in range(len(prompts)):
        row = {}
        for key, column in columns.items():
            values = column if isinstance(column, list) else [column]
            if len(values) not in (1, len(prompts)):
                raise HTTPException(400, f"inputs.{key}: {len(values)} values for {len(prompts)} prompts")
            row[key] = values[n if len(values) > 1 else 0]
        try:
            rows.append(Instance.model_validate(row))
        except ValueError as error:
            raise HTTPException(400, f"inputs: {error.errors()[0]['msg']}") from None  # type: ignore[attr-defined]
    return rows
