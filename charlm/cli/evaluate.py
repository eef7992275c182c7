"""charlm evaluate"""

from __future__ import annotations

from pathlib import Path

import click

from charlm.cli import completion
from charlm.cli.options import EVALUATION, json_option, model_options, settings
from charlm.cli.output import print_json
from charlm.config import Tables
from charlm.questions import EvaluationConfig


@click.command()
@click.argument("corpora", metavar="[CORPUS...]", nargs=-1, shell_complete=completion.files)
@model_options
@settings(EVALUATION)
@json_option
def command(
    corpora: tuple[str, ...],
    model: str | None,
    models: Path,
    checkpoint: str,
    settings: Tables,
    as_json: bool,
) -> None:
    """Measure how well a model predicts a text or number series; without CORPUS, what it was trained on.

    State is carried through the text, so that a symbol is predicted from all that precedes it, unless --cold.
    """
    from charlm.cli.bars import progress_bars, reading_bar
    from charlm.machine import start_tensorflow
    from charlm.shelf import find_run

    asked = settings.get("evaluate", {})
    EvaluationConfig.from_dict(asked)
    found = find_run(model, models).pick(checkpoint)
    start_tensorflow(side_by_side=True)
    from charlm.language_model import LanguageModel

    loaded = LanguageModel(found)
    with progress_bars() as bar:
        score = loaded.evaluate(
            corpora,
            **asked,
            reading=reading_bar(bar),
            scoring=lambda symbols: bar("scoring", symbols, "symbols"),
        )
    if as_json:
        print_json(score.to_dict())
        return
    print(f"{score.split} split, {score.context} state, {loaded.checkpoint.path}")
    if score.exact_match is not None:
        print(f"  {100 * score.exact_match:8.2f} % of the targets are found exactly")
        print(f"  {100 * (score.word_error_rate or 0):8.2f} % word error rate")
        print(f"  {100 * (score.char_error_rate or 0):8.2f} % character error rate")
        print(f"  {score.nats_per_symbol:8.4f} nats per target symbol ({score.symbols:,} of them)")
        return
    if loaded.config.data.tokenizer == "series":
        print(f"  {score.nats_per_symbol:8.4f} nats per value ({score.bits_per_char:.4f} bits)")
        print(f"  {score.symbols:,} values, {score.seconds:.1f} seconds")
        return
    print(f"  {score.bits_per_char:8.4f} bits per character")
    print(f"  {score.bits_per_byte:8.4f} bits per byte")
    print(f"  {score.nats_per_symbol:8.4f} nats per symbol (perplexity {score.perplexity:.3f})")
    print(f"  {score.symbols:,} symbols, {score.chars:,} characters, {score.bytes:,} bytes, {score.unknown:,} unknown")
    print(f"  {score.seconds:.1f} seconds")
