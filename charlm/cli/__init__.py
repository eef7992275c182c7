"""The `charlm` command. Command modules import what they need when they run, so that --help answers at once."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import time
from typing import NoReturn

import click

from charlm import __version__
from charlm.cli.options import as_typed
from charlm.errors import CharlmError, spelled

STARTED = time.monotonic()

COMMANDS = {
    "train": "charlm.cli.train",
    "evaluate": "charlm.cli.evaluate",
    "generate": "charlm.cli.generate",
    "export": "charlm.cli.export",
    "serve": "charlm.cli.serve",
    "info": "charlm.cli.info",
    "env": "charlm.cli.env",
    "tokenize": "charlm.cli.tokenize",
    "corpus": "charlm.cli.corpus",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = importlib.import_module(module).command
        for option in command.params:
            if isinstance(option, click.Option):
                flag = max(option.opts, key=len).strip("-").replace("-", "_")
                option.envvar = f"CHARLM_{cmd_name}_{flag}".upper()
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="charlm", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, envvar="CHARLM_DEBUG", help="Show tracebacks and TensorFlow's own messages.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Train, measure and sample recurrent character-level language models.

    \b
        charlm train corpus.txt
        charlm generate --prompt "Once upon a time"
        charlm export serving/

    Every option can also be set by an environment variable, CHARLM_<COMMAND>_<OPTION>.
    Exit codes: 0 done, 1 other failure, 2 wrong usage, 3 bad input data, 4 training diverged, 5 no such or a damaged
    model, 130 interrupted.
    """
    ctx.obj = debug


def main() -> NoReturn:
    """Runs the command line; every failure is one line on standard error and an exit code."""
    logging.basicConfig(format="charlm: warning: %(message)s", level=logging.WARNING, stream=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    debug = "--debug" in sys.argv[1:2] or "CHARLM_DEBUG" in os.environ
    try:
        with spelled(as_typed):
            _exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Exit as error:
        _exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _exit(130, "interrupted")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _exit(1)
    except click.ClickException as error:
        ctx = getattr(error, "ctx", None)
        _exit(error.exit_code, f"{error.format_message()} (see: {ctx.command_path if ctx else 'charlm'} --help)")
    except CharlmError as error:
        if debug:
            raise
        _exit(error.exit_code, str(error))
    except Exception as error:
        if debug:
            raise
        _exit(1, f"{type(error).__name__}: {error} (run charlm --debug ... for the traceback)")


def _exit(code: int, message: str = "") -> NoReturn:
    if message:
        print("charlm: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
