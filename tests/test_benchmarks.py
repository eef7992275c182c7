"""The measuring scripts that no other test runs: every part has its place on the page, every contender its job."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import bench  # noqa: E402
import contenders  # noqa: E402
import page  # noqa: E402

RATES = {name: 1000.0 + n for n, name in enumerate(bench.PEERS)}
FOUND = {
    "training": [{"cell": "lstm", "sizes": [128, 2, 50, 50], "rates": RATES}],
    "generation": [{"cell": "gru", "sizes": [128, 2, 1], "rates": {"charlm float32": 9e3, "PyTorch float32": 2e3}}],
    "roofline": {"product_flops": 4e11, "training_flops": 3e11, "read_bytes": 1e11, "decoding_bytes": 9e10},
    "scaling": {"units": {"128": 3e5, "256": 1e5}, "window": {"32": 1e5}},
    "corpora": {"1000000": {"rate": 1e5, "peak_anonymous_bytes": 5e8}},
    "startup": {"import": 2.0, "first": 3.0, "help": 0.1},
    "precision": {"float32": 1.5, "bfloat16": 1.5},
    "quality": [
        {
            "minutes": "2",
            "seconds": 119.0,
            "model": "m",
            "carried": 1.5,
            "bits_per_char": 2.1,
            "cold": 1.6,
            "symbols": 9,
        }
    ],
}


def test_the_page_has_every_part_once_and_says_what_was_found(tmp_path, monkeypatch):
    for name in ("DATA", "PAGE", "PLOT"):
        monkeypatch.setattr(page, name, tmp_path / getattr(page, name).name)
    monkeypatch.setattr(page, "plot", lambda rows: None)
    assert list(bench.PARTS) == list(page.RENDER)
    assert re.findall(r"\{(\w+)\}", page.TEXT.read_text("utf-8")) == list(page.RENDER)
    for part, found in FOUND.items():
        page.write(part, {"measured": f"measured {part}", "found": found})
    written = page.PAGE.read_text("utf-8")
    assert json.loads(page.DATA.read_text("utf-8")).keys() == FOUND.keys()
    assert all(written.count(f"measured {part}\n") == 1 for part in FOUND)
    assert "LSTM 128 × 2, 50, 50 | 1.0 k" in written
    assert "| 1.00 | 1.00 |" in written  # 1000 to 1002, and to 1004
    assert "GRU 128 × 2, 1 | 9.0 k | 2.0 k | 4.5" in written
    assert "300 GFLOP/s | 400 GFLOP/s | 75%" in written
    assert "| `--minutes` |" in written


@pytest.mark.parametrize("job", ["train", "generate"])
def test_charlms_part_in_a_comparison_does_the_work_it_says(job):
    size = (8, 12) if job == "train" else (3,)
    step, amount = getattr(contenders, f"charlm_{job}")("gru", "float32", 16, 2, *size)
    assert amount == (8 * 12 if job == "train" else 3 * (contenders.GENERATED["charlm"] // 3))
    step()


def test_every_client_on_the_page_of_clients_had_the_models_own_answer():
    rows = re.findall(r"(?m)^\| ([a-z_A-Z-]+) \d.* \| (\S+) \|$", (ROOT / "docs/clients.md").read_text("utf-8"))
    assert {client for client, _ in rows} == {"openai", "langchain-openai", "llm", "lm_eval", "curl", "Chromium"}
    assert {equal for _, equal in rows} == {"yes"}
