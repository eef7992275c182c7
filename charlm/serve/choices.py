"""The texts of an answer as OpenAI's clients read them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from charlm.serve.slot import Piece
from charlm.tokenizer import StreamDecoder, Tokenizer

_Place: TypeAlias = tuple[str, float | None, dict[str, float] | None, int]  # token, log probability, likeliest, offset


def usage(read: int, written: int) -> dict[str, int]:
    """How many symbols."""
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def event(value: Mapping[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


class Choice:
    """One text of an answer, as it comes.

    Args:
        tokenizer: the model's.
        index: among the answer's texts.
        prompt: its text.
        ids: the prompt's.
        echo: whether the prompt is told too.
        likeliest: how many of the likeliest symbols are told with log probabilities; None tells none at all.
    """

    def __init__(
        self, tokenizer: Tokenizer, index: int, prompt: str, ids: Sequence[int], echo: bool, likeliest: int | None
    ) -> None:
        self._tokenizer, self._index, self._likeliest = tokenizer, index, likeliest
        self._prompt, self._ids, self._echo = prompt, ids, prompt if echo else ""
        self._decoder, self._offset = StreamDecoder(tokenizer), len(prompt)

    @property
    def is_certain(self) -> bool:
        """Whether there is something to tell before the first piece: a prompt without its log probabilities."""
        return bool(self._echo) and self._likeliest is None

    def of(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """OpenAI's choice of the next pieces; the prompt comes with the first."""
        echo, self._echo = self._echo, ""
        return {
            "text": echo + "".join(piece.text for piece in pieces),
            "index": self._index,
            "logprobs": None if self._likeliest is None else self._logprobs(pieces),
            "finish_reason": pieces[-1].stopped if pieces else None,
        }

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        places: list[_Place] = []
        for piece in pieces:
            if piece.prompt is not None:  # nothing comes before its first symbol, which has no probability
                self._offset, (nats, likeliest) = 0, piece.prompt
                places += self._places(self._ids, [None, *nats], [None, *likeliest])
                self._decoder, self._offset = StreamDecoder(self._tokenizer), len(self._prompt)
            places += self._places(piece.ids, piece.nats, piece.likeliest or [{}] * len(piece.ids))
        return {
            "tokens": [place[0] for place in places],
            "token_logprobs": [place[1] for place in places],
            "top_logprobs": [place[2] for place in places] if places and self._likeliest else None,
            "text_offset": [place[3] for place in places],
        }

    def _places(
        self, ids: Sequence[int], nats: Sequence[float | None], likeliest: Sequence[dict[int, float] | None]
    ) -> Iterator[_Place]:
        for i, cost, best in zip(ids, nats, likeliest, strict=True):
            told: dict[str, float] = {}
            for other, p in (best or {}).items():
                told.setdefault(self._token(other), p)  # a piece and a byte can have the same text
            own = None if cost is None else (best or {}).get(i, -cost)  # to the last bit, for clients compare the two
            yield self._token(i), own, None if best is None else told, self._offset
            self._offset += len(self._decoder.feed([i]))

    def _token(self, i: int) -> str:
        """A symbol as text, or its bytes as OpenAI writes them."""
        content = self._tokenizer.decode_bytes([i])
        try:
            return content.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
