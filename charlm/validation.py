"""How a run looks from outside while it trains: its score on held-out text, and a text that it writes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from charlm.checkpoint import Arrays, assign
from charlm.config import SampleConfig
from charlm.dataset import Data
from charlm.evaluation import score_ids
from charlm.generation import Generator, Sample, stream_text
from charlm.model import CharLM
from charlm.origin import OldText
from charlm.records import Ids, Records
from charlm.score import Score
from charlm.tbptt import Evaluator
from charlm.time_budget import FEWEST_SYMBOLS, TimeBudget
from charlm.tokenizer import Tokenizer
from charlm.weights import grown, without

MOST_SYMBOLS = 1 << 20  # of the held-out text are scored, at most
TRIAL_SYMBOLS = 1 << 17  # scored to measure how long that takes
PIECE_SYMBOLS = 1 << 10  # of a part that stands for the whole
# A run whose scheduled evaluations are far apart is evaluated in between, so that what an interruption leaves is known.
UNSCHEDULED_SECONDS, UNSCHEDULED_SHARE = 120.0, 0.04  # from one evaluation to the next; of the time, at most
LAST_SECONDS = 5.0  # for the score of what an interruption leaves: the system that sent the signal does not wait long
SAMPLE_PROMPT, SAMPLE_SYMBOLS = "\n", 200


def spread(records: Records, symbols: int | None) -> Records:
    """Pieces of a text from the first to the last, evenly spaced, joined: at most `symbols`; all of it if None.

    The beginning alone may be a title page or a table, and says little of the rest.
    """
    ids, starts, scored = records
    if symbols is None or symbols >= len(ids):
        return records
    size = min(symbols, PIECE_SYMBOLS)
    begins = np.linspace(0, len(ids) - size, symbols // size).astype(int)
    inside = [_documents(starts, begin, begin + size) + n * size for n, begin in enumerate(begins)]
    counted = None if scored is None else np.concatenate([scored[begin : begin + size] for begin in begins])
    return Records(np.concatenate([ids[begin : begin + size] for begin in begins]), np.concatenate(inside), counted)


def beginning(records: Records, symbols: int) -> Records:
    """The first symbols of a text."""
    ids, starts, scored = records
    return Records(ids[:symbols], _documents(starts, 0, symbols), None if scored is None else scored[:symbols])


def _documents(starts: Ids, begin: int, end: int) -> Ids:
    """The beginnings of documents in a part of a text, counted from its beginning."""
    return starts[(starts >= begin) & (starts < end)] - begin


class Abandoned(Exception):
    """A score that was not finished."""


class Validation:
    """The validation of one model, as it stands.

    Attributes:
        records: of the validation split, or what of them is scored.
        scores: whether there is anything to score.
    """

    def __init__(self, model: CharLM, data: Data, sampling: SampleConfig, groups: int, seed: int) -> None:
        self.tokenizer, self.seed = data.tokenizer, seed
        self._held_out = beginning(data.valid, MOST_SYMBOLS + 1)
        self.records = self._held_out
        self._most = MOST_SYMBOLS
        self._evaluator = Evaluator(model, groups)
        self._sampling = replace(sampling, samples=1, length=SAMPLE_SYMBOLS)
        self._writer = data.tokenizer if isinstance(data.tokenizer, Tokenizer) else None
        self._scored_at, self._scoring = time.monotonic(), 0.0  # the latest evaluation, and the seconds that it took
        self._generator = Generator(model, self._sampling, data.tokenizer.blocked)

    @property
    def scores(self) -> bool:
        return self.records.predicted > 0

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Inside is an evaluation, which counts as the latest if it is not abandoned."""
        start = time.monotonic()
        yield
        self._scored_at = time.monotonic()
        self._scoring = self._scored_at - start

    def overdue(self) -> bool:
        """True if the latest evaluation is so long ago that one is due between the scheduled ones."""
        wanted = max(UNSCHEDULED_SECONDS, self._scoring / UNSCHEDULED_SHARE)
        return time.monotonic() - self._scored_at > wanted

    def limit(self, symbols: int | None) -> None:
        """Scores the same `symbols` from now on, whenever they are asked for, or all."""
        self.records = spread(self._held_out, symbols)
        self._most = max(symbols or MOST_SYMBOLS, FEWEST_SYMBOLS)

    def score(
        self, symbols: int | None = None, abandon: Callable[[], bool] = lambda: False, records: Records | None = None
    ) -> Score:
        """Scores the first `symbols`, or all, of `records` or of those to validate with.

        Raises:
            Abandoned: `abandon` said so, which is asked after every window.
        """

        def scored(count: int) -> None:
            if abandon():
                raise Abandoned

        whole = self.records if records is None else records
        part = whole if symbols is None else beginning(whole, symbols)
        return score_ids(self._evaluator, part, self.tokenizer, "valid", progress=scored)

    def plan(self, budget: TimeBudget, settled: bool, text: OldText | None, abandon: Callable[[], bool]) -> int:
        """Measures an evaluation, plans a run's and limits them, and keeps time for an origin's text in the end.

        Args:
            budget: of the run.
            settled: whether there are scores already, so that the same symbols are scored on.
            text: of the origin, if there is one.
            abandon: as `score` takes it.

        Returns:
            The symbols that are scored from now on.

        Raises:
            Abandoned: as `score`.
        """
        trial = min(TRIAL_SYMBOLS, len(self.records.ids))
        for _ in range(2):  # the first compiles
            start = time.monotonic()
            if self.scores:
                self.score(trial, abandon)
            scored = time.monotonic()
            self.sample()
        rate, sample = max(trial, 1) / (scored - start), time.monotonic() - scored
        symbols, fewest = len(self._held_out.ids), FEWEST_SYMBOLS
        if settled:
            symbols = fewest = len(self.records.ids)
        validated = budget.plan_evaluation(symbols, rate, sample, fewest)
        self.limit(validated)
        if text is not None and text.records is not None:
            budget.seconds -= sum(min(self._most, len(records.ids)) for records in text.records) / rate
        return validated

    def remembered(
        self, text: OldText, weights: Arrays, abandon: Callable[[], bool]
    ) -> tuple[float, float] | tuple[None, None]:
        """Scores an origin, and then other weights, which the model has in the end, on the origin's text.

        Args:
            text: of the origin.
            weights: by name.
            abandon: as `score` takes it.

        Returns:
            Bits per character before and after; None where the text is not at hand.

        Raises:
            Abandoned: as `score`.
        """
        if text.records is None:
            return None, None
        model, old = self._evaluator.model, len(text.weights["bias"])
        first = without(grown(text.weights, model.config.vocabulary), old)
        bits = []
        for records, values in zip(text.records, (first, weights), strict=True):
            assign(model.named_weights(), values, Path(text.run))
            bits.append(self.score(abandon=abandon, records=spread(records, self._most)).bits_per_char)
        return bits[0], bits[1]

    def sample(self) -> str | None:
        """Writes a text after `SAMPLE_PROMPT`; None of a model of number series."""
        if self._writer is None:
            return None
        pieces = stream_text(self._generator, self._writer, SAMPLE_PROMPT, self._sampling, self.seed)
        return next(piece.text for piece in pieces if isinstance(piece, Sample))
