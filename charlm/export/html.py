"""One HTML file with the weights inside, which writes text in any browser, alone and offline."""

from __future__ import annotations

import base64
import html
import importlib.resources
import json
import shutil
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from charlm.api import LanguageModel
from charlm.export.parity import Played, Script
from charlm.generation import prompt_ids
from charlm.tokenizers import SentencePieceTokenizer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

WEIGHTS = np.float16
PLAY = """([ids, length]) => {
  const state = initialState(), logits = ids.map(id => Array.from(step(id, state))), greedy = [];
  for (let last = logits.at(-1); greedy.length < length; last = step(greedy.at(-1), state)) {
    greedy.push(draw(last, 0, 0, 0));
  }
  return [logits, greedy];
}"""


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
    layers = f"{model.layers} layer{'s' if model.layers > 1 else ''} of {model.units} units"
    files = importlib.resources.files("charlm")
    page = string.Template(files.joinpath("export/page.html").read_text("utf-8"))
    path.write_text(
        page.substitute(
            style=files.joinpath("page.css").read_text("utf-8"),
            title=html.escape(language_model.checkpoint.run_name),
            about=f"A recurrent language model: {model.cell.upper()}, {layers}, "
            f"{language_model.model.count_params():,} parameters, {tokenizer.vocabulary} symbols.",
            model=json.dumps(record).replace("<", "\\u003c"),
            weights=base64.b64encode(packed).decode(),
        ),
        "utf-8",
    )


def _symbol(content: bytes) -> str | list[int]:
    """A symbol as text, or as bytes if it is none."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return list(content)


def play(path: Path, script: Script) -> Played:
    """Plays the script in headless Chromium, with the page's own functions."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = launched(driver)
        page = browser.new_page()
        page.set_content(path.read_text("utf-8"))
        logits, greedy = page.evaluate(PLAY, [script.ids, script.length])
        engine = f"Chromium {browser.version}"
        browser.close()
    return Played(engine, np.array(logits, np.float32), greedy)


def launched(driver: Playwright) -> Browser:
    """A headless Chromium: the system's, Google's Chrome, or the one that `playwright install chromium` left.

    Raises:
        ModuleNotFoundError: there is none.
    """
    from playwright.sync_api import Error

    found = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        return driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
    except Error:
        raise ModuleNotFoundError("no Chromium", name="Chromium") from None


def usage(language_model: LanguageModel, path: Path, title: str) -> str:
    """How to use it."""
    return """Open the file in a browser: type a prompt, choose temperature and seed, and watch it write. The ground of
each character says how little the model expected it. The same seed and settings give the same text.

Weights are in half precision, arithmetic is in float32. Nothing is loaded from or sent to anywhere.
"""


PLAYS = (play,)
