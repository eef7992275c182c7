"""One HTML file with the weights inside, which writes text in any browser, alone and offline."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from charlm.export.parity import Played, Script
from charlm.generation import prompt_ids
from charlm.language_model import LanguageModel
from charlm.page import element, page, source
from charlm.sampling import RECENT
from charlm.tokenizers.sentencepiece import SentencePieceTokenizer

if TYPE_CHECKING:
    from py_mini_racer import MiniRacer

WEIGHTS = np.float16
HELD = re.compile(r'<script type="[a-z/]+" id="(\w+)">\n(.*?)</script>', re.DOTALL)  # what the page holds, by its name
PLAY = """
const state = model.initialState(), greedy = [];
let logits = [];
for (const id of script.ids) logits.push(model.step(id, state));
for (let last = logits.at(-1); greedy.length < script.length; last = model.step(greedy.at(-1), state)) {
  greedy.push(model.draw(last, { temperature: 0 }));
}
logits = Float32Array.from(logits.flatMap(row => [...row]));
"""
NOTE = "Everything runs in this page; nothing is sent anywhere."
LONGEST = 100_000  # symbols of a text


def write(language_model: LanguageModel, path: Path) -> None:
    """Writes the file."""
    tokenizer, model = language_model.tokenizer, language_model.config.model
    packed, arrays = b"", []
    for name, weight in language_model.model.named_weights().items():
        array = weight.numpy().astype(WEIGHTS)
        arrays.append({"name": name, "size": array.size, "at": len(packed)})
        packed += array.astype("<f2").tobytes()
    record: dict[str, Any] = {
        "cell": model.cell,
        "units": model.units,
        "layers": model.layers,
        "vocabulary": tokenizer.vocabulary,
        "blocked": tokenizer.blocked.tolist(),
        "recent": RECENT,
        "start": prompt_ids(tokenizer, "")[0],
        "tokenizer": tokenizer.name,
        "symbols": [_symbol(content) for content in tokenizer.id_bytes],
        "arrays": arrays,
    }
    if isinstance(tokenizer, SentencePieceTokenizer):
        scores: list[float | None] = [None] * tokenizer.vocabulary
        for i, score in tokenizer.scored_pieces.values():
            scores[i] = score
        record |= {"scores": scores, "unknown_score": tokenizer.unknown_score, "line": tokenizer.LINE_CHARS}
    engine = "\n".join(
        (
            element(json.dumps(record).replace("<", "\\u003c"), "model", "application/json"),
            element(base64.b64encode(packed).decode(), "weights", "text/plain"),
            element(source("export/model.js"), "code"),
            element(source("export/engine.js"), "engine"),
        )
    )
    path.write_text(page(language_model, language_model.checkpoint.run_name, engine, NOTE, LONGEST), "utf-8")


def _symbol(content: bytes) -> str | list[int]:
    """A symbol as text, or as bytes if it is none."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return list(content)


@contextlib.contextmanager
def running(path: Path) -> Iterator[MiniRacer]:
    """V8, the engine that Chromium runs scripts in, with a page's own code; its model is `model`."""
    from py_mini_racer import MiniRacer

    parts = dict(HELD.findall(path.read_text("utf-8")))
    with MiniRacer() as engine:
        engine.eval(parts["code"])
        engine.eval(f'const model = languageModel({parts["model"]}, Uint8Array.fromBase64("{parts["weights"]}"));')
        yield engine


def play(path: Path, script: Script) -> Played:
    """Plays the script with the page's own code."""
    with running(path) as engine:
        engine.eval(f"const script = {json.dumps({'ids': script.ids, 'length': script.length})};{PLAY}")
        logits: Any = engine.eval("logits.buffer")
        greedy: Any = engine.eval("Int32Array.from(greedy).buffer")
        rows = np.frombuffer(logits, np.float32).reshape(len(script.ids), -1).copy()
        return Played(f"V8 {engine.v8_version}", rows, np.frombuffer(greedy, np.int32).tolist())


def usage(language_model: LanguageModel, path: Path, title: str) -> str:
    """The part of the README on its use."""
    return """Open the file in a browser: type a prompt, choose temperature and seed, and watch it write. The shade
behind each character says how little the model expected it; point at one, tap it, or go there with the arrow keys, to
see what else it might have been. The same seed and settings give the same text.

Weights are in half precision, arithmetic is in float32. Nothing is loaded from or sent to anywhere.
"""


PLAYS = (play,)
