"""SIGINT, SIGTERM and SIGHUP to every command, at random moments; streams that are closed, full or left."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from small_runs import CHARLM, drafts, last_step, make_corpus

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SEED, EACH = 1, 2  # times each signal at each kind of moment
BOUND = 10.0  # seconds from the signal to the end, or from the end of the compilation that is under way
WIDE = "--units 256 --layers 2 --lanes 16 --bptt 64 --steps 100000 --save-every 3 --evaluate-every 4"
MODEL = Path(__file__).resolve().parent.parent.parent / "models/kjv-small"
NOTE = (
    "signals: a training of a million parameters is told to end while it starts, compiles, updates, evaluates or\n"
    "saves, at moments drawn anew; every run is then resumed for one update. A second signal comes 0.1 to 0.5 s later."
)
PYTHON = """
import os, signal, sys, threading
import charlm
from charlm.events import Stepped
def on_event(event):
    if isinstance(event, Stepped) and event.step == 5:
        os.kill(os.getpid(), signal.SIGINT)
try:
    charlm.train(sys.argv[1], name="python", steps=100, units=32, lanes=16, models=sys.argv[2], on_event=on_event)
except charlm.errors.Interrupted as error:
    print(error)
"""


def begun(arguments: Sequence[object], folder: Path, **more: object) -> subprocess.Popen[str]:
    how = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "cwd": folder}
    return subprocess.Popen([CHARLM, *map(str, arguments)], **{**how, **more})


def ended(process: subprocess.Popen[str], number: int) -> float:
    """The seconds that a process lives on after a signal."""
    began = time.perf_counter()
    process.send_signal(number)
    try:
        process.wait(120)
    except subprocess.TimeoutExpired:
        process.kill()
    return time.perf_counter() - began


def moments(run: Path, rng: random.Random) -> dict[str, Callable[[], bool]]:
    """Whether a training is where it is to be hit; a moment of it then passes."""
    log, until = run / "metrics.jsonl", time.monotonic() + rng.uniform(0, 4)

    def logged(event: str) -> bool:
        return log.exists() and f'"event": "{event}"' in log.read_text()

    return {
        "start": lambda: time.monotonic() > until,
        "compilation": lambda: logged("started"),
        "updates": lambda: logged("saved"),
        "evaluation": lambda: last_step(run) >= 3 and last_step(run) % 3 == 0 and not drafts(run),
        "save": lambda: bool(drafts(run)),
    }


def of_training(corpus: Path, folder: Path) -> list[dict[str, str]]:
    rng, found, wrong = random.Random(SEED), [], []
    seconds: dict[str, float] = {}
    tried = [(name, number) for name in moments(folder, rng) for number in SIGNALS for _ in range(EACH)]
    for n, (moment, number) in enumerate(tried):
        run = folder / "models" / f"run-{n}"
        process = begun(["train", corpus, "--models", run.parent, "--name", run.name, *WIDE.split()], folder)
        there = moments(run, rng)[moment]
        while not there() and process.poll() is None:
            time.sleep(0.001)
        if moment in ("compilation", "updates"):
            time.sleep(rng.uniform(0, 2))
        took = ended(process, number)
        said = process.stderr.read()
        step = last_step(run)
        orderly = process.returncode == 130 and "Traceback" not in said and not drafts(run)
        orderly &= not run.exists() or f"{run.name}" in said.splitlines()[-1]
        if step:
            further = ["train", "--resume", "--models", run.parent, "--name", run.name, "--steps", step + 1]
            orderly &= begun(further, folder).wait() == 0 and last_step(run) == step + 1
        found.append(took)
        seconds[moment] = max(seconds.get(moment, 0.0), took)
        if not orderly or took > BOUND:
            wrong.append((moment, number, took, process.returncode, said[-300:]))
        print(moment, signal.Signals(number).name, f"{took:.2f}", process.returncode, step, orderly, flush=True)
    slowest = ", ".join(f"{moment} {value:.1f} s" for moment, value in seconds.items())
    print(*wrong, sep="\n")
    return [
        {
            "what": "SIGINT, SIGTERM and SIGHUP to `charlm train`",
            "tried": f"{len(tried)} while it starts, compiles, updates, evaluates and saves",
            "survived": f"{len(tried) - len(wrong)} saved what there was, left no draft, said one line, exit code 130, "
            f"and went on with --resume; the slowest end: {slowest}",
        }
    ]


def second(corpus: Path, folder: Path) -> dict[str, str]:
    """A second signal, of any kind."""
    rng, found, count = random.Random(SEED), [], 15
    for n in range(count):
        run = folder / "models" / f"second-{n}"
        process = begun(["train", corpus, "--models", run.parent, "--name", run.name, *WIDE.split()], folder)
        while not (run / "metrics.jsonl").exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 8))
        process.send_signal(rng.choice(SIGNALS))
        time.sleep(rng.uniform(0.1, 0.5))
        found.append(ended(process, rng.choice(SIGNALS)))
        last_step(run)  # it loads
        print("second", f"{found[-1]:.2f}", process.returncode, flush=True)
    return {
        "what": "a second signal",
        "tried": f"{count} while it compiles, updates, evaluates and saves",
        "survived": f"{sum(took < 1 for took in found)} ended within 1 s, the slowest after {max(found):.2f} s",
    }


def of_others(folder: Path) -> dict[str, str]:
    """Commands that have nothing to save."""
    commands = {
        "generate": ["generate", "--model", MODEL, "--prompt", "The ", "--length", 10_000_000],
        "evaluate": ["evaluate", "--model", MODEL, folder / "pydocs.txt"],
        "export": ["export", "--model", MODEL, folder / "exported"],
        "serve": ["serve", "--model", MODEL, "--port", 0],
        "corpus": ["corpus", "stdlib", folder / "stdlib.txt"],
        "info": ["info", "--model", MODEL],
    }
    rng, found, wrong = random.Random(SEED), [], []
    for number in SIGNALS:
        for name, command in commands.items():
            for _ in range(3):
                for path in ("exported", "stdlib.txt"):
                    subprocess.run(["rm", "-rf", folder / path], check=True)
                before = {path.name for path in folder.iterdir()}
                process = begun(command, folder)
                time.sleep(rng.uniform(0.5, 6))  # Python itself has begun by then
                found.append(ended(process, number))
                said = process.stderr.read()
                left = {path.name for path in folder.iterdir()} - before - {"exported", "stdlib.txt"}
                orderly = process.returncode in (0, 130) and "Traceback" not in said and not left
                if not orderly or found[-1] > BOUND:
                    wrong.append((name, number, found[-1], process.returncode, left, said[-300:]))
    print(*wrong, sep="\n")
    return {
        "what": f"signals to {', '.join(commands)}",
        "tried": f"{len(found)} at random moments of their first 6 s",
        "survived": f"{len(found) - len(wrong)} ended without a traceback or a draft, exit code 130, or 0 if done; "
        f"the slowest after {max(found):.1f} s",
    }


def nohup_and_python(corpus: Path, folder: Path) -> dict[str, str]:
    """A signal that is ignored, and a program's stop button."""
    small = ["--units", "32", "--lanes", "16", "--steps", "60", "--evaluate-every", "60"]
    line = f'trap "" HUP; exec "{CHARLM}" train "{corpus}" --models "{folder}/models" --name nohup ' + " ".join(small)
    process = subprocess.Popen(["sh", "-c", line], stderr=subprocess.DEVNULL, cwd=folder)
    while not (folder / "models/nohup/metrics.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    finished = process.wait() == 0 and last_step(folder / "models/nohup") == 60
    command = [sys.executable, "-c", PYTHON, corpus, folder / "models"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False).stdout
    step = last_step(folder / "models/python")
    saved = said.startswith("saved") and 5 <= step < 10
    return {
        "what": "SIGHUP under nohup, and SIGINT to `charlm.train`",
        "tried": "1 each",
        "survived": f"under nohup it {'trains to its end' if finished else 'ENDS'}; "
        f"from Python it {'saves and raises Interrupted' if saved else 'DOES NOT SAVE'}",
    }


def streams(folder: Path) -> dict[str, str]:
    """Standard streams that are closed, full, or read no further."""
    small = f"train pydocs.txt --models {folder}/models --units 32 --lanes 16 --steps 20"
    commands = {
        "train": (small + " --name {}", 0),
        "generate": (f"generate --model {MODEL} --prompt The --length 20000 #{{}}", 1),
        "info": (f"info --model {MODEL} #{{}}", 1),
        "corpus": ("corpus pydocs out-{}.txt", 0),
        "evaluate": (f"evaluate --model {MODEL} #{{}}", 1),
    }
    ends = (">&-", "2>&-", ">/dev/full", "2>/dev/full", ">&- 2>&-", "<&-", "| head -1", "2>&1 | true")
    right, wrong = 0, []
    for name, (command, failing) in commands.items():
        for n, end in enumerate(ends):
            line = command.format(n).partition("#")[0]
            if name == "evaluate":
                line += f"{folder}/pydocs.txt --cold 64 "
            shell = f'set -o pipefail; "{CHARLM}" {line} {end}'
            done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, cwd=folder, check=False)
            unwritten = end in (">&-", ">/dev/full", ">&- 2>&-")
            codes = {failing if unwritten else 0} if "|" not in end else {0, 1}
            if done.returncode in codes and "Traceback" not in done.stderr and "Exception" not in done.stderr:
                right += 1
            else:
                wrong.append((name, end, done.returncode, done.stderr[-300:]))
    print(*wrong, sep="\n")
    return {
        "what": "standard streams that are closed, full, or read no further",
        "tried": f"{len(commands)} commands, {len(ends)} ways",
        "survived": f"{right} of {right + len(wrong)}: no traceback; exit code 1 where the answer is not written",
    }


def measure(folder: Path) -> list[dict[str, str]]:
    corpus = make_corpus(folder)
    rows = [*of_training(corpus, folder), second(corpus, folder), of_others(folder)]
    return [*rows, nohup_and_python(corpus, folder), streams(folder)]
