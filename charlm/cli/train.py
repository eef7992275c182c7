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
from charlm.cluster import STRATEGIES, Cluster
from charlm.config import LENGTHS, Config, Tables, TrainConfig, overlay, read_toml
from charlm.errors import Interrupted, UsageError
from charlm.presets import PRESETS

if TYPE_CHECKING:
    from charlm.replicas import Replicas
    from charlm.session import Request

GENERATE = 'charlm generate{} --prompt "..."'
TRIED = {"series": "charlm forecast{}", "pairs": "charlm translate{} < sources"}
STRATEGY_HELP = f"Divide the lanes among {' or '.join(f'{words} ({name})' for name, words in STRATEGIES.items())}."
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
@click.option("--strategy", type=Choice(list(STRATEGIES)), help=STRATEGY_HELP)
@models_option
@settings(TRAINING)
def command(
    corpora: tuple[str, ...],
    name: str | None,
    preset: str | None,
    toml: Path | None,
    resume: bool,
    from_run: str | None,
    strategy: str | None,
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
    from charlm.display import say
    from charlm.machine import import_tensorflow
    from charlm.session import Request

    tables = overlay({} if toml is None else _checked(toml), settings)
    request = Request(corpora, tables, models, name, preset, resume, from_run)
    if strategy is None:
        _train(request)
        return
    if "-" in corpora:
        raise UsageError(f"--strategy {strategy}: standard input is read once; name files, which every worker can read")
    cluster = Cluster.named() if strategy == "multiworker" else Cluster()
    import_tensorflow()
    from charlm.replicas import start_replicas

    replicas = start_replicas(strategy, cluster, say)
    if replicas.cluster.index:
        _follow(request, replicas)
    else:
        with replicas.together():
            _train(request, strategy, replicas)


def _train(typed: Request, strategy: str | None = None, replicas: Replicas | None = None) -> None:
    """Trains a run, on one device or on replicas; as the chief where they are of several workers."""
    from charlm.cli.bars import progress_bars, reading_bar
    from charlm.display import TrainingDisplay, say
    from charlm.events import Finished
    from charlm.interrupts import stop_requested
    from charlm.machine import start_tensorflow
    from charlm.session import open_session

    tables, request = typed.settings, typed
    if (tables.get("data", {}).get("pairs") or typed.preset == "pairs") and not typed.resume:
        request = _settled(typed)
    count = 1 if replicas is None else replicas.count
    with progress_bars() as bar:
        session = open_session(request, reading_bar(bar), lambda what, chars: bar(what, chars, "chars"), count)
    say(str(session.data.corpus))
    say(session.choice)
    elsewhere = "" if request.models == DEFAULT_MODELS else f" --models {shlex.quote(str(request.models))}"
    divided = "" if strategy is None else f" --strategy {strategy}"
    further = f"charlm train --name {session.run.name}{elsewhere}{divided} --resume"
    with stop_requested(again=lambda: os._exit(130)) as stop, contextlib.closing(TrainingDisplay()) as display:
        start_tensorflow(side_by_side=True)
        from charlm.training import Training

        if replicas is not None and replicas.several_workers:
            from charlm.workers import enlist

            enlist(session, typed, replicas)
        for event in Training(session, stop=stop, started=STARTED, replicas=replicas).events():
            display.show(event)
    if isinstance(event, Finished) and event.reason == "interrupted":
        raise Interrupted(f"{'saved' if event.step else 'nothing is trained yet'}; go on with: {further}")
    say(f"saved in {session.run.path}; try: {TRIED.get(session.config.data.alphabet, GENERATE).format(elsewhere)}")
    say(f"train it further with: {further} {_twice_as_long(session.config.train)}")


def _follow(request: Request, replicas: Replicas) -> None:
    """Trains as a worker that is not the chief."""
    from charlm.cli.bars import progress_bars, reading_bar
    from charlm.display import say
    from charlm.interrupts import stop_requested
    from charlm.workers import enlisted, obey

    with progress_bars() as bar:
        trainer, lanes = enlisted(request, replicas, reading_bar(bar), lambda what, chars: bar(what, chars, "chars"))
    say(f"follows worker 0, {replicas.cluster.workers[0]}, which shows the training")
    with stop_requested(again=lambda: os._exit(130)) as stop:
        obey(trainer, lanes, stop)
    say("done; worker 0 has the run")


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
