"""The settings of what is asked of a trained model: a score, a forecast, targets."""

from __future__ import annotations

from dataclasses import dataclass

from charlm.settings import SEEDS, Allowed, Strict, at_least, between, one_of, setting, within


def _are_percentages(levels: tuple[float, ...]) -> bool:
    return all(0 < level < 100 for level in levels) and len({*levels}) == len(levels) > 0


PERCENTAGES = Allowed("above 0 and below 100, each once", _are_percentages)


@dataclass(frozen=True)
class EvaluationConfig(Strict):
    """The part of a text that is scored, and the state that it is scored from."""

    TABLE = "evaluate"

    split: str | None = setting(
        None,
        one_of("train", "valid", "test", "all"),
        "Part of the text, cut as in training",
        "valid for the training text, all for another",
    )
    cold: int | None = setting(
        None, at_least(1), "Start from zero state every so many symbols", "never: state is carried"
    )


@dataclass(frozen=True)
class ForecastConfig(Strict):
    """The forecasting of number series."""

    TABLE = "forecast"

    horizon: int | None = setting(None, at_least(1), "Values to forecast", "a season, or 6 where there is none")
    level: tuple[float, ...] = setting(
        (80.0, 95.0), PERCENTAGES, "Percentages of the continuations that lie in the intervals", "80 95"
    )
    samples: int = setting(200, at_least(10), "Continuations to draw of each series")
    seed: int | None = setting(None, SEEDS, "The same seed gives the same forecast", "random")


@dataclass(frozen=True)
class TranslationConfig(Strict):
    """The turning of sources into targets."""

    TABLE = "translate"

    beam: int = setting(4, between(1, 64), "Targets followed side by side; 1 takes the likeliest symbol")
    samples: int | None = setting(
        None, at_least(1), "Draw so many targets for each source", "none: the likeliest is found"
    )
    temperature: float = setting(1.0, within("from 0.001 to 1000", (1e-3, 1e3)), "Of the targets that are drawn")
    seed: int | None = setting(None, SEEDS, "The same seed draws the same", "random")
