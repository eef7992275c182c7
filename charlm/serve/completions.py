"""OpenAI's completions."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from charlm.serve.batch import ALTERNATIVES
from charlm.serve.engine import Piece
from charlm.serve.service import (
    LENGTH,
    MOST,
    TEMPERATURE,
    Count,
    Probability,
    Seed,
    Service,
    Temperature,
    Text,
    Writing,
)

NOT_OFFERED = {  # of OpenAI's, each with what says nothing
    "best_of": 1,
    "frequency_penalty": 0,
    "logit_bias": {},
    "presence_penalty": 0,
    "suffix": "",
}

_ONE_OR_MORE = (
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
)
Prompts = Annotated[list[Text], Field(max_length=MOST), *_ONE_OR_MORE]
Stops = Annotated[list[Annotated[Text, Field(max_length=200)]], Field(max_length=16), *_ONE_OR_MORE]
Logprobs = Annotated[
    int,
    Field(
        ge=0,
        le=ALTERNATIVES,
        description="How many of the likeliest symbols to tell in each place that is written, also of a stop text; "
        "a prompt's symbols are not told.",
    ),
]


class StreamOptions(BaseModel):
    """OpenAI's options of a stream."""

    include_usage: bool = False


class Completion(BaseModel):
    """OpenAI's completion request; top_k besides. Tokens are the model's symbols."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "Once upon a time", "max_tokens": 100, "temperature": 0.7, "seed": 1}]
        }
    )
    prompt: Prompts = [""]
    model: str | None = None
    max_tokens: Count = LENGTH
    temperature: Temperature = TEMPERATURE
    top_p: Probability = 1.0
    top_k: Count = 0
    n: Annotated[int, Field(ge=1, lt=2**31)] = 1
    seed: Seed | None = None
    stop: Stops = []
    echo: bool = False
    logprobs: Logprobs | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _given(cls, body: Any) -> Any:
        """What is null is not given."""
        if not isinstance(body, dict):
            return body
        for name, nothing in NOT_OFFERED.items():
            if body.get(name) not in (None, nothing):
                raise PydanticCustomError("not_offered", "{name} is not offered here", {"name": name})
        return {name: value for name, value in body.items() if value is not None}


def add_completions(app: FastAPI, service: Service) -> None:
    """Adds the address."""

    @app.post("/v1/completions", summary="Text that goes on from a prompt (OpenAI)")
    async def completions(body: Completion, request: Request) -> Response:
        service.known(service.name if body.model is None else body.model)
        prompts, texts = body.prompt, len(body.prompt) * body.n
        service.allowed(texts, texts * body.max_tokens)
        seed = secrets.randbelow(2**31) if body.seed is None else body.seed
        settings: dict[str, Any] = {"temperature": body.temperature, "top_p": body.top_p, "top_k": body.top_k}
        settings |= {"stop": tuple(filter(None, body.stop)), "alternatives": body.logprobs or 0}
        rows = [service.row(prompt, body.max_tokens, seed + k, **settings) for prompt in prompts for k in range(body.n)]
        echoes = [prompt if body.echo else "" for prompt in prompts for _ in range(body.n)]
        read = sum(len(row.prompt) for row in rows[:: body.n])
        head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": service.name,
        }
        if body.stream:
            writing = Writing(service, rows)
            return _Stream(_events(service, body, head, writing, echoes, read), writing.cancel)
        pieces = await Writing(service, rows).whole(request)

        def answer() -> Response:
            choices = []
            for index, (echo, parts) in enumerate(zip(echoes, pieces, strict=True)):
                text = echo + "".join(part.text for part in parts)
                choices.append(_choice(service, body, index, text, parts, len(echo)))
            written = sum(len(part.ids) for parts in pieces for part in parts)
            return JSONResponse({**head, "choices": choices, "usage": _usage(read, written)})

        return await asyncio.to_thread(answer)  # which may have many megabytes


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
    offsets = list(itertools.accumulate(map(len, symbols[:-1]), initial=offset)) if symbols else []
    best = [{service.symbol(i): p for i, p in told.items()} for piece in pieces for told in piece.likeliest]
    return {
        "tokens": symbols,
        "token_logprobs": [-nats for piece in pieces for nats in piece.nats],
        "top_logprobs": best or None,
        "text_offset": offsets,
    }


class _Stream(StreamingResponse):
    """Server-sent events that end with their client, who may go before the first."""

    def __init__(self, events: AsyncIterator[str], cancel: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._cancel = cancel

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._cancel()


async def _events(
    service: Service, body: Completion, head: dict[str, Any], writing: Writing, echoes: list[str], read: int
) -> AsyncIterator[str]:
    """One event for each piece."""
    written, offsets = 0, list(map(len, echoes))
    for index, echo in enumerate(echoes):
        if echo:
            yield _event({**head, "choices": [_choice(service, body, index, echo, (), 0)]})
    try:
        async for index, piece in writing.pieces():
            written += len(piece.ids)
            if piece.text or piece.stopped or body.logprobs is not None:
                choice = _choice(service, body, index, piece.text, (piece,), offsets[index])
                yield _event({**head, "choices": [choice]})
            offsets[index] += sum(len(service.symbol(i)) for i in piece.ids) if body.logprobs is not None else 0
    except HTTPException as error:
        yield _event({"error": {"message": error.detail, "type": "server_error"}})
        return
    if body.stream_options and body.stream_options.include_usage:
        yield _event({**head, "choices": [], "usage": _usage(read, written)})
    yield "data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
