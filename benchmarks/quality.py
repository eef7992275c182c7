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


def reached(corpus: str | Path, *options: str) -> dict:
    """The seconds of one whole `charlm train` with these options, and what the model it kept scores."""
    with tempfile.TemporaryDirectory() as models:
        start = time.monotonic()
        subprocess.run([CHARLM, "train", str(corpus), *options, "--models", models], check=True)
        seconds = time.monotonic() - start
        model = json.loads(next(Path(models).glob("*/config.json")).read_text())["config"]["model"]
        carried, cold = evaluated(models), evaluated(models, "--cold", "256")
    return {
        "seconds": seconds,
        "model": f"{model['cell']} {model['units']} x {model['layers']}",
        "carried": carried["nats_per_symbol"],
        "bits_per_char": carried["bits_per_char"],
        "cold": cold["nats_per_symbol"],
        "symbols": carried["symbols"],
    }


def main() -> None:
    corpus, *given = sys.argv[1:]
    print(heading("make quality CORPUS=file"))
    print("| --minutes | seconds, whole command | model | nats, carried | bpc, carried | nats, cold:256 | symbols |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for minutes in given or ["2"]:
        r = reached(corpus, "--minutes", minutes)
        print(
            f"| {minutes} | {r['seconds']:.1f} | {r['model']} | {r['carried']:.4f} | {r['bits_per_char']:.4f} "
            f"| {r['cold']:.4f} | {r['symbols']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
