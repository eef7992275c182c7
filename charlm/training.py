"""The training loop: windows in, events out. It prints nothing.

for event in Training(run, data, config).events(): ...
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import tensorflow as tf

from charlm.checkpoint import Arrays, Checkpoint, Run, assign, to_arrays
from charlm.config import Config
from charlm.dataset import Data
from charlm.errors import DivergedError, UsageError
from charlm.evaluation import score_ids
from charlm.events import Evaluated, Event, Finished, Sampled, Saved, Started, Stepped, to_log
from charlm.generation import Generator, Sample, stream_text
from charlm.model import ModelState, build_model
from charlm.runtime import choose_precision
from charlm.score import Score
from charlm.streams import Cursor, Lanes
from charlm.tbptt import Evaluator, Trainer, scheduled_rate

EVALUATIONS = 8  # in a run, unless --evaluate-every says otherwise or --minutes leaves no time for them
EVALUATION_SHARE = 0.08  # of --minutes
SAMPLE_SYMBOLS = 200
MEASURED_SECONDS = 4.0
RESERVED_SHARE = 0.03  # of --minutes, for what the measured steps did not show


class Training:
    """One run's training, from its start or from its last checkpoint.

    Args:
        run: its directory.
        data: its corpus.
        config: its resolved configuration.
        groups: lane groups to compute side by side.
        checkpoint: where to go on; None starts anew.
        stop: asked after every update whether to save and stop.
        started: `time.monotonic()` when the command began, for `--minutes`.

    Raises:
        DataError: the training text is too short for the lanes and the window.
        ModelError: the checkpoint does not fit.
    """

    def __init__(
        self,
        run: Run,
        data: Data,
        config: Config,
        *,
        groups: int = 1,
        checkpoint: Checkpoint | None = None,
        stop: Callable[[], bool] = lambda: False,
        started: float | None = None,
    ) -> None:
        self.run, self.data, self.config, self.stop = run, data, config, stop
        self.started = time.monotonic() if started is None else started
        train = config.train
        self.lanes = Lanes(data.train, train.lanes, train.bptt, train.k1, train.seed)
        precision = choose_precision(train.precision)
        self.model = build_model(config.model, seed=train.seed, precision=precision)
        self.trainer = Trainer(self.model, train, groups)
        self.evaluator = Evaluator(self.model, groups)
        self.sampling = replace(config.sample, samples=1, length=SAMPLE_SYMBOLS)
        self.generator = Generator(self.model, self.sampling, data.tokenizer.blocked)
        self.step, self.cursor, self.state = 0, Cursor(), self.model.initial_state(train.lanes)
        self.best: int | None = None
        self.best_nats: float | None = None
        self.stale, self.finished, self.before = 0, False, 0.0
        self.evaluations = EVALUATIONS
        self.steps = self._given_steps()
        self.chars_per_symbol = float(data.tokenizer.chars_per_id[data.train[: 1 << 20]].mean())
        if checkpoint is not None:
            self._restore(checkpoint)

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
        self.before, self.evaluations = progress["seconds"], progress["evaluations"]
        planned = self._given_steps() or progress["steps"]
        if planned is not None and planned < self.step:
            raise UsageError(f"--steps {planned}: the run has already made {self.step} updates")
        self.finished = progress["finished"] and planned == progress["steps"]
        self.steps = planned

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
            stopped, late = self.stop(), self._late()
            early = due and train.patience is not None and self.stale >= train.patience
            if stopped or late or early:
                reason = "interrupted" if stopped else "time" if late else "early"
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
            unscored=self.lanes.unscored,
            engine=self.model.engine,
            precision=self.model.precision,
            groups=self.trainer.groups,
        )

    def _due(self, every: int | None) -> bool:
        assert self.steps is not None
        every = every or math.ceil(self.steps / self.evaluations)
        return self.step % every == 0 or self.step == self.steps

    def _late(self) -> bool:
        minutes = self.config.train.minutes
        return minutes is not None and time.monotonic() - self.started > 60 * minutes * (1 + RESERVED_SHARE)

    def _update(self) -> Stepped:
        start = time.monotonic()
        train = self.config.train
        if self.cursor.window == 0:
            self.state = self.model.initial_state(train.lanes)
        window = self.lanes.window(self.cursor)
        rate = scheduled_rate(train, self.step, self.steps or 10**9)
        update = self.trainer(window.x, window.y, self.state, window.scored, rate, (train.seed, self.step))
        scored = window.scored * train.lanes
        nats, norm = float(update.nats_sum) / scored, float(update.gradient_norm)
        if not (math.isfinite(nats) and math.isfinite(norm)):
            last = self.run.last()
            kept = f"the checkpoint of step {last.step} is whole" if last else "there is no checkpoint yet"
            raise DivergedError(
                f"training diverged: at step {self.step + 1} the loss is {nats} and the gradient norm {norm}; {kept}; "
                "try a lower --learning-rate"
            )
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

    def _score(self) -> Score:
        return score_ids(self.evaluator, self.data.valid, self.data.tokenizer, "valid")

    def _sample(self) -> str:
        pieces = stream_text(self.generator, self.data.tokenizer, "", self.sampling, self.config.train.seed)
        return next(piece.text for piece in pieces if isinstance(piece, Sample))

    def _evaluate(self) -> Iterator[Event]:
        if len(self.data.valid) > 1:
            score = self._score()
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
            "evaluations": self.evaluations,
            "best": self.best,
            "best_nats": self.best_nats,
            "stale": self.stale,
            "finished": self.finished,
            "seconds": self.seconds,
            "threads": 1,
            "groups": self.trainer.groups,
            "precision": self.model.precision,
        }
        weights = to_arrays(self.model.named_weights())
        training = to_arrays(self._optimizer_variables()) | self._state_arrays()
        saved = self.run.save(self.step, weights, training, progress, self.data.tokenizer)
        return Saved(**self._stamp(), path=saved.path)

    def _measure(self) -> Iterator[Event]:
        """Makes the first updates and an evaluation, and fixes the number of steps that fits --minutes."""
        minutes = self.config.train.minutes
        assert minutes is not None
        compiling = 1 if self.config.train.k1 == self.config.train.bptt else 2
        times: list[float] = []
        while len(times) <= compiling or (sum(times[compiling:]) < MEASURED_SECONDS and not self.stop()):
            start = time.monotonic()
            yield self._update()
            times.append(time.monotonic() - start)
        yield from self._evaluate()  # compiles
        start = time.monotonic()
        if len(self.data.valid) > 1:
            self._score()
        self._sample()
        each = time.monotonic() - start
        left = 60 * minutes * (1 - RESERVED_SHARE) - (time.monotonic() - self.started)
        self.evaluations = min(EVALUATIONS, max(1, int(left * EVALUATION_SHARE / each)))
        left -= self.evaluations * each
        self.steps = self.step + max(1, int(left / statistics.median(times[compiling:])))
