"""charlm: recurrent character-level language models.

import charlm
model = charlm.train("corpus.txt", minutes=2)
print(model.generate("Once upon a time"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from charlm import errors, events, export
    from charlm.api import load, train
    from charlm.forecast.result import Forecast
    from charlm.language_model import LanguageModel
    from charlm.score import Score

__version__ = "0.1.0"
__all__ = ["Forecast", "LanguageModel", "Score", "__version__", "errors", "events", "export", "load", "train"]

_ROOMS = {
    "Forecast": "forecast.result",
    "LanguageModel": "language_model",
    "Score": "score",
    "load": "api",
    "train": "api",
}


def __getattr__(name: str) -> Any:
    """Public names, imported on first use (PEP 562): most need TensorFlow, which takes seconds to import."""
    if name in _ROOMS:
        if name != "Score":
            importlib.import_module("charlm.machine").import_tensorflow()
        return getattr(importlib.import_module(f"charlm.{_ROOMS[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"charlm.{name}")
    raise AttributeError(f"module 'charlm' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
