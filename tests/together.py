"""Trainings by several processes on this machine, each a worker of one TF_CONFIG.

python together.py WORD...      `charlm WORD...` with a network of float64
"""

import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path


def free_ports(count):
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start_workers(count, words, folder, more=(), float64=False):
    """Starts the workers of a training.

    Args:
        count: of them; 1 trains without a strategy.
        words: for `charlm train`.
        folder: where they run.
        more: further words for each worker but the first, by its number.
        float64: whether they compute so.
    """
    command = [sys.executable, __file__] if float64 else [sys.executable, "-m", "charlm"]
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    processes = []
    for index in range(count):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        root = str(Path(__file__).parent.parent)
        environment = {**os.environ, "PYTHONPATH": root, "TF_CONFIG": json.dumps(task)}
        divided = ["--strategy", "multiworker"] if count > 1 else []
        asked = [*command, "train", *map(str, words), *divided, *dict(more).get(index, ())]
        pipe = subprocess.PIPE
        processes.append(
            subprocess.Popen(asked, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, encoding="utf-8")
        )
    return processes


def ended(processes):
    """The exit code of each, and its last line."""
    ends = []
    for process in processes:
        _, errors = process.communicate()
        ends.append((process.returncode, (errors.splitlines() or [""])[-1]))
    return ends


def curve(run):
    """The loss of each update that a run's log has."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines())
    return {line["step"]: line["nats_per_symbol"] for line in lines if line["event"] == "stepped"}


if __name__ == "__main__":
    from charlm.machine import import_tensorflow

    import_tensorflow()
    import charlm.tbptt
    import charlm.workers
    from charlm.cli import main
    from charlm.validation import Validation

    Validation.sample = lambda self: None  # texts are drawn in float32

    for module in (charlm.tbptt, charlm.workers):
        module.build_model = functools.partial(module.build_model, dtype="float64")
    main()
