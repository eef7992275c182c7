"""Plays a script of symbols through a model that goes one symbol at a time; a program of its own for SavedModels.

python -I probe.py SAVEDMODEL SCRIPT.json PLAYED.npz

The program needs TensorFlow and NumPy alone, and makes sure that it does not use charlm.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Step = Callable[[Any, Any], tuple[Any, Any]]  # ids [1] int32 and a state -> logits [1, V] and the state after them


def play(step: Step, state: Any, ids: Sequence[int], length: int, blocked: Sequence[int]) -> tuple[Any, list[int]]:
    """The logits after each of `ids`, [ids, V], and the `length` likeliest symbols that follow them.

    Args:
        step, state: the model, and its zero state for one row.
        ids: what it reads.
        length: of the greedy continuation.
        blocked: ids that are never taken.
    """
    logits, greedy = [], []
    for symbol in ids:
        found, state = step(np.array([symbol], np.int32), state)
        logits.append(np.asarray(found)[0])
    last = logits[-1]
    for _ in range(length):
        allowed = last.copy()
        allowed[list(blocked)] = -np.inf
        greedy.append(int(allowed.argmax()))
        found, state = step(np.array(greedy[-1:], np.int32), state)
        last = np.asarray(found)[0]
    return np.stack(logits), greedy


def main() -> None:
    sys.modules["charlm"] = None  # type: ignore[assignment]
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    path, asked, played = sys.argv[1:]
    with open(asked) as file:  # noqa: PTH123
        script = json.load(file)
    model = tf.saved_model.load(path)
    step = model.signatures["step"]
    state = model.signatures["initial_state"](batch=tf.constant(1))["state"]

    def stepped(ids: Any, state: Any) -> tuple[Any, Any]:
        found = step(ids=tf.constant(ids), state=state)
        return found["logits"].numpy(), found["state"]

    logits, greedy = play(stepped, state, **script)
    np.savez(played, logits=logits, greedy=np.array(greedy))


if __name__ == "__main__":
    main()
