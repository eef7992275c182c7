"""Writes docs/gpu.md: what a GPU computes against the processor, and how fast.

    python benchmarks/gpu.py CORPUS [PART...]

Every part keeps what it finds in docs/gpu.json, so that one that fails costs the others nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from machine import heading
from page import k, shape, table
from side_by_side import median_rates

DOCS = Path(os.environ.get("OUT", Path(__file__).parent.parent / "docs"))
DATA, PAGE = DOCS / "gpu.json", DOCS / "gpu.md"
CHARLM = [sys.executable, "-m", "charlm"]
UPDATES = 40
LOW = ("float16", "bfloat16")
NAMES = {"charlm": "charlm", "torch": "PyTorch"}
PROCESSOR = {"CUDA_VISIBLE_DEVICES": "-1"}
TEXT = """# On a GPU

charlm's results on an NVIDIA GPU, held against those on a processor, and its speed. `make gpu` writes
this page on a machine that has one.

{measured}
## The same losses

{updates} updates from the same weights on the same windows (256 × 2 units, 64 lanes, k2 = 64): the largest relative
difference of a loss from the processor's in float32.

- `float32` has all 24 bits of the mantissa; `tf32` has eleven of them in products, as a GPU does by itself.
- `recurrence` is charlm's own code, which runs on processors; here it ran on the GPU.
- `documents` have a boundary in every window. cuDNN resets no state inside a window, so charlm's recurrence computes
  them.
- `bfloat16` is wrong: the first loss is equal, but the gradients that TensorFlow's cuDNN layers give are not. So charlm
  refuses `--precision bfloat16` on a GPU. It was no faster either: 447.8 k symbols/s against 447.7 k (LSTM 512 × 2).

{losses}
## Training

Symbols per second of 64 lanes and windows of 128; an update is forward, backward, clipping and Adam. Medians of turns
in one run. Products in float32 are TF32 for both.

{training}
Without cuDNN, in float32: windows with a document's beginning inside, and cells that go by their own step.

{without_cudnn}
## Generation

Symbols per second of 1 and 64 samples, all together. XLA compiles charlm's loop into one program for the GPU, which
takes some seconds: a single text of 500 symbols is there as soon on a processor (`CUDA_VISIBLE_DEVICES=-1`).

{generation}
## From training to serving

`charlm train`, `evaluate`, `generate` and `export` on the GPU; then the same model and the SavedModel in processes that
see no GPU.

{serving}"""


def run(*command: str, processor: bool = False, timeout: float = 240, **environment: str) -> str:
    """What a command prints; its end of standard error is in the exception."""
    hidden = PROCESSOR if processor else {}
    done = subprocess.run(
        command, env=os.environ | hidden | environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def update_losses(corpus: str, cell: str, stride: str, way: str) -> None:
    """Prints the nats of some updates: in a process of its own, for TensorFlow is set up once."""
    import numpy as np

    from charlm.config import ModelConfig, TrainConfig
    from charlm.machine import Machine, start_tensorflow, whole_float32

    start_tensorflow(side_by_side=True)
    from charlm.model import build_model
    from charlm.tbptt import Trainer
    from charlm.windows import Window

    text = np.frombuffer(Path(corpus).read_bytes()[: 64 * 4000], np.uint8).astype(np.int32) % 96
    lanes, k2, k1 = text.reshape(64, -1).T, 64, int(stride)
    model = build_model(
        ModelConfig(cell=cell, units=256, layers=2, vocabulary=96),
        seed=1,
        precision=way if way in LOW else "float32",
        engine="recurrence" if way == "recurrence" else None,
    )
    trainer = Trainer(model, TrainConfig(bptt=k2, stride=k1, lanes=64), Machine.here().lane_groups(64, 2))
    state, found = model.initial_state(64), []

    def updates() -> None:
        nonlocal state
        for n in range(UPDATES):
            x, y = (lanes[n * k1 + shift : n * k1 + shift + k2] for shift in range(2))
            mask, resets = np.ones(x.shape, bool), np.zeros(x.shape, bool)
            mask[: k2 - k1 if n else 0] = False
            resets[k2 // 2, ::3] = way == "documents"
            update = trainer(Window(x, y, mask, resets), state, 2e-3, (0, n))
            state = update.state
            found.append(float(update.nats_sum) / mask.sum())

    if way in ("tf32", *LOW):
        updates()
    else:
        with whole_float32():
            updates()
    engine = "recurrence" if way == "documents" else model.engine
    print(json.dumps({"engine": engine, "gpu": Machine.here().gpu, "nats": found}))


def losses(corpus: str) -> list[dict[str, Any]]:
    cases = [("lstm", 64), ("gru", 64), ("rnn", 64), ("lstm", 32), ("gru", 32)]
    ways = ["float32", "tf32", *LOW, "recurrence", "documents"]
    references = [("float32", True), ("documents", True)]
    asked = [(cell, k1, *way) for cell, k1 in cases for way in [*((way, False) for way in ways), *references]]

    def one(cell: str, k1: int, way: str, cpu: bool) -> dict[str, Any]:
        out = run(sys.executable, __file__, "--losses", corpus, cell, str(k1), way, processor=cpu)
        return dict(json.loads(out.splitlines()[-1]))

    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(asked, pool.map(lambda a: one(*a), asked), strict=True))
    rows = []
    for (cell, k1), way in itertools.product(cases, ways):
        exact = found[cell, k1, "documents" if way == "documents" else "float32", True]
        here = found[cell, k1, way, False]
        apart = max(abs(a - b) / b for a, b in zip(here["nats"], exact["nats"], strict=True))
        rows.append({"cell": cell, "k1": k1, "way": way, "engine": here["engine"], "apart": apart})
    return rows


def training(corpus: str) -> list[dict[str, Any]]:
    rows = []
    for cell, *sizes in [("lstm", 512, 2, 64, 128), ("gru", 512, 2, 64, 128)]:
        ways = ("charlm", "float32"), ("torch", "float32"), ("torch", "bfloat16")
        contenders = {f"{NAMES[name]}, {way}": (name, "train", cell, way, *sizes) for name, way in ways}
        rows.append({"cell": cell, "sizes": sizes, "rates": median_rates(contenders, rounds=3, seconds=0.5)})
    return rows


def without_cudnn(corpus: str) -> list[dict[str, Any]]:
    sizes, rows = [512, 2, 64, 128], []
    for cell, job in ("lstm", "documents"), ("gru", "documents"), ("ln-lstm", "train"), ("mingru", "train"):
        rates = median_rates({"charlm, float32": ("charlm", job, cell, "float32", *sizes)}, rounds=3, seconds=0.5)
        rows.append({"cell": f"{job}, {cell}".removeprefix("train, "), "sizes": sizes, "rates": rates})
    return rows


def generation(corpus: str) -> list[dict[str, Any]]:
    rows = []
    for samples in (1, 64):
        contenders = {NAMES[name]: (name, "generate", "lstm", "float32", 512, 2, samples) for name in NAMES}
        rows.append({"cell": "lstm", "sizes": [512, 2, samples], "rates": median_rates(contenders, 3, 0.5)})
    return rows


PLAY = """
import json, sys, tensorflow as tf
generate = tf.saved_model.load(sys.argv[1]).signatures["generate"]
inputs = json.loads(sys.argv[2])
types = {name: spec.dtype for name, spec in generate.structured_input_signature[1].items()}
found = generate(**{name: tf.constant([value], types[name]) for name, value in inputs.items()})
print(json.dumps([found["text"][0].numpy().decode(), len(tf.config.list_physical_devices("GPU"))]))
"""


def serving(corpus: str) -> list[list[str]]:
    with ThreadPoolExecutor(2) as pool:
        return [row for rows in pool.map(lambda cell: served(corpus, cell), ("lstm", "gru")) for row in rows]


def served(corpus: str, cell: str) -> list[list[str]]:
    from charlm.config import KNOBS

    with tempfile.TemporaryDirectory() as folder:
        where, name = ["--models", folder], cell.upper()
        run(*CHARLM, "train", corpus, *where, "--name", cell, "--cell", cell, "--minutes", "0.3", "--preset", "large")
        ask = [*CHARLM, "evaluate", corpus, "--split", "valid", *where, "--model", cell, "--json"]
        nats = [json.loads(run(*ask, processor=cpu))["nats_per_symbol"] for cpu in (False, True)]
        ask = [
            *CHARLM,
            "generate",
            *where,
            "--model",
            cell,
            "--prompt",
            "The ",
            "--length",
            "200",
            "--temperature",
            "0",
        ]
        texts = [run(*ask, processor=cpu) for cpu in (False, True)]
        saved = str(Path(folder, "saved"))
        exported = json.loads(run(*CHARLM, "export", saved, *where, "--model", cell, "--json"))
        noise = exported["checks"][0]["noise"]
        inputs = {name: knob.neutral for name, knob in KNOBS.items()}
        inputs |= {"prompt": "The", "length": 200, "temperature": 0.0, "seed": 1}
        played, gpus = json.loads(run(sys.executable, "-c", PLAY, saved, json.dumps(inputs), processor=True))
        return [
            [f"{name}: nats a symbol on the GPU, on the processor", ", ".join(f"{n:.5f}" for n in nats)],
            [f"{name}: the greedy text of 200 symbols is the processor's", str(texts[0] == texts[1])],
            [f"{name}: so is that of the SavedModel, where {gpus} GPUs are seen", str(played.strip() in texts[1])],
            [f"{name}: logits of the SavedModel, in rounding errors of float32 (bound 10)", f"{noise:.1f}"],
        ]


PARTS: dict[str, Callable[[str], Any]] = {f.__name__: f for f in (losses, training, without_cudnn, generation, serving)}


def speeds(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0]["rates"])
    return table(["cell, units × layers", *names], [[shape(r), *(k(r["rates"][n]) for n in names)] for r in rows])


def loss_table(rows: list[dict[str, Any]]) -> str:
    head = ["cell", "k1", "computed", "engine", "apart"]
    return table(head, [[r["cell"], str(r["k1"]), r["way"], r["engine"], f"{r['apart']:.1e}"] for r in rows])


def write(data: Mapping[str, Any]) -> None:
    rendered = {
        "losses": loss_table,
        "training": speeds,
        "without_cudnn": speeds,
        "generation": speeds,
        "serving": lambda rows: table(["", ""], rows),
    }
    parts = {name: r(data[name]) if name in data else "Not measured yet.\n" for name, r in rendered.items()}
    PAGE.write_text(TEXT.format(measured=data["measured"], updates=UPDATES, **parts), "utf-8")


def gpu() -> str:
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return "one " + ", driver ".join(run(*asked).strip().split(", "))


def main() -> None:
    corpus, *parts = sys.argv[1:]
    data = json.loads(DATA.read_text("utf-8")) if DATA.exists() else {}
    data["measured"] = heading("make gpu").replace("on ", f"on {gpu()} and ", 1)
    for part in parts or PARTS:
        try:
            data[part] = PARTS[part](corpus)
        except Exception:
            traceback.print_exc()
            continue
        DATA.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
        write(data)
        print(PAGE.read_text("utf-8"), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--losses":
        update_losses(*sys.argv[2:])
    else:
        main()
