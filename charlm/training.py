"""The training loop: windows in, events out. It prints nothing.

for event in Training(open_session(request)).events(): ...
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from charlm.checkpoint import Checkpoint, assign
from charlm.divergence import MOST_BACK_OFFS, NotFinite, check_finite
from charlm.events import (
    BackedOff,
    Evaluated,
    Event,
    Finished,
    Planned,
    Remembered,
    Sampled,
    Saved,
    Started,
    Stepped,
    to_log,
)
from charlm.machine import onednn, threads
from charlm.origin import OldText
from charlm.progress import Progress
from charlm.replicas import Command, Replicas
from charlm.score import Score
from charlm.session import Session
from charlm.tbptt import Trainer, Update, build_trained, replica_groups, scheduled_rate
from charlm.time_budget import EVALUATIONS, TimeBudget
from charlm.validation import LAST_SECONDS, SAMPLE_PROMPT, Abandoned, Validation
from charlm.weights import grown
from charlm.windows import Cursor, Window

_log = logging.getLogger("charlm")


class Training:
    """One run's training, from its start or from its last checkpoint.

    Args:
        session: the run, its data and configuration, and where to go on.
        stop: asked after every update whether to save and stop.
        started: `time.monotonic()` when the command began, for `--minutes`.
        replicas: what the lanes are divided among; one device if None.

    Raises:
        ModelError: the checkpoint does not fit.
        UsageError: a length that is over already, or a precision that this machine has not.
    """

    def __init__(
        self,
        session: Session,
        *,
        stop: Callable[[], bool] = lambda: False,
        started: float | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        self.run, self.data, self.config, self.lanes = session.run, session.data, session.config, session.lanes
        self.old_text, self.lock, self.replicas = session.old_text, session.lock, replicas or Replicas()
        asked = self.replicas
        self.stop: Callable[[], bool] = lambda: stop() or asked.asked_to_stop
        self.started = time.monotonic() if started is None else started
        train = self.config.train
        self.model = build_trained(self.config.model, train, bool(len(self.data.train.starts)), session.weights)
        groups = session.groups if self.replicas.count == 1 else replica_groups(self.replicas, self.config)
        self.trainer = Trainer(self.model, train, groups, self.replicas)
        self.validation = Validation(self.model, self.data, self.config.sample, session.groups, train.seed)
        self.at = Progress(groups=groups, replicas=self.replicas.count, threads=threads(), onednn=onednn())
        self.at.precision = self.model.precision
        self.ahead: Window | None = None  # the next update's
        self.before = 0.0  # seconds of earlier sessions
        self.budget: TimeBudget | None = None
        self.previous: int | None = None  # the steps of the run before it was given another length
        self.chars_per_symbol = float(self.data.tokenizer.chars_per_id[self.data.train.ids[: 1 << 20]].mean())
        if session.checkpoint is None:
            self.at.steps = session.steps
            if self.old_text is not None:
                weights = grown(self.old_text.weights, self.config.model.vocabulary)
                assign(self.model.named_weights(), weights, self.run.path)
            self.state = self.trainer.initial_state()
            if self.replicas.several_workers:
                self.state = self.trainer.take(*self.trainer.arrays(self.state), self.run.path)
        else:
            self._restore(session.checkpoint, session.steps)
        if self.at.every is None:
            self.at.every = train.evaluate_every or (self.at.steps and math.ceil(self.at.steps / EVALUATIONS))

    def _restore(self, checkpoint: Checkpoint, steps: int | None) -> None:
        for change in self._load(checkpoint):
            _log.warning("%s: %s; it will not go on bit for bit", self.run.name, change)
        self.before = self.at.seconds
        self.validation.limit(self.at.validated)
        self.previous = self.at.lengthen(checkpoint.config().train, self.config.train, steps)

    def _load(self, checkpoint: Checkpoint) -> list[str]:
        """Goes on from a checkpoint, and returns what of this process' computing changes its bits."""
        now, self.at = self.at, checkpoint.standing()
        arrays = checkpoint.arrays("weights"), checkpoint.arrays("training")
        self.state, self.ahead = self.trainer.take(*arrays, checkpoint.path), None
        return self.at.computed_as(now)

    def _backed_off(self, diverged: NotFinite, last: Checkpoint) -> BackedOff:
        """Goes back to the last checkpoint, with a lower learning rate."""
        plan = self.at
        self._load(last)
        self.at.steps, self.at.every, self.at.validated = plan.steps, plan.every, plan.validated
        self.at.back_offs = plan.back_offs + 1
        return BackedOff(**self._stamp(), diverged=diverged.step, found=diverged.found, back_offs=self.at.back_offs)

    @property
    def step(self) -> int:
        """Updates done."""
        return self.at.step

    @property
    def cursor(self) -> Cursor:
        """The next window."""
        return Cursor(self.at.epoch, self.at.window)

    @property
    def seconds(self) -> float:
        """Since the run's beginning, earlier sessions' included."""
        return self.before + time.monotonic() - self.started

    def _stamp(self) -> dict[str, Any]:
        return {"step": self.at.step, "epoch": self.at.epoch, "seconds": round(self.seconds, 3)}

    def events(self) -> Iterator[Event]:
        """Trains, and yields what happens; logs it in metrics.jsonl too. In the end it lets go of the run.

        Raises:
            DivergedError: a value is no longer finite, and it was not to go back; earlier checkpoints are whole.
        """
        with self.lock:
            self.run.record_again(self.run.record | {"config": self.config.to_dict()})  # perhaps of another length
            logged_step, logged_at = -math.inf, -math.inf
            for event in self._loop():
                if isinstance(event, Stepped):
                    now = time.monotonic()
                    if event.step < logged_step + 10 and now < logged_at + 1:
                        yield event
                        continue
                    logged_step, logged_at = event.step, now
                self.run.log(to_log(event))
                yield event

    def _loop(self) -> Iterator[Event]:
        yield self._started()
        if self.at.finished:
            yield self._finished("done")
            return
        if self.at.steps is None:
            with contextlib.suppress(Abandoned):
                self._measure()
        if self.at.steps is not None and (self.budget or self.previous):
            yield self._planned(self.previous)
        may_go_back = self.config.train.on_divergence == "back-off"
        while True:
            try:
                if may_go_back and self.run.last() is None:
                    yield self._save()  # there is something to go back to
                yield from self._updates()
                return
            except NotFinite as diverged:
                if (last := self.run.last()) is None or not may_go_back or self.at.back_offs == MOST_BACK_OFFS:
                    raise diverged.ended(last) from None
                yield self._backed_off(diverged, last)

    def _updates(self) -> Iterator[Event]:
        """Trains from where it stands to the end, or until it is to stop; raises NotFinite if it diverges."""
        train, at = self.config.train, self.at
        while at.step < self.at.total and not self.stop():
            yield self._update()
            due = at.due(train.evaluate_every)
            if due or (train.evaluate_every is None and self.validation.overdue()):
                yield from self._evaluate(scheduled=due)
            elif self.budget and self.budget.due():
                previous = at.steps
                at.steps, at.every = self.budget.plan(at.step, at.every)
                yield self._planned(previous)
            if train.patience is not None and at.stale >= train.patience:
                break
            worth = at.step in (at.best, at.scheduled_best) or at.due(train.save_every or train.evaluate_every)
            if worth and at.step < self.at.total:
                yield self._save()
        else:
            if at.step < self.at.total:
                yield from self._interrupted()
                return
        at.finish()
        yield self._save()
        if self.old_text is not None:
            with contextlib.suppress(Abandoned):
                yield self._remembered(self.old_text)
        yield self._finished("done" if at.step == self.at.total else "early")

    def _interrupted(self) -> Iterator[Event]:
        """Saves, and then scores what was saved, so that it is used if it is the best; no updates leave nothing."""
        if self.at.step:
            yield self._save()
            with contextlib.suppress(Abandoned):
                if self.at.scored < self.at.step and self.validation.scores:
                    score = self.validation.score(abandon=lambda: self.seconds > self.at.seconds + LAST_SECONDS)
                    yield self._scored(score, scheduled=False)
                    yield self._save()
        yield self._finished("interrupted")

    def _finished(self, reason: str) -> Finished:
        self.replicas.end(reason)
        return Finished(**self._stamp(), reason=reason, best=self.at.best_nats)

    def _remembered(self, text: OldText) -> Remembered:
        before, after = self.validation.remembered(text, self.run.pick("best").arrays("weights"), self.stop)
        stamp = self._stamp()
        return Remembered(**stamp, run=text.run, text=text.name, before=before, after=after, missing=text.missing)

    def _started(self) -> Started:
        return Started(
            **self._stamp(),
            run=self.run.path,
            config=self.config,
            steps=self.at.steps,
            minutes=self.config.train.minutes if self.at.steps is None else None,
            steps_per_epoch=self.lanes.windows,
            parameters=self.model.count_params(),
            vocabulary=self.data.tokenizer.vocabulary,
            train_symbols=self.data.train.symbols,
            valid_symbols=self.data.valid.symbols,
            valid_scored=self.data.valid.predicted,
            chars_per_symbol=self.chars_per_symbol,
            unscored=self.lanes.unscored,
            engine=self.model.engine,
            precision=self.model.precision,
            groups=self.trainer.groups,
            replicas=self.replicas.count,
        )

    def _planned(self, previous: int | None) -> Planned:
        assert self.at.steps is not None
        assert self.at.every is not None
        rate = scheduled_rate(self.config.train, self.at.step, self.at.steps, self.at.back_offs)
        return Planned(**self._stamp(), steps=self.at.steps, every=self.at.every, previous=previous, learning_rate=rate)

    def _update(self) -> Stepped:
        start, at = time.monotonic(), self.at
        rate = scheduled_rate(self.config.train, at.step, at.total, at.back_offs)
        window = self.ahead or self.lanes.window(self.cursor)
        update = self._applied(window, rate)
        after = self.lanes.after(self.cursor)
        self.ahead = self.lanes.window(after)  # while a GPU computes
        scored = max(1, int(window.loss_mask.sum()))
        nats, norm = float(update.nats_sum) / scored, float(update.gradient_norm)
        if self.budget:
            self.budget.updated(time.monotonic() - start)
        check_finite(at.step + 1, {"loss": nats, "gradient_norm": norm, "weights_sum": float(update.weights_sum)})
        self.state, self.at.step = update.state, self.at.step + 1
        self.at.epoch, self.at.window = after.epoch, after.window
        return Stepped(
            **self._stamp(),
            steps=self.at.total,
            nats_per_symbol=nats,
            bits_per_char=nats / math.log(2) / self.chars_per_symbol,
            symbols_per_second=scored / (time.monotonic() - start),
            gradient_norm=norm,
            learning_rate=rate,
        )

    def _applied(self, window: Window, rate: float) -> Update:
        self.replicas.announce(Command.UPDATE, self.at.epoch, self.at.window, rate, self.at.step)
        return self.trainer(window, self.state, rate, (self.config.train.seed, self.at.step))

    def _evaluate(self, scheduled: bool) -> Iterator[Event]:
        """Scores and samples; an evaluation is abandoned when the run is to stop."""
        with contextlib.suppress(Abandoned), self.validation.timed():
            if self.validation.scores:
                yield self._scored(self.validation.score(abandon=self.stop), scheduled)
            if (text := self.validation.sample()) is not None:
                yield Sampled(**self._stamp(), prompt=SAMPLE_PROMPT, text=text)

    def _scored(self, score: Score, scheduled: bool) -> Evaluated:
        check_finite(self.at.step, {"validation_loss": score.nats_per_symbol})
        best = self.at.take_score(score.nats_per_symbol, scheduled)
        return Evaluated(**self._stamp(), score=score, best=best, scheduled=scheduled)

    def _save(self) -> Saved:
        self.at.seconds = self.seconds
        weights, training = self.trainer.arrays(self.state)
        check_finite(self.at.step, weights | training)
        saved = self.run.save(self.at.step, weights, training, self.at.to_dict(), self.data.tokenizer)
        return Saved(**self._stamp(), path=saved.path)

    def _measure(self) -> None:
        """Plans what fits into --minutes: makes trial updates and evaluations, and takes them back.

        The plan comes first so that the learning rate follows one schedule from the first update on.

        Raises:
            Abandoned: the run is to stop.
        """
        minutes = self.config.train.minutes
        assert minutes is not None
        budget = TimeBudget(60 * minutes - self.before, self.started)
        untrained, window = self.trainer.arrays(self.state), self.lanes.window(self.cursor)
        try:
            if not budget.measure(lambda: float(self._applied(window, 0.0).nats_sum), self.stop):
                raise Abandoned
        finally:
            self.state = self.trainer.take(*untrained, self.run.path)
        self.at.validated = self.validation.plan(budget, self.at.best_nats is not None, self.old_text, self.stop)
        self.at.steps, self.at.every = budget.plan(self.at.step, self.at.every)
        self.budget = budget
