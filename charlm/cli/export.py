"""charlm export"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from charlm.cli.options import Choice, json_option, model_options
from charlm.cli.output import print_json
from charlm.export import FORMATS, check_destination, check_engine, check_model, export, format_for, readme
from charlm.files import real_path


@click.command()
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@model_options
@click.option(
    "--format",
    "name",
    type=Choice(list(FORMATS)),
    help="What to write [by DEST's ending: .keras, .tflite, .html; else savedmodel].",
)
@click.option("--version", metavar="N", type=int, help="Write to DEST/N, for TensorFlow Serving to load beside others.")
@click.option("--force", is_flag=True, help="Replace an export that is there.")
@click.option("--unchecked", is_flag=True, help="Write it also where the engine that would check it is not installed.")
@json_option
def command(
    destination: Path,
    model: str | None,
    models: Path,
    checkpoint: str,
    name: str | None,
    version: int | None,
    force: bool,
    unchecked: bool,
    as_json: bool,
) -> None:
    """Write a trained model to DEST for other tools, and check that it computes the same.

    \b
    savedmodel  a directory for TensorFlow and TensorFlow Serving: text goes in, text comes out
    keras       a .keras file of stock layers, for Keras
    onnx        a directory with step.onnx and window.onnx, for ONNX Runtime and others
    litert      a .tflite file, for phones and small devices
    html        a page that writes text in any browser, alone and offline; weights in half precision

    What is written is loaded again by its own engine, reads 1000 symbols and writes 500; if the logits or the text
    differ from the model's by more than rounding, nothing is left. A README.md in the directory, or DEST.md beside the
    file, says what goes in and what comes out. onnx, litert and html need the extras charlm[onnx], charlm[litert] and
    charlm[html].
    """
    from charlm.display import say
    from charlm.shelf import find_run

    name = name or format_for(destination)
    check_destination(real_path(destination), name, force, version)
    if not unchecked:
        check_engine(name)
    found = find_run(model, models).pick(checkpoint)
    found.tokenizer()  # refuses a model of number series at once
    check_model(found.config(), name)
    from charlm.machine import start_tensorflow

    start_tensorflow()
    from charlm.language_model import LanguageModel

    loaded = LanguageModel(found)
    say(f"{loaded.checkpoint.path} as {name}: writing it, and comparing what was written with the model ...")
    checks = export(loaded, destination, name, force, unchecked, version)
    if version is not None:
        destination /= str(version)
    if as_json:
        shown = list(map(dataclasses.asdict, checks))
        print_json({"path": str(destination), "format": name, "checks": shown})
    else:
        for check in checks:
            say(f"{destination}: {check}")
        say(f"see {readme(destination, name)}")
