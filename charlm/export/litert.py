"""LiteRT (TensorFlow Lite): one symbol of one text at a time; state goes in and comes out, weights are constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from charlm.export.card import printed
from charlm.export.parity import Played, Script
from charlm.export.probe import play as played
from charlm.export.savedmodel import Network
from charlm.language_model import LanguageModel
from charlm.machine import standard_error_closed
from charlm.runtime import portable

WEIGHTS = np.float32


def write(language_model: LanguageModel, path: Path) -> None:
    """Writes a .tflite file."""
    with portable(), tf.device("/cpu:0"):
        network = Network(language_model)
        ids, state = tf.TensorSpec([1], tf.int32, "ids"), tf.TensorSpec([1, *network.state_shape], tf.float32, "state")
        step = tf.function(network.step, autograph=False).get_concrete_function(ids=ids, state=state)
        path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([step], network).convert())


def _runner(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=str(path)).get_signature_runner()


def play(path: Path, script: Script) -> Played:
    """Plays the script with LiteRT."""
    runner = _runner(path)

    def step(ids: Any, state: Any) -> tuple[Any, Any]:
        found = runner(ids=ids, state=state)
        return found["logits"], found["state"]

    zeros = np.zeros(runner.get_input_details()["state"]["shape"], np.float32)
    with standard_error_closed():  # it tells which kernels it takes
        return Played("LiteRT", *played(step, zeros, *script[:3]))


def usage(language_model: LanguageModel, path: Path, title: str) -> str:
    """The part of the README on inputs and outputs, with an example."""
    model, states = language_model.config.model, language_model.model.cell.states
    shape = [1, model.layers, len(states), model.units]

    def example() -> Any:
        with standard_error_closed():
            return _runner(path)(ids=np.zeros(1, np.int32), state=np.zeros(shape, np.float32))["logits"][0, :4]

    return f"""## Inputs and outputs

| | name | dtype, shape |
|---|---|---|
| in | `ids` | int32 [1] |
| in | `state` | float32 {shape}, zeros at a text's beginning; by layer, then {" and ".join(states)} |
| out | `logits` of the next symbol | float32 [1, {model.vocabulary}] |
| out | `state` after the symbol | as the one that goes in |

```python
import numpy as np
from ai_edge_litert.interpreter import Interpreter

step = Interpreter("{title}").get_signature_runner()
found = step(ids=np.zeros(1, np.int32), state=np.zeros({shape}, np.float32))
print(np.round(found["logits"][0, :4], 4)){printed(example)}
```
"""


PLAYS = (play,)
