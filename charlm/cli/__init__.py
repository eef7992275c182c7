"""The `charlm` command. Command modules import what they need when they run, so that --help answers at once."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
import time
import traceback
from typing import NoReturn

import click

from charlm import __version__
from charlm.cli.options import as_typed, set_by_environment
from charlm.cli.output import open_streams
from charlm.errors import CharlmError, nearest, spelled, visible
from charlm.interrupts import interrupt_anew
from charlm.machine import LOG_LEVEL

STARTED = time.monotonic()

COMMANDS = {
    "train": "charlm.cli.train",
    "evaluate": "charlm.cli.evaluate",
    "generate": "charlm.cli.generate",
    "forecast": "charlm.cli.forecast",
    "translate": "charlm.cli.translate",
    "export": "charlm.cli.export",
    "serve": "charlm.cli.serve",
    "runs": "charlm.cli.runs",
    "info": "charlm.cli.info",
    "cache": "charlm.cli.cache",
    "env": "charlm.cli.env",
    "tokenize": "charlm.cli.tokenize",
    "corpus": "charlm.cli.corpus",
}
VARIABLES = ("CHARLM_CACHE", "CHARLM_DEBUG")  # that all commands have


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command's module, and names the environment variables of its options."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = importlib.import_module(module).command
        for option in command.params:
            if isinstance(option, click.Option):
                flag = max(option.opts, key=len).strip("-").replace("-", "_")
                option.envvar = f"CHARLM_{cmd_name}_{flag}".upper()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command that the words begin with; `help COMMAND` is its --help."""
        if args[0] == "help":
            args = [*args[1:], "--help"]
        if args[0] == "--help":
            click.echo(ctx.get_help())
            ctx.exit()
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            ctx.fail(f"No such command '{args[0]}'{nearest(args[0], COMMANDS)}")
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not ctx.resilient_parsing:
            _warn_of_variables(args[0], command)
        return name, command, rest


def _warn_of_variables(name: str, command: click.Command) -> None:
    """A variable that is none of a command's options is no error: another version of charlm may have it."""
    known = [str(option.envvar) for option in command.params if isinstance(option, click.Option)]
    others = tuple(f"CHARLM_{other.upper()}_" for other in COMMANDS if other != name)
    for variable in os.environ:
        if variable.startswith("CHARLM_") and variable not in (*known, *VARIABLES) and not variable.startswith(others):
            meant = nearest(variable, known)
            logging.getLogger("charlm").warning("%s: charlm %s has no such option%s", variable, name, meant)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="charlm", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, envvar="CHARLM_DEBUG", help="Show tracebacks and TensorFlow's own messages.")
def cli(debug: bool) -> None:
    """Train, measure and sample recurrent character-level language models.

    \b
        charlm train corpus.txt
        charlm generate --prompt "Once upon a time"
        charlm export serving/

    Every option can also be set by an environment variable, CHARLM_<COMMAND>_<OPTION>.

    The Tab key completes commands, options and the names of runs after one of these lines:

    \b
        eval "$(_CHARLM_COMPLETE=bash_source charlm)"      in ~/.bashrc
        eval "$(_CHARLM_COMPLETE=zsh_source charlm)"       in ~/.zshrc
        _CHARLM_COMPLETE=fish_source charlm | source       in ~/.config/fish/config.fish

    Exit codes: 0 done, 1 other failure, 2 wrong usage, 3 bad input data, 4 training diverged, 5 no such or a damaged
    model, 130 interrupted.
    """
    if debug:
        os.environ[LOG_LEVEL] = "0"


def main() -> NoReturn:
    """Runs the command line; every failure is one line on standard error and an exit code."""
    open_streams()
    warnings = logging.StreamHandler(sys.stderr)
    warnings.setFormatter(_Lines("charlm: warning: %(message)s"))
    logging.basicConfig(handlers=[warnings], level=logging.WARNING)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores the second
            signal.signal(number, signal.default_int_handler)
    sys.unraisablehook = interrupt_anew
    debug = "--debug" in sys.argv[1:2] or _is_on(os.environ.get("CHARLM_DEBUG", ""))
    try:
        with spelled(as_typed):
            code = cli.main(standalone_mode=False) or 0
        sys.stdout.flush()
        _exit(code)
    except click.exceptions.Exit as error:
        _exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _exit(130, "interrupted")
    except BrokenPipeError:
        _exit(1)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        _exit(error.exit_code)
    except click.ClickException as error:
        ctx = getattr(error, "ctx", None)
        if isinstance(error, click.BadParameter) and ctx and error.param and set_by_environment(ctx, error.param):
            error.param_hint = f"'{error.param.envvar}'"
        command = ctx.command_path if ctx else _typed_command()
        _exit(error.exit_code, f"{error.format_message()} (see: {command} --help)")
    except CharlmError as error:
        if debug:
            traceback.print_exc()
        _exit(error.exit_code, "" if debug else str(error))
    except Exception as error:
        if debug:
            raise
        _exit(1, _failure(error))


def _typed_command() -> str:
    """The command that was typed, of which click does not say what was wrong with an option's values."""
    return " ".join(["charlm", *[word for word in sys.argv[1:3] if word in COMMANDS][:1]])


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Escapes what terminals would obey, which the name of a file can hold."""
        return "\n".join(map(visible, super().format(record).split("\n")))


def _is_on(value: str) -> bool:
    """A switch from the environment as click reads one; what it cannot read, it refuses by itself."""
    try:
        return bool(value) and bool(click.BOOL.convert(value, None, None))
    except click.BadParameter:
        return False


def _failure(error: Exception) -> str:
    """A failure that no command knows, in one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"there is not enough memory{f': {error}' if str(error) else ''}"
    return f"failed unexpectedly: {error or type(error).__name__} (charlm --debug ... shows where)"


def _exit(code: int, message: str = "") -> NoReturn:
    if code:
        with contextlib.suppress(CharlmError, BrokenPipeError):
            sys.stdout.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or what could not be written is tried again at the end
    if message:
        print("charlm: " + visible(" ".join(message.split())), file=sys.stderr)
    sys.exit(code)
