"""Contenders in turn, one at a time, in one run: what is compared has seen the same machine at the same time."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def median_rates(
    contenders: Mapping[str, Sequence[Any]],
    rounds: int = 9,
    seconds: float = 1.0,
) -> dict[str, float]:
    """Symbols per second of each contender: the median over the rounds of the median within its turn.

    Args:
        contenders: by any name, the arguments of contenders.py.
        rounds: how often each has its turn.
        seconds: of one turn, or one unit of work if that takes longer.
    """
    script = str(Path(__file__).with_name("contenders.py"))
    workers = {}
    for name, arguments in contenders.items():
        workers[name] = subprocess.Popen(
            [sys.executable, script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        _answer(name, workers[name])  # warms up alone
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, worker in workers.items():
            worker.stdin.write(f"{seconds}\n")
            worker.stdin.flush()
            rates[name].append(float(_answer(name, worker)))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return {name: statistics.median(found) for name, found in rates.items()}


def _answer(name: str, worker: subprocess.Popen[str]) -> str:
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"{name} stopped with exit code {worker.wait()}")
    return line
