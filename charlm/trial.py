"""The layout of pairs, chosen by trial: each is trained for a moment, and the held-out pairs decide."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from charlm.config import FORM_NAMES, DataConfig, Tables, overlay
from charlm.dataset import pairs_of, read
from charlm.errors import DataError, UsageError, named
from charlm.events import Evaluated, Event
from charlm.pairs.alphabet import Layout, PairAlphabet
from charlm.pairs.records import parts_of
from charlm.presets import PRESETS
from charlm.session import Request, open_session
from charlm.training import Training

SHARE = 0.24  # of the training, for all layouts together
FEWEST_STEPS = 50
SOME_PAIRS = 1000  # that the length of records is measured by


def settled(
    request: Request,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda line: None,
) -> Request:
    """The request with a layout of pairs, if it is of pairs and names none.

    Layouts are compared by -log p of the held-out targets: the nats of all that is drawn for a pair. Each reads the
    pairs as often, for one whose records are long learns more of a pair, and less in a minute. The minutes of a
    training begin before the trials.

    Args:
        request: what the user said.
        stop: asked whether to end; the layout is then the best so far.
        say: told what was found.

    Raises:
        UsageError, DataError: as `open_session`.
    """
    data = DataConfig.from_dict(_with_preset(request).get("data", {}))
    if not data.pairs or data.form != "auto" or request.resume or request.from_run is not None:
        return request
    if "-" in request.paths:
        raise UsageError(f"standard input is read once, and layouts are tried: name one by {named('data.form')}")
    if data.split[1] == 0:
        raise UsageError(f"nothing is held out to choose a layout by: name one by {named('data.form')}")
    found: dict[str, float] = {}
    lengths = _record_lengths(request, data)
    share, steps = SHARE * lengths[FORM_NAMES[0]] / sum(lengths.values()), 0
    with tempfile.TemporaryDirectory(prefix="charlm-") as folder:
        for form in FORM_NAMES:
            if stop() and found:
                break
            say(f"trying the layout {form} ...")
            as_often = round(steps * lengths[form] / lengths[FORM_NAMES[0]])  # as in the first trial
            trial = {"steps": as_often} if steps else _length(request, share)
            found[form], made = _tried(_of_form(request, form, Path(folder), trial), stop)
            steps = steps or made
    if not any(map(math.isfinite, found.values())):
        problem = "no held-out pair can be scored, so that no layout can be chosen"
        raise DataError(f"{', '.join(request.paths)}: {problem}; give more pairs, or {named('data.form')}")
    best = min(found, key=found.__getitem__)
    nats = ", ".join(f"{form} {cost:.3f}" for form, cost in sorted(found.items(), key=lambda one: one[1]))
    say(f"layout {best}, for of all that were tried it expects held-out targets best (nats a pair: {nats})")
    return replace(request, settings=overlay(request.settings, {"data": {"form": best}}))


def _with_preset(request: Request) -> Tables:
    preset = PRESETS[request.preset].tables if request.preset else {}
    return overlay(preset, request.settings)


def _record_lengths(request: Request, data: DataConfig) -> dict[str, int]:
    """The symbols of some records in each layout."""
    with read(list(request.paths), data, lambda size: lambda count: None) as corpus:
        pairs = parts_of(pairs_of(corpus), data.split)["train"][:SOME_PAIRS]
    alphabets = {form: PairAlphabet.learnt(pairs, Layout(form, data.lookahead)) for form in FORM_NAMES}
    return {form: sum(alphabet.symbols(pair) for pair in pairs) for form, alphabet in alphabets.items()}


def _length(request: Request, share: float) -> dict[str, Any]:
    """The share of the training's length, as the preset or the settings say it."""
    asked = overlay(PRESETS[request.preset or "pairs"].tables, request.settings).get("train", {})
    if asked.get("minutes") is not None:
        return {"minutes": asked["minutes"] * share}
    if asked.get("steps") is not None:
        return {"steps": max(FEWEST_STEPS, round(asked["steps"] * share))}
    return {"epochs": max(1, round(asked["epochs"] * share))}


def _of_form(request: Request, form: str, folder: Path, length: dict[str, Any]) -> Request:
    """The request of a trial."""
    settings = overlay(request.settings, {"data": {"form": form}, "train": length})
    return replace(request, settings=settings, models=folder, name=form)


def _tried(request: Request, stop: Callable[[], bool]) -> tuple[float, int]:
    """The least nats of a held-out pair that a training reaches, and its updates."""
    session = open_session(request)
    pairs = max(1, len(session.data.valid.starts) + 1)
    events: list[Event] = list(Training(session, stop=stop).events())
    scores = [event.score for event in events if isinstance(event, Evaluated)]
    nats = min((score.nats_per_symbol * score.symbols / pairs for score in scores), default=float("inf"))
    return nats, events[-1].step
