"""200 steps against about 100 steps, a SIGTERM, and --resume to 200: the weights must be the same to the last bit.

    python benchmarks/resume_proof.py CORPUS

Prints a Markdown table; exits 1 if any pair differs.
"""

import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

from machine import heading

CHARLM = Path(sys.executable).with_name("charlm")


def command(corpus: str, models: Path, name: str, cell: str, stride: int) -> list[str]:
    options = f"--cell {cell} --layers 2 --units 96 --dropout 0.2 --lanes 16 --bptt 48 --stride {stride} --steps 200"
    return [str(CHARLM), "train", corpus, "--models", str(models), "--name", name, *options.split()]


def last_step(run: Path) -> int:
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    return max((json.loads(line).get("step", 0) for line in lines), default=0)


def digest(run: Path) -> str:
    return hashlib.sha256((run / "checkpoints/step-00000200/weights.safetensors").read_bytes()).hexdigest()


def prove(corpus: str, models: Path, cell: str, stride: int) -> tuple[int, str, str]:
    whole, parted = f"{cell}-{stride}-whole", f"{cell}-{stride}-parted"
    subprocess.run(command(corpus, models, whole, cell, stride), check=True, stderr=subprocess.DEVNULL)
    process = subprocess.Popen(command(corpus, models, parted, cell, stride), stderr=subprocess.DEVNULL)
    while last_step(models / parted) < 90:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130, process.returncode
    stopped = max(int(p.name.removeprefix("step-")) for p in (models / parted / "checkpoints").glob("step-*"))
    resume = [str(CHARLM), "train", "--models", str(models), "--name", parted, "--resume"]
    subprocess.run(resume, check=True, stderr=subprocess.DEVNULL)
    return stopped, digest(models / whole), digest(models / parted)


def main() -> None:
    print(heading("make resume-proof"))
    print("| cell | k2 | k1 | stopped at | SHA-256 of 200 steps | of the resumed run | equal |")
    print("|---|---|---|---|---|---|---|")
    equal = True
    with tempfile.TemporaryDirectory() as folder:
        for cell, stride in product(("lstm", "gru"), (48, 24)):
            stopped, whole, parted = prove(sys.argv[1], Path(folder), cell, stride)
            equal &= whole == parted and 0 < stopped < 200
            row = (cell, 48, stride, stopped, whole[:16], parted[:16], whole == parted)
            print("|", " | ".join(map(str, row)), "|", flush=True)
    sys.exit(not equal)


if __name__ == "__main__":
    main()
