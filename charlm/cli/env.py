"""charlm env"""

from __future__ import annotations

import platform

import click

from charlm import __version__
from charlm.cli.options import json_option
from charlm.cli.output import print_json

PACKAGES = ("tensorflow", "keras", "numpy", "sentencepiece", "safetensors", "click", "tqdm", "zstandard")


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Show versions, processor, GPU and what charlm would use of them."""
    import importlib.metadata

    from charlm.idcache import cache_folder
    from charlm.machine import Machine, onednn, start_tensorflow

    start_tensorflow()
    machine = Machine.here()
    about = {
        "charlm": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cores": machine.cores,
        "native bfloat16": machine.bfloat16,
        "oneDNN": onednn(),
        "gpu": machine.gpu,
        "precision auto": machine.precision("auto"),
        "engine": "keras (cuDNN)" if machine.gpu else "recurrence",
        "cache": str(cache_folder()),
    }
    if as_json:
        print_json(about)
        return
    for name, value in about.items():
        print(f"{name:16} {value}")
