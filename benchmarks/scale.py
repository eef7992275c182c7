"""Writes docs/scale.md: what an update costs, and what of it is left on many machines: python benchmarks/scale.py

What is measured is kept in docs/scale.json.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import contenders
import numpy as np
from machine import heading

DOCS = Path(__file__).parent.parent / "docs"
DATA, PAGE, TEXT = DOCS / "scale.json", DOCS / "scale.md", Path(__file__).with_name("scale.template.md")
UNITS, LAYERS, WINDOW = 512, 1, 128
LANES = (8, 16, 32, 64, 128)
UPDATES, REDUCTIONS = 5, 20
MACHINES = (1, 2, 8, 64, 1000)
NETWORKS = {  # bits and seconds
    "1 Gbit/s, 100 µs": (1e9, 100e-6),
    "10 Gbit/s, 50 µs": (10e9, 50e-6),
    "100 Gbit/s, 10 µs": (100e9, 10e-6),
}


def update_seconds() -> dict[int, float]:
    """The median seconds of an update, by the number of lanes."""
    found = {}
    for lanes in LANES:
        step, _ = contenders.charlm_train("lstm", "float32", UNITS, LAYERS, lanes, WINDOW)
        step()
        found[lanes] = statistics.median(_timed(step) for _ in range(UPDATES))
        print(lanes, "lanes:", found[lanes], "s", flush=True)
    return found


def _timed(act: Any) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def parameters() -> int:
    """Of the network that is measured."""
    from charlm.config import ModelConfig
    from charlm.model import build_model

    config = ModelConfig(cell="lstm", units=UNITS, layers=LAYERS, vocabulary=contenders.VOCABULARY)
    return int(build_model(config).count_params())


def reduction_seconds(count: int) -> float:
    """The median seconds of an all-reduce of so many numbers between two processes of this machine, over loopback."""
    ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    workers = [f"127.0.0.1:{port.getsockname()[1]}" for port in ports]
    for port in ports:
        port.close()
    running = []
    for index in range(2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_CONFIG": json.dumps(task)}
        command = [sys.executable, __file__, "reduce", str(count)]
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    said = [process.communicate()[0] for process in running]
    return float(said[0].split()[-1])


def reduce(count: int) -> None:
    """One of the two processes."""
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    @tf.function(autograph=False)
    def reduced(vector: Any) -> Any:
        def on_replica(vector: Any) -> Any:
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(vector))

        return strategy.run(on_replica, (vector,))

    vector = tf.ones([count])
    reduced(vector).numpy()
    print(statistics.median(_timed(lambda: reduced(vector).numpy()) for _ in range(REDUCTIONS)))


def ring_seconds(machines: int, size: float, bits: float, latency: float) -> float:
    """An all-reduce of `size` bytes around a ring."""
    return 2 * (machines - 1) / machines * size * 8 / bits + 2 * (machines - 1) * latency


def rendered(found: dict[str, Any]) -> str:
    """The measured part of the page."""
    seconds = {int(lanes): value for lanes, value in found["seconds"].items()}
    each, fixed = np.polyfit(list(seconds), list(seconds.values()), 1)
    size, most = found["parameters"] * 4, max(seconds)
    lines = [found["measured"], "| lanes | seconds of an update |", "|---|---|"]
    lines += [f"| {lanes} | {value:.3f} |" for lanes, value in seconds.items()]
    lines += [
        "",
        f"LSTM {UNITS} × {LAYERS} on {contenders.VOCABULARY} symbols, windows of {WINDOW}: {found['parameters']:,} "
        f"parameters, {size / 1e6:.1f} MB of gradients. The line through the table is t(B) = {fixed:.3f} + "
        f"{each:.5f} B seconds. An all-reduce of as many bytes between two processes of this machine took "
        f"{found['reduction'] * 1000:.0f} ms over loopback, which is {size / found['reduction'] / 1e9:.2f} GB/s.",
        "",
        f"Efficiency with {most} lanes on each machine, by the formula; and the lanes at which it is one half:",
        "",
        f"| network | {' | '.join(f'N = {n:,}' for n in MACHINES)} | lanes at one half, N = {MACHINES[-1]:,} |",
        "|---" * (len(MACHINES) + 2) + "|",
    ]
    for name, network in NETWORKS.items():
        times = [ring_seconds(machines, size, *network) for machines in MACHINES]
        shares = [f"{seconds[most] / (seconds[most] + reduced):.0%}" for reduced in times]
        half = (times[-1] - fixed) / each
        lines.append(f"| {name} | {' | '.join(shares)} | {f'{half:.0f}' if half >= 1 else 'below 1'} |")
    return "\n".join(lines)


def main() -> None:
    count = parameters()
    found = {
        "measured": heading("make scale"),
        "parameters": count,
        "seconds": update_seconds(),
        "reduction": reduction_seconds(count),
    }
    DATA.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    PAGE.write_text(TEXT.read_text("utf-8").replace("{cost}", rendered(found)), "utf-8")


if __name__ == "__main__":
    reduce(int(sys.argv[2])) if sys.argv[1:2] == ["reduce"] else main()
