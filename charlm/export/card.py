"""The README that goes with an export."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from charlm import __version__
from charlm.export.parity import Parity
from charlm.files import EXPORT_TITLE
from charlm.language_model import LanguageModel
from charlm.tokenizers.char import CharTokenizer


def printed(example: Callable[[], npt.NDArray[np.float32]]) -> str:
    """The comment that says what an example prints; none where its engine is not installed."""
    try:
        return f"  # {np.round(example(), 4)}"
    except ModuleNotFoundError:
        return ""


def card(
    language_model: LanguageModel, title: str, format_name: str, usage: str, checks: list[Parity], digest: str
) -> str:
    """The README: what the model is, what goes in and out, how the export was checked, and its digest."""
    model, tokenizer = language_model.config.model, language_model.tokenizer
    layers = f"{model.layers} layer{'s' if model.layers > 1 else ''}"
    symbols = ""
    if isinstance(tokenizer, CharTokenizer):
        symbols = f"\n## Symbols\n\n```json\n{json.dumps(tokenizer.characters, ensure_ascii=False)}\n```\n"
    return f"""# {title}

{EXPORT_TITLE} {__version__} as `{format_name}`.

- {model.cell.upper()}, {layers} of {model.units} units, {language_model.model.count_params():,} parameters
- {tokenizer.vocabulary} ids, `{tokenizer.name}`: {tokenizer.about}
- checkpoint: step {language_model.checkpoint.step}
- checked: {"; ".join(map(str, checks))}
- {digest}

{usage}{symbols}"""
