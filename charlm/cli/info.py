"""charlm info"""

from __future__ import annotations

import math
from pathlib import Path

import click

from charlm.cli.options import json_option, model_options
from charlm.cli.output import print_json


@click.command()
@model_options
@json_option
def command(model: str | None, models: Path, checkpoint: str, as_json: bool) -> None:
    """Describe a trained model: configuration, size, scores, files."""
    from charlm.cli.listing import bits_per_char
    from charlm.display import CHARACTER, UNITS
    from charlm.errors import visible
    from charlm.series.alphabet import SeriesAlphabet
    from charlm.shelf import find_run

    run = find_run(model, models)
    chosen, last = run.pick(checkpoint), run.pick("last")
    progress, config, alphabet = last.standing(), chosen.config(), chosen.alphabet()
    record, corpus = run.record, run.record["corpus"]
    parameters = sum(map(math.prod, chosen.shapes("weights").values()))
    about = {
        "name": run.name,
        "config": config.to_dict(),
        "parameters": parameters,
        "tokenizer": config.data.tokenizer,
        "vocabulary": alphabet.vocabulary,
        "best": {"step": progress.best, "nats_per_symbol": progress.best_nats},
        "last_step": progress.step,
        "finished": progress.finished,
        "corpus": corpus,
        "from": record.get("from"),
        "versions": record["versions"],
        "paths": {"run": str(run.path), "checkpoint": str(chosen.path)},
    }
    if as_json:
        print_json(about)
        return
    m, t = config.model, config.train
    of_series = f", of {alphabet.scaling}" if isinstance(alphabet, SeriesAlphabet) else ""
    best = "no score" if progress.best_nats is None else f"{progress.best_nats:.4f} nats per symbol"
    if (bits := bits_per_char(run, progress, config.data.tokenizer)) is not None:
        best = f"{bits:.3f} bits per {UNITS.get(config.data.alphabet, CHARACTER)[0]} ({best})"
    print(visible(f"{run.name}  {run.path}"))
    print(f"  model       {m.cell}, {m.layers} x {m.units} units, dropout {m.dropout}, {parameters:,} parameters")
    print(f"  tokenizer   {config.data.tokenizer}, {alphabet.vocabulary} symbols{of_series}")
    print(f"  training    {t.lanes} lanes, window {t.bptt}, stride {t.k1}, {t.optimizer}, rate {t.learning_rate}")
    print(visible(f"  corpus      {corpus['chars']:,} characters: {', '.join(corpus['paths'])}"))
    if origin := about["from"]:
        print(visible(f"  from        {origin['run']}, step {origin['step']}, weights {origin['weights'][:12]}"))
    print(f"  best        {best} at step {progress.best}; last step {progress.step} of {progress.steps}")
    print(visible(f"  checkpoint  {chosen.path}"))
