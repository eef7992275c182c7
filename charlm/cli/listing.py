"""The table of runs: what it says of each, in the columns that there is room for."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from tqdm.utils import disp_len, disp_trim

from charlm.config import Config
from charlm.display import CHARACTER, UNITS
from charlm.errors import CharlmError, visible
from charlm.files import open_regular, size_of
from charlm.progress import Progress

if TYPE_CHECKING:
    from charlm.runs import Run

COLUMNS = ("name", "when", "network", "text", "score", "size")
DISPENSABLE = ("text", "network", "size", "when")  # in this order, where the terminal is narrow
GAP = 2
LONGEST_LINE = 1 << 16  # of a log, in bytes


def described(run: Run) -> dict[str, Any]:
    """The facts of a run for a list; its last checkpoint is verified, and `state` says where it is not whole."""
    about: dict[str, Any] = {"name": run.name, "path": str(run.path), "state": "untrained", "when": None}
    about["bytes"] = 0
    try:
        about["bytes"] = size_of(run.path)
        if last := next(reversed(run.checkpoints()), None):
            about["when"] = datetime.fromtimestamp(last.written).astimezone().isoformat(timespec="seconds")
        record = run.record
        corpus, config = record["corpus"], Config.recorded(record["config"], str(run.path / "config.json"))
        about |= {"model": config.to_dict()["model"], "tokenizer": config.data.tokenizer}
        about["unit"] = UNITS.get(config.data.alphabet, CHARACTER)[2]
        about |= {"corpus": [Path(path).name for path in corpus["paths"]], "chars": corpus["chars"]}
        if last:
            last.verify()
            progress = last.standing()
            about |= {"step": progress.step, "steps": progress.steps, "best_step": progress.best}
            about |= {"bits_per_char": bits_per_char(run, progress, about["tokenizer"])}
            resumable = (last.path / "training.safetensors").exists()
            about["state"] = ("finished" if progress.finished else "unfinished") if resumable else "published"
    except (CharlmError, OSError) as error:
        about |= {"state": "damaged", "why": str(error)}
    return about


def bits_per_char(run: Run, progress: Progress, tokenizer: str) -> float | None:
    """The best score: from the log, or from its nats per symbol where a symbol is a character."""
    found = None
    if tokenizer == "char" and progress.best_nats is not None:
        return progress.best_nats / math.log(2)
    with contextlib.suppress(OSError, ValueError, RecursionError), open_regular(run.path / "metrics.jsonl") as log:
        for line in iter(lambda: log.readline(LONGEST_LINE), b""):
            if line.startswith(b'{"event": "evaluated"'):
                score = json.loads(line)
                if score.get("step") == progress.best and isinstance(score.get("bits_per_char"), float):
                    found = score["bits_per_char"]
    return found


def row(about: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a run's columns, by their names."""
    made, corpus, when = about.get("model"), about.get("corpus", []), about["when"]
    text = f"{len(corpus)} files" if len(corpus) > 1 else "".join(corpus)
    score = about.get("bits_per_char")
    state = "" if about["state"] in ("finished", "published") else about["state"]
    return {
        "name": visible(about["name"]),
        "when": datetime.fromisoformat(when).strftime("%Y-%m-%d %H:%M") if when else "",
        "network": f"{made['cell']} {made['units']} x {made['layers']}" if made else "",
        "text": f"{visible(text)} ({tqdm.format_sizeof(about['chars'])})" if "chars" in about else "",
        "score": f"{score:.3f} {about['unit']}{' ' + state if state else ''}"
        if score is not None
        else state or "no score",
        "size": tqdm.format_sizeof(about["bytes"], "B"),
    }


def table(rows: Sequence[Mapping[str, str]], width: int | None = None) -> list[str]:
    """Lines of a table, in so many columns of a terminal: what there is no room for is left out, names are cut last."""
    head = {name: name.upper() for name in COLUMNS}
    widths = {name: max(disp_len(row[name]) for row in (head, *rows)) for name in COLUMNS}
    for name in DISPENSABLE:
        if width is not None and sum(widths.values()) + GAP * (len(widths) - 1) > width:
            del widths[name]
    if width is not None:
        others = sum(widths.values()) - widths["name"] + GAP * (len(widths) - 1)
        widths["name"] = max(1, min(widths["name"], width - others))
    return [(" " * GAP).join(_cell(row[name], widths[name]) for name in widths).rstrip() for row in (head, *rows)]


def _cell(text: str, width: int) -> str:
    cut = text if disp_len(text) <= width else disp_trim(text, width - 1) + "…"
    return cut + " " * (width - disp_len(cut))
