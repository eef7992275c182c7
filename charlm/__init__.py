"""charlm: recurrent character-level language models.

import charlm
model = charlm.train("corpus.txt", minutes=2)
print(model.generate("Once upon a time"))
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["LanguageModel", "__version__", "load", "train"]


def __getattr__(name: str) -> Any:
    """Public names, imported on first use (PEP 562): they need TensorFlow, which takes seconds to import."""
    if name in ("LanguageModel", "load", "train"):
        from charlm import api

        return getattr(api, name)
    raise AttributeError(f"module 'charlm' has no attribute '{name}'")
