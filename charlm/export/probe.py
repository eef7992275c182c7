"""Plays a script of symbols through a model that goes one symbol at a time; a program of its own for SavedModels.

python -I probe.py SAVEDMODEL ASKED.json PLAYED.npz

The program needs TensorFlow and NumPy alone, and makes sure that it does not use charlm.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

PREFILLED = 100  # symbols at a time
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


def prefilled(prefill: Callable[..., Any], state: Any, logits: Any, ids: Sequence[int]) -> Any:
    """`logits` with those after some of the ids as `prefill` has them, which reads many at a time."""
    import tensorflow as tf

    found = logits.copy()
    for begin in range(0, len(ids), PREFILLED):
        part = ids[begin : begin + PREFILLED]
        after = prefill(ids=tf.constant([part]), state=state)
        found[begin + len(part) - 1], state = after["logits"][0].numpy(), after["state"]
    return found


def texts(score: Callable[..., Any], generate: Any, text: str, settings: dict[str, float]) -> dict[str, Any]:
    """The nats of a text, and its continuation."""
    import tensorflow as tf

    cost, inputs = score(text=tf.constant([text])), generate.structured_input_signature[1]
    asked = {name: tf.constant([value], inputs[name].dtype) for name, value in settings.items()}
    written = generate(prompt=tf.constant([text]), **asked)
    return {
        "nats": float(cost["nats"][0]),
        "symbols": int(cost["symbols"][0]),
        "ids": written["ids"][0].numpy().tolist(),
        "text": written["text"][0].numpy().decode(),
        "log_probabilities": written["log_probabilities"][0].numpy().tolist(),
    }


def main() -> None:
    """Plays a SavedModel, in a process that cannot import charlm."""
    sys.modules["charlm"] = None  # type: ignore[assignment]
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    path, asked, played = sys.argv[1:]
    with open(asked) as file:  # noqa: PTH123
        (ids, length, blocked, text), settings = json.load(file).values()
    does = tf.saved_model.load(path).signatures
    state = does["initial_state"](batch=tf.constant(1))["state"]

    def step(ids: Any, state: Any) -> tuple[Any, Any]:
        found = does["step"](ids=tf.constant(ids), state=state)
        return found["logits"].numpy(), found["state"]

    logits, greedy = play(step, state, ids, length, blocked)
    ways = np.stack([logits, prefilled(does["prefill"], state, logits, ids)])
    found = json.dumps(texts(does["score"], does["serving_default"], text, settings))
    np.savez(played, logits=ways, greedy=np.array(greedy), texts=np.array(found))


if __name__ == "__main__":
    main()
