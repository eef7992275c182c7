"""The folder of runs: what is there, and what a name means."""

from __future__ import annotations

import errno
from pathlib import Path

from charlm.errors import ModelError, nearest
from charlm.files import left_by_system
from charlm.runs import Run


def runs(models: Path) -> list[Run]:
    """The runs under a folder, the one that wrote a checkpoint last at the end.

    Those without one come first, and then those that were published, which somebody else may have trained.
    """
    found = [Run(path.parent) for path in models.glob("*/config.json") if not left_by_system(path.parent.name)]

    def age(run: Run) -> tuple[bool, float]:
        last = next(reversed(run.checkpoints()), None)
        return (False, 0.0) if last is None else ((last.path / "training.safetensors").exists(), last.written)

    return sorted(found, key=age)


def find_run(model: str | None, models: Path) -> Run:
    """A run, or a checkpoint, by directory or by name under `models`; for None, the newest, as `runs` has them.

    Raises:
        ModelError: there is none.
    """
    if model is not None:
        for path in (Path(model), models / model):
            try:
                there = (path / "config.json").is_file()
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                there = False
            if there:
                return Run(path)
        meant = nearest(model, (run.name for run in runs(models)))
        raise ModelError(f"{model}: no such model, neither a run directory nor a name under {models}/{meant}")
    trained = [run for run in runs(models) if run.checkpoints()]
    if not trained:
        raise ModelError(f"no trained model under {models}/ yet; train one first, with charlm train TEXT")
    return trained[-1]
