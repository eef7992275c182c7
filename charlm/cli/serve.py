"""charlm serve"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import uvicorn

from charlm.cli.options import Command, model_options
from charlm.errors import CharlmError, UsageError, named
from charlm.serve.limits import Limits
from charlm.serve.site import Site, host_of, origin_of

_log = logging.getLogger("charlm")


def _key(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """An empty key is a mistake, of a shell say, that would open the server to everybody."""
    if value == "" or (value is None and os.environ.get(str(option.envvar)) == ""):
        raise click.BadParameter("is empty")
    return value


def _name(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[^\s/:]+", value):
        raise click.BadParameter("is part of addresses: no space, slash or colon")
    return value


def _public(ctx: click.Context, option: click.Parameter, value: str | None) -> str:
    """An address of a site, with the path that a proxy puts before every address."""
    if value is None:
        return ""
    try:
        return "".join(origin_of(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no address of a site, such as https://example.com/charlm") from None


def _origins(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    found = []
    for value in values:
        try:
            origin, path = (value, "") if value in ("*", "null") else origin_of(value)
        except ValueError:
            origin, path = "", value
        if path:
            raise click.BadParameter(f"{value!r} is no site, such as https://example.com, nor * for every site")
        found.append(origin)
    return tuple(found)


def _host(value: str) -> str:
    try:
        return host_of(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no name of a host, such as server.lan") from None


def _limits(command: Command) -> Command:
    """An option for every limit of a request."""
    for name, (default, about) in reversed(Limits.about().items()):
        option = click.option(f"--max-{name}", type=click.IntRange(1), default=default, show_default=True, help=about)
        command = option(command)
    return command


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


def _warn_of_strangers(address: str) -> None:
    """Says who can reach a server without a key that listens at an address, if it is more than this machine."""
    found = ipaddress.ip_address(address)
    if not found.is_loopback:
        place = "this machine" if found.is_unspecified else address
        way = f"CHARLM_SERVE_API_KEY=... or {named('api_key', 'KEY')} sets one"
        _log.warning("whoever reaches %s over the network can use the model, for there is no key: %s", place, way)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """What a second Ctrl-C ends is no error."""
    from asyncio import CancelledError

    raised = record.exc_info and isinstance(record.exc_info[1], CancelledError)
    return not raised and not record.getMessage().rstrip().endswith("CancelledError")


def _set_logs() -> None:
    """The access log goes to standard error as it is; what others tell of clients that went away goes nowhere."""
    access = logging.getLogger("charlm.access")
    access.addHandler(logging.StreamHandler(sys.stderr))
    access.setLevel(logging.INFO)
    access.propagate = False
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)


def _run(server: uvicorn.Server, listening: socket.socket) -> None:
    """Serves until one of the signals comes; nohup ignores SIGHUP."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, server.handle_exit)
    with contextlib.suppress(KeyboardInterrupt):
        server.run([listening])


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
@_limits
@click.option(
    "--public-url",
    callback=_public,
    help="Where browsers find the server behind a proxy: https://example.com, https://example.com/charlm.",
)
@click.option(
    "--allow-origin",
    multiple=True,
    callback=_origins,
    help="A site whose pages may ask (CORS); may be given several times. * is every site, null a page that is a file.",
)
@click.option(
    "--allow-host",
    multiple=True,
    type=_host,
    metavar="HOST",
    help="A name by which the server may be asked without a key; may be given several times. Addresses, localhost, and "
    "the names in --host and --public-url are known.",
)
def command(
    model: str | None,
    models: Path,
    checkpoint: str,
    host: str,
    port: int,
    api_key: str | None,
    name: str | None,
    queue: int,
    public_url: str,
    allow_origin: tuple[str, ...],
    allow_host: tuple[str, ...],
    **most: int,
) -> None:
    """Serve a trained model over HTTP, many texts at once.

    \b
    POST /v1/completions          OpenAI's completions, whole or streamed
    GET  /v1/models               the model there is
    POST /v1/models/NAME:predict  TensorFlow Serving's predictions
    POST /tokenize /detokenize    symbols and their ids
    GET  /health /ready /metrics  whether it lives, whether it takes requests, Prometheus' metrics
    GET  /docs                    all of them, with examples

    Every request is a row of one batch; rows come and go while others are written, and a seeded text is the same alone
    or among hundreds. Needs the extra charlm[serve]. Ctrl-C writes what it has begun, for at most 30 seconds, and
    stops; a second one does not wait.
    """
    limits = Limits(**{name.removeprefix("max_"): value for name, value in most.items()})
    if limits.length > limits.symbols:
        raise UsageError(f"--max-length {limits.length} is more than --max-symbols {limits.symbols}, of all texts")
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise UsageError(f"serve: {error.name} is not installed; pip install 'charlm[serve]'") from None
    from charlm.display import say
    from charlm.machine import start_tensorflow
    from charlm.shelf import find_run

    found = find_run(model, models).pick(checkpoint)
    found.tokenizer()  # refuses a model of number series at once
    listening = _listening(host, port)
    if api_key is None:
        _warn_of_strangers(listening.getsockname()[0])
    start_tensorflow()
    from charlm.language_model import LanguageModel
    from charlm.serve.app import build
    from charlm.serve.connection import served
    from charlm.serve.engine import Engine

    loaded = LanguageModel(found)
    name = name or loaded.checkpoint.run_name
    site = Site(public_url, allow_origin, (host.lower(), *allow_host))
    app = build(loaded, name, Engine(loaded, queue), limits, api_key, site, say)
    _set_logs()
    config = served(app, limits, timeout_graceful_shutdown=30)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}"
    url = f"{public_url}, behind a proxy of {url}" if public_url else url
    say(f"{loaded.checkpoint.path} as {name} at {url} (see /docs); loading")
    _run(uvicorn.Server(config), listening)
