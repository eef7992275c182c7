"""OpenAI's completions."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Annotated, Any, ClassVar

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator
from starlette.requests import ClientDisconnect

from charlm.config import SampleConfig
from charlm.sampling import settings_of
from charlm.serve import answers, fields
from charlm.serve.batch import ALTERNATIVES
from charlm.serve.choices import Choice, event, usage
from charlm.serve.foreign import FOREIGN, INSTEAD
from charlm.serve.service import Prompt, Service, Writing
from charlm.serve.slot import Request as Row

STOPS, STOP_CHARS = 64, 200  # texts that end one, and characters of each

_TEXT = {"type": "string"}
_STOP = {**_TEXT, "maxLength": STOP_CHARS}
_EVENT = {"type": "object", "properties": {"data": _TEXT}, "required": ["data"]}


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(type(i) in (int, float) and i == i // 1 for i in value)


def _prompts(value: Any) -> list[Prompt]:
    """One or many, each a text or ids."""
    if value == []:
        raise fields.wrong('prompt is an empty list, which asks for no text; an empty prompt is ""')
    many = value if isinstance(value, list) and not _is_ids(value) else [value]
    for n, prompt in enumerate(many):
        if not isinstance(prompt, str) and not _is_ids(prompt):
            where = f"prompt[{n}]" if isinstance(value, list) else "prompt"
            raise fields.wrong(f"{where} must be a text, or a list of ids with at least one")
        if isinstance(prompt, str):
            fields.encodable(prompt)
    return [prompt if isinstance(prompt, str) else list(map(int, prompt)) for prompt in many]


Prompts = Annotated[
    list[Any],
    PlainValidator(_prompts),
    WithJsonSchema({"anyOf": [_TEXT]}),
    Field(description="Texts, or lists of ids."),
]
Stops = Annotated[
    list[Annotated[fields.Text, Field(max_length=STOP_CHARS)]],
    Field(max_length=STOPS),
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
    AfterValidator(lambda texts: tuple(filter(None, texts))),
    WithJsonSchema({"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": STOPS}]}),
]
Logprobs = Annotated[
    Annotated[int, Field(ge=0, le=ALTERNATIVES), fields.is_number("int")] | None,
    Field(
        description="How many of the likeliest symbols to tell in each place that is written, also of a stop text; "
        "with echo in each place of the prompt too, of which the first has none.",
    ),
    BeforeValidator(lambda value: None if value is False else value),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": ALTERNATIVES}, {"const": False}]}),
]


class StreamOptions(fields.Fields):
    """OpenAI's options of a stream."""

    foreign: ClassVar[Mapping[str, fields.Nothing]] = {
        "include_obfuscation": lambda value, request: True,
        "continuous_usage_stats": lambda value, request: value is False,
    }
    include_usage: fields.Flag = False


class Completion(fields.Sampled):  # type: ignore[misc, valid-type]
    """OpenAI's completion request, and the settings of samplers besides. Tokens are the model's symbols.

    Fields of other servers are taken where they ask for nothing (best_of equal to n, a penalty of 0).
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"prompt": "Once upon a time", "max_tokens": 100, "temperature": 0.7, "seed": 1}]
        },
    )
    foreign, instead = FOREIGN, INSTEAD
    prompt: Prompts = Field([""])
    model: str | None = None
    max_tokens: fields.Count = fields.OWN
    n: Annotated[int, Field(ge=1, lt=2**31), fields.is_number("int")] = 1
    stop: Stops = Field([])
    echo: Annotated[fields.Flag, Field(description="Tells the prompt too; with logprobs it is scored.")] = False
    logprobs: Logprobs = None
    stream: fields.Flag = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _given(cls, body: Any) -> Any:
        """What is null is not given."""
        return {k: v for k, v in body.items() if v is not None} if isinstance(body, dict) else body


def add_completions(app: FastAPI, service: Service) -> None:
    """Adds the address."""

    @app.post(
        "/v1/completions",
        summary="Text that goes on from a prompt",
        tags=["OpenAI"],
        responses={200: {"model": answers.Completed, "content": {"text/event-stream": {"schema": _EVENT}}}},
    )
    async def completions(body: Completion, request: Request) -> Response:
        service.known(service.name if body.model is None else body.model)
        texts, asked = len(body.prompt) * body.n, body.over(service.sample)
        service.allowed(texts, asked.length, texts * asked.length, "max_tokens")
        read = await service.read(body.prompt, "prompt")
        scores = body.echo and body.logprobs is not None
        if scores:
            told = body.n * sum(map(len, read)) + texts * asked.length
            service.checked("symbols to score and to write in all texts", told, service.limits.symbols, "prompt")
        rows = _rows(body, asked, read, scores)
        choices = _choices(body, read, service)
        head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": service.name,
            **await service.warnings(body.prompt),
        }
        writing, count = Writing(service, rows, request), sum(map(len, read))
        if body.stream:
            counted = body.stream_options is not None and body.stream_options.include_usage
            return _Stream(_events(head, writing, choices, count, counted), writing.cancel, service.status)
        pieces = await writing.whole(request)

        def answer() -> Response:
            made = [choice.of(parts) for choice, parts in zip(choices, pieces, strict=True)]
            written = sum(len(part.ids) for parts in pieces for part in parts)
            return JSONResponse({**head, "choices": made, "usage": usage(count, written)})

        return await asyncio.to_thread(answer)  # which may have many megabytes


def _rows(body: Completion, asked: SampleConfig, read: list[list[int]], scores: bool) -> list[Row]:
    """A row for each prompt and sample, with a seed of its own."""
    seed = secrets.randbelow(2**31) if asked.seed is None else asked.seed
    settings, told = settings_of(asked), body.logprobs or 0
    return [
        Row(ids, asked.length, (seed + k) % 2**31, settings, asked.stop, told, score=scores and prompt != "")
        for prompt, ids in zip(body.prompt, read, strict=True)
        for k in range(body.n)
    ]


def _choices(body: Completion, read: list[list[int]], service: Service) -> list[Choice]:
    found: list[Choice] = []
    for prompt, ids in zip(body.prompt, read, strict=True):
        text = prompt if isinstance(prompt, str) else service.tokenizer.decode_bytes(ids).decode("utf-8", "replace")
        for _ in range(body.n):
            found.append(Choice(service.tokenizer, len(found), text, ids, body.echo, body.logprobs))
    return found


class _Stream(StreamingResponse):
    """Server-sent events that end with their client, who may go before the first.

    A proxy that gathers them before it gives them on, as nginx does, is told not to.
    """

    def __init__(self, events: AsyncIterator[str], cancel: Callable[[], None], status: str) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Charlm-Status": status}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._cancel = cancel

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        except ClientDisconnect:
            pass
        finally:
            self._cancel()


async def _events(
    head: dict[str, Any], writing: Writing, choices: list[Choice], read: int, counted: bool
) -> AsyncIterator[str]:
    """One event for each piece; with `counted`, the last one has the usage, and the others say that they have none."""
    written, part = 0, {**head, "usage": None} if counted else head
    for choice in choices:
        if choice.is_certain:
            yield event({**part, "choices": [choice.of(())]})
    try:
        async for index, piece in writing.pieces():
            written += len(piece.ids)
            made = choices[index].of((piece,))
            if made["text"] or made["finish_reason"] or made["logprobs"]:
                yield event({**part, "choices": [made]})
    except HTTPException as error:
        yield event({"error": {"message": error.detail, "type": "server_error", "param": None, "code": None}})
        return
    if counted:
        yield event({**head, "choices": [], "usage": usage(read, written)})
    yield "data: [DONE]\n\n"
