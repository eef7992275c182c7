"""The tokenizer, as vLLM's clients ask for it: an evaluation harness counts symbols and sends prompts as ids."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from fastapi import FastAPI
from pydantic import Field

from charlm.generation import prompt_ids
from charlm.serve import answers, fields
from charlm.serve.service import Service


class Tokenization(fields.Fields):
    """A text to tokenize."""

    foreign: ClassVar[Mapping[str, fields.Nothing]] = {"add_special_tokens": lambda value, request: True}
    prompt: fields.Text
    model: str | None = None


class Detokenization(fields.Fields):
    """Ids to turn into text."""

    tokens: Annotated[list[fields.Whole], Field(description="Ids.")]
    model: str | None = None


def add_tokens(app: FastAPI, service: Service) -> None:
    """Adds the addresses."""
    tokenizer = service.tokenizer

    @app.post("/tokenize", summary="The ids of a text", tags=["The tokenizer"], response_model=answers.Tokens)
    async def tokenize(body: Tokenization) -> dict[str, Any]:
        service.checked("characters of a prompt", len(body.prompt), service.limits.prompt, "prompt")
        ids = (await asyncio.to_thread(tokenizer.encode, body.prompt)).tolist()
        return {"count": len(ids), "max_model_len": service.limits.prompt, "tokens": ids}

    @app.post("/detokenize", summary="The text of ids", tags=["The tokenizer"], response_model=answers.Prompt)
    async def detokenize(body: Detokenization) -> dict[str, Any]:
        service.checked("ids of a prompt", len(body.tokens), service.limits.prompt, "tokens")
        service.checked_ids(body.tokens, "tokens", "tokens")
        return {"prompt": tokenizer.decode_bytes(body.tokens).decode("utf-8", "replace")}

    @app.get("/tokenizer_info", summary="What the tokenizer is", tags=["The tokenizer"])
    async def about() -> dict[str, Any]:
        """What comes before a text that has no prompt is `bos_token`; nothing ends a text."""
        first = tokenizer.decode_bytes(prompt_ids(tokenizer, "")).decode("utf-8", "replace")
        return {
            "tokenizer_class": tokenizer.name,
            "vocab_size": tokenizer.vocabulary,
            "bos_token": first,
            "eos_token": None,
        }
