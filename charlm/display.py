"""A training as people watch it: lines and a bar on standard error, in a terminal, a notebook or a file."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
import threading
import time
from typing import Any

import click
from tqdm import tqdm
from tqdm.utils import disp_len, disp_trim

from charlm.divergence import BACK_OFF
from charlm.errors import visible
from charlm.events import BackedOff, Evaluated, Event, Finished, Planned, Remembered, Sampled, Started, Stepped

REFRESH_SECONDS = 0.25
FEW_UPDATES = 300  # fewer give no text that can be read
SAMPLE_LINES, BLANKS = 6, 4  # of a text that are shown; the longest run of blanks in it
NARROWEST_BAR = 8  # columns
SYMBOLS = {"char": "characters", "byte": "bytes", "sentencepiece": "pieces", "series": "values", "pairs": "symbols"}
UNITS = {
    "series": ("value", "values/s", "bits/value"),
    "pairs": ("symbol", "symbols/s", "bits/symbol"),
}  # what bits are counted by
CHARACTER = ("character", "chars/s", "bits/char")
REASONS = {
    "done": "done",
    "early": "stopped, for the score has not improved for a while,",
    "interrupted": "interrupted",
}
EXPLAINED = (
    "scores are bits per {unit} held out, and lower is better:\n"
    "2 bits are as good as guessing between 4 {unit}s, 1 bit between 2"
)


def say(message: str, dim: bool = False) -> None:
    """Writes lines on standard error, above any bar; a closed or full standard error is no reason to stop."""
    text = "\n".join(map(visible, message.split("\n")))
    coloured = dim and sys.stderr.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    with contextlib.suppress(OSError):
        tqdm.write(click.style(text, dim=True) if coloured else text, file=sys.stderr)


def columns() -> int:
    """The width of the terminal that standard error is now; 80 of anything else."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    return 80


def interactive() -> bool:
    """Whether somebody watches: standard error is a terminal or belongs to a notebook."""
    return sys.stderr is not None and (sys.stderr.isatty() or "ipykernel" in sys.modules)


def shown(text: str, width: int) -> str:
    """A text in short: its first lines, each in so many columns, without what a terminal would obey.

    Runs of blanks and of empty lines are shortened; control characters are escaped.
    """
    text = re.sub(r"\n\s*\n", "\n\n", text.replace("\t", " " * BLANKS)).strip("\n")
    lines = [re.sub(f" {{{BLANKS},}}", " " * BLANKS, line.rstrip(" ")) for line in text.split("\n")[:SAMPLE_LINES]]
    return "\n".join(disp_trim(visible(line[:width]), width) for line in lines)


def bar_form(width: int, left: str, rights: list[str]) -> str:
    """A bar's format for tqdm: what stands on its left, the bar, and the longest of `rights` that there is room for."""
    for right in rights:
        if width - disp_len(left) - disp_len(right) - len(" || ") >= NARROWEST_BAR:
            return f"{left} |{{bar}}| {right}".rstrip()
    return left


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _minutes(event: Started) -> str:
    return f"{event.minutes:g} minute{'' if event.minutes == 1 else 's'}"


class TrainingDisplay:
    """Draws a training's events."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._closed = threading.Event()
        self._started: Started | None = None
        self._stepped: Stepped | None = None
        self._steps: int | None = None
        self._began = self._first = 0.0  # of the run and of this session's updates, by `time.monotonic()`
        self._first_step = 0
        self._chars_per_second = 0.0
        self._bits: dict[float, float] = {}  # per character, of a score in nats per symbol
        self._width = 0
        self._unit, self._rate, self._bits_unit = CHARACTER

    def show(self, event: Event) -> None:
        """Draws one event."""
        match event:
            case Started():
                self._start(event)
            case Planned():
                self._plan(event)
            case Stepped():
                self._step(event)
            case Evaluated():
                self._evaluated(event)
            case Sampled():
                text = "\n".join(f"  | {line}" for line in shown(event.text, columns() - 5).split("\n"))
                say(f"  a text that begins after {event.prompt!r}:")
                say(text, dim=True)
            case BackedOff():
                self._stepped = None
                back = f"goes on from step {event.step:,} with {BACK_OFF**event.back_offs:.2g} of the learning rate"
                say(f"diverged at step {event.diverged:,} ({event.found}); {back}")
            case Remembered():
                self._remembered(event)
            case Finished():
                self.close()
                reason = "finished already" if self._already_done(event) else REASONS[event.reason]
                say(f"{reason} at step {event.step:,}{self._best(event.best)}")

    def close(self) -> None:
        """Ends the bar."""
        self._closed.set()
        if self._bar is not None:
            self._bar.close()

    def _start(self, event: Started) -> None:
        model, train, symbols = event.config.model, event.config.train, SYMBOLS[event.config.data.alphabet]
        self._unit, self._rate, self._bits_unit = UNITS.get(event.config.data.alphabet, CHARACTER)
        self._started, self._steps, self._began = event, event.steps, time.monotonic() - event.seconds
        different = event.vocabulary - (event.config.data.tokenizer == "char")  # less that of whatever was never seen
        of = f"in {different:,} symbols" if self._unit == "value" else f"{different:,} different ones"
        say(
            f"{event.run}: {model.cell.upper()} {model.units} x {model.layers}, {event.parameters:,} parameters\n"
            f"{event.train_symbols:,} {symbols} to train on, {event.valid_symbols:,} held out; {of}\n"
            f"{train.lanes} lanes, window {train.bptt}, stride {train.k1}: "
            f"{event.steps_per_epoch:,} updates an epoch; {event.precision}, {event.engine}"
            f"{f', lanes in {event.groups} groups' if event.groups > 1 else ''}"
            f"{f' on each of {event.replicas} devices' if event.replicas > 1 else ''}"
        )
        if interactive():
            self._bar = tqdm(total=1.0, file=sys.stderr, dynamic_ncols=True, bar_format="compiling ...", leave=False)
            threading.Thread(target=self._tick, name="charlm-display", daemon=True).start()

    def _plan(self, event: Planned) -> None:
        known, self._steps = self._steps, event.steps
        started = self._started
        assert started is not None
        epochs = event.steps / started.steps_per_epoch
        if event.previous is not None and self._stepped is None:
            say(
                f"goes on to {event.steps:,} updates, which were to be {event.previous:,}; the learning rate is laid "
                f"anew and goes on at {event.learning_rate:.2g}"
            )
        elif known is None and event.steps < FEW_UPDATES and self._unit == "character":
            say(
                f"only {event.steps:,} updates fit into {_minutes(started)}, too few for a text that can be "
                "read: allow more minutes, or take a smaller network (preset tiny)"
            )
        elif known is None:
            say(f"about {event.steps:,} updates fit into {_minutes(started)}, which is {epochs:.1f} times the text")

    def _step(self, event: Stepped) -> None:
        assert self._started is not None
        now = event.symbols_per_second * self._started.chars_per_symbol
        if self._stepped is None:
            self._first, self._first_step, self._chars_per_second = time.monotonic(), event.step, now
        self._chars_per_second = 0.9 * self._chars_per_second + 0.1 * now
        self._stepped, self._steps = event, event.steps

    def _evaluated(self, event: Evaluated) -> None:
        score, started = event.score, self._started
        assert started is not None
        if not self._bits:
            say(EXPLAINED.format(unit=self._unit))
            if score.symbols < started.valid_scored:
                some, symbols = f"{score.symbols:,} of the held-out", SYMBOLS[started.config.data.alphabet]
                say(f"each is of {some} {symbols}; charlm evaluate scores all {started.valid_scored:,}")
        self._bits[score.nats_per_symbol] = score.bits_per_char
        say(
            f"step {event.step:,}: {score.bits_per_char:.3f} bits per {self._unit} "
            f"({score.nats_per_symbol:.4f} nats per symbol){', the best so far' if event.best else ''}"
        )
        if self._bar is not None:
            self._draw()

    def _remembered(self, event: Remembered) -> None:
        found = f"not scored, for {event.missing}"
        if event.before is not None:
            found = f"{event.before:.3f} bits per {self._unit} before, {event.after:.3f} after"
        say(f"on {event.text} of {event.run}: {found}")

    def _already_done(self, event: Finished) -> bool:
        return event.reason == "done" and self._stepped is None

    def _best(self, nats: float | None) -> str:
        if nats is None or self._started is None:
            return ""
        bits = self._bits.get(nats, nats / math.log(2) / self._started.chars_per_symbol)
        return f"; best {bits:.3f} bits per {self._unit} ({nats:.4f} nats per symbol)"

    def _tick(self) -> None:
        while not self._closed.wait(REFRESH_SECONDS):
            self._draw()

    def _draw(self) -> None:
        """Draws the bar anew: of the time where that says how long the run is, of the updates otherwise."""
        started, stepped, bar = self._started, self._stepped, self._bar
        assert started is not None
        elapsed, left = time.monotonic() - self._began, "compiling ..."
        passed, rights = _clock(elapsed), [_clock(elapsed), ""]
        if started.minutes is not None:
            done, passed = elapsed / (60 * started.minutes), f"{passed} of {_clock(60 * started.minutes)}"
            rights = [passed, ""]
        else:
            done = started.step / (started.steps or 1)
        if stepped is not None:
            epoch, steps = f"epoch {stepped.epoch + 1}", self._steps or stepped.step
            if started.minutes is not None:
                rights = [f"{passed}, step {stepped.step:,}, {epoch}", passed, ""]
            else:
                done, made = stepped.step / steps, max(1, stepped.step - self._first_step)
                remaining = _clock((time.monotonic() - self._first) / made * (steps - stepped.step)) + " left"
                rights = [f"{remaining}, step {stepped.step:,} of {steps:,}, {epoch}", remaining, ""]
            speed = f"{self._chars_per_second / 1000:.1f}k {self._rate}"
            left = f"{min(100, 100 * done):3.0f}% {stepped.bits_per_char:.3f} {self._bits_unit} {speed}"
        width = columns()
        if width != self._width:  # else tqdm pads the line to the length that it had in the wider window
            self._width, bar.sp = width, bar.status_printer(bar.fp)
        bar.n, bar.bar_format = min(1.0, done), bar_form(width, left, rights)
        bar.refresh()
