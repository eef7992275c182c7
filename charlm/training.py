"""The training loop: windows in, events out. It prints nothing.

for event in Training(open_session(request)).events(): ...
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import tensorflow as tf

from charlm.checkpoint import Arrays, Checkpoint, assign, to_arrays
from charlm.errors import DivergedError, UsageError, named
from charlm.evaluation import score_ids
from charlm.events import Evaluated, Event, Finished, Sampled, Saved, Started, Stepped, to_log
from charlm.generation import Generator, Sample, stream_text
from charlm.model import ModelState, build_model
from charlm.pace import EVALUATIONS, Pace
from charlm.runtime import choose_precision, threads
from charlm.score import Score
from charlm.session import Session
from charlm.streams import Cursor, Ids, Window
from charlm.tbptt import Evaluator, Trainer, scheduled_rate

VALIDATION_SYMBOLS = 1 << 20  # of the held-out text are scored at an evaluation, at most
SAMPLE_SYMBOLS = 200
TRIAL_SYMBOLS = 1 << 17  # scored to measure an evaluation

_log = logging.getLogger("charlm")


class Training:
    """One run's training, from its start or from its last checkpoint.

    Args:
        session: the run, its data and configuration, and where to go on.
        stop: asked after every update whether to save and stop.
        started: `time.monotonic()` when the command began, for `--minutes`.

    Raises:
        ModelError: the checkpoint does not fit.
        UsageError: fewer steps are asked for than are done, or a precision that this machine has not.
    """

    def __init__(
        self, session: Session, *, stop: Callable[[], bool] = lambda: False, started: float | None = None
    ) -> None:
        self.run, self.data, self.config, self.lanes = session.run, session.data, session.config, session.lanes
        self.stop = stop
        self.started = time.monotonic() if started is None else started
        train = self.config.train
        precision = choose_precision(train.precision)
        self.model = build_model(self.config.model, seed=train.seed, precision=precision)
        self.trainer = Trainer(self.model, train, session.groups)
        self.evaluator = Evaluator(self.model, session.groups)
        self.sampling = replace(self.config.sample, samples=1, length=SAMPLE_SYMBOLS)
        self.generator = Generator(self.model, self.sampling, self.data.tokenizer.blocked)
        self.validated = self.data.valid[: VALIDATION_SYMBOLS + 1]
        self.step, self.cursor, self.state = 0, Cursor(), self.model.initial_state(train.lanes)
        self.ahead: Window | None = None  # the next update's
        self.best: int | None = None
        self.best_nats: float | None = None
        self.stale, self.finished, self.before = 0, False, 0.0
        self.steps = self._given_steps()
        self.every = train.evaluate_every or (self.steps and math.ceil(self.steps / EVALUATIONS))
        self.pace: Pace | None = None
        self.chars_per_symbol = float(self.data.tokenizer.chars_per_id[self.data.train[: 1 << 20]].mean())
        if session.checkpoint is not None:
            self._restore(session.checkpoint)

    def _given_steps(self) -> int | None:
        train = self.config.train
        return train.epochs * self.lanes.windows if train.epochs else train.steps

    def _optimizer_variables(self) -> dict[str, Any]:
        return {f"optimizer.{n:03}": v for n, v in enumerate(self.trainer.optimizer.variables)}

    def _restore(self, checkpoint: Checkpoint) -> None:
        progress, training = checkpoint.progress(), checkpoint.arrays("training")
        assign(self.model.named_weights(), checkpoint.arrays("weights"), checkpoint.path)
        slots = {name: array for name, array in training.items() if name.startswith("optimizer.")}
        assign(self._optimizer_variables(), slots, checkpoint.path)
        self.state = self._state_from(training)
        self.step, self.cursor = progress["step"], Cursor(progress["epoch"], progress["window"])
        self.best, self.best_nats, self.stale = progress["best"], progress["best_nats"], progress["stale"]
        self.before = progress["seconds"]
        for what, before, now in (
            ("threads an operation", progress["threads"], threads()),
            ("precision", progress["precision"], self.model.precision),
        ):
            if before != now:
                _log.warning("%s: %s was %s, now %s; it will not go on bit for bit", self.run.name, what, before, now)
        planned = self._given_steps() or progress["steps"]
        if planned is not None and planned < self.step:
            raise UsageError(f"{named('train.steps')} {planned}: the run has already made {self.step} updates")
        self.finished = planned == self.step or (progress["finished"] and planned == progress["steps"])
        self.steps, self.every = planned, self.every or progress["every"]

    def _state_arrays(self) -> Arrays:
        names = self.model.cell.states
        named = ((f"state.{n}.{k}", s) for n, layer in enumerate(self.state) for k, s in zip(names, layer, strict=True))
        return to_arrays(dict(named))

    def _state_from(self, arrays: Arrays) -> ModelState:
        names = self.model.cell.states
        return tuple(
            tuple(tf.constant(arrays[f"state.{n}.{name}"]) for name in names) for n in range(self.config.model.layers)
        )

    @property
    def seconds(self) -> float:
        """Since the run's beginning, earlier sessions' included."""
        return self.before + time.monotonic() - self.started

    def _stamp(self) -> dict[str, Any]:
        return {"step": self.step, "epoch": self.cursor.epoch, "seconds": round(self.seconds, 3)}

    def events(self) -> Iterator[Event]:
        """Trains, and yields what happens; logs it in metrics.jsonl too.

        Raises:
            DivergedError: the loss or the gradient is no longer finite; earlier checkpoints are whole.
        """
        with self.run.locked():
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
        train = self.config.train
        yield self._started()
        if self.finished:
            yield Finished(**self._stamp(), reason="done", best=self.best_nats)
            return
        if self.steps is None:
            yield from self._measure()
        assert self.steps is not None
        reason = "done"
        while self.step < self.steps:
            yield self._update()
            due = self._due(train.evaluate_every)
            if due:
                yield from self._evaluate()
            elif self.pace and self.pace.due():
                self.steps, self.every = self.pace.estimate(self.step, self.every)
            stopped = self.stop()
            early = due and train.patience is not None and self.stale >= train.patience
            if stopped or early:
                reason = "interrupted" if stopped else "early"
                self.finished = not stopped
                break
            worth = (due and self.best == self.step) or self._due(train.save_every or train.evaluate_every)
            if worth and self.step < self.steps:
                yield self._save()
        self.finished = self.finished or self.step >= self.steps
        yield self._save()
        yield Finished(**self._stamp(), reason=reason if self.step < self.steps else "done", best=self.best_nats)

    def _started(self) -> Started:
        return Started(
            **self._stamp(),
            run=self.run.path,
            config=self.config,
            steps=self.steps,
            steps_per_epoch=self.lanes.windows,
            parameters=self.model.count_params(),
            vocabulary=self.data.tokenizer.vocabulary,
            train_symbols=len(self.data.train),
            valid_symbols=len(self.data.valid),
            chars_per_symbol=self.chars_per_symbol,
            unscored=self.lanes.unscored,
            engine=self.model.engine,
            precision=self.model.precision,
            groups=self.trainer.groups,
        )

    def _due(self, given: int | None) -> bool:
        """Whether what is done so often, or about eight times a run, is due; not shortly before the end."""
        assert self.steps is not None
        assert self.every is not None
        left = self.steps - self.step
        if not left:
            return True
        return self.step % given == 0 if given else self.step % self.every == 0 and left > self.every // 2

    def _update(self) -> Stepped:
        start = time.monotonic()
        train = self.config.train
        if self.cursor.window == 0:
            self.state = self.model.initial_state(train.lanes)
        window = self.ahead or self.lanes.window(self.cursor)
        rate = scheduled_rate(train, self.step, self.steps or 10**9)
        update = self.trainer(window.x, window.y, self.state, window.scored, rate, (train.seed, self.step))
        self.ahead = self.lanes.window(self.lanes.after(self.cursor))  # while a GPU computes
        scored = window.scored * train.lanes
        nats, norm = float(update.nats_sum) / scored, float(update.gradient_norm)
        if self.pace:
            self.pace.updated(time.monotonic() - start)
        self._check_finite(self.step + 1, loss=nats, gradient_norm=norm)
        self.state, self.cursor, self.step = update.state, self.lanes.after(self.cursor), self.step + 1
        return Stepped(
            **self._stamp(),
            steps=self.steps,
            nats_per_symbol=nats,
            bits_per_char=nats / math.log(2) / self.chars_per_symbol,
            symbols_per_second=scored / (time.monotonic() - start),
            gradient_norm=norm,
            learning_rate=rate,
        )

    def _check_finite(self, step: int, **values: float) -> None:
        if all(map(math.isfinite, values.values())):
            return
        last = self.run.last()
        kept = f"the checkpoint of step {last.step} is whole" if last else "there is no checkpoint yet"
        found = ", ".join(f"{name} {value}" for name, value in values.items())
        raise DivergedError(
            f"training diverged at step {step}: {found}; {kept}; try a lower {named('train.learning_rate')}"
        )

    def _score(self, ids: Ids) -> Score:
        return score_ids(self.evaluator, ids, self.data.tokenizer, "valid")

    def _sample(self) -> str:
        pieces = stream_text(self.generator, self.data.tokenizer, "", self.sampling, self.config.train.seed)
        return next(piece.text for piece in pieces if isinstance(piece, Sample))

    def _evaluate(self) -> Iterator[Event]:
        if len(self.validated) > 1:
            score = self._score(self.validated)
            self._check_finite(self.step, validation_loss=score.nats_per_symbol)
            better = self.best_nats is None or score.nats_per_symbol < self.best_nats
            self.stale = 0 if better else self.stale + 1
            if better:
                self.best, self.best_nats = self.step, score.nats_per_symbol
            yield Evaluated(**self._stamp(), score=score, best=better)
        yield Sampled(**self._stamp(), text=self._sample())

    def _save(self) -> Saved:
        progress = {
            "step": self.step,
            "epoch": self.cursor.epoch,
            "window": self.cursor.window,
            "steps": self.steps,
            "every": self.every,
            "best": self.best,
            "best_nats": self.best_nats,
            "stale": self.stale,
            "finished": self.finished,
            "seconds": self.seconds,
            "threads": threads(),
            "groups": self.trainer.groups,
            "precision": self.model.precision,
        }
        weights = to_arrays(self.model.named_weights())
        training = to_arrays(self._optimizer_variables()) | self._state_arrays()
        saved = self.run.save(self.step, weights, training, progress, self.data.tokenizer)
        return Saved(**self._stamp(), path=saved.path)

    def _measure(self) -> Iterator[Event]:
        """Makes the first updates and measures an evaluation, for a first estimate of what fits into --minutes."""
        minutes = self.config.train.minutes
        assert minutes is not None
        pace = Pace(minutes, self.started)
        yield self._update()  # compiles
        self.pace = pace
        yield self._update()
        while not pace.measured() and not self.stop():
            yield self._update()
        trial = self.validated[:TRIAL_SYMBOLS]
        for _ in range(2):  # here too, the first compiles
            start = time.monotonic()
            scoring = self._score(trial).seconds if len(trial) > 1 else 0.0
            self._sample()
            pace.evaluation = time.monotonic() - start + scoring * (len(self.validated) / max(len(trial), 1) - 1)
        self.steps, self.every = pace.estimate(self.step, self.every)
