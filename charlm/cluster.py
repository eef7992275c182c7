"""The processes that train one run together, as the environment variable `TF_CONFIG` names them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from charlm.errors import UsageError

STRATEGIES = {
    "mirrored": "the GPUs of this machine",
    "multiworker": "the workers that TF_CONFIG names, each with its GPUs or its processor",
}
TF_CONFIG = "TF_CONFIG"
EXAMPLE = '{"cluster": {"worker": ["host-0:2222", "host-1:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Cluster:
    """Workers that train together, and which of them this process is.

    Attributes:
        workers: their addresses, host:port. The first is the chief, which writes the run.
        index: this worker's.
        chiefs: how many of them are chiefs by name, one or none; TensorFlow numbers the others apart.
    """

    workers: tuple[str, ...] = ("",)
    index: int = 0
    chiefs: int = 0

    @classmethod
    def named(cls, environment: Mapping[str, str] = os.environ) -> Cluster:
        """The cluster in `TF_CONFIG`, in which a chief may stand beside the workers.

        Raises:
            UsageError: the variable is missing, or it is not as TensorFlow has it; the message says what is wrong.
        """
        if TF_CONFIG not in environment:
            raise UsageError(f"multiworker needs the environment variable {TF_CONFIG}, for example {EXAMPLE}")
        try:
            jobs, task = _read(environment[TF_CONFIG])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UsageError(f"{TF_CONFIG} must look like {EXAMPLE}, not {environment[TF_CONFIG][:200]!r}") from None
        if foreign := sorted({*jobs, task["type"]} - {"chief", "worker"}):
            without = "parameter servers are not supported by Keras 3; " if "ps" in foreign else ""
            raise UsageError(f"{TF_CONFIG} has a {foreign[0]}: {without}charlm trains with workers and a chief alone")
        chiefs = jobs.get("chief", [])
        workers = (*chiefs, *jobs.get("worker", []))
        own = jobs.get(task["type"], [])
        if len(chiefs) > 1:
            raise UsageError(f"{TF_CONFIG} has {len(chiefs)} chiefs: one writes the run")
        if not 0 <= task["index"] < len(own):
            raise UsageError(f"{TF_CONFIG} has no {task['type']} {task['index']}: there are {len(own)}, from 0 on")
        if len(set(workers)) < len(workers):
            raise UsageError(f"{TF_CONFIG} names an address twice: {max(workers, key=workers.count)}")
        made = cls(workers, chiefs=len(chiefs))
        return replace(made, index=made.number(task["type"], task["index"]))

    def number(self, job: str, task: int) -> int:
        """The index of a worker that TensorFlow calls by its job and a number in it."""
        return task + (self.chiefs if job == "worker" else 0)


def _read(text: str) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """The addresses by kind, and the task; raises what Python does of a value that is of another kind."""
    config = json.loads(text)
    jobs = {str(kind): list(addresses) for kind, addresses in config["cluster"].items()}
    task = {"type": config["task"]["type"], "index": config["task"]["index"]}
    texts = [task["type"], *(address for addresses in jobs.values() for address in addresses)]
    if type(task["index"]) is not int or not all(isinstance(one, str) for one in texts):
        raise ValueError
    ports = [address.rpartition(":")[2] for address in texts[1:]]
    if not all(port.isdecimal() and 0 < int(port) < 65536 for port in ports):
        raise ValueError
    return jobs, task
