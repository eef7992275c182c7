"""charlm translate"""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import click

from charlm.cli import completion
from charlm.cli.options import TRANSLATION, json_option, model_options, settings
from charlm.cli.output import print_json
from charlm.config import Tables
from charlm.errors import DataError, UsageError
from charlm.questions import TranslationConfig

AT_ONCE = 4096  # lines that are turned together
SHOWN = 20  # characters never seen, at most


@click.command()
@click.argument("sources", metavar="[FILE...]", nargs=-1, shell_complete=completion.files)
@model_options
@settings(TRANSLATION)
@json_option
def command(
    sources: tuple[str, ...],
    model: str | None,
    models: Path,
    checkpoint: str,
    settings: Tables,
    as_json: bool,
) -> None:
    r"""Turn strings into others, by a model that was trained on pairs.

    Each line of FILE, or of standard input, is a source; one line with its target is written for each, in their order.
    Inside a line, \t is a tab, \n a line end and \\ a backslash, in sources and targets alike. An empty line gives an
    empty line.

    A model is trained by charlm train PAIRS --pairs, where each line of PAIRS is a source, a tab and its target. The
    target may be empty, the source may not.

    With --samples, the targets of a source are separated by tabs, the likeliest first, each once. With --json, each
    line is an object with the source and its targets, and -log p of each in nats.
    """
    from charlm.cli.bars import progress_bars
    from charlm.machine import start_tensorflow
    from charlm.pairs.alphabet import PairAlphabet
    from charlm.pairs.table import escaped, unescaped
    from charlm.shelf import find_run

    asked = TranslationConfig.from_dict(settings.get("translate", {}))
    found = find_run(model, models).pick(checkpoint)
    alphabet = found.alphabet()
    if not isinstance(alphabet, PairAlphabet):
        raise UsageError(f"{found.run_name}: is no model of pairs; train one with: charlm train --pairs PAIRS")
    start_tensorflow()
    from charlm.language_model import LanguageModel

    loaded, given, unseen = LanguageModel(found), map(unescaped, _lines(sources)), dict[str, None]()
    with progress_bars() as bar:
        move = (lambda count: None) if sys.stdout.isatty() else bar("translating", None, "lines")
        while some := list(itertools.islice(given, AT_ONCE)):
            unseen.update(dict.fromkeys(character for source in some for character in alphabet.unseen(source)))
            for source, hypotheses in zip(some, loaded.hypotheses(some, asked, move), strict=True):
                if as_json:
                    targets = [{"target": one.text, "nats": one.nats} for one in hypotheses]
                    print_json({"source": source, "targets": targets})
                else:
                    shown = hypotheses if asked.samples else hypotheses[:1]
                    print("\t".join(escaped(one.text) for one in shown))
            sys.stdout.flush()
    if unseen:
        named = ", ".join(map(repr, list(unseen)[:SHOWN])) + (", ..." if len(unseen) > SHOWN else "")
        logging.getLogger("charlm").warning("the model has never seen %s", named)


def _text(line: bytes, number: int, name: str) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: line {number}, byte {error.start} is not UTF-8") from None


def _lines(files: tuple[str, ...]) -> Iterator[str]:
    """The lines of files, or of standard input, without their ends."""
    for file in files or ("-",):
        name = "standard input" if file == "-" else file
        try:
            with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as stream:
                for number, line in enumerate(stream, 1):
                    yield _text(line, number, name).removesuffix("\n").removesuffix("\r")
        except OSError as error:
            raise UsageError(f"{name}: cannot be read: {error.strerror}") from None
