"""The model that comes with a clone."""

from pathlib import Path

import numpy as np

from charlm.api import load
from charlm.checkpoint import find_run

MODELS = Path(__file__).parent.parent / "models"
SHIPPED = MODELS / "pydocs-small"


def test_it_is_small_and_says_what_it_is():
    checkpoint = find_run("pydocs-small", MODELS).pick("best")
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) < 2_000_000
    assert checkpoint.progress()["best_nats"] < 1.25
    assert checkpoint.record["corpus"]["chars"] > 400_000
    assert checkpoint.record["corpus"]["paths"] == ["pydocs.txt"]


def test_it_writes_english_about_python():
    model = load(SHIPPED)
    text = model.generate("The ", length=2000, temperature=0.5, seed=1)
    assert text == model.generate("The ", length=2000, temperature=0.5, seed=1)
    words = text.split()
    known = {"the", "a", "of", "is", "to", "and", "in", "that", "object", "class", "function", "method", "for", "an"}
    assert np.mean([word.lower() in known for word in words]) > 0.2
    assert len({*words}) > 60
