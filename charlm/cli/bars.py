"""Progress bars and lines on standard error."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from tqdm import tqdm

from charlm.events import Evaluated, Event, Finished, Sampled, Started, Stepped

REASONS = {
    "done": "done",
    "early": "no better score for a while: stopped",
    "interrupted": "interrupted",
}


def say(message: str) -> None:
    """A line on standard error, above any bar."""
    tqdm.write(message, file=sys.stderr)


@contextmanager
def progress_bars() -> Iterator[Callable[..., Callable[[int], None]]]:
    """Yields a function that opens a bar with a title, a total and a unit, and returns what moves it.

    A bar shows itself after a second, on a terminal only.
    """
    bars: list[Any] = []

    def bar(title: str, total: int, unit: str) -> Callable[[int], None]:
        for done in bars:
            done.close()
        bars.append(tqdm(desc=title, total=total, unit=unit, unit_scale=True, leave=False, delay=1, disable=None))
        return lambda count: bars[-1].update(count) and None

    try:
        yield bar
    finally:
        for done in bars:
            done.close()


def reading_bar(bar: Callable[..., Callable[[int], None]]) -> Callable[[int], Callable[[int], None]]:
    """A bar over the bytes of a corpus."""
    return lambda size: bar("reading", size, "B")


class TrainingDisplay:
    """Draws a training's events: a bar, and lines above it."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._chars_per_symbol = 1.0
        self._chars_per_second: float | None = None

    def show(self, event: Event) -> None:
        """Draws one event."""
        match event:
            case Started():
                self._start(event)
            case Stepped():
                self._move(event)
            case Evaluated():
                say(
                    f"step {event.step}: valid {event.score.bits_per_char:.3f} bits per character, "
                    f"{event.score.bits_per_byte:.3f} per byte, {event.score.nats_per_symbol:.4f} nats per symbol"
                    f"{' (best)' if event.best else ''}"
                )
            case Sampled():
                width = shutil.get_terminal_size().columns - 5
                text = "\n".join(f"  | {line[:width]}" for line in event.text.splitlines()[:6])
                say(click.style(text, dim=True) if sys.stderr.isatty() else text)
            case Finished():
                self.close()
                best = "" if event.best is None else f"; best {event.best:.4f} nats per symbol on held-out text"
                say(f"{REASONS[event.reason]} at step {event.step}{best}")

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()

    def _start(self, event: Started) -> None:
        model, train = event.config.model, event.config.train
        say(
            f"{event.run}: {model.cell} {model.units} x {model.layers}, {event.parameters:,} parameters, "
            f"{event.vocabulary} symbols; {event.train_symbols:,} to train on, {event.valid_symbols:,} held out"
        )
        say(
            f"{train.lanes} lanes, window {train.bptt}, stride {train.k1}, {event.steps_per_epoch} steps an epoch; "
            f"{event.precision}, {event.engine}, {event.groups} lane groups; "
            f"{event.unscored} training symbols are left over in an epoch"
        )
        self._chars_per_symbol = event.chars_per_symbol
        form = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
        self._bar = tqdm(total=event.steps, initial=event.step, unit="step", disable=None, bar_format=form)

    def _move(self, event: Stepped) -> None:
        if event.steps is not None and self._bar.total is None:
            say(f"about {event.steps} steps fit the time")
        self._bar.total = event.steps
        now = event.symbols_per_second * self._chars_per_symbol
        before = self._chars_per_second or now
        self._chars_per_second = 0.9 * before + 0.1 * now
        self._bar.set_description(f"epoch {event.epoch + 1}", refresh=False)
        speed = f"{self._chars_per_second / 1000:.1f}k chars/s"
        self._bar.set_postfix_str(f"{event.bits_per_char:.3f} bpc, {speed}", refresh=False)
        self._bar.update(1)
