"""The page that a model writes in: one page, whether a server or a script in it does the writing."""

from __future__ import annotations

import html
import importlib.resources
import math
import string
from pathlib import PurePath
from typing import TYPE_CHECKING

from charlm.config import KNOBS, SampleConfig
from charlm.settings import Setting

if TYPE_CHECKING:
    from charlm.checkpoint import Checkpoint
    from charlm.language_model import LanguageModel

SYMBOLS = {"char": "character", "byte": "byte", "sentencepiece": "piece"}  # what a page calls an id of a tokenizer
NAMED = 3  # files of a corpus that are named


def page(language_model: LanguageModel, title: str, engine: str, note: str, longest: int) -> str:
    """The page, as HTML.

    Args:
        language_model: what writes.
        title: its heading.
        engine: script elements that define `engine`, as `page.js` wants it.
        note: HTML at the page's end, about where the model is.
        longest: symbols of a text.
    """
    model, checkpoint = language_model.config.model, language_model.checkpoint
    symbol = SYMBOLS.get(language_model.tokenizer.name, "symbol")
    layers = f"{model.layers} layer{'s' if model.layers > 1 else ''} of {model.units} units"
    return string.Template(source("page.html")).substitute(
        style=source("page.css"),
        script=source("page.js"),
        engine=engine,
        title=html.escape(title),
        learnt=html.escape(learnt(checkpoint, symbol)),
        symbol=symbol,
        Symbols=f"{symbol.capitalize()}s",
        network=f"A recurrent language model: {model.cell.upper()}, {layers}, "
        f"{language_model.model.count_params():,} parameters, {model.vocabulary} {symbol}s.",
        note=note,
        longest=longest,
        knobs="\n".join(map(_slider, KNOBS.values())),
    )


def _slider(knob: Setting) -> str:
    """The control of a sampler's setting."""
    assert knob.slider
    (least, most), name, value = knob.slider, knob.key, f"{getattr(SampleConfig, knob.key):g}"
    step = 1 if knob.kind is int else 0.05 if most >= 1 else 0.01
    title, label = html.escape(knob.meaning), knob.key.replace("_", " ").capitalize()
    limits = f'min="{least:g}" max="{most:g}" step="{step:g}" value="{value}"'
    return f"""<label title="{title}"><span>{label} <output id="{name}-shown" for="{name}">{value}</output></span>
<input id="{name}" type="range" data-knob {limits}></label>"""


def source(name: str) -> str:
    """The text of a file of the package."""
    return importlib.resources.files("charlm").joinpath(name).read_text("utf-8")


def element(content: str, name: str, kind: str = "text/javascript") -> str:
    """A script element, which holds code or data; found by its name."""
    return f'<script type="{kind}" id="{name}">\n{content}</script>'


def learnt(checkpoint: Checkpoint, symbol: str) -> str:
    """What a model learnt from, and how well: its score, if it was scored when it was saved."""
    corpus, progress = checkpoint.record["corpus"], checkpoint.standing()
    files = ["standard input" if path == "-" else PurePath(path).name for path in corpus["paths"]]
    named = ", ".join(files[:NAMED]) + (f" and {len(files) - NAMED} more" if len(files) > NAMED else "")
    text = f"It learnt from {named} ({corpus['chars']:,} characters)."
    if progress.best != checkpoint.step or progress.best_nats is None:
        return text
    bits = progress.best_nats / math.log(2)
    return f"{text} It scores {bits:.2f} bits per {symbol} on text that it has not read."
