"""How much fits into a given time: planned from measured updates and evaluations, and again as the run goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

MEASURED_SHARE = 0.01  # of the time is spent on updates before the first plan
AGAIN_SHARE = 0.04  # of the time, from one plan to the next
EVALUATION_SHARE = 0.08  # of the time goes into evaluations
PLANNED_SHARE = 0.99  # of the time is planned for
FEWEST_EVALUATIONS, EVALUATIONS = 3, 8  # in a run: fewer are no learning curve, more take time from training
FEWEST_SYMBOLS = 1 << 13  # in an evaluation: fewer give no score to compare


class TimeBudget:
    """Fits a run into its time.

    Args:
        seconds: from `started` to the end of the run.
        started: `time.monotonic()` when they began.
    """

    def __init__(self, seconds: float, started: float) -> None:
        self.seconds, self.started = seconds, started
        self.evaluation = 0.0  # seconds that one takes, with its sample
        self._updates, self._updating = 0, 0.0  # since the last plan

    @property
    def left(self) -> float:
        """Seconds that are still to be planned for."""
        return PLANNED_SHARE * self.seconds - (time.monotonic() - self.started)

    def updated(self, seconds: float) -> None:
        """Counts an update that took so long."""
        self._updates += 1
        self._updating += seconds

    def measure(self, update: Callable[[], object], stop: Callable[[], bool]) -> bool:
        """Makes updates, the first of which compiles, until they are enough for a plan; False if it is to stop."""
        update()
        while self._updating < MEASURED_SHARE * self.seconds:
            if stop():
                return False
            start = time.monotonic()
            update()
            self.updated(time.monotonic() - start)
        return True

    def due(self) -> bool:
        """Whether it is time for another plan."""
        return self._updating >= AGAIN_SHARE * self.seconds

    def plan_evaluation(
        self, symbols: int, symbols_per_second: float, sample: float, fewest: int = FEWEST_SYMBOLS
    ) -> int:
        """The symbols of one evaluation: all of them, or as many as leave time for a learning curve.

        Args:
            symbols: that there are.
            symbols_per_second: that are scored.
            sample: seconds for the text that is drawn with every evaluation.
            fewest: symbols that give a score to compare.
        """
        most = symbols_per_second * max(0.0, EVALUATION_SHARE * self.left / FEWEST_EVALUATIONS - sample)
        scored = min(symbols, max(fewest, int(most)))
        self.evaluation = scored / symbols_per_second + sample
        return scored

    def plan(self, step: int, every: int | None) -> tuple[int, int]:
        """The updates of the whole run, if they go on as since the last plan, and those between evaluations.

        Args:
            step: updates already done.
            every: updates from one evaluation to the next, if that is settled. One more evaluation ends the run.
        """
        each = self._updating / self._updates
        self._updates, self._updating = 0, 0.0
        if every:
            return step + max(1, int((self.left - self.evaluation) / (each + self.evaluation / every))), every
        fewest = 2 if 6 * self.evaluation < self.left else 1
        evaluations = min(EVALUATIONS, max(fewest, int(self.left * EVALUATION_SHARE / self.evaluation)))
        steps = max(1, int((self.left - evaluations * self.evaluation) / each))
        return step + steps, math.ceil(steps / evaluations)
