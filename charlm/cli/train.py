"""charlm train"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

import click

from charlm.cli import STARTED, completion
from charlm.cli.options import TOML, TRAINING, Choice, models_option, settings
from charlm.config import PRESETS, Config, Tables, overlay, read_toml
from charlm.errors import Interrupted

PRESET_HELP = "Settings that go together: " + ", ".join(f"{n} ({p.purpose})" for n, p in PRESETS.items())


class _Stop:
    """Set by the first SIGINT or SIGTERM; the second ends the process at once."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            os._exit(130)
        self.asked = True


@click.command()
@click.argument("corpora", metavar="CORPUS...", nargs=-1, shell_complete=completion.files)
@click.option("--name", shell_complete=completion.run_names, help="Name of the run [after the corpus, numbered].")
@click.option("--preset", type=Choice(list(PRESETS)), help=PRESET_HELP + " [by corpus size, hardware and --minutes].")
@click.option("--config", "toml", type=click.Path(path_type=Path), help="TOML with tables model, data, train, sample.")
@click.option("--resume", is_flag=True, help="Go on with the run called --name, exactly where it stopped.")
@models_option
@settings(TRAINING)
@click.pass_obj
def command(
    debug: bool,
    corpora: tuple[str, ...],
    name: str | None,
    preset: str | None,
    toml: Path | None,
    resume: bool,
    models: Path,
    settings: Tables,
) -> None:
    """Train a model on a text.

    CORPUS is one or many files, folders (searched for text, sorted), globs, or - for standard input; .gz, .bz2, .xz
    and .zst are unpacked. Text is UTF-8 unless --encoding says otherwise; undecodable bytes are refused unless
    --errors replace; a byte order mark is dropped; line ends are kept unless --newlines normalise.

    A flag beats the environment, which beats the --config file, which beats the preset. Ctrl-C saves and stops; a
    second one stops at once.
    """
    from charlm.cli.bars import TrainingDisplay, progress_bars, reading_bar, say
    from charlm.events import Finished
    from charlm.runtime import start_tensorflow
    from charlm.session import Request, open_session

    tables = overlay({} if toml is None else _checked(toml), settings)
    with progress_bars() as bar:
        request = Request(corpora, tables, models, name, preset, resume)
        session = open_session(request, reading_bar(bar), lambda chars: bar("encoding", chars, "chars"))
    say(str(session.data.corpus))
    say(session.choice)
    start_tensorflow(side_by_side=True, debug=debug)
    from charlm.training import Training

    stop, display = _Stop(), TrainingDisplay()
    training = Training(session, stop=lambda: stop.asked, started=STARTED)
    try:
        for event in training.events():
            display.show(event)
    finally:
        display.close()
    if isinstance(event, Finished) and event.reason == "interrupted":
        raise Interrupted(f"saved; go on with: charlm train --name {session.run.name} --resume")
    say(f'saved in {session.run.path}; try: charlm generate --prompt "..."')


def _checked(toml: Path) -> Tables:
    tables = read_toml(toml)
    Config.from_dict(tables, str(toml))
    click.get_current_context().meta[TOML] = (str(toml), tables)
    return tables
