"""A trained model in Python: it writes, scores and forecasts."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from charlm.beam import likely_text
from charlm.checkpoint import Checkpoint, assign
from charlm.config import SampleConfig
from charlm.corpus import Announce
from charlm.dataset import Progress, pairs_of, part_of
from charlm.errors import UsageError, named
from charlm.evaluation import score_ids
from charlm.forecast.paths import Forecaster
from charlm.forecast.result import Forecast, forecast_of, series_from
from charlm.generation import Generator, Sample, stream_text
from charlm.machine import Machine, check_threads, start_tensorflow
from charlm.model import CharLM, build_model, check_layers
from charlm.pairs.alphabet import PairAlphabet
from charlm.pairs.metrics import accuracy
from charlm.pairs.records import parts_of
from charlm.questions import EvaluationConfig, ForecastConfig, TranslationConfig
from charlm.score import Score
from charlm.series.alphabet import SeriesAlphabet
from charlm.settings import lists, without_none
from charlm.tbptt import Evaluator
from charlm.tokenizer import Tokenizer
from charlm.trained import corpus_of
from charlm.translation import Hypothesis, Translator
from charlm.windows import EVALUATION_LANES

PathLike = str | os.PathLike[str]
Paths = PathLike | Iterable[PathLike]
Prompt = str | bytes
LONGEST_PATH = 4096  # bytes, on Linux


class LanguageModel:
    """A trained model with its tokenizer; `charlm.load` and `charlm.train` give one.

    Attributes:
        model: the network.
        alphabet: its symbols.
        config: what it was trained with.
        checkpoint: where it was loaded from.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.config = checkpoint, checkpoint.config()
        self.alphabet = checkpoint.alphabet()
        checkpoint.check_shapes(self.config.model)
        weights = checkpoint.arrays("weights")
        check_layers(self.config.model, weights)
        self.model: CharLM = build_model(self.config.model, seed=None)
        assign(self.model.named_weights(), weights, checkpoint.path)
        groups = Machine.here().lane_groups(EVALUATION_LANES, self.config.model.layers)
        self._evaluator = Evaluator(self.model, groups)  # keeps its graph, which takes a second to build
        self._forecaster: Forecaster | None = None  # as this does

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back; raises UsageError if it is no model of text."""
        return self.alphabet if isinstance(self.alphabet, Tokenizer) else self.checkpoint.tokenizer()

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
        if config.beam is not None:
            return likely_text(self.model, self.tokenizer, text, config, seed)
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
            config = replace(config, samples=1)
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
        asked, given = EvaluationConfig.from_dict({"split": split, "cold": cold}), paths_of(paths)
        trained = self.checkpoint.record["corpus"]
        corpus = corpus_of(self.checkpoint, given, reading)
        same = corpus.sha256 == trained["sha256"]
        split = asked.split or ("valid" if same else "all")
        records = part_of(corpus, self.config.data, self.alphabet, split)
        progress = scoring(records.predicted)
        score = score_ids(self._evaluator, records, self.alphabet, split, asked.cold, progress)
        if not isinstance(self.alphabet, PairAlphabet):
            return score
        pairs = parts_of(pairs_of(corpus), self.config.data.split)[split]
        sources = list(dict.fromkeys(pair.source for pair in pairs))
        found = zip(sources, self.hypotheses(sources, TranslationConfig()), strict=True)
        exact, words, characters = accuracy({source: one.text for source, (one, *_) in found}, pairs)
        return replace(score, exact_match=exact, word_error_rate=words, char_error_rate=characters)

    @lists(ForecastConfig)
    def forecast(
        self,
        data: Any,
        *,
        id_column: str | None = None,
        time_column: str | None = None,
        value_column: str | None = None,
        date_format: str | None = None,
        **settings: Any,
    ) -> Forecast:
        """Forecasts number series.

        Args:
            data: values, one series or a list or dictionary of several; a pandas frame with a long or wide table, or a
                pandas series; or the path of a table. Missing values are NaN.
            id_column, time_column, value_column, date_format: of a table, where they are not those of the training.
            settings: those that are not given or None are as said below.

            SETTINGS

        Raises:
            DataError: the table or a value cannot be read.
            UsageError: it is a model of text, or a setting is out of range.
        """
        check_threads()
        asked, forecaster = ForecastConfig.from_dict(without_none(ForecastConfig, settings)), self.forecaster()
        columns: dict[str, Any] = {"id_column": id_column, "time_column": time_column, "value_column": value_column}
        columns = {key: text for key, text in {**columns, "date_format": date_format}.items() if text is not None}
        return forecast_of(forecaster, series_from(data, replace(self.config.data, **columns)), asked)

    @lists(TranslationConfig)
    def translate(self, sources: str | Iterable[str], **settings: Any) -> str | list[str] | list[list[str]]:
        """Turns sources into targets.

        Args:
            sources: one, or several.
            settings: those that are not given or None are as said below.

            SETTINGS

        Returns:
            The target; a list of them if `samples` is given; of several sources, a list with either for each.

        Raises:
            UsageError: it is no model of pairs, or a setting is out of range.
        """
        asked = TranslationConfig.from_dict(without_none(TranslationConfig, settings))
        several = [sources] if isinstance(sources, str) else list(sources)
        if wrong := [one for one in several if not isinstance(one, str)]:
            raise UsageError(f"{named('sources')} must be texts, not {wrong[0]!r}")
        texts = [[one.text for one in found] for found in self.hypotheses(several, asked)]
        targets = texts if asked.samples else [found[0] for found in texts]
        return targets[0] if isinstance(sources, str) else targets

    def hypotheses(
        self,
        sources: Sequence[str],
        config: TranslationConfig,
        progress: Progress = lambda count: None,
    ) -> list[list[Hypothesis]]:
        """The targets of each source with -log p of each, the best first; an empty source has an empty one alone.

        Args:
            sources: texts.
            config: beam search, or samples.
            progress: called with the number of sources turned since the last call.

        Raises:
            UsageError: it is no model of pairs.
        """
        check_threads()
        if not isinstance(self.alphabet, PairAlphabet):
            raise UsageError(f"{self.checkpoint.run_name}: is no model of pairs; train one with pairs=True")
        full = [source for source in sources if source]
        found = iter(Translator(self.model, self.alphabet).found(full, config, progress))
        return [next(found) if source else [Hypothesis("", 0.0, 0)] for source in sources]

    def forecaster(self) -> Forecaster:
        """The forecaster, which draws continuations of number series; raises UsageError if it is no model of them."""
        if not isinstance(self.alphabet, SeriesAlphabet):
            name = self.checkpoint.run_name
            raise UsageError(f"{name}: is no model of number series; train one with tokenizer='series'")
        if self._forecaster is None:
            self._forecaster = Forecaster(self.model, self.alphabet)
        return self._forecaster


def _reloaded(checkpoint: Checkpoint) -> LanguageModel:
    checkpoint.verify()
    start_tensorflow()
    return LanguageModel(checkpoint)


def paths_of(paths: Any) -> list[str]:
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
    return [path for one in paths for path in paths_of(one)]
