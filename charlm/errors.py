"""The exceptions a user can meet, each with the exit code the command line returns for it, and how they name settings.

A message names a setting as whoever reads it would set it: `named("train.lanes")` is `--lanes` or `CHARLM_TRAIN_LANES`
on the command line, `[train] lanes in run.toml` for a file, and `lanes` from Python or over HTTP. The outermost layer
says how, by `spelled`; the rooms below only name the setting.
"""

from __future__ import annotations

import contextlib
import contextvars
import difflib
from collections.abc import Callable, Iterable, Iterator

Spelling = Callable[[str, object], str]


class CharlmError(Exception):
    """Anything that stops a command: one line saying what is wrong, where, and what to do."""

    exit_code = 1


class UsageError(CharlmError):
    """Wrong usage: an option, a missing path, an unknown configuration key, a changed corpus on resume."""

    exit_code = 2


class DataError(CharlmError):
    """Bad input data: empty, undecodable, or too small for the lanes asked for."""

    exit_code = 3


class DivergedError(CharlmError):
    """The training loss is no longer finite."""

    exit_code = 4


class ModelError(CharlmError):
    """No such model, a damaged one, or one that charlm did not write."""

    exit_code = 5


class Interrupted(CharlmError):
    """Stopped by SIGINT, SIGTERM or SIGHUP, after saving."""

    exit_code = 130


def visible(text: str) -> str:
    """A text without what a terminal would obey: control characters, line ends and tabs among them, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def in_python(setting: str, value: object = None) -> str:
    """A setting as a keyword argument."""
    key = setting.rpartition(".")[2]
    return key if value is None else f"{key}={value!r}"


_spelling: contextvars.ContextVar[Spelling] = contextvars.ContextVar("spelling", default=in_python)


def named(setting: str, value: object = None) -> str:
    """A setting as the reader of a message would set it.

    Args:
        setting: `table.key` as in a configuration, or the bare name of something that no table has, such as `name`.
        value: what a message advises to set it to; True for a switch.
    """
    return _spelling.get()(setting, value)


@contextlib.contextmanager
def spelled(spelling: Spelling) -> Iterator[None]:
    """Inside, `named` spells settings so."""
    token = _spelling.set(spelling)
    try:
        yield
    finally:
        _spelling.reset(token)


LONGEST_WORD = 100  # that somebody could have meant another by


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message about a word that is not known: the known one that it was meant for, if one is near."""
    if len(word) > LONGEST_WORD:
        return ""
    flat = {one.lower().replace("-", "_"): one for one in known}
    near = [flat[one] for one in difflib.get_close_matches(word.lower().replace("-", "_"), flat, 1)]
    return f"; did you mean {near[0]}?" if near else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest known word, or all of them if none is near."""
    words = list(known)
    return nearest(word, words) or f" (known: {', '.join(words)})"
