"""What the whole command reaches in a few minutes: trains with the defaults, then evaluates what it kept.

python benchmarks/quality.py CORPUS [MINUTES...]
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import heading

CHARLM = str(Path(sys.executable).with_name("charlm"))


def evaluated(models: str, *options: str) -> dict:
    command = [CHARLM, "evaluate", "--models", models, "--split", "valid", "--json", *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def main() -> None:
    corpus, *given = sys.argv[1:]
    print(heading("make quality CORPUS=file"))
    print("| --minutes | seconds, whole command | model | nats, carried | bpc, carried | nats, cold:256 | symbols |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for minutes in given or ["2"]:
        with tempfile.TemporaryDirectory() as models:
            start = time.monotonic()
            subprocess.run([CHARLM, "train", corpus, "--minutes", minutes, "--models", models], check=True)
            seconds = time.monotonic() - start
            config = json.loads(next(Path(models).glob("*/config.json")).read_text())["config"]["model"]
            carried, cold = evaluated(models), evaluated(models, "--cold", "256")
        print(
            f"| {minutes} | {seconds:.1f} | {config['cell']} {config['units']} x {config['layers']} "
            f"| {carried['nats_per_symbol']:.4f} | {carried['bits_per_char']:.4f} | {cold['nats_per_symbol']:.4f} "
            f"| {carried['symbols']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
