"""How many updates fit into a given time: estimated from the first ones, and again as the run goes on."""

from __future__ import annotations

import math
import time

MEASURED_SHARE = 0.08  # of the time is spent on updates before the first estimate
AGAIN_SHARE = 0.04  # of the time, from one estimate to the next
EVALUATION_SHARE = 0.08  # of the time goes into evaluations, if that is enough for one
PLANNED_SHARE = 0.99  # of the time is planned for
EVALUATIONS = 8  # in a run, if there is time for them


class Pace:
    """Fits a run into its minutes.

    Args:
        minutes: of the whole command.
        started: `time.monotonic()` when it began.
    """

    def __init__(self, minutes: float, started: float) -> None:
        self.seconds, self.started = 60 * minutes, started
        self.evaluation = 0.0  # seconds that one takes, with its sample
        self._updates, self._updating = 0, 0.0  # since the last estimate

    def updated(self, seconds: float) -> None:
        """An update took so long."""
        self._updates += 1
        self._updating += seconds

    def measured(self) -> bool:
        """Whether there were enough updates for a first estimate."""
        return self._updating >= MEASURED_SHARE * self.seconds

    def due(self) -> bool:
        """Whether it is time for another estimate."""
        return self._updating >= AGAIN_SHARE * self.seconds

    def estimate(self, step: int, every: int | None) -> tuple[int, int]:
        """The updates of the whole run, if they go on as since the last estimate, and those between evaluations.

        Args:
            step: updates already done.
            every: updates from one evaluation to the next, if that is settled. One more evaluation ends the run.
        """
        each = self._updating / self._updates
        self._updates, self._updating = 0, 0.0
        left = PLANNED_SHARE * self.seconds - (time.monotonic() - self.started)
        if every:
            return step + max(1, int((left - self.evaluation) / (each + self.evaluation / every))), every
        evaluations = min(EVALUATIONS, max(1, int(left * EVALUATION_SHARE / self.evaluation)))
        steps = step + max(1, int((left - evaluations * self.evaluation) / each))
        return steps, math.ceil(steps / evaluations)
