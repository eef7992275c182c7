"""What a whole `charlm train` reaches: trains, then evaluates what it kept."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
