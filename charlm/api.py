"""The package's public functions: train a model, load one, generate and evaluate."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from charlm.checkpoint import Checkpoint, assign, find_run
from charlm.config import Config, SampleConfig, Tables, resolve
from charlm.corpus import split_bounds
from charlm.dataset import Progress, read
from charlm.errors import UsageError
from charlm.evaluation import score_ids
from charlm.events import Event
from charlm.generation import Generator, Sample, stream_text
from charlm.idcache import cached_ids
from charlm.model import CharLM, build_model
from charlm.runtime import lane_groups, start_tensorflow
from charlm.score import Score
from charlm.session import Request, open_session
from charlm.streams import EVALUATION_LANES
from charlm.tbptt import Evaluator
from charlm.tokenizers import Tokenizer
from charlm.training import Training


class LanguageModel:
    """A trained model with its tokenizer.

    Attributes:
        model: the network.
        tokenizer: text to ids and back.
        config: what it was trained with.
        checkpoint: where it was loaded from.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.config = checkpoint, checkpoint.config()
        self.tokenizer: Tokenizer = checkpoint.tokenizer()
        self.model: CharLM = build_model(self.config.model)
        assign(self.model.named_weights(), checkpoint.arrays("weights"), checkpoint.path)

    def unseen(self, prompt: str) -> str:
        """The characters of a prompt that the model has never seen; they are read as the unknown symbol."""
        return self.tokenizer.unseen(prompt)

    def stream(self, prompt: str, config: SampleConfig) -> Iterator[tuple[int, str] | Sample]:
        """Generates; yields (row, text) as it becomes certain, then every row's `Sample`."""
        seed = secrets.randbelow(2**31) if config.seed is None else config.seed
        return stream_text(Generator(self.model, config, self.tokenizer.blocked), self.tokenizer, prompt, config, seed)

    def generate(self, prompt: str = "", **settings: Any) -> str | list[str]:
        """What follows `prompt`: one text, or a list of them with `samples`.

        Args:
            prompt: may be empty.
            settings: as `SampleConfig`: length, samples, temperature, top_k, top_p, min_p, repetition_penalty, stop,
                seed.

        Raises:
            UsageError: a setting is unknown or out of range.
        """
        config = SampleConfig.from_dict({**_values(self.config.sample), **settings})
        texts = [piece.text for piece in self.stream(prompt, config) if isinstance(piece, Sample)]
        return texts if "samples" in settings else texts[0]

    def evaluate(
        self,
        paths: Sequence[str] = (),
        split: str | None = None,
        cold: int | None = None,
        *,
        reading: Callable[[Sequence[str]], Progress] = lambda paths: lambda count: None,
        scoring: Callable[[int], Progress] = lambda symbols: lambda count: None,
    ) -> Score:
        """Scores a split of a text.

        Args:
            paths: files, folders, globs or "-"; the text it was trained on if empty.
            split: "train", "valid", "test" (cut as in training) or "all"; None is "valid" for the text it was trained
                on and "all" for another.
            cold: start from zero state every so many symbols; state is carried if None.
            reading: given the paths, returns what is called with the bytes read.
            scoring: given the number of symbols, returns what is called with the symbols scored.

        Raises:
            DataError: the text is empty, undecodable or the split too short.
            UsageError: a path or the window is wrong.
        """
        if cold is not None and cold < 1:
            raise UsageError(f"--cold must be at least 1 symbol, not {cold}")
        trained = self.checkpoint.record["corpus"]
        sources = list(paths) or trained["paths"]
        if not paths and "-" in sources:
            raise UsageError(f"{self.checkpoint.path}: was trained on standard input; name the text to evaluate")
        corpus = read(sources, self.config.data, reading(sources))
        same = corpus.sha256 == trained["sha256"]
        if not paths and not same:
            raise UsageError(f"{', '.join(sources)}: has changed since training; name the text to evaluate")
        split = split or ("valid" if same else "all")
        ids = cached_ids(corpus, split_bounds(corpus.chars, self.config.data.split)[split], self.tokenizer)
        evaluator = Evaluator(self.model, lane_groups(EVALUATION_LANES, self.config.model.layers))
        return score_ids(evaluator, ids, self.tokenizer, split, cold, scoring(max(0, len(ids) - 1)))


def _values(config: SampleConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in SampleConfig.__dataclass_fields__}


def load(model: str | None = None, *, checkpoint: str = "best", models: str | Path = "models") -> LanguageModel:
    """Loads a trained model.

    Args:
        model: a run directory or a name under `models`; the newest run if None.
        checkpoint: "best", "last" or a step.
        models: where runs are.

    Raises:
        ModelError: there is none, or it is damaged or foreign.
    """
    return LanguageModel(find_run(model, Path(models)).pick(checkpoint))


def train(
    *paths: str,
    name: str | None = None,
    preset: str | None = None,
    resume: bool = False,
    models: str | Path = "models",
    on_event: Callable[[Event], object] = lambda event: None,
    **settings: Any,
) -> LanguageModel:
    """Trains a model and returns it at its best checkpoint.

    Args:
        paths: the corpus.
        name: of the run; after the corpus, and numbered, if None.
        preset: by corpus size, hardware and minutes if None.
        resume: go on with the run called `name`.
        models: where runs are.
        on_event: called with every event of `charlm.events`.
        settings: any field of `ModelConfig`, `DataConfig` and `TrainConfig` by name (`vocabulary` is DataConfig's).

    Raises:
        CharlmError: as its subclasses say.
    """
    request = Request(paths, _tables(settings), Path(models), name, preset, resume)
    session = open_session(request)
    start_tensorflow(side_by_side=True)
    for event in Training(session).events():
        on_event(event)
    return LanguageModel(session.run.pick("best"))


def _tables(settings: dict[str, Any]) -> Tables:
    tables: Tables = {}
    for key, value in settings.items():
        table = next((t for t in ("data", "model", "train") if hasattr(getattr(Config(), t), key)), None)
        if table is None:
            raise UsageError(f"train: unknown setting '{key}'")
        tables.setdefault(table, {})[key] = value
    resolve(tables)
    return tables
