"""Writes docs/trust.md: what charlm survives: python benchmarks/trust.py [PART...]

Parts: kills, faults, damage, full (as root, for it mounts disks). What is measured is kept in docs/trust.json, from
which the page is written.
"""

import contextlib
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from faults import ERRORS, LOSSES, PowerLoss, damages, every_fault  # noqa: E402
from machine import heading  # noqa: E402

from charlm.checkpoint import verify_record  # noqa: E402
from charlm.errors import CharlmError, ModelError  # noqa: E402
from charlm.runs import Run  # noqa: E402
from charlm.tokenizers import load_alphabet  # noqa: E402

DOCS = HERE.parent / "docs"
CHARLM = Path(sys.executable).with_name("charlm")
SEED = 1
KILLS, IN_SAVES = 100, 35
STEPS, SAVED_EVERY = 20_000, 10
FLIPS, CUTS, LEVELS = 1000, 200, 20
PARTS = ("kills", "faults", "damage", "full")
TITLES = {
    "kills": "kill -9 while it trains",
    "faults": "each operation of a save fails, or is the last before power is lost",
    "full": "a disk that is full",
    "damage": "a bit flipped, or the end cut off, in a file that loading reads",
}


def train(corpus, models, name, *more):
    options = f"--units 64 --layers 1 --embedding 16 --lanes 16 --bptt 32 --dropout 0.2 --steps {STEPS}".split()
    every = f"--save-every {SAVED_EVERY} --evaluate-every {STEPS // 4}".split()
    begun = (models / name).exists()
    rest = ["--resume"] if begun else [*options, *every, *more]
    command = [CHARLM, "train", *([] if begun else [corpus]), "--models", models, "--name", name, *rest]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def digest(run):
    return hashlib.sha256((Run(run).last().path / "weights.safetensors").read_bytes()).hexdigest()


def drafts(run):
    """What a save has written beside its place so far, of a process."""
    folder = run / "checkpoints"
    with contextlib.suppress(FileNotFoundError):
        return [entry.name for entry in os.scandir(folder) if entry.name.startswith(".")]
    return []


def last_step(run):
    last = Run(run).last() if (run / "config.json").exists() else None
    return last.step if last else 0


# ---- kills


def killed(process, run, rng, in_save):
    """Kills a training at a random moment, perhaps inside a save; returns the steps that its log shows it had done."""
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


def kills(folder, corpus):
    rng, run = random.Random(SEED), folder / "killed"
    assert train(corpus, folder, "whole").wait() == 0
    in_saves, steps = 0, 0
    for n in range(KILLS):
        process = train(corpus, folder, "killed")
        before = last_step(run)
        if n % 5 == 4:  # in the start
            time.sleep(rng.uniform(0, 8))
            process.kill()
            process.wait()
        else:
            killed(process, run, rng, in_save=in_saves < IN_SAVES)
        left = drafts(run)
        assert all(str(process.pid) in name.split(".") for name in left), left  # none of an earlier process
        in_saves += bool(left)
        steps = last_step(run)  # it loads
        assert steps >= before, (steps, before)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]
        lost = max((line["step"] for line in lines), default=0) - steps
        assert lost <= SAVED_EVERY, lost
        print(n, steps, in_saves, flush=True)
    assert train(corpus, folder, "killed").wait() == 0
    assert not drafts(run)
    equal = digest(run) == digest(folder / "whole")
    tried = f"{KILLS} kills, {in_saves} of them inside a save, {KILLS // 5} while it starts; {steps:,} steps by then"
    survived = f"all load, at most {SAVED_EVERY} steps lost, nothing left over; SHA-256 of step {STEPS:,} "
    return {"tried": tried, "survived": survived + ("equal to the uninterrupted run's" if equal else "DIFFERS")}


# ---- faults of a disk


def saving(run):
    """What saves a checkpoint once more, one step later."""
    last = run.last()
    alphabet = load_alphabet(last.path, last.config().data.alphabet)
    weights, training, progress = last.arrays("weights"), last.arrays("training"), last.progress()
    return lambda place: Run(place).save(last.step + 1, weights, training, progress, alphabet)


def whole_after(place, step):
    """Whether a run has its last checkpoint or the one that was being saved, and nothing half written."""
    Run(place).lock().close()  # the next start
    return Run(place).last().step in (step, step + 1) and not drafts(place)


def faults(folder, corpus):
    assert train(corpus, folder, "run", "--steps", "40").wait() == 0
    run = Run(folder / "run")
    save, step, kinds, kept = saving(run), run.last().step, Counter(), 0
    for place, kind, _, error in every_fault(run.path, save):
        said = isinstance(error, PowerLoss if kind in LOSSES else CharlmError) or error is None
        kinds[kind] += 1
        kept += said and whole_after(place, step)
    tried = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
    return {"tried": tried, "survived": f"{kept} of {kinds.total()}: the old checkpoint or the new one, whole"}


def full(folder, corpus):
    if os.geteuid():
        sys.exit("full: not tried, for only root can mount a small disk")
    assert train(corpus, folder, "run", "--steps", "40").wait() == 0
    run = Run(folder / "run")
    save, step = saving(run), run.last().step
    size = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    more = sum(file.stat().st_size for file in run.last().path.iterdir())
    kept, refused = 0, 0
    for level in range(LEVELS):
        room = size + 65_536 + int(more * 1.2 * level / LEVELS)
        place = folder / f"disk-{level}"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "none", place], check=True)
        try:
            shutil.copytree(run.path, place / "run")
            try:
                save(place / "run")
            except CharlmError as error:
                refused += "No space left on device" in str(error)
            kept += whole_after(place / "run", step)
        finally:
            subprocess.run(["umount", place], check=True)
    return {
        "tried": f"{LEVELS} sizes of a tmpfs, of which {refused} have no room for the save",
        "survived": f"{kept} of {LEVELS}: the old checkpoint or the new one, whole, and one line says what failed",
    }


def refused(record):
    try:
        verify_record(record)
    except ModelError:
        return True
    return False


def damage(folder, corpus):
    assert train(corpus, folder, "run", "--steps", "40").wait() == 0
    run = Run(folder / "run")
    last = run.last()
    config, noticed = run.record["config"], 0
    files = [run.path / "config.json", *sorted(last.path.iterdir())]
    for file, _ in damages(files, FLIPS, CUTS, SEED):
        if file.parent == run.path:
            noticed += run.record["config"] == config and refused(file)
        else:
            noticed += run.last().step < last.step
    return {
        "tried": f"{FLIPS:,} flips and {CUTS} cuts in {len(files)} files",
        "survived": f"{noticed:,} of {FLIPS + CUTS:,} noticed, and the checkpoint before is taken",
    }


# ---- the page


def page(measured):
    lines = ["# Trust: what charlm survives\n", "`make trust` writes this page, or the parts that PARTS names.\n"]
    lines += ["| part | what happens | tried | survived | command |", "|---|---|---|---|---|"]
    for part in PARTS:
        if part in measured:
            found = measured[part]["found"]
            command = f"`make trust PARTS={part}`"
            lines += [f"| {part} | {TITLES[part]} | {found['tried']} | {found['survived']} | {command} |"]
    lines += ["", *dict.fromkeys(measured[part]["machine"] for part in PARTS if part in measured)]
    lines += [
        f"A save's operations fail by {' and '.join(ERRORS)}. When power is lost, what was never synced to the disk is",
        f"taken from it in three ways: {', '.join(LOSSES)}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    logging.disable(logging.WARNING)  # of damage, a thousand times
    kept = DOCS / "trust.json"
    measured = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    for part in sys.argv[1:] or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder, "pydocs.txt")
            subprocess.run([CHARLM, "corpus", "pydocs", corpus], check=True, stdout=subprocess.DEVNULL)
            found = {"kills": kills, "faults": faults, "full": full, "damage": damage}[part](Path(folder), corpus)
        measured[part] = {"machine": heading("make trust"), "found": found}
        print(part, found, flush=True)
        kept.write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
        (DOCS / "trust.md").write_text(page(measured), "utf-8")


if __name__ == "__main__":
    main()
