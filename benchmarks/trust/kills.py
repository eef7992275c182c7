"""kill -9 at random moments of a training."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

from small_runs import SAVED_EVERY, digest, drafts, last_step, make_corpus, train

NOTE = ""
SEED = 1
KILLS, IN_SAVES = 100, 35
STEPS = 20_000


def kill(process: subprocess.Popen[bytes], run: Path, rng: random.Random, in_save: bool) -> None:
    """Kills a training at a random moment, perhaps inside a save."""
    begun = last_step(run)
    while process.poll() is None and last_step(run) == begun:
        time.sleep(0.01)  # it starts, and makes its first save
    time.sleep(rng.uniform(0, 0.3))
    if in_save:
        own = str(process.pid)
        while process.poll() is None and not any(name.endswith(own) for name in drafts(run)):
            pass
        time.sleep(rng.uniform(0, 0.004))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.returncode


def measure(folder: Path) -> list[dict[str, str]]:
    rng, run, corpus = random.Random(SEED), folder / "killed", make_corpus(folder)
    assert train(corpus, folder, "whole", STEPS).wait() == 0
    in_saves, steps = 0, 0
    for n in range(KILLS):
        at_start = n % 5 == 4
        before, left_before = last_step(run), drafts(run)
        process = train(corpus, folder, "killed", STEPS)
        if at_start:
            time.sleep(rng.uniform(0, 8))
            process.kill()
            process.wait()
        else:
            kill(process, run, rng, in_save=in_saves < IN_SAVES)
        own = {name for name in drafts(run) if str(process.pid) in name.split(".")}
        foreign = drafts(run) - own
        assert not foreign or (at_start and foreign <= left_before), foreign  # it had no time to clear them
        in_saves += bool(own)
        steps = last_step(run)  # it loads
        assert steps >= before, (steps, before)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]
        lost = max((line["step"] for line in lines), default=0) - steps
        assert lost <= SAVED_EVERY, lost
        print(n, steps, in_saves, flush=True)
    assert train(corpus, folder, "killed", STEPS).wait() == 0
    assert not drafts(run)
    equal = "equal to the uninterrupted run's" if digest(run) == digest(folder / "whole") else "DIFFERS"
    return [
        {
            "what": "kill -9 while it trains",
            "tried": f"{KILLS} kills, {in_saves} inside a save, {KILLS // 5} while it starts; {steps:,} steps by then",
            "survived": f"all load, at most {SAVED_EVERY} steps lost, nothing left over; SHA-256 of the weights "
            f"after step {STEPS:,} {equal}",
        }
    ]
