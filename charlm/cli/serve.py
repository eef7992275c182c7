"""charlm serve"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
from pathlib import Path

import click

from charlm.cli.bars import say
from charlm.cli.options import model_options
from charlm.errors import CharlmError, UsageError


@click.command()
@model_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any free one.")
@click.option("--api-key", help="Refuse requests that do not bear it; better set by CHARLM_SERVE_API_KEY.")
@click.option("--name", help="Of the model, in addresses and answers [the run's].")
@click.option(
    "--queue",
    type=click.IntRange(0),
    default=256,
    show_default=True,
    help="Texts that may wait when all rows are taken.",
)
@click.pass_obj
def command(
    debug: bool,
    model: str | None,
    models: Path,
    checkpoint: str,
    host: str,
    port: int,
    api_key: str | None,
    name: str | None,
    queue: int,
) -> None:
    """Serve a trained model over HTTP, many texts at once.

    \b
    POST /v1/completions          OpenAI's completions, whole or streamed
    GET  /v1/models               the model there is
    POST /v1/models/NAME:predict  TensorFlow Serving's predictions
    GET  /health /ready /metrics  whether it lives, whether it takes requests, Prometheus' metrics
    GET  /docs                    all of them, with examples

    Every request is a row of one batch; rows come and go at any symbol, and a seeded text is the same alone or among
    hundreds. Needs the extra charlm[serve]. Ctrl-C writes what it has begun, and stops.
    """
    try:
        import uvicorn

        from charlm.serve.limits import Limits
    except ModuleNotFoundError as error:
        raise UsageError(f"serve: {error.name} is not installed; pip install 'charlm[serve]'") from None
    from charlm.runtime import start_tensorflow

    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise CharlmError(f"{host}:{port}: cannot listen ({error.strerror}); try another --port") from None
    start_tensorflow(debug=debug)
    from charlm.api import load
    from charlm.serve.app import build
    from charlm.serve.engine import Engine

    loaded = load(model, checkpoint=checkpoint, models=models)
    name = name or loaded.checkpoint.run_name
    access = logging.getLogger("charlm.access")
    access.addHandler(logging.StreamHandler(sys.stderr))
    access.setLevel(logging.INFO)
    access.propagate = False
    app = build(loaded, name, Engine(loaded, queue), Limits(), api_key)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=30)
    say(f"{loaded.checkpoint.path} as {name} at http://{host}:{listening.getsockname()[1]} (see /docs)")
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([listening])
