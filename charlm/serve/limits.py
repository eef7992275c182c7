"""What one request may ask for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


def _limit(default: int, about: str) -> int:
    found: int = dataclasses.field(default=default, metadata={"about": about})
    return found


@dataclass(frozen=True)
class Limits:
    """Checked before any work. Each is an option of the command, and told in /docs."""

    length: int = _limit(10_000, "Symbols of a text.")
    symbols: int = _limit(100_000, "Symbols of all texts of a request, and of the prompts that it has scored.")
    prompt: int = _limit(100_000, "Characters of a prompt, or ids.")
    texts: int = _limit(64, "Texts of a request: prompts times samples.")
    body: int = _limit(1 << 20, "Bytes of a request.")
    arrival: int = _limit(60, "Seconds that a request may take to arrive.")

    @classmethod
    def about(cls) -> dict[str, tuple[int, str]]:
        """The default of every limit, and what it is of."""
        return {limit.name: (limit.default, limit.metadata["about"]) for limit in dataclasses.fields(cls)}  # type: ignore[misc]
