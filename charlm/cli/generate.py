"""charlm generate"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import sys
from pathlib import Path

import click

from charlm.cli.options import SAMPLING, json_option, model_options, settings
from charlm.cli.output import print_json, typed_text
from charlm.config import SampleConfig, Tables
from charlm.errors import DataError, UsageError, named

ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}
BETWEEN_SAMPLES = "-" * 40
_log = logging.getLogger("charlm")


@click.command()
@model_options
@click.option("--prompt", help="Text to go on from; may be empty.")
@click.option("--prompt-file", type=click.Path(path_type=Path), help="The same, from a UTF-8 file.")
@settings(SAMPLING)
@click.option(
    "-e", "--escapes", is_flag=True, help=r"In --prompt and --stop, read \n as a line end, \t as a tab, \\ as \."
)
@click.option("--no-echo", is_flag=True, help="Write what follows the prompt alone.")
@click.option("--strict", is_flag=True, help="Refuse a prompt with characters that the model has never seen.")
@json_option
def command(
    model: str | None,
    models: Path,
    checkpoint: str,
    prompt: str | None,
    prompt_file: Path | None,
    settings: Tables,
    escapes: bool,
    no_echo: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Write text that goes on from a prompt.

    The prompt comes from --prompt, --prompt-file, or standard input (less one final newline). The samplers apply in
    this order: repetition penalty, temperature, top-k, top-p, min-p. Several samples are separated by a line of
    dashes; sample n draws with the seed plus n. With --json, one object a line for each sample. With --beam, the
    likeliest text that a beam search finds is written, and no sampler has a part in it.
    """
    from charlm.machine import start_tensorflow
    from charlm.shelf import find_run

    sample = settings.get("sample", {})
    if "stop" in sample:
        sample["stop"] = tuple(_typed(text, "sample.stop", escapes) for text in sample["stop"])
    asked = SampleConfig.from_dict(sample)
    text = _prompt(prompt and _typed(prompt, "prompt", escapes), prompt_file)
    found = find_run(model, models).pick(checkpoint)
    found.tokenizer()  # refuses a model of number series at once
    start_tensorflow(side_by_side=asked.precision == "bfloat16")
    from charlm.generation import never_seen
    from charlm.language_model import LanguageModel

    loaded = LanguageModel(found)
    _warn_of_unseen(never_seen(loaded.tokenizer, text), strict)
    config = dataclasses.replace(loaded.config.sample, **sample)
    _write(loaded.stream(text, config), "" if no_echo else text, config.samples == 1, as_json)


def _typed(text: str, option: str, escapes: bool) -> str:
    """A text of the command line, where few shells make a line end of a backslash and an n."""
    if escapes:
        return re.sub(r"\\([nt\\])", lambda found: ESCAPES[found[1]], text)
    if found := re.search(r"\\[nt]", text):
        meant = f"a backslash and {found[0][1]} are read as they are; with {named('escapes', True)} they are one symbol"
        _log.warning("%s '%s': %s", named(option), text, meant)
    return text


def _prompt(prompt: str | None, file: Path | None) -> str:
    from charlm.reading import prompt_text, read_prompt

    if prompt is not None and file is not None:
        raise UsageError(f"{named('prompt')} and {named('prompt_file')} exclude each other")
    if prompt is not None:
        return typed_text(prompt).removeprefix("\ufeff")
    if file is None and sys.stdin.isatty():
        return ""
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if file is None else file.open("rb") as stream:
            data = read_prompt(stream, str(file or "standard input"))
    except OSError as error:
        raise UsageError(f"{named('prompt_file')} {file}: {error.strerror}") from None
    text = prompt_text(data, str(file or "standard input"))
    if file is None and text.endswith("\n"):
        text = text[:-2] if text.endswith("\r\n") else text[:-1]
    return text


def _warn_of_unseen(message: str, strict: bool) -> None:
    if not message:
        return
    if strict:
        raise DataError(f"{message}; without --strict it reads the unknown symbol there")
    print(f"charlm: warning: {message}; it reads the unknown symbol there", file=sys.stderr)


def _write(pieces, echo: str, streams: bool, as_json: bool) -> None:  # type: ignore[no-untyped-def]
    """Writes samples to standard output: one as it comes, several when all are done."""
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    streams = streams and not as_json
    last = echo
    if streams:
        print(echo, end="", flush=True)
    samples = []
    for piece in pieces:
        if not isinstance(piece, tuple):
            samples.append(piece)
        elif streams:
            print(piece[1], end="", flush=True)
            last = piece[1]
    if streams:
        print(end="" if last.endswith("\n") else "\n")
    for n, sample in enumerate(() if streams else samples):
        if as_json:
            print_json(dataclasses.asdict(sample))
        else:
            text = echo + sample.text
            print((BETWEEN_SAMPLES + "\n" if n else "") + text, end="" if text.endswith("\n") else "\n")
