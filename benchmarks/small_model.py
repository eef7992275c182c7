"""Trains the small model that ships, and puts it under models/: python benchmarks/small_model.py KJV STEPS"""

import sys
import tempfile
from pathlib import Path

import charlm
from charlm.runs import publish
from charlm.shelf import find_run

NAME = "kjv-small"
SETTINGS = {"units": 256, "layers": 1, "embedding": 64, "dropout": 0.0, "lanes": 64, "bptt": 64, "learning_rate": 7e-3}
MODELS = Path(__file__).parent.parent / "models"


def main() -> None:
    corpus, steps = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        charlm.train(corpus, name=NAME, models=folder, preset="small", steps=int(steps), **SETTINGS)
        published = publish(find_run(NAME, Path(folder)).pick("best"), MODELS / NAME)
    print(f"{published.path}: {sum(f.stat().st_size for f in published.path.iterdir()):,} bytes")
    print(charlm.load(MODELS / NAME).evaluate([corpus], "valid"))


if __name__ == "__main__":
    main()
