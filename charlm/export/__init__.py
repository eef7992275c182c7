"""Leaving charlm: a trained model in the formats that other tools read, each checked against the model before it stays.

A format is a module here and a line in `FORMATS`. Its module has

    DIRECTORY   whether it writes a directory; a file if not
    WEIGHTS     the NumPy type that its weights have
    write       (LanguageModel, path): writes it
    PLAYS       functions (path, Script) -> Played, one for each engine that it is for: plays symbols through what was
                written; raises ModuleNotFoundError where the engine is not installed
    usage       (LanguageModel, path, title) -> Markdown: what goes in and out, and an example that was run on what
                is at path and will be called title
"""

from __future__ import annotations

import importlib
import secrets
import shutil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from charlm.errors import CharlmError, UsageError

if TYPE_CHECKING:
    from charlm.api import LanguageModel
    from charlm.export.parity import Parity

FORMATS = {
    "savedmodel": "charlm.export.savedmodel",
    "keras": "charlm.export.keras_file",
    "onnx": "charlm.export.onnx_files",
    "litert": "charlm.export.litert",
    "html": "charlm.export.html",
}


class ParityError(CharlmError):
    """An export does not compute what its model computes; nothing was left."""


def format_of(name: str) -> ModuleType:
    """The module of a format.

    Raises:
        UsageError: what it needs to write, which is the extra of its name, is not installed.
    """
    try:
        return importlib.import_module(FORMATS[name])
    except ModuleNotFoundError as error:
        extra = f"pip install 'charlm[{name}]'"
        raise UsageError(f"--format {name}: {error.name} is not installed; {extra}") from None


def export(
    language_model: LanguageModel, destination: Path, name: str = "savedmodel", force: bool = False
) -> list[Parity]:
    """Writes a model in a format, with a README beside or in it, and checks it in every engine that there is.

    Args:
        language_model: what to export.
        destination: a directory or a file, as the format has it.
        name: of the format, in `FORMATS`.
        force: replace what is there.

    Raises:
        UsageError: the destination exists or has no parent, or the format needs an extra.
        ParityError: what was written computes something else; it was removed.
    """
    from charlm.export import card, parity

    written = format_of(name)
    if destination.exists() and not force:
        raise UsageError(f"{destination}: exists; --force replaces it")
    if destination.exists() and destination.is_dir() != written.DIRECTORY:
        kind = "a directory" if written.DIRECTORY else "a file"
        raise UsageError(f"{destination}: --format {name} writes {kind}, and this is none")
    if not destination.parent.is_dir():
        raise UsageError(f"{destination.parent}: no such directory")
    draft = destination.with_name(f".{secrets.token_hex(4)}-{destination.name}")
    try:
        written.write(language_model, draft)
        script = parity.script_of(language_model)
        live = parity.played_live(language_model, script, written.WEIGHTS)
        found = [parity.compared(live, play, draft, script) for play in written.PLAYS]
        for check in found:
            if not check.holds:
                raise ParityError(f"{destination}: not written, for it would not compute what the model does: {check}")
        usage = written.usage(language_model, draft, destination.name)
        text = card.card(language_model, destination.name, name, usage, found)
        if destination.is_dir():
            shutil.rmtree(destination)
        draft.replace(destination)
        card.place(destination).write_text(text, "utf-8")
    finally:
        if draft.is_dir():
            shutil.rmtree(draft)
        draft.unlink(missing_ok=True)
    return found
