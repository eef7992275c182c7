"""The package's public functions: train a model, load one."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charlm.config import LENGTHS, Config, DataConfig, ModelConfig, Tables, TrainConfig
from charlm.display import TrainingDisplay, interactive, say
from charlm.errors import Interrupted, UsageError, did_you_mean, nearest
from charlm.events import Event, Finished
from charlm.interrupts import stop_requested
from charlm.language_model import LanguageModel, PathLike, Paths, paths_of
from charlm.machine import start_tensorflow, trains_side_by_side
from charlm.presets import PRESETS
from charlm.replicas import start_replicas
from charlm.session import Request, open_session
from charlm.settings import lists, without_none
from charlm.shelf import find_run
from charlm.training import Training
from charlm.trial import settled

_log = logging.getLogger("charlm")


def load(
    model: PathLike | None = None, *, checkpoint: str | int | None = "best", models: PathLike | None = "models"
) -> LanguageModel:
    """Loads a trained model.

    Args:
        model: a run directory or a name under `models`; the newest run if None.
        checkpoint: "best", "last", or a step (525, or "step-00000525" as its folder is called).
        models: where runs are.

    Raises:
        ModelError: there is none, or it is damaged or foreign.
    """
    named_run = None if model is None else os.fsdecode(model)
    found = find_run(named_run, Path(models or "models")).pick(str(checkpoint or "best"))
    start_tensorflow()
    return LanguageModel(found)


@lists(ModelConfig, DataConfig, TrainConfig)
def train(
    *paths: Paths,
    name: str | None = None,
    preset: str | None = None,
    resume: bool = False,
    from_run: PathLike | None = None,
    strategy: str | None = None,
    models: PathLike | None = "models",
    on_event: Callable[[Event], object] | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> LanguageModel:
    """Trains a model and returns it at its best checkpoint.

    Args:
        paths: the corpus: one or many files, folders, globs or "-".
        name: of the run; after the corpus, and numbered, if None.
        preset: a name in `charlm.presets.PRESETS`; by corpus size, hardware and minutes if None.
        resume: go on with the run called `name`, to another total of `minutes`, `steps` or `epochs` if it is given.
        from_run: begin a new run with the model of this one, a run directory or a name under `models`: its best
            weights, its network and its tokenizer, which gets new characters.
        strategy: "mirrored" divides the lanes among the GPUs of this machine. Several machines train together by
            `charlm train --strategy multiworker` alone.
        models: where runs are.
        on_event: called with every event of `charlm.events`.
        progress: show a bar, scores and samples on standard error; if None, in a terminal and in a notebook.
        settings: what the preset says holds for those that are not given or None.

            SETTINGS

    SIGINT (a notebook's stop button), SIGTERM and SIGHUP save and end the training; a second one does what it did
    before.

    Raises:
        Interrupted: after saving.
        CharlmError: as its subclasses say.
    """
    _check_names(preset, strategy)
    replicas = None if strategy is None else start_replicas(strategy)
    run = None if name is None else str(name)
    origin = None if from_run is None else os.fsdecode(from_run)
    request = Request(paths_of(paths), _tables(settings), Path(models or "models"), run, preset, resume, origin)
    shows = interactive() if progress is None else progress
    started = None
    if (request.settings.get("data", {}).get("pairs") or preset == "pairs") and not resume:
        started = time.monotonic()
        start_tensorflow(side_by_side=True)
        with stop_requested() as stop:
            request = settled(request, stop, say if shows else lambda line: None)
            if stop():
                raise Interrupted("nothing is trained yet")
    session = open_session(request, replicas=1 if replicas is None else replicas.count)
    if shows:
        say(f"{session.data.corpus}\n{session.choice}")
    with session.lock, stop_requested() as stop, contextlib.closing(TrainingDisplay()) as display:
        start_tensorflow(side_by_side=True)
        if session.checkpoint is None and not trains_side_by_side():
            _log.warning(
                "TensorFlow was in use before this training began and keeps its threads; the run goes on bit for bit "
                "in a process where it is the same, and not with `charlm train --resume`"
            )
        for event in Training(session, stop=stop, started=started, replicas=replicas).events():
            if shows:
                display.show(event)
            if on_event is not None:
                on_event(event)
    if isinstance(event, Finished) and event.reason == "interrupted":
        left = "saved" if event.step else "nothing is trained yet"
        raise Interrupted(f"{left}; go on with: charlm.train(name={session.run.name!r}, resume=True)")
    return LanguageModel(session.run.pick("best"))


def _check_names(preset: str | None, strategy: str | None) -> None:
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}{nearest(str(preset), PRESETS)}")
    if strategy not in (None, "mirrored"):
        raise UsageError(f"strategy must be 'mirrored' or None, not {strategy!r}; see charlm train --strategy")


def _tables(settings: dict[str, Any]) -> Tables:
    homes = {one.key: table for table in (ModelConfig, DataConfig, TrainConfig) for one in table.settings()}
    tables: Tables = {}
    for key, value in settings.items():
        if key not in homes:
            raise UsageError(f"{key}: there is no such setting{did_you_mean(key, homes)}")
        if without_none(homes[key], {key: value}) and not (value is None and key in LENGTHS):
            tables.setdefault(homes[key].TABLE, {})[key] = value
    return Config.checked(tables)
