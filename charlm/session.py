"""From what a user says to what `Training` needs: presets, names, and what a resumed run must agree with."""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from charlm import __version__
from charlm.checkpoint import FORMAT, Arrays, Checkpoint
from charlm.config import LENGTHS, Config, DataConfig, Tables, check, overlay, resolve
from charlm.corpus import Announce, Corpus
from charlm.dataset import Data, Passing, prepare, read, read_again
from charlm.errors import ModelError, UsageError, named
from charlm.files import MANIFEST, left_by_system
from charlm.machine import Machine
from charlm.origin import OldText, Origin
from charlm.presets import PRESETS, choose_preset
from charlm.runs import Run
from charlm.series.alphabet import SeriesAlphabet
from charlm.tokenizer import Tokenizer
from charlm.windows import Lanes, PackedLanes

# What a resumed run may be given anew; everything else shapes the model, the data or the path of training.
FREE = {*LENGTHS, "evaluate_every", "save_every", "patience", "on_divergence"}
LONGEST_PIECE = 256  # of a number series, in steps: what a lane reads before it goes on to another one


@dataclass(frozen=True)
class Session:
    """All that `Training` takes, and one line that says what was chosen and why."""

    run: Run
    data: Data
    lanes: Lanes
    config: Config
    groups: int  # of lanes, computed side by side
    checkpoint: Checkpoint | None
    choice: str
    lock: IO[bytes]  # of the run; whoever closes it lets go of it
    old_text: OldText | None = None  # of the run that it began from

    @property
    def steps(self) -> int | None:
        """The updates that the configuration says; None if it says minutes."""
        train = self.config.train
        return self.lanes.windows_of(train.epochs) if train.epochs else train.steps

    @property
    def weights(self) -> Arrays:
        """The weights that it begins with, by name; none if they are drawn."""
        if self.checkpoint is not None:
            return self.checkpoint.arrays("weights")
        return {} if self.old_text is None else self.old_text.weights


@dataclass(frozen=True)
class Request:
    """The user's request."""

    paths: Sequence[str]
    settings: Tables  # set one by one
    models: Path
    name: str | None = None
    preset: str | None = None
    resume: bool = False
    from_run: str | None = None  # whose model a new run begins with


def open_session(
    request: Request,
    reading: Announce = lambda size: lambda count: None,
    passing: Passing = lambda what, chars: lambda count: None,
    replicas: int = 1,
) -> Session:
    """Makes a new run, or opens the one to resume, which nobody else may train until the session's lock is closed.

    Imports TensorFlow where a driver finds a GPU alone.

    Args:
        request: what the user said.
        reading: given the size of the corpus in bytes, returns what is called with the bytes read.
        passing: as `prepare` takes it.
        replicas: that the lanes are divided among.

    Raises:
        UsageError: a run of that name exists, there is none to resume, what was said differs from it, or the lanes do
            not divide.
        DataError: the corpus is empty, undecodable, or too small for the lanes.
        CharlmError: another process trains it.
    """
    existing = _existing(request)
    if existing is not None:
        with contextlib.ExitStack() as closing:
            lock = closing.enter_context(existing.lock())
            session = _resumed(existing, lock, request, reading, passing)
            _check_divides(session.config, replicas)
            closing.pop_all()
            return session
    if not request.paths:
        raise UsageError("train needs a corpus: files, folders, globs, or - for standard input")
    paths, preset, choice = list(request.paths), request.preset, f"preset {request.preset}"
    origin = None if request.from_run is None else Origin.named(request.from_run, request.models)
    kept = origin.settings(request.settings) if origin else {}
    machine = Machine.here()
    presets = {name: {**one.on(machine.slow), **kept} for name, one in PRESETS.items()}
    check(request.settings, [presets[preset]] if preset else presets.values())
    told = overlay(presets[preset] if preset else kept, request.settings)
    corpus = read(paths, DataConfig.from_dict(told.get("data", {})), reading)
    if preset is None:
        minutes, kind = (
            request.settings.get("train", {}).get("minutes"),
            DataConfig.from_dict(told.get("data", {})).alphabet,
        )
        preset, why = choose_preset(corpus.chars, machine.gpu, minutes, kind)
        choice = f"preset {preset}: {why}"
    config = resolve(presets[preset], request.settings)
    _check_divides(config, replicas)
    alphabet = origin.checkpoint.alphabet() if origin else None
    data = prepare(corpus, config.data, alphabet, passing, grow=True)
    config = replace(config, model=replace(config.model, vocabulary=data.tokenizer.vocabulary))
    lanes, record = lanes_of(data, config), _record(config, data, paths, preset, machine)
    if data.choice:
        choice = f"{data.choice}\n{choice}"
    if origin:
        record["from"], choice = origin.record, f"{origin.choice(data.tokenizer)}; {choice}"
    old_text = origin.old_text(data.tokenizer, reading) if origin else None
    run = _create(request, record)
    return Session(run, data, lanes, config, record["groups"], None, choice, run.lock(), old_text)


def lanes_of(data: Data, config: Config) -> Lanes:
    """The training split in the lanes of a configuration; raises DataError if they do not fit."""
    train = config.train
    if not isinstance(data.tokenizer, Tokenizer):
        longest = LONGEST_PIECE if isinstance(data.tokenizer, SeriesAlphabet) else None
        return PackedLanes(data.train, train.lanes, train.bptt, train.k1, train.seed, longest)
    return Lanes(data.train.ids, train.lanes, train.bptt, train.k1, train.seed, data.train.starts)


def _check_divides(config: Config, replicas: int) -> None:
    lanes = config.train.lanes
    if lanes % replicas:
        fits = " or ".join(named("train.lanes", n) for n in (lanes - lanes % replicas, lanes - lanes % -replicas) if n)
        raise UsageError(f"{named('train.lanes')} {lanes} do not divide among {replicas} devices: {fits} fits")


def _existing(request: Request) -> Run | None:
    if request.name is not None and (not re.fullmatch(r"[\w.-]+", request.name) or left_by_system(request.name)):
        raise UsageError(
            f"{named('name')} {request.name}: use letters, digits, '.', '_' and '-', and begin with no '.'"
        )
    if not request.resume:
        if request.name and (request.models / request.name).exists():
            raise _exists(request)
        return None
    if request.from_run is not None:
        raise UsageError(f"{named('resume', True)} goes on with a run and {named('from_run')} begins one: give one")
    if request.name is None:
        raise UsageError(f"{named('resume', True)} needs the {named('name')} of the run to go on with")
    run = Run(request.models / request.name)
    if not (run.path / "config.json").is_file():
        raise UsageError(f"{run.path}: there is no such run to resume")
    if (run.path / MANIFEST).is_file():
        raise UsageError(f"{run.path}: is a checkpoint without its run, which can be read but not resumed")
    return run


def _exists(request: Request) -> UsageError:
    ways_out = f"add {named('resume', True)} to go on, or choose another {named('name')}"
    return UsageError(f"{request.models / str(request.name)} exists: {ways_out}")


def _create(request: Request, record: dict[str, Any]) -> Run:
    """A new run under its given name, or under the corpus' name and the first free number."""
    if request.name:
        try:
            return Run.create(request.models / request.name, record)
        except FileExistsError:  # another process has made it meanwhile
            raise _exists(request) from None
    path = request.paths[0]
    stem = "stdin" if path == "-" else re.sub(r"[^\w-]+", "-", Path(path).name.split(".")[0]).strip("-")
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError):
            return Run.create(request.models / f"{stem or 'run'}-{number}", record)
    raise AssertionError


def _record(config: Config, data: Data, paths: Sequence[str], preset: str, machine: Machine) -> dict[str, Any]:
    packages = ("tensorflow", "keras", "numpy", "sentencepiece", "safetensors")
    versions = {"charlm": __version__, "python": platform.python_version()}
    corpus = data.corpus
    return {
        "format": FORMAT,
        "config": config.to_dict(),
        "preset": preset,
        "corpus": {
            "paths": [p if p == "-" else str(Path(p).absolute()) for p in paths],
            "files": len(corpus.files),
            "bytes": corpus.bytes,
            "chars": corpus.chars,
            "sha256": corpus.sha256,
        },
        "tokenizer": data.tokenizer.fingerprint,
        "versions": versions | {name: importlib.metadata.version(name) for name in packages},
        "machine": {"platform": platform.platform(), **asdict(machine)},
        "groups": machine.lane_groups(config.train.lanes, config.model.layers),
        "seed": config.train.seed,
    }


def _resumed(
    run: Run,
    lock: IO[bytes],
    request: Request,
    reading: Announce,
    passing: Passing,
) -> Session:
    record = run.record
    old = Config.recorded(record["config"], str(run.path / "config.json"))
    config = resolve(old.to_dict(), request.settings)
    if request.preset is not None and request.preset != record["preset"]:
        raise UsageError(
            f"{run.name}: preset was {record['preset']}, now {request.preset}; resume with what it began with"
        )
    for table in ("model", "data", "train"):
        for key in request.settings.get(table, {}):
            before, now = (getattr(getattr(c, table), key) for c in (old, config))
            if now != before and key not in FREE:
                raise UsageError(f"{run.name}: {key} was {before}, now {now}; resume with what it began with")
    paths = list(request.paths) or record["corpus"]["paths"]
    corpus = read_again(paths, config.data, record["corpus"], reading)
    _check_corpus(run, corpus, record["corpus"])
    checkpoint = run.last()
    origin = Origin.recorded(record, needed=checkpoint is None)
    latest = checkpoint or (origin.checkpoint if origin else None)
    alphabet = latest.alphabet() if latest else None
    if checkpoint:
        checkpoint.check_shapes(config.model)
        checkpoint.check_training()
        checkpoint.standing()  # raises before TensorFlow starts
    data = prepare(corpus, config.data, alphabet, passing, grow=checkpoint is None)
    if data.tokenizer.fingerprint != record["tokenizer"]:
        raise UsageError(
            f"{run.name}: tokenizer was {record['tokenizer'][:12]}, now {data.tokenizer.fingerprint[:12]}: the "
            "checkpoint's tokenizer is not the one that the run began with"
        )
    at = f"step {checkpoint.step}" if checkpoint else "its start: there is no checkpoint yet"
    groups = 1 if Machine.here().gpu else record["groups"]
    if not groups or config.train.lanes % groups:
        raise ModelError(f"{run.path}/config.json: {groups} groups do not divide {config.train.lanes} lanes")
    choice, old_text = f"resumed from {at}", origin.old_text(data.tokenizer, reading) if origin else None
    return Session(run, data, lanes_of(data, config), config, groups, checkpoint, choice, lock, old_text)


def _check_corpus(run: Run, corpus: Corpus, recorded: dict[str, Any]) -> None:
    if corpus.sha256 != recorded["sha256"]:
        raise UsageError(
            f"{run.name}: the corpus has changed: it had {recorded['bytes']} bytes ({recorded['sha256'][:12]}), "
            f"now {corpus.bytes} ({corpus.sha256[:12]}); resume with the text it began with"
        )
