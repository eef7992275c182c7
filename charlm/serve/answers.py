"""What answers look like, for the description of the addresses; nothing is made of these."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class Logprobs(BaseModel):
    """Of each symbol."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class Text(BaseModel):
    """One text of a completion."""

    text: str
    index: int
    logprobs: Logprobs | None
    finish_reason: Literal["length", "stop"] | None


class Usage(BaseModel):
    """How many symbols."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completed(BaseModel):
    """A completion; an event of a stream is one too, with texts in parts."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[Text]
    usage: Usage
    warnings: list[str] = []


class Row(BaseModel):
    """One text of a prediction."""

    text: str
    ids: list[int]
    log_probabilities: list[float]
    symbols: int


class Rows(BaseModel):
    """Texts for rows of inputs."""

    predictions: list[Row]
    warnings: list[str] = []


class Columns(BaseModel):
    """Texts for columns of inputs; what is shorter than the longest is followed by zeros."""

    outputs: dict[str, list[Any]]
    warnings: list[str] = []


class Health(BaseModel):
    """Whether the server lives."""

    status: str


class Ready(BaseModel):
    """Whether requests are answered at once."""

    ready: bool
    status: str


class Tokens(BaseModel):
    """The ids of a text."""

    count: int
    max_model_len: int
    tokens: list[int]


class Prompt(BaseModel):
    """The text of ids."""

    prompt: str


class Refusal(BaseModel):
    """What is wrong."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None


class Refused(BaseModel):
    """A refusal, as OpenAI's clients read it."""

    error: Refusal


class RefusedPrediction(BaseModel):
    """A refusal, as TensorFlow Serving's clients read it."""

    error: str
