"""What one request may ask for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Checked before any work."""

    body: int = 1 << 20  # bytes
    prompt: int = 100_000  # characters
    length: int = 10_000  # symbols of a text
    texts: int = 64  # prompts times samples
    symbols: int = 100_000  # of all texts
