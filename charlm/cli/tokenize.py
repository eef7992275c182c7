"""charlm tokenize"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from charlm.cli.options import json_option, model_options
from charlm.cli.output import print_json, typed_text


@click.command()
@click.argument("text", required=False)
@model_options
@json_option
def command(text: str | None, model: str | None, models: Path, checkpoint: str, as_json: bool) -> None:
    """Show how a model's tokenizer cuts TEXT (or standard input) into symbols: ids and their bytes."""
    from charlm.reading import read_prompt
    from charlm.shelf import find_run

    tokenizer = find_run(model, models).pick(checkpoint).tokenizer()
    if text is None:
        text = read_prompt(sys.stdin.buffer, "standard input").decode("utf-8", "surrogateescape")
    ids = tokenizer.encode(typed_text(text).removeprefix("\ufeff")).tolist()
    pieces = [tokenizer.id_bytes[i] for i in ids]
    if as_json:
        shown = [piece.decode("utf-8", "backslashreplace") for piece in pieces]
        print_json({"ids": ids, "pieces": shown})
        return
    for i, piece in zip(ids, pieces, strict=True):
        print(f"{i:6} {piece.decode('utf-8', 'backslashreplace')!r}")
