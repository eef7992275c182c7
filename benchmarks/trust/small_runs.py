"""Small trainings in processes of their own, and what they left behind."""

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from charlm.runs import Run
from charlm.tokenizers import load_alphabet

CHARLM = Path(sys.executable).with_name("charlm")
SAVED_EVERY = 10


def make_corpus(folder: Path) -> Path:
    """A text of half a million characters."""
    path = folder / "pydocs.txt"
    subprocess.run([CHARLM, "corpus", "pydocs", path], check=True, stdout=subprocess.DEVNULL)
    return path


def train(corpus: Path, models: Path, name: str, steps: int = 40) -> subprocess.Popen[bytes]:
    """Begins a training, or goes on with one that was begun."""
    options = f"--units 64 --layers 1 --embedding 16 --lanes 16 --bptt 32 --dropout 0.2 --steps {steps}".split()
    every = f"--save-every {SAVED_EVERY} --evaluate-every {max(1, steps // 4)}".split()
    rest = ["--resume"] if (models / name).exists() else [corpus, *options, *every]
    command = [CHARLM, "train", *rest, "--models", models, "--name", name]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def trained(folder: Path) -> Run:
    """A short run that is trained to its end."""
    assert train(make_corpus(folder), folder, "run").wait() == 0
    return Run(folder / "run")


def digest(run: Path) -> str:
    """The SHA-256 of the weights of a run's last checkpoint."""
    return hashlib.sha256((Run(run).last().path / "weights.safetensors").read_bytes()).hexdigest()


def drafts(run: Path) -> set[str]:
    """The names of what saves have written beside their places."""
    with contextlib.suppress(FileNotFoundError):
        return {entry.name for entry in os.scandir(run / "checkpoints") if entry.name.startswith(".")}
    return set()


def last_step(run: Path) -> int:
    last = Run(run).last() if (run / "config.json").exists() else None
    return last.step if last else 0


def saving(run: Run) -> Callable[[Path], object]:
    """What saves a run's last checkpoint once more, one step later, in a copy of the run."""
    last = run.last()
    alphabet = load_alphabet(last.path, last.config().data.alphabet)
    weights, training, progress = last.arrays("weights"), last.arrays("training"), last.progress()
    return lambda place: Run(place).save(last.step + 1, weights, training, progress, alphabet)


def whole_after(place: Path, step: int) -> bool:
    """True if a run has its last checkpoint or the one that was being saved, and nothing half written."""
    Run(place).lock().close()  # the next start
    return Run(place).last().step in (step, step + 1) and not drafts(place)
