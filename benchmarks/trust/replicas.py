"""Trainings whose lanes are divided among devices and processes, against one process."""

import hashlib
import itertools
import random
import time
from pathlib import Path

from small_runs import make_corpus
from test_replicas import difference_on_devices
from together import curve, ended, start_workers

from charlm.runs import Run

NOTE = ""
SEED = 1
STEPS = 60
OPTIONS = {"units": 32, "layers": 2, "lanes": 12, "bptt": 16, "dropout": 0.3, "learning-rate": 0.01, "steps": STEPS}
OTHERS = {"evaluate-every": 30, "save-every": 10, "precision": "float32"}  # products are of the network's float64 then
WORDS = [f"--{name}={value}" for name, value in {**OPTIONS, **OTHERS}.items()]
KILLS = 6


def trained(folder: Path, count: int, *words: object) -> None:
    ends = ended(start_workers(count, words, folder, float64=True))
    assert [code for code, _ in ends] == [0] * count, ends


def last(run: Path) -> Path:
    return Run(run).last().path


def digest(run: Path) -> str:
    return hashlib.sha256((last(run) / "weights.safetensors").read_bytes()).hexdigest()


def difference(run: Path, other: Path) -> float:
    """The largest difference of the losses of two runs."""
    one, two = curve(run), curve(other)
    assert one.keys() == two.keys(), (one, two)
    return max(abs(one[step] - two[step]) for step in one)


def kill_one(folder: Path, name: str, count: int, victim: int, moment: float) -> list[int]:
    """Kills one worker of a training, and starts all again; returns the exit codes of the others."""
    run = folder / "models" / name
    processes = start_workers(count, ["corpus.txt", "--name", name, *WORDS], folder, float64=True)
    while not list((run / "checkpoints").glob("step-*")):
        assert processes[0].poll() is None
        time.sleep(0.05)
    time.sleep(moment)
    processes[victim].kill()
    codes = [code for n, (code, _) in enumerate(ended(processes)) if n != victim]
    if Run(run).last().step < STEPS:
        trained(folder, count, "--name", name, "--resume")
    return codes


def measure(folder: Path) -> list[dict[str, str]]:
    rng, models = random.Random(SEED), folder / "models"
    text = make_corpus(folder).read_text("utf-8")
    (folder / "corpus.txt").write_text(text[:40_000], "utf-8")
    devices = {count: difference_on_devices(count) for count in (2, 4)}
    for count in (1, 2, 3):
        trained(folder, count, "corpus.txt", "--name", f"of-{count}", *WORDS)
    processes = {count: difference(models / f"of-{count}", models / "of-1") for count in (2, 3)}
    equal, codes = 0, []
    victims = itertools.cycle([(2, 1), (2, 0), (3, 2), (3, 0), (3, 1), (2, 1)])
    for n, (count, victim) in enumerate(itertools.islice(victims, KILLS)):
        codes += kill_one(folder, f"killed-{n}", count, victim, rng.uniform(0, 1))
        equal += digest(models / f"killed-{n}") == digest(models / f"of-{count}")
    moves = {}
    for before, after in [(1, 1), (3, 1), (1, 2), (2, 3)]:
        name = f"from-{before}-to-{after}"
        half = [word for word in WORDS if not word.startswith("--steps")]
        trained(folder, before, "corpus.txt", "--name", name, *half, f"--steps={STEPS // 2}")
        trained(folder, after, "--name", name, "--resume", f"--steps={STEPS}")
        moves[f"{before} to {after}"] = difference(models / name, models / "from-1-to-1")
    del moves["1 to 1"]
    (folder / "other.txt").write_text(text[:39_000], "utf-8")
    refused = [
        ended(start_workers(2, ["corpus.txt", "--name", "refused", *WORDS], folder, {1: more}))
        for more in (["other.txt"], ["--units=16"], ["--seed=2"], ["--preset=tiny"])
    ]
    kept = sum(chief[0] == 1 and follower[0] == 2 for chief, follower in refused)
    assert not (models / "refused").exists()
    return [
        {
            "what": "lanes divided among devices of one process, against one, in float64",
            "tried": "2 and 4 logical devices; losses, norms, weights, slots and state after 6 updates",
            "survived": ", ".join(f"{count} devices: {value:.1e}" for count, value in devices.items()),
        },
        {
            "what": "lanes divided among processes, against one, in float64",
            "tried": f"2 and 3 processes on loopback, {STEPS} updates",
            "survived": ", ".join(f"the losses of {count} differ by {value:.1e}" for count, value in processes.items()),
        },
        {
            "what": "kill -9 of one of several workers, all are started again with --resume",
            "tried": f"{KILLS} kills, of the chief and of others, of 2 and of 3 processes",
            "survived": f"{equal} of {KILLS} end with the SHA-256 of the uninterrupted run; "
            f"{sum(code == 1 for code in codes)} of {len(codes)} others ended with code 1 by themselves",
        },
        {
            "what": "a run that several processes began and others go on with, against one, in float64",
            "tried": f"{len(moves)} changes after {STEPS // 2} of {STEPS} updates",
            "survived": ", ".join(f"{move} processes: {value:.1e}" for move, value in moves.items()),
        },
        {
            "what": "a worker with another corpus or setting than the chief",
            "tried": f"{len(refused)}: corpus, units, seed, preset",
            "survived": f"{kept} of {len(refused)} refuse in one line, and leave no run behind",
        },
    ]
