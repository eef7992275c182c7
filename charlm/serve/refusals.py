"""What is refused, in words: which field, which address, and in the shape that the client knows."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from fastapi import HTTPException
from fastapi.responses import JSONResponse

WANTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 408: {"Connection": "close"}}  # what else comes is not read
NOT_HERE = {
    "chat/completions": "chats",
    "messages": "chats",
    "chat": "chats",
    "responses": "responses",
    "embeddings": "embeddings",
    "moderations": "moderations",
    "images/generations": "images",
    "audio/speech": "speech",
}
COMPLETIONS = "/v1/completions"


class Refused(HTTPException):
    """A request that is refused for one of its fields, or for something that has a name among OpenAI's errors."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(status, message)
        self.param, self.code = param, code


def answer(
    path: str, status: int, message: str, headers: Any = None, param: str | None = None, code: str | None = None
) -> JSONResponse:
    """An error, in TensorFlow Serving's shape at its addresses and OpenAI's at the others."""
    message = message.encode(errors="replace").decode()
    headers = {**(headers or {}), **HEADERS.get(status, {})}
    if path.startswith("/v1/models/"):
        return JSONResponse({"error": message}, status, headers)
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": param, "code": code or CODES.get(status)}
    return JSONResponse({"error": error}, status, headers)


def place(names: Sequence[str | int]) -> str:
    """A field of a request, as programs write it: instances[0].top_k."""
    parts = (f"[{name}]" if isinstance(name, int) else f".{name}" for name in names)
    return "".join(parts).removeprefix(".")


def sentence(error: Any, above: Sequence[str | int] = ()) -> tuple[str, str | None]:
    """What pydantic found wrong, as a sentence that names the field, and the field.

    Args:
        error: one of pydantic's.
        above: the place of what was looked at, in the request.
    """
    kind, told = error["type"], error.get("ctx", {})
    names = (*above, *error["loc"])
    name, field = place(names), place([name for name in names if isinstance(name, str)]) or None
    if kind == "json_invalid":
        return f"the request is not JSON: {told['error']}", None
    if kind == "wrong":
        message, inside = told["message"], [part for part in (field, told["name"]) if part]
        return message.replace(" here", f" in {name}", 1) if name else message, place(inside)
    if not name:
        return "the request has to be a JSON object, {...}" + (", and is empty" if kind == "missing" else ""), None
    if kind == "missing":
        return f"{name} is missing", field
    if kind in ("surrogate", "b64"):
        return f"{name}: {error['msg']}", field
    if kind == "too_long":
        items = "characters" if isinstance(error["input"], str) else "items"
        return f"{name} may have at most {told['max_length']:,} {items}", field
    bound = next((f"{words} {told[key]:,}" for key, words in BOUNDS.items() if key in told), None)
    wanted = bound or told.get("words") or WANTED.get(kind.split("_")[0], error["msg"])
    return f"{name} must be {wanted}, not {_shown(error['input'])}", field


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:36]} ..."


def nowhere(path: str, prefix: str, name: str, known: Collection[str]) -> str:
    """What to say to who asks at an address that there is not."""
    rest = [part for part in path.split("/") if part and part != "v1"]
    asked = NOT_HERE.get("/".join(rest[-2:])) or NOT_HERE.get("/".join(rest[-1:]))
    if asked:
        way = f"{name} goes on with a text and has no {asked}; POST a prompt to {prefix}{COMPLETIONS}"
    elif (meant := "/" + "/".join(["v1", *rest])) in known:
        way = f"did you mean {prefix}{meant}? A client's base URL ends in {prefix}/v1, once"
    elif before := next((path.removesuffix(end) for end in known if end != "/" and path.endswith(end)), ""):
        way = f"if a proxy puts {before} before every address, start charlm serve with --public-url and that path in it"
    elif near := difflib.get_close_matches(path, known, 1, 0.8):
        way = f"did you mean {prefix}{near[0]}?"
    else:
        way = f"texts are written at {prefix}{COMPLETIONS}"
        if not prefix and re.fullmatch(r"/[\w-]+/?", path):
            way += f"; if a proxy puts {path.rstrip('/')} before every address, start charlm serve with --public-url"
    return f"there is nothing at {prefix}{path}: {way} (every address: {prefix}/docs)"
