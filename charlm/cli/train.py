"""charlm train"""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charlm.cli import STARTED, completion
from charlm.cli.options import DEFAULT_MODELS, TOML, TRAINING, Choice, models_option, settings
from charlm.config import LENGTHS, Config, Tables, TrainConfig, overlay, read_toml
from charlm.errors import Interrupted
from charlm.presets import PRESETS

if TYPE_CHECKING:
    from charlm.session import Request

GENERATE = 'charlm generate{} --prompt "..."'
TRIED = {"series": "charlm forecast{}", "pairs": "charlm translate{} < sources"}
PRESET_HELP = "Settings that go together: " + ", ".join(f"{n} ({p.purpose})" for n, p in PRESETS.items())


@click.command()
@click.argument("corpora", metavar="CORPUS...", nargs=-1, shell_complete=completion.files)
@click.option("--name", shell_complete=completion.run_names, help="Name of the run [after the corpus, numbered].")
@click.option("--preset", type=Choice(list(PRESETS)), help=PRESET_HELP + " [by corpus size, hardware and --minutes].")
@click.option("--config", "toml", type=click.Path(path_type=Path), help="TOML with tables model, data, train, sample.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run called --name exactly where it stopped. --minutes, --steps or --epochs are its new total, "
    "what it has done included; without them it goes on to the total that it has.",
)
@click.option(
    "--from",
    "from_run",
    metavar="RUN",
    shell_complete=completion.run_names,
    help="Begin a new run with the model of RUN, a run directory or its name: its best weights, its network and its "
    "tokenizer, which gets new characters.",
)
@models_option
@settings(TRAINING)
def command(
    corpora: tuple[str, ...],
    name: str | None,
    preset: str | None,
    toml: Path | None,
    resume: bool,
    from_run: str | None,
    models: Path,
    settings: Tables,
) -> None:
    """Train a model on a text, or on number series.

    CORPUS is one or many files, folders (searched for text, sorted), globs, or - for standard input; .gz, .bz2, .xz
    and .zst are unpacked. Text is UTF-8 unless --encoding says otherwise; undecodable bytes are refused unless
    --errors replace; a byte order mark is dropped; line ends are kept unless --newlines normalise.

    With --tokenizer series, CORPUS is tables of numbers; charlm forecast --help says how they may look. With --pairs,
    each line is a source, a tab and its target; charlm translate --help says more.

    A flag beats the environment, which beats the --config file, which beats the preset. Ctrl-C saves and stops; a
    second one stops at once.
    """
    from charlm.cli.bars import progress_bars, reading_bar
    from charlm.display import TrainingDisplay, say
    from charlm.events import Finished
    from charlm.interrupts import stop_requested
    from charlm.machine import start_tensorflow
    from charlm.session import Request, open_session

    tables = overlay({} if toml is None else _checked(toml), settings)
    request = Request(corpora, tables, models, name, preset, resume, from_run)
    if (tables.get("data", {}).get("pairs") or preset == "pairs") and not resume:
        request = _settled(request)
    with progress_bars() as bar:
        session = open_session(request, reading_bar(bar), lambda what, chars: bar(what, chars, "chars"))
    say(str(session.data.corpus))
    say(session.choice)
    elsewhere = "" if models == DEFAULT_MODELS else f" --models {shlex.quote(str(models))}"
    further = f"charlm train --name {session.run.name}{elsewhere} --resume"
    with stop_requested(again=lambda: os._exit(130)) as stop, contextlib.closing(TrainingDisplay()) as display:
        start_tensorflow(side_by_side=True)
        from charlm.training import Training

        for event in Training(session, stop=stop, started=STARTED).events():
            display.show(event)
    if isinstance(event, Finished) and event.reason == "interrupted":
        raise Interrupted(f"{'saved' if event.step else 'nothing is trained yet'}; go on with: {further}")
    say(f"saved in {session.run.path}; try: {TRIED.get(session.config.data.alphabet, GENERATE).format(elsewhere)}")
    say(f"train it further with: {further} {_twice_as_long(session.config.train)}")


def _settled(request: Request) -> Request:
    """The request with a layout of pairs that has been tried."""
    from charlm.dataset import check_pairs_in
    from charlm.display import say
    from charlm.interrupts import stop_requested
    from charlm.machine import start_tensorflow

    check_pairs_in(list(request.paths), request.settings.get("data", {}))
    start_tensorflow(side_by_side=True)
    from charlm.trial import settled

    with stop_requested(again=lambda: os._exit(130)) as stop:
        request = settled(request, stop, say)
        if stop():
            raise Interrupted("nothing is trained yet")
    return request


def _twice_as_long(train: TrainConfig) -> str:
    """The option that makes a run as long again."""
    name = next(name for name in LENGTHS if getattr(train, name) is not None)
    return f"--{name} {2 * getattr(train, name)}".removesuffix(".0")


def _checked(toml: Path) -> Tables:
    tables = read_toml(toml)
    Config.checked(tables, str(toml))
    click.get_current_context().meta[TOML] = (str(toml), tables)
    return tables
