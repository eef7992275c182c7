"""OpenAI's completions."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError
from starlette.requests import ClientDisconnect

from charlm.serve import fields
from charlm.serve.batch import ALTERNATIVES
from charlm.serve.service import Service, Writing
from charlm.serve.slot import Piece
from charlm.serve.slot import Request as Row
from charlm.tokenizers import StreamDecoder, Tokenizer

NOT_OFFERED = {  # what other servers have, each with what says nothing
    "best_of": 1,
    "frequency_penalty": 0,
    "logit_bias": {},
    "min_p": 0,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "suffix": "",
}
SLOW_SECONDS = 60.0  # that a client may take for one event

_ONE_OR_MORE = (
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
)
Prompts = Annotated[list[fields.Text], Field(max_length=fields.MOST), *_ONE_OR_MORE]
Stops = Annotated[list[Annotated[fields.Text, Field(max_length=200)]], Field(max_length=16), *_ONE_OR_MORE]
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
        extra="forbid",
        json_schema_extra={
            "examples": [{"prompt": "Once upon a time", "max_tokens": 100, "temperature": 0.7, "seed": 1}]
        },
    )
    prompt: Prompts = [""]
    model: str | None = None
    max_tokens: fields.Count = fields.LENGTH
    temperature: fields.Temperature = fields.TEMPERATURE
    top_p: fields.Probability = 1.0
    top_k: fields.Count = 0
    n: Annotated[int, Field(ge=1, lt=2**31)] = 1
    seed: fields.Seed | None = None
    stop: Stops = []
    echo: bool = False
    logprobs: Logprobs | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: Annotated[Any, Field(description="Not used.")] = None

    @model_validator(mode="before")
    @classmethod
    def _given(cls, body: Any) -> Any:
        """What is null is not given."""
        if not isinstance(body, dict):
            return body
        for name, nothing in NOT_OFFERED.items():
            if body.get(name) not in (None, nothing):
                raise PydanticCustomError("not_offered", "{name} is not offered here", {"name": name})
        return {name: value for name, value in body.items() if value is not None and name not in NOT_OFFERED}


def add_completions(app: FastAPI, service: Service) -> None:
    """Adds the address."""

    @app.post("/v1/completions", summary="Text that goes on from a prompt (OpenAI)")
    async def completions(body: Completion, request: Request) -> Response:
        service.known(service.name if body.model is None else body.model)
        prompts, texts = body.prompt, len(body.prompt) * body.n
        service.allowed(texts, body.max_tokens, texts * body.max_tokens)
        seed = secrets.randbelow(2**31) if body.seed is None else body.seed
        settings: dict[str, Any] = {"temperature": body.temperature, "top_p": body.top_p, "top_k": body.top_k}
        settings |= {"stop": tuple(filter(None, body.stop)), "alternatives": body.logprobs or 0}
        read = await service.read(prompts)
        rows = [Row(ids, body.max_tokens, (seed + k) % 2**31, **settings) for ids in read for k in range(body.n)]
        echoes = [prompt if body.echo else "" for prompt in prompts for _ in range(body.n)]
        told = body.logprobs is not None
        choices = [_Choice(service.tokenizer, index, echo, told) for index, echo in enumerate(echoes)]
        count = sum(map(len, read))
        head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": service.name,
        }
        writing = Writing(service, rows)
        if body.stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            return _Stream(_events(head, writing, choices, count, usage), writing.cancel)
        pieces = await writing.whole(request)

        def answer() -> Response:
            made = [choice.of(parts, choice.echo) for choice, parts in zip(choices, pieces, strict=True)]
            written = sum(len(part.ids) for parts in pieces for part in parts)
            return JSONResponse({**head, "choices": made, "usage": _usage(count, written)})

        return await asyncio.to_thread(answer)  # which may have many megabytes


def _usage(read: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


class _Choice:
    """One text of an answer, as it comes."""

    def __init__(self, tokenizer: Tokenizer, index: int, echo: str, told: bool) -> None:
        self.echo = echo
        self._tokenizer, self._index, self._told = tokenizer, index, told
        self._decoder, self._offset = StreamDecoder(tokenizer), len(echo)

    def of(self, pieces: Sequence[Piece], before: str = "") -> dict[str, Any]:
        """OpenAI's choice of the next pieces."""
        return {
            "text": before + "".join(piece.text for piece in pieces),
            "index": self._index,
            "logprobs": self._logprobs(pieces) if self._told else None,
            "finish_reason": pieces[-1].stopped if pieces else None,
        }

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        ids, offsets = [i for piece in pieces for i in piece.ids], []
        for i in ids:
            offsets.append(self._offset)
            self._offset += len(self._decoder.feed([i]))
        likeliest: list[dict[str, float]] = []
        for told in (told for piece in pieces for told in piece.likeliest):
            likeliest.append({})
            for i, p in told.items():
                likeliest[-1].setdefault(self._token(i), p)  # a piece and a byte can have the same text
        return {
            "tokens": list(map(self._token, ids)),
            "token_logprobs": [-nats for piece in pieces for nats in piece.nats],
            "top_logprobs": likeliest or None,
            "text_offset": offsets,
        }

    def _token(self, i: int) -> str:
        """A symbol as text, or its bytes as OpenAI writes them."""
        content = self._tokenizer.decode_bytes([i])
        try:
            return content.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


class _Stream(StreamingResponse):
    """Server-sent events that end with their client, who may go before the first, or read no more."""

    def __init__(self, events: AsyncIterator[str], cancel: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._cancel = cancel

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            async with asyncio.timeout(SLOW_SECONDS):
                await send(message)

        try:
            await super().__call__(scope, receive, sent)
        except (TimeoutError, ClientDisconnect):
            pass
        finally:
            self._cancel()


async def _events(
    head: dict[str, Any], writing: Writing, choices: list[_Choice], read: int, usage: bool
) -> AsyncIterator[str]:
    """One event for each piece."""
    written = 0
    for choice in choices:
        if choice.echo:
            yield _event({**head, "choices": [choice.of((), choice.echo)]})
    try:
        async for index, piece in writing.pieces():
            written += len(piece.ids)
            made = choices[index].of((piece,))
            if made["text"] or made["finish_reason"] or made["logprobs"]:
                yield _event({**head, "choices": [made]})
    except HTTPException as error:
        yield _event({"error": {"message": error.detail, "type": "server_error"}})
        return
    if usage:
        yield _event({**head, "choices": [], "usage": _usage(read, written)})
    yield "data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
