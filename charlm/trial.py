"""The layout of pairs, chosen by trial: each is trained for a moment, and the held-out pairs decide."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from charlm.config import FORM_NAMES, DataConfig, Tables, overlay
from charlm.errors import UsageError, named
from charlm.events import Evaluated, Event
from charlm.presets import PRESETS
from charlm.session import Request, open_session
from charlm.training import Training

SHARE = 0.08  # of the training, for each layout
FEWEST_STEPS = 50


def settled(
    request: Request,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda line: None,
) -> Request:
    """The request with a layout of pairs, if it is of pairs and names none.

    Layouts are compared by -log p of the held-out targets: the nats of all that is drawn for a pair. The minutes of a
    training begin before it.

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
    with tempfile.TemporaryDirectory(prefix="charlm-") as folder:
        for form in FORM_NAMES:
            if stop() and found:
                break
            say(f"trying the layout {form} ...")
            found[form] = _tried(_of_form(request, form, Path(folder)), stop)
    best = min(found, key=found.__getitem__)
    nats = ", ".join(f"{form} {cost:.3f}" for form, cost in sorted(found.items(), key=lambda one: one[1]))
    say(f"layout {best}, for of all that were tried it expects held-out targets best (nats a pair: {nats})")
    return replace(request, settings=overlay(request.settings, {"data": {"form": best}}))


def _with_preset(request: Request) -> Tables:
    preset = PRESETS[request.preset].tables if request.preset else {}
    return overlay(preset, request.settings)


def _length(request: Request) -> dict[str, Any]:
    """The length of the training, as the preset or the settings say it."""
    asked = overlay(PRESETS[request.preset or "pairs"].tables, request.settings).get("train", {})
    return {name: asked[name] for name in ("minutes", "steps", "epochs") if asked.get(name) is not None}


def _of_form(request: Request, form: str, folder: Path) -> Request:
    """The request of a trial."""
    length = _length(request)
    if "minutes" in length:
        train = {"minutes": length["minutes"] * SHARE}
    elif "steps" in length:
        train = {"steps": max(FEWEST_STEPS, round(length["steps"] * SHARE))}
    else:
        train = {"epochs": max(1, round(length["epochs"] * SHARE))}
    settings = overlay(request.settings, {"data": {"form": form}, "train": train})
    return replace(request, settings=settings, models=folder, name=form)


def _tried(request: Request, stop: Callable[[], bool]) -> float:
    """The least nats of a held-out pair that a training reaches."""
    session = open_session(request)
    pairs = max(1, len(session.data.valid.starts) + 1)
    events: list[Event] = list(Training(session, stop=stop).events())
    scores = [event.score for event in events if isinstance(event, Evaluated)]
    return min((score.nats_per_symbol * score.symbols / pairs for score in scores), default=float("inf"))
