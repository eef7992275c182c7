"""How a run looks from outside while it trains: its score on held-out text, and a text that it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from charlm.config import SampleConfig
from charlm.dataset import Data
from charlm.evaluation import score_ids
from charlm.generation import Generator, Sample, stream_text
from charlm.model import CharLM
from charlm.score import Score
from charlm.tbptt import Evaluator
from charlm.windows import Ids

MOST_SYMBOLS = 1 << 20  # of the held-out text are scored, at most
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
        self.ids = spread(self._held_out, symbols)

    def score(self, symbols: int | None = None, abandon: Callable[[], bool] = lambda: False) -> Score:
        """Scores the first `symbols`, or all.

        Raises:
            Abandoned: `abandon` said so, which is asked after every window.
        """

        def scored(count: int) -> None:
            if abandon():
                raise Abandoned

        return score_ids(self._evaluator, self.ids[:symbols], self.tokenizer, "valid", progress=scored)

    def sample(self) -> str:
        """Writes a text after `SAMPLE_PROMPT`."""
        pieces = stream_text(self._generator, self.tokenizer, SAMPLE_PROMPT, self._sampling, self.seed)
        return next(piece.text for piece in pieces if isinstance(piece, Sample))
