"""The README that goes with an export."""

from __future__ import annotations

from charlm import __version__
from charlm.api import LanguageModel
from charlm.export import TITLE
from charlm.export.parity import Parity

TOKENIZERS = {
    "char": "one id for each character seen in training, in the order of code points; 0 is every other one",
    "byte": "one id for each byte of UTF-8",
    "sentencepiece": "pieces of words, and single bytes for what has no piece (`tokenizer.model`)",
}


def card(language_model: LanguageModel, title: str, format_name: str, usage: str, checks: list[Parity]) -> str:
    """The README: what the model is, what goes in and out, and how the export was checked."""
    model, tokenizer = language_model.config.model, language_model.tokenizer
    layers = f"{model.layers} layer{'s' if model.layers > 1 else ''}"
    return f"""# {title}

{TITLE} {__version__} as `{format_name}`.

- {model.cell.upper()}, {layers} of {model.units} units, {language_model.model.count_params():,} parameters
- {tokenizer.vocabulary} ids, `{tokenizer.name}`: {TOKENIZERS[tokenizer.name]}
- checkpoint: step {language_model.checkpoint.step}
- checked: {"; ".join(map(str, checks))}

{usage}"""
