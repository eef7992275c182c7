"""charlm env"""

from __future__ import annotations

import importlib.metadata
import platform

import click

from charlm import __version__
from charlm.cli.options import json_option
from charlm.cli.output import print_json

PACKAGES = ("tensorflow", "keras", "numpy", "sentencepiece", "safetensors", "click", "tqdm", "zstandard")


@click.command()
@json_option
@click.pass_obj
def command(debug: bool, as_json: bool) -> None:
    """Show versions, processor, GPU and what charlm would use of them."""
    from charlm.idcache import cache_folder
    from charlm.runtime import choose_precision, cores, native_bfloat16, on_gpu, onednn, start_tensorflow

    start_tensorflow(debug=debug)
    about = {
        "charlm": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cores": cores(),
        "native bfloat16": native_bfloat16(),
        "oneDNN": onednn(),
        "gpu": on_gpu(),
        "precision auto": choose_precision("auto"),
        "engine": "keras (cuDNN)" if on_gpu() else "recurrence",
        "cache": str(cache_folder()),
    }
    if as_json:
        print_json(about)
        return
    for name, value in about.items():
        print(f"{name:16} {value}")
