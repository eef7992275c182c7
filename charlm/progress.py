"""The progress of a run's training: `progress.json`, beside the arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from charlm.config import LENGTHS, TrainConfig
from charlm.errors import ModelError, UsageError, named
from charlm.settings import Strict

ENGINE: dict[str, Callable[[Any], str]] = {  # what a computation's last bits depend on, in words
    "threads": lambda count: f"{count or 'all'} thread{'' if count == 1 else 's'} for an operation",
    "precision": lambda precision: f"products in {precision}",
    "onednn": lambda state: f"oneDNN {state}",
    "replicas": lambda count: f"lanes on {count} device{'' if count == 1 else 's'}",
}


@dataclass
class Progress(Strict):
    """A run's standing, which the training loop moves on and a checkpoint holds.

    A finished run's best score is one of the scheduled evaluations', so that equal runs have equal best checkpoints;
    an unfinished run's is any evaluation's, those included that the time or an interruption added.
    """

    step: int = 0  # updates done
    epoch: int = 0
    window: int = 0  # of the epoch, the next one
    steps: int | None = None  # of the whole run, once they are known
    every: int | None = None  # updates from one evaluation to the next
    best: int | None = None  # the step of the best score on the validation split
    best_nats: float | None = None  # per symbol
    scheduled_best: int | None = None
    scheduled_best_nats: float | None = None
    scored: int = 0  # the step of the latest evaluation
    validated: int | None = None  # ids of the validation split that are scored
    stale: int = 0  # scheduled evaluations since the best of them
    back_offs: int = 0  # from divergences
    finished: bool = False
    seconds: float = 0.0  # since the run's beginning
    threads: int = 0  # of an operation
    onednn: str | None = None
    groups: int = 1  # of a replica's lanes
    replicas: int = 1  # that the lanes are divided among
    precision: str = ""

    @classmethod
    def of(cls, values: dict[str, Any], where: str) -> Self:
        """Reads what a checkpoint says; an old one's evaluations were all scheduled.

        Raises:
            ModelError: it says something else.
        """
        old = {f"scheduled_{name}": values.get(name) for name in ("best", "best_nats")}
        try:
            return cls.from_dict(old | values, where)
        except UsageError as error:
            raise ModelError(f"{error}: it is damaged, or not charlm's") from None

    def computed_as(self, now: Progress) -> list[str]:
        """Takes how this process computes from `now`, and returns what of that changes the bits."""
        changes = []
        for name, words in ENGINE.items():
            was, is_now = getattr(self, name), getattr(now, name)
            if was not in (None, is_now):
                changes.append(f"it was computed with {words(was)} and is now with {words(is_now)}")
            setattr(self, name, is_now)
        return changes

    def take_score(self, nats: float, scheduled: bool) -> bool:
        """Takes an evaluation at the present step; returns whether it is the best so far."""
        self.scored, better = self.step, self.best_nats is None or nats < self.best_nats
        if better:
            self.best, self.best_nats = self.step, nats
        if scheduled:
            self.stale += 1
            if self.scheduled_best_nats is None or nats < self.scheduled_best_nats:
                self.scheduled_best, self.scheduled_best_nats, self.stale = self.step, nats, 0
        return better

    def due(self, given: int | None) -> bool:
        """True if what is done every `given` steps, or about eight times a run, is due; not shortly before the end."""
        assert self.every is not None
        left, at_its_place = self.total - self.step, self.step % (given or self.every) == 0
        return not left or (at_its_place and (given is not None or left > self.every // 2))

    @property
    def total(self) -> int:
        """The updates of the whole run; more than any run has while they are not known."""
        return 2**62 if self.steps is None else self.steps

    def finish(self) -> None:
        """Ends the run, whose best score is then one of the scheduled."""
        self.finished = True
        self.best, self.best_nats = self.scheduled_best, self.scheduled_best_nats

    def lengthen(self, before: TrainConfig, now: TrainConfig, steps: int | None) -> int | None:
        """Takes the length that a resumed run is given, which may be another than it had.

        Args:
            before: what it was trained with so far.
            now: what it goes on with.
            steps: the updates that `now` says; None if it says minutes.

        Returns:
            The updates it was to have, if it has another length now.

        Raises:
            UsageError: the run is as long already.
        """
        longer = any(getattr(before, name) != getattr(now, name) for name in LENGTHS)
        done = f"made {self.step} updates" if steps is not None else f"taken {self.seconds / 60:.2g} minutes"
        if (self.step > steps) if steps is not None else (longer and 60 * (now.minutes or 0) <= self.seconds):
            length = next(name for name in LENGTHS if getattr(now, name) is not None)
            given = f"{named(f'train.{length}')} {getattr(now, length)}".removesuffix(".0")
            raise UsageError(f"{given}: the run has already {done}; give its new total, which is more")
        previous = self.steps
        if steps is not None or longer:
            self.steps, self.every = steps, None
        self.finished = self.step == steps or (self.finished and before == now)
        return previous if longer and not self.finished else None
