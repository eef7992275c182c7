"""charlm serve"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import sys
from pathlib import Path

import click

from charlm.cli.bars import say
from charlm.cli.options import model_options
from charlm.errors import CharlmError, UsageError


def _key(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """An empty key is a mistake, of a shell say, that would open the server to everybody."""
    if value == "" or (value is None and os.environ.get(str(option.envvar)) == ""):
        raise click.BadParameter("is empty")
    return value


def _name(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[^\s/:]+", value):
        raise click.BadParameter("is part of addresses: no space, slash or colon")
    return value


def _listening(host: str, port: int) -> socket.socket:
    """A socket that sends small pieces at once, of IPv4 or IPv6.

    Raises:
        CharlmError: there is no such address here, or it is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )[0]
        listening = socket.socket(family, kind, protocol)  # asyncio turns Nagle's algorithm off where TCP is named
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except (OSError, UnicodeError) as error:
        raise CharlmError(f"{host}, port {port}: cannot listen ({getattr(error, 'strerror', error)})") from None
    return listening


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """What a second Ctrl-C ends is no error."""
    raised = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not raised and not record.getMessage().rstrip().endswith("CancelledError")


@click.command()
@model_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any free one.")
@click.option(
    "--api-key", callback=_key, help="Refuse requests that do not bear it; better set by CHARLM_SERVE_API_KEY."
)
@click.option("--name", callback=_name, help="Of the model, in addresses and answers [the run's].")
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

    Every request is a row of one batch; rows come and go while others are written, and a seeded text is the same alone
    or among hundreds. Needs the extra charlm[serve]. Ctrl-C writes what it has begun, for at most 30 seconds, and
    stops; a second one does not wait.
    """
    try:
        import uvicorn

        from charlm.serve.limits import Limits
    except ModuleNotFoundError as error:
        raise UsageError(f"serve: {error.name} is not installed; pip install 'charlm[serve]'") from None
    from charlm.runtime import start_tensorflow

    listening = _listening(host, port)
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
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every client that went away
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=30)
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
    shown = f"[{host}]" if ":" in host else host
    say(f"{loaded.checkpoint.path} as {name} at http://{shown}:{listening.getsockname()[1]} (see /docs)")
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([listening])
