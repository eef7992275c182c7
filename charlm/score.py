"""The report of an evaluation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, repr=False)
class Score:
    """A model's score on a text. Every symbol but the first is predicted; `chars` and `bytes` are theirs
    (an unknown symbol counts as U+FFFD, one character of three bytes).

    `context` is "carried" (every symbol is predicted from at least 256 before it, or all there are) or "cold:W" (from
    what precedes it in its window of W symbols).
    """

    nats_per_symbol: float
    bits_per_char: float
    bits_per_byte: float
    perplexity: float
    symbols: int
    chars: int
    bytes: int
    unknown: int
    context: str
    split: str
    seconds: float
    exact_match: float | None = None  # of a model of pairs: the share of sources whose target is found
    word_error_rate: float | None = None
    char_error_rate: float | None = None

    def __str__(self) -> str:
        if not self.bytes:
            exact = "" if self.exact_match is None else f"{100 * self.exact_match:.2f} % exact, "
            return f"{exact}{self.nats_per_symbol:.4f} nats per symbol; {self.symbols:,} of the {self.split} split"
        return (
            f"{self.bits_per_char:.4f} bits per character, {self.bits_per_byte:.4f} bits per byte, "
            f"{self.nats_per_symbol:.4f} nats per symbol (perplexity {self.perplexity:.3f}); "
            f"{self.symbols:,} symbols of the {self.split} split, {self.context} state"
        )

    def __repr__(self) -> str:
        return f"<Score: {self}>"

    def to_dict(self) -> dict[str, Any]:
        """The fields, without those that say nothing: of series and of pairs there are no bytes."""
        textual = ("bits_per_byte", "bytes", "unknown") if not self.bytes else ()
        found = dataclasses.asdict(self).items()
        return {name: value for name, value in found if value is not None and name not in textual}
