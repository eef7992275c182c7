"""Leaving charlm: a trained model in the formats that other tools read, each checked against the model before it stays.

A format is a module here and a line in `FORMATS`, which says what it has a path for. Its module has

    WEIGHTS     the NumPy type that its weights have
    write       (LanguageModel, path): writes it
    PLAYS       functions (path, Script) -> Played, one for each engine that it is for: plays symbols through what was
                written; raises ModuleNotFoundError where the engine is not installed
    usage       (LanguageModel, path, title) -> Markdown: what goes in and out, and an example that was run on what
                is at path and will be called title
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from charlm.config import Config
from charlm.errors import CharlmError, UsageError, did_you_mean, named
from charlm.files import EXPORT_TITLE, put_back, real_path, replace_folder, replacing, sha256_of, sync, sync_tree
from charlm.machine import check_threads

if TYPE_CHECKING:
    from charlm.export.parity import Parity
    from charlm.language_model import LanguageModel


class Format(NamedTuple):
    """Where a format is and which models it has a path for; known before TensorFlow starts.

    Attributes:
        module: that writes it.
        suffix: what the name of its file ends with; None if it writes a directory.
        cells, tokenizers: that it has something for; None if any will do.
        engine: the package that checks what was written, which the extra of its name brings; None if charlm does.
    """

    module: str
    suffix: str | None
    cells: Sequence[str] | None = None
    tokenizers: Sequence[str] | None = None
    engine: str | None = None

    def lacks(self, config: Config) -> list[str]:
        """The parts of a model that it has nothing for, in words."""
        parts = ("cell", config.model.cell, self.cells), ("tokenizer", config.data.tokenizer, self.tokenizers)
        return [f"the {kind} '{part}'" for kind, part, known in parts if known is not None and part not in known]


STOCK_CELLS, TOKENIZERS = ("lstm", "gru", "rnn"), ("char", "byte", "sentencepiece")
SUMS = "SHA256SUMS"  # in an export that is a directory: the digests of all other files, as `sha256sum` writes them
LAST_VERSION = 2**63 - 1  # that TensorFlow Serving can count to
FORMATS = {
    "savedmodel": Format("charlm.export.savedmodel", None, tokenizers=TOKENIZERS),
    "keras": Format("charlm.export.keras_file", ".keras", cells=STOCK_CELLS),
    "onnx": Format("charlm.export.onnx_files", None, cells=STOCK_CELLS, engine="onnxruntime"),
    "litert": Format("charlm.export.litert", ".tflite", engine="ai_edge_litert"),
    "html": Format("charlm.export.html", ".html", STOCK_CELLS, TOKENIZERS, engine="py_mini_racer"),
}


class ParityError(CharlmError):
    """An export does not compute what its model computes; nothing was left."""


def format_of(name: str) -> ModuleType:
    """The module of a format.

    Raises:
        UsageError: what it needs to write, which is the extra of its name, is not installed.
    """
    try:
        return importlib.import_module(FORMATS[name].module)
    except ModuleNotFoundError as error:
        extra = f"pip install 'charlm[{name}]'"
        raise UsageError(f"{named('format')} {name}: {error.name} is not installed; {extra}") from None


def check_engine(name: str) -> None:
    """Checks that what a format writes can be checked here.

    Raises:
        UsageError: its engine is not installed.
    """
    engine = FORMATS[name].engine
    if engine and importlib.util.find_spec(engine) is None:
        ways = f"pip install 'charlm[{name}]', or {named('unchecked', True)} leaves it unchecked"
        raise UsageError(f"{name}: {engine}, which checks what is written, is not installed; {ways}")


def format_for(destination: Path) -> str:
    """The name of the format that a path's ending is for; the first if it has none.

    Raises:
        UsageError: its ending is no format's.
    """
    for name, found in FORMATS.items():
        if destination.suffix == (found.suffix or ""):
            return name
    raise UsageError(f"{destination}: {destination.suffix} is no format's ending; {named('format')} says what to write")


def check_model(config: Config, name: str) -> None:
    """Checks that a format has a path for a model.

    Raises:
        UsageError: it has none for the cell or the tokenizer; the message names the formats that have.
    """
    if missing := FORMATS[name].lacks(config):
        others = [other for other, made in FORMATS.items() if not made.lacks(config)]
        has = f"{', '.join(others)} {'have' if len(others) > 1 else 'has'}"
        raise UsageError(f"{name} has nothing for {' and '.join(missing)}; {has}")


def readme(destination: Path, name: str) -> Path:
    """The path of an export's README: in its directory, or beside its file."""
    is_file = FORMATS[name].suffix
    return destination.with_name(destination.name + ".md") if is_file else destination / "README.md"


def check_destination(destination: Path, name: str, force: bool, version: int | None = None) -> None:
    """Checks that an export may be written there, or a version of it in there.

    Raises:
        UsageError: it exists, and is not to be replaced or no export; it has no parent; its name ends otherwise; it
            cannot have the version.
    """
    if version is not None:
        _check_version(destination, name, version, force)
        return
    suffix, beside = FORMATS[name].suffix, readme(destination, name)
    if suffix and destination.suffix != suffix:
        raise UsageError(f"{destination}: {named('format')} {name} writes a file whose name ends with {suffix}")
    if not destination.parent.is_dir():
        raise UsageError(f"{destination.parent}: no such directory")
    if destination.is_dir() == bool(suffix) and destination.exists():
        kind = "a file" if suffix else "a directory"
        raise UsageError(f"{destination}: {named('format')} {name} writes {kind}, and this is none")
    if not suffix and destination.exists() and any(destination.iterdir()) and not _is_readme(beside):
        raise UsageError(f"{destination}: is not replaced, for it holds something else than an export; name another")
    if destination.exists() and not force:
        raise UsageError(f"{destination}: exists; {named('force', True)} replaces it")
    if suffix and beside.exists() and not (force and _is_readme(beside)):
        raise UsageError(f"{beside}: exists, and is where the README of the export would be")


def _check_version(place: Path, name: str, version: int, force: bool) -> None:
    typed = named("version", version)
    if name != "savedmodel":
        raise UsageError(f"{typed}: {name} has no versions; savedmodel has")
    if not 1 <= version <= LAST_VERSION:
        raise UsageError(f"{typed}: a version is a number from 1 to {LAST_VERSION}")
    if force:
        raise UsageError(f"{named('force', True)}: no version is replaced, for servers may have it loaded")
    if not place.parent.is_dir():
        raise UsageError(f"{place.parent}: no such directory")
    if place.exists() and not place.is_dir():
        raise UsageError(f"{place}: {typed} goes into a directory, and this is none")
    if _is_readme(readme(place, name)):
        raise UsageError(f"{place}: is an export itself; {typed} wants a directory of its own")
    taken = {int(path.name) for path in place.glob("*") if path.name.isdecimal()}
    if version in taken:
        raise UsageError(f"{place}: has a version {version}, and none is replaced; its latest is {max(taken)}")


def _check_replaced(destination: Path, draft: Path) -> None:
    """Raises UsageError if a directory holds what its replacement does not."""
    there, new = ({path.name for path in folder.glob("*")} for folder in (destination, draft))
    if more := there - new:
        raise UsageError(f"{destination}: is not replaced, for it also holds {', '.join(sorted(more))}")


@contextmanager
def _directory(place: Path) -> Iterator[None]:
    """A directory: one that was not there is made, and removed again if nothing was put into it."""
    made = not place.exists()
    place.mkdir(exist_ok=True)
    try:
        if made:
            sync(place.parent)
        yield
    finally:
        if made:
            with suppress(OSError):
                place.rmdir()


@contextmanager
def _draft(destination: Path) -> Iterator[Path]:
    """A path beside a destination, under a name that is no version's; what is left of it is removed."""
    draft = destination.with_name(f".{secrets.token_hex(4)}-{destination.name}")
    try:
        yield draft
    finally:
        put_back(destination)
        if draft.is_dir():
            shutil.rmtree(draft)
        draft.unlink(missing_ok=True)


def _put(draft: Path, destination: Path, name: str, text: str, force: bool) -> None:
    """Puts what was written, and its README, in its place, synced to disk."""
    if draft.is_dir():
        readme(draft, name).write_text(text, "utf-8")
        files = sorted(path for path in draft.rglob("*") if path.is_file())
        sums = [f"{sha256_of(path)}  {path.relative_to(draft).as_posix()}\n" for path in files]
        (draft / SUMS).write_text("".join(sums), "utf-8")
        _check_replaced(destination, draft)
        sync_tree(draft)
        if force:
            replace_folder(draft, destination)
        else:
            draft.rename(destination)  # fails if another process has put one there
            sync(destination.parent)
        return
    sync(draft)
    with replacing(readme(destination, name)) as beside:
        beside.write_text(text, "utf-8")
        sync(beside)
        draft.replace(destination)


def _is_readme(path: Path) -> bool:
    return path.is_file() and EXPORT_TITLE in path.read_text("utf-8", "replace")


def export(
    language_model: LanguageModel,
    destination: str | os.PathLike[str],
    format: str | None = None,
    force: bool = False,
    unchecked: bool = False,
    version: int | None = None,
) -> list[Parity]:
    """Writes a model in a format, with a README beside or in it, and checks it in every engine that there is.

    Args:
        language_model: what to export.
        destination: a directory or a file, as the format has it.
        format: its name in `FORMATS`; None for that of the destination's ending, a SavedModel if it has none.
        force: replace an export that is there.
        unchecked: write it also where its engine is not installed.
        version: write the SavedModel into the destination under this number, where TensorFlow Serving finds it; it
            appears there whole, beside earlier versions.

    Raises:
        UsageError: see `check_destination`, `check_engine` and `check_model`; or the format needs an extra.
        ParityError: what was written computes something else; it was removed.
    """
    place = real_path(destination)
    name = format or format_for(place)
    if name not in FORMATS:
        raise UsageError(f"{named('format')}: there is no {name!r}{did_you_mean(name, FORMATS)}")
    put_back(place)
    check_destination(place, name, force, version)
    check_model(language_model.config, name)
    check_threads()
    if not unchecked:
        check_engine(name)
    path, title = (place, place.name) if version is None else (place / str(version), f"{place.name}/{version}")
    return _exported(language_model, path, name, title, force)


def _exported(language_model: LanguageModel, destination: Path, name: str, title: str, force: bool) -> list[Parity]:
    import tensorflow as tf

    from charlm.export import card, parity

    written, made = format_of(name), None
    try:
        with _directory(destination.parent), _draft(destination) as draft:
            written.write(language_model, draft)
            script = parity.script_of(language_model)
            reference = parity.Reference(language_model, written.WEIGHTS)
            found = [parity.compared(reference, play, draft, script) for play in written.PLAYS]
            found = [check for check in found if check.noise is not None] or found
            if failed := [check for check in found if not check.holds]:
                other = f"it would not compute what the model does: {failed[0]}"
                raise ParityError(f"{destination}: not written, for {other}")
            usage = written.usage(language_model, draft, title)
            told = f"`sha256sum --check --strict {SUMS}` tells whether a copy is whole"
            digest = told if draft.is_dir() else f"SHA-256: `{sha256_of(draft)}`"
            made = _inode(draft)
            _put(draft, destination, name, card.card(language_model, title, name, usage, found, digest), force)
    except (OSError, tf.errors.OpError) as error:
        why = error.strerror if isinstance(error, OSError) else error.message
        if made is None or _inode(destination) != made:
            raise CharlmError(f"{destination}: cannot be written: {why}; what was there is as it was") from None
        lost = f"its README may be missing, or it may be lost with the power; {named('force', True)} writes it again"
        raise CharlmError(f"{destination}: stands there, but not safely: {why}; {lost}") from None
    return found


def _inode(path: Path) -> tuple[int, int] | None:
    """The device and inode of a file or folder, which no other has; None if there is none."""
    with suppress(OSError):
        return (state := path.stat()).st_dev, state.st_ino
    return None
