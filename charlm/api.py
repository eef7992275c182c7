"""The package's public functions: train a model, load one, generate and evaluate."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from charlm.checkpoint import Checkpoint, assign
from charlm.config import (
    LENGTHS,
    Config,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    SampleConfig,
    Tables,
    TrainConfig,
)
from charlm.corpora import CORPORA
from charlm.corpus import Announce, Corpus, split_bounds
from charlm.dataset import Progress, document_starts, read_again
from charlm.display import TrainingDisplay, interactive, say
from charlm.errors import Interrupted, UsageError, did_you_mean, named, nearest
from charlm.evaluation import score_ids
from charlm.events import Event, Finished
from charlm.generation import Generator, Sample, stream_text
from charlm.idcache import cached_records
from charlm.interrupts import stop_requested
from charlm.machine import Machine, check_threads, start_tensorflow, trains_side_by_side
from charlm.model import CharLM, build_model
from charlm.presets import PRESETS
from charlm.runs import find_run
from charlm.score import Score
from charlm.session import Request, open_session
from charlm.settings import lists, without_none
from charlm.tbptt import Evaluator
from charlm.tokenizer import Tokenizer
from charlm.training import Training
from charlm.windows import EVALUATION_LANES

PathLike = str | os.PathLike[str]
Paths = PathLike | Iterable[PathLike]
Prompt = str | bytes
LONGEST_PATH = 4096  # bytes, on Linux

_log = logging.getLogger("charlm")


class LanguageModel:
    """A trained model with its tokenizer; `charlm.load` and `charlm.train` give one.

    Attributes:
        model: the network.
        tokenizer: text to ids and back.
        config: what it was trained with.
        checkpoint: where it was loaded from.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.config = checkpoint, checkpoint.config()
        self.tokenizer: Tokenizer = checkpoint.tokenizer()
        checkpoint.check_shapes(self.config.model)
        self.model: CharLM = build_model(self.config.model, seed=None)
        assign(self.model.named_weights(), checkpoint.arrays("weights"), checkpoint.path)
        groups = Machine.here().lane_groups(EVALUATION_LANES, self.config.model.layers)
        self._evaluator = Evaluator(self.model, groups)  # keeps its graph, which takes a second to build

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads it anew."""
        return _reloaded, (self.checkpoint,)

    def __repr__(self) -> str:
        made = self.config.model
        return (
            f"<LanguageModel {self.checkpoint.run_name}: {made.cell} {made.units} x {made.layers}, "
            f"{self.model.count_params():,} parameters, {made.vocabulary} symbols ({self.config.data.tokenizer}), "
            f"step {self.checkpoint.step}>"
        )

    def unseen(self, prompt: str) -> str:
        """The characters of a prompt that the model has never seen; they are read as the unknown symbol."""
        return self.tokenizer.unseen(prompt)

    def stream(
        self, prompt: Prompt | None = "", config: SampleConfig | None = None, **settings: Any
    ) -> Iterator[tuple[int, str] | Sample]:
        """Generates; yields (row, text) as it becomes certain, then every row's `Sample`.

        Args:
            prompt: as `generate` takes one.
            config: the settings as one value; the model's own if None.
            settings: over them, as `generate` takes them.
        """
        check_threads()
        config = self._sampling(config, settings)
        text = self._text(prompt)
        seed = secrets.randbelow(2**31) if config.seed is None else config.seed
        return stream_text(Generator(self.model, config, self.tokenizer.blocked), self.tokenizer, text, config, seed)

    @lists(SampleConfig)
    def generate(
        self, prompt: Prompt | Iterable[Prompt] | None = "", **settings: Any
    ) -> str | list[str] | list[list[str]]:
        """The continuation of `prompt`, without the prompt.

        Args:
            prompt: a text, or bytes in UTF-8; nothing if None. Of several, each is written on from as if alone.
            settings: the model's own hold for those that are not given or None, but one text is written.

            SETTINGS

        Returns:
            A text; a list of them if `samples` is given; of several prompts, a list with either for each.

        Raises:
            UsageError: a setting is unknown or out of range, or the prompt is no text.
        """
        config = self._sampling(None, settings)
        if not isinstance(prompt, str | bytes | None):
            if not isinstance(prompt, Iterable):
                raise UsageError(f"{named('prompt')} must be a text or several, not {prompt!r}")
            return [self._texts(one, config, settings) for one in prompt]  # type: ignore[return-value]
        return self._texts(prompt, config, settings)

    def _texts(self, prompt: Prompt | None, config: SampleConfig, settings: dict[str, Any]) -> str | list[str]:
        if settings.get("samples") is None:
            config = dataclasses.replace(config, samples=1)
        texts = [piece.text for piece in self.stream(prompt, config) if isinstance(piece, Sample)]
        return texts[0] if settings.get("samples") is None else texts

    def _sampling(self, config: SampleConfig | None, settings: dict[str, Any]) -> SampleConfig:
        own = config or self.config.sample
        return SampleConfig.from_dict({**vars(own), **without_none(SampleConfig, settings)}) if settings else own

    def _text(self, prompt: Prompt | None) -> str:
        if prompt is None or isinstance(prompt, str):
            return prompt or ""
        if not isinstance(prompt, bytes):
            raise UsageError(f"{named('prompt')} must be a text, not {prompt!r}")
        try:
            return prompt.decode("utf-8", "surrogateescape" if self.config.data.tokenizer == "byte" else "strict")
        except UnicodeDecodeError as error:
            raise UsageError(f"{named('prompt')}: byte {error.start} is not UTF-8") from None

    def evaluate(
        self,
        paths: Paths | None = None,
        split: str | None = None,
        cold: int | None = None,
        *,
        reading: Announce = lambda size: lambda count: None,
        scoring: Callable[[int], Progress] = lambda symbols: lambda count: None,
    ) -> Score:
        """Scores a split of a text.

        Args:
            paths: one or many files, folders, globs or "-"; the text it was trained on if None.
            split: "train", "valid", "test" (cut as in training) or "all"; None is "valid" for the text it was trained
                on and "all" for another.
            cold: start from zero state every so many symbols; state is carried if None.
            reading: given the size of the text in bytes, returns what is called with the bytes read.
            scoring: given the number of symbols, returns what is called with the symbols scored.

        Raises:
            DataError: the text is empty, undecodable or the split too short.
            UsageError: a path or the window is wrong.
        """
        check_threads()
        asked, given = EvaluationConfig.from_dict({"split": split, "cold": cold}), _listed(paths)
        trained = self.checkpoint.record["corpus"]
        corpus = read_again(given, self.config.data, trained, reading) if given else self._training_text(reading)
        same = corpus.sha256 == trained["sha256"]
        split = asked.split or ("valid" if same else "all")
        data = self.config.data
        bounds, starts = split_bounds(corpus.chars, data.split)[split], document_starts(corpus, data)
        records = cached_records(corpus, bounds, self.tokenizer, starts=starts)
        progress = scoring(max(0, len(records.ids) - 1))
        return score_ids(self._evaluator, records, self.tokenizer, split, asked.cold, progress)

    def _training_text(self, reading: Announce) -> Corpus:
        """The text of training.

        Raises:
            UsageError: it is not there or has changed; the message says which text it was, and how to get it.
        """
        trained = self.checkpoint.record["corpus"]
        paths, piped = trained["paths"], "-" in trained["paths"]
        known = f"{trained['chars']:,} characters, SHA-256 {trained['sha256'][:12]}..."
        names = "standard input" if piped else ", ".join(paths)
        text = f"{self.checkpoint.run_name} learnt from {names} ({known})"
        if piped:
            raise UsageError(f"{text}, which is not kept; name a text to evaluate")
        written = next((path for path in paths if Path(path).stem in CORPORA), None)
        anew = f", or write it anew: charlm corpus {Path(written).stem} {Path(written).name}" if written else ""
        try:
            corpus = read_again(paths, self.config.data, trained, reading)
        except UsageError:
            raise UsageError(f"{text}, which is not here; name where it is, or another text{anew}") from None
        if corpus.sha256 != trained["sha256"]:
            raise UsageError(f"{text}, which has changed since; name a text to evaluate{anew}")
        return corpus


def _reloaded(checkpoint: Checkpoint) -> LanguageModel:
    checkpoint.verify()
    start_tensorflow()
    return LanguageModel(checkpoint)


def _listed(paths: Any) -> list[str]:
    """One or many paths, nested as they come, as a list."""
    if paths is None:
        return []
    if isinstance(paths, str | bytes | os.PathLike):
        path = os.fsdecode(paths)
        if "\n" in path or len(path) > LONGEST_PATH:
            raise UsageError(f"{path[:40]!r}...: is a text where a path is wanted; write it to a file first")
        return [path]
    if not isinstance(paths, Iterable):
        raise UsageError(f"a path must be a text or a Path, not {paths!r}")
    return [path for one in paths for path in _listed(one)]


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
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}{nearest(str(preset), PRESETS)}")
    run = None if name is None else str(name)
    origin = None if from_run is None else os.fsdecode(from_run)
    request = Request(_listed(paths), _tables(settings), Path(models or "models"), run, preset, resume, origin)
    session = open_session(request)
    shows = interactive() if progress is None else progress
    if shows:
        say(str(session.data.corpus))
        say(session.choice)
    with session.lock, stop_requested() as stop, contextlib.closing(TrainingDisplay()) as display:
        start_tensorflow(side_by_side=True)
        if session.checkpoint is None and not trains_side_by_side():
            _log.warning(
                "TensorFlow was in use before this training began and keeps its threads; the run goes on bit for bit "
                "in a process where it is the same, and not with `charlm train --resume`"
            )
        for event in Training(session, stop=stop).events():
            if shows:
                display.show(event)
            if on_event is not None:
                on_event(event)
    if isinstance(event, Finished) and event.reason == "interrupted":
        left = "saved" if event.step else "nothing is trained yet"
        raise Interrupted(f"{left}; go on with: charlm.train(name={session.run.name!r}, resume=True)")
    return LanguageModel(session.run.pick("best"))


def _tables(settings: dict[str, Any]) -> Tables:
    homes = {one.key: table for table in (ModelConfig, DataConfig, TrainConfig) for one in table.settings()}
    tables: Tables = {}
    for key, value in settings.items():
        if key not in homes:
            raise UsageError(f"{key}: there is no such setting{did_you_mean(key, homes)}")
        if without_none(homes[key], {key: value}) and not (value is None and key in LENGTHS):
            tables.setdefault(homes[key].TABLE, {})[key] = value
    return Config.checked(tables)
