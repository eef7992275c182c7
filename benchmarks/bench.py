"""Measures what docs/performance.md says, and writes it.

python benchmarks/bench.py CORPUS [PART...]

Without a PART all are measured: training, generation, roofline, scaling, corpora, startup, precision, quality. What a
part found replaces what docs/performance.json has of it; page.py makes the page and the plot out of that file.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import page
from machine import heading
from quality import CHARLM, reached
from side_by_side import median_rates

PEERS = {
    "charlm": ("charlm", "auto"),
    "PyTorch float32": ("torch", "float32"),
    "PyTorch bfloat16": ("torch", "bfloat16"),
    "Keras float32": ("keras", "float32"),
    "Keras bfloat16": ("keras", "bfloat16"),
}
TRAINED = [("lstm", 128, 2, 50, 50), ("lstm", 512, 2, 64, 128), ("gru", 128, 2, 50, 50), ("gru", 512, 2, 64, 128)]
GENERATED = [("lstm", 128, 2, 1), ("lstm", 512, 2, 1), ("gru", 128, 2, 1), ("gru", 512, 2, 1), ("lstm", 512, 2, 64)]
UNITS, WINDOWS = (128, 256, 512, 1024), (32, 64, 128, 256, 512)
SMALL_CORPUS, LARGE_CORPUS = 1_000_000, 1_000_000_000  # characters


def training(corpus: Path) -> Any:
    rows = []
    for cell, *sizes in TRAINED:
        jobs = {name: (peer, "train", cell, precision, *sizes) for name, (peer, precision) in PEERS.items()}
        rows.append({"cell": cell, "sizes": sizes, "rates": median_rates(jobs)})
        print(rows[-1], flush=True)
    return rows


def generation(corpus: Path) -> Any:
    rows = []
    for cell, *sizes in GENERATED:
        jobs = {
            f"{name} {precision}": (name.lower().replace("py", ""), "generate", cell, precision, *sizes)
            for name in ("charlm", "PyTorch")
            for precision in ("float32", "bfloat16")
        }
        rows.append({"cell": cell, "sizes": sizes, "rates": median_rates(jobs)})
        print(rows[-1], flush=True)
    return rows


def roofline(corpus: Path) -> Any:
    """Training beside large products, batch-1 decoding beside reads of one buffer, each pair in turn."""
    rates = median_rates(
        {
            "products": ("charlm", "products", "-", "auto", 0, 0, 4096),
            "training": ("charlm", "train", "lstm", "auto", 512, 2, 64, 128),
            "reads": ("charlm", "reads", "-", "float32", 0, 0, 17_000_000),
            "decoding": ("charlm", "generate", "lstm", "float32", 512, 2, 1),
        }
    )
    inputs, units, gates = 65, 512, 4 * 512
    products = inputs * gates + 3 * units * gates + units * inputs  # multiplications of a symbol, forward
    read = 4 * (3 * units * gates + units * inputs)  # bytes of a symbol's weights; its row of the table is negligible
    return {
        "product_flops": rates["products"],
        "training_flops": 6 * products * rates["training"],
        "read_bytes": rates["reads"],
        "decoding_bytes": read * rates["decoding"],
    }


def scaling(corpus: Path) -> Any:
    by_units = {str(n): ("charlm", "train", "lstm", "auto", n, 1, 64, 64) for n in UNITS}
    by_window = {str(n): ("charlm", "train", "lstm", "auto", 256, 2, 32, n) for n in WINDOWS}
    return {"units": median_rates(by_units, rounds=5), "window": median_rates(by_window)}


def corpora(corpus: Path) -> Any:
    """Trains on little and on much of the same text: speed, and the peak of anonymous memory."""
    text, found = corpus.read_text("utf-8"), {}
    with tempfile.TemporaryDirectory() as folder:
        for size in (SMALL_CORPUS, LARGE_CORPUS):
            path = Path(folder, f"{size}.txt")
            with path.open("w", encoding="utf-8") as file:
                for _ in range(size // len(text)):
                    file.write(text)
                file.write(text[: size % len(text)])
            command = [CHARLM, "train", str(path), "--models", folder, "--steps", "300", "--preset", "small"]
            environment = {**os.environ, "CHARLM_CACHE": folder}
            peak = peak_anonymous(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
            log = next(Path(folder, f"{size}-1").glob("*.jsonl")).read_text().splitlines()
            rates = [e["symbols_per_second"] for e in map(json.loads, log) if "symbols_per_second" in e]
            found[str(size)] = {"rate": statistics.median(rates[len(rates) // 4 :]), "peak_anonymous_bytes": peak}
            path.unlink()
            print(size, found[str(size)], flush=True)
    return found


def peak_anonymous(process: subprocess.Popen[bytes]) -> int:
    """The highest RssAnon in bytes that a process and its children had together, looked up every 20 ms."""
    peak = 0
    while process.poll() is None:
        now = 0
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        for pid in (process.pid, *(children.read_text().split() if children.exists() else ())):
            status = Path(f"/proc/{pid}/status")
            match = re.search(r"RssAnon:\s+(\d+) kB", status.read_text()) if status.exists() else None
            now += 1024 * int(match[1]) if match else 0
        peak = max(peak, now)
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{process.args} stopped with exit code {process.returncode}")
    return peak


def startup(corpus: Path) -> Any:
    """Seconds to `import tensorflow`, to the first character, and to the help, in turn."""
    with tempfile.TemporaryDirectory() as models:
        train = [CHARLM, "train", str(corpus), "--models", models, "--preset", "small", "--steps", "20"]
        subprocess.run(train, check=True, stderr=subprocess.DEVNULL)
        commands = {
            "import": [sys.executable, "-c", "import tensorflow; print(1, flush=True)"],
            "first": [CHARLM, "generate", "--models", models, "--prompt", "The ", "--no-echo", "--seed", "1"],
            "help": [CHARLM, "--help"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(9):
            for name, command in commands.items():
                start = time.perf_counter()
                with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                    assert process.stdout is not None
                    process.stdout.read(1)
                    times[name].append(time.perf_counter() - start)
                    process.stdout.read()
        return {name: statistics.median(found) for name, found in times.items()}


def precision(corpus: Path) -> Any:
    """The score after equal steps in either precision."""
    found = {}
    for name in ("float32", "bfloat16"):
        found[name] = reached(corpus, "--steps", "800", "--precision", name, "--preset", "small")["carried"]
    return found


def quality(corpus: Path) -> Any:
    return [{"minutes": minutes, **reached(corpus, "--minutes", minutes)} for minutes in ("1.2", "2", "10")]


PARTS: dict[str, Callable[[Path], Any]] = {
    part.__name__: part for part in (training, generation, roofline, scaling, corpora, startup, precision, quality)
}


def main() -> None:
    corpus, *wanted = sys.argv[1:]
    for name in wanted or PARTS:
        found = {"measured": heading("make bench CORPUS=file"), "found": PARTS[name](Path(corpus))}
        page.write(name, found)
        print(name, json.dumps(found["found"]), flush=True)


if __name__ == "__main__":
    main()
