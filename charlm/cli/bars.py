"""Progress bars on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


@contextmanager
def progress_bars() -> Iterator[Callable[..., Callable[[int], None]]]:
    """Yields a function that opens a bar with a title, a total and a unit, and returns what moves it.

    A bar shows itself after a second, on a terminal only.
    """
    bars: list[Any] = []

    def bar(title: str, total: int, unit: str) -> Callable[[int], None]:
        for done in bars:
            done.close()
        bars.append(
            tqdm(
                desc=title,
                total=total,
                unit=unit,
                unit_scale=True,
                leave=False,
                delay=1,
                disable=None,
                dynamic_ncols=True,
            )
        )
        return lambda count: bars[-1].update(count) and None

    try:
        yield bar
    finally:
        for done in bars:
            done.close()


def reading_bar(bar: Callable[..., Callable[[int], None]]) -> Callable[[int], Callable[[int], None]]:
    """A bar over the bytes of a corpus."""
    return lambda size: bar("reading", size, "B")
