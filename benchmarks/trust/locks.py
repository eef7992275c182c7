"""Two processes on one run, with locks and on a file system that has none."""

import errno
import os
import subprocess
from pathlib import Path

from small_runs import CHARLM, drafts, last_step, make_corpus, train

TRIES = 20
SMALL = ("--units", "16", "--layers", "1", "--lanes", "16", "--bptt", "32", "--steps", "20", "--evaluate-every", "20")
LOCKLESS = Path(__file__).resolve().parent / "lockless"
WITHOUT = ("ENOLCK", "EOPNOTSUPP", "ENOSYS")
NOTE = ""


def one_wins(command: list[object], folder: Path, run: Path, steps: int, loses: int, because: str) -> bool:
    """True if, of two of a command at the same moment, one trains a run to its end and one is refused in one line."""
    how = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "cwd": folder}
    running = [subprocess.Popen([CHARLM, *map(str, command)], **how) for _ in range(2)]
    said = {process.communicate()[1]: process.returncode for process in running}
    refusal = max(said, key=said.__getitem__)
    refused = sorted(said.values()) == [0, loses] and because in refusal.splitlines()[-1] and "Traceback" not in refusal
    whole = last_step(run) == steps and not drafts(run)
    if not (refused and whole):
        print(command, said, last_step(run), drafts(run), flush=True)
    return refused and whole


def of_one_name(corpus: Path, folder: Path) -> dict[str, str]:
    """Trainings of one name, which begin at the same moment."""
    models, right = folder / "models", 0
    for n in range(TRIES):
        run = models / f"run-{n}"
        command = ["train", corpus, "--models", models, "--name", run.name, *SMALL]
        right += one_wins(command, folder, run, 20, 2, f"{run} exists: add --resume to go on")
    return {
        "what": "two `charlm train --name x` at the same moment",
        "tried": f"{TRIES} times",
        "survived": f"{right} times one trains to its end, and the other says in one line that there is such a run, "
        "exit code 2",
    }


def of_one_run(corpus: Path, folder: Path) -> dict[str, str]:
    """Trainings that go on with one run, at the same moment."""
    assert train(corpus, folder / "models", "resumed", steps=100).wait() == 0
    run, right = folder / "models/resumed", 0
    for n in range(TRIES):
        steps = 100 + 50 * (n + 1)
        command = ["train", "--resume", "--models", run.parent, "--name", run.name, "--steps", steps]
        right += one_wins(command, folder, run, steps, 1, f"{run}: is being trained by another process")
    return {
        "what": "two `charlm train --resume` of one run at the same moment",
        "tried": f"{TRIES} times",
        "survived": f"{right} times one trains to its end, and the other says in one line that it is being trained, "
        "exit code 1",
    }


def without_locks(corpus: Path, folder: Path) -> dict[str, str]:
    """A file system whose flock answers that it has none."""
    right, path = 0, os.pathsep.join(filter(None, [str(LOCKLESS), os.getenv("PYTHONPATH")]))
    for name in WITHOUT:
        environment = os.environ | {"FLOCK": str(getattr(errno, name)), "PYTHONPATH": path}
        new = [CHARLM, "train", corpus, "--models", folder / "models", "--name", name, *SMALL]
        further = [CHARLM, "train", "--resume", "--models", folder / "models", "--name", name, "--steps", "30"]
        for command, steps in ((new, 20), (further, 30)):
            done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
            warned = done.stderr.count("cannot be locked here") == 1 and "train it in one process" in done.stderr
            right += done.returncode == 0 and warned and last_step(folder / "models" / name) == steps
    return {
        "what": "a file system without flock",
        "tried": f"a training and a --resume each with {', '.join(WITHOUT)}",
        "survived": f"{right} of {2 * len(WITHOUT)}: a warning, and it trains to its end",
    }


def measure(folder: Path) -> list[dict[str, str]]:
    corpus = make_corpus(folder)
    return [of_one_name(corpus, folder), of_one_run(corpus, folder), without_locks(corpus, folder)]
