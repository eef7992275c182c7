"""How a run looks from outside while it trains: its score on held-out text, and a text that it writes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from charlm.checkpoint import Arrays, assign
from charlm.config import SampleConfig
from charlm.dataset import Data
from charlm.evaluation import score_ids
from charlm.generation import Generator, Sample, stream_text
from charlm.model import CharLM
from charlm.origin import OldText, Origin
from charlm.score import Score
from charlm.tbptt import Evaluator
from charlm.time_budget import FEWEST_SYMBOLS
from charlm.weights import grown, without
from charlm.windows import Ids

MOST_SYMBOLS = 1 << 20  # of the held-out text are scored, at most
TRIAL_SYMBOLS = 1 << 17  # scored to measure how long that takes
PIECE_SYMBOLS = 1 << 10  # of a part that stands for the whole
SAMPLE_PROMPT, SAMPLE_SYMBOLS = "\n", 200


def spread(ids: Ids, symbols: int | None) -> Ids:
    """Pieces of ids [N] from the first to the last, evenly spaced, joined: at most `symbols`; all ids if None.

    The beginning alone may be a title page or a table, and says little of the rest.
    """
    if symbols is None or symbols >= len(ids):
        return ids
    size = min(symbols, PIECE_SYMBOLS)
    starts = np.linspace(0, len(ids) - size, symbols // size).astype(int)
    return np.concatenate([ids[start : start + size] for start in starts])


class Abandoned(Exception):
    """A score that was not finished."""


class Validation:
    """The validation of one model, as it stands.

    Attributes:
        ids: [N] of the validation split, or those of them that are scored.
        scores: whether there is anything to score.
    """

    def __init__(self, model: CharLM, data: Data, sampling: SampleConfig, groups: int, seed: int) -> None:
        self.tokenizer, self.seed = data.tokenizer, seed
        self._held_out = self.ids = data.valid[: MOST_SYMBOLS + 1]
        self._most = MOST_SYMBOLS
        self._evaluator = Evaluator(model, groups)
        self._sampling = replace(sampling, samples=1, length=SAMPLE_SYMBOLS)
        self._generator = Generator(model, self._sampling, data.tokenizer.blocked)

    @property
    def scores(self) -> bool:
        return len(self.ids) > 1

    @property
    def symbols(self) -> int:
        """Symbols that could be scored."""
        return len(self._held_out)

    def limit(self, symbols: int | None) -> None:
        """Scores the same `symbols` from now on, whenever they are asked for, or all."""
        self.ids, self._most = spread(self._held_out, symbols), max(symbols or MOST_SYMBOLS, FEWEST_SYMBOLS)

    def score(
        self, symbols: int | None = None, abandon: Callable[[], bool] = lambda: False, ids: Ids | None = None
    ) -> Score:
        """Scores the first `symbols`, or all, of `ids` or of those to validate with.

        Raises:
            Abandoned: `abandon` said so, which is asked after every window.
        """

        def scored(count: int) -> None:
            if abandon():
                raise Abandoned

        ids = self.ids if ids is None else ids
        return score_ids(self._evaluator, ids[:symbols], self.tokenizer, "valid", progress=scored)

    def measure(self, abandon: Callable[[], bool]) -> tuple[float, float]:
        """The symbols that are scored in a second, and the seconds of a sample.

        Raises:
            Abandoned: as `score`.
        """
        trial = min(TRIAL_SYMBOLS, len(self.ids))
        for _ in range(2):  # the first compiles
            start = time.monotonic()
            if self.scores:
                self.score(trial, abandon)
            scored = time.monotonic()
            self.sample()
        return max(trial, 1) / (scored - start), time.monotonic() - scored

    def to_remember(self, text: OldText) -> int:
        """The symbols that `remembered` scores."""
        return 0 if text.ids is None else 2 * min(self._most, len(text.ids[0]))

    def remembered(
        self, origin: Origin, text: OldText, weights: Arrays, abandon: Callable[[], bool]
    ) -> tuple[float, float]:
        """Scores an origin, and then other weights, which the model has in the end, on the origin's text.

        Args:
            origin: whose symbols the model's first ones are.
            text: of the origin, which is not missing.
            weights: by name.
            abandon: as `score` takes it.

        Returns:
            Bits per character before and after.

        Raises:
            Abandoned: as `score`.
        """
        assert text.ids is not None
        model, old = self._evaluator.model, len(origin.weights["bias"])
        first = without(grown(origin.weights, model.config.vocabulary), old)
        bits = []
        for ids, values in zip(text.ids, (first, weights), strict=True):
            assign(model.named_weights(), values, origin.checkpoint.path)
            bits.append(self.score(abandon=abandon, ids=spread(ids, self._most)).bits_per_char)
        return bits[0], bits[1]

    def sample(self) -> str:
        """Writes a text after `SAMPLE_PROMPT`."""
        pieces = stream_text(self._generator, self.tokenizer, SAMPLE_PROMPT, self._sampling, self.seed)
        return next(piece.text for piece in pieces if isinstance(piece, Sample))
