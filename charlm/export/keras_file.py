"""A `.keras` file of stock Keras layers, with the state as explicit inputs and outputs; opens in Keras' safe mode."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from charlm.export.parity import Played, Script
from charlm.export.probe import play as played
from charlm.language_model import LanguageModel
from charlm.model import KERAS_LAYERS, projection_of

WEIGHTS = np.float32
OLDEST = "3.0"  # tried with 3.0.5, 3.3.3, 3.5.0, 3.8.0, 3.11.3, 3.14.0 and 3.15.1
# The names of initialisers have changed over time; these are replaced by weights, and their name has not.
ZEROS = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}


def functional(language_model: LanguageModel) -> keras.Model:
    """The network as a functional Keras model: [ids, state...] -> [logits, state...], state by layer, h before c."""
    model, config = language_model.model, language_model.config.model
    ids = keras.Input((None,), dtype="int32", name="ids")
    zeros = {"embeddings_initializer": "zeros"}
    embedding = keras.layers.Embedding(config.vocabulary, config.features, name="embedding", **zeros)
    sequence, states, after, layers = embedding(ids), [], [], []
    for n in range(config.layers):
        state = [keras.Input((config.units,), name=f"{name}_{n}") for name in model.cell.states]
        layer = KERAS_LAYERS[config.cell](
            config.units, return_sequences=True, return_state=True, name=f"{config.cell}_{n}", **ZEROS
        )
        sequence, *new = layer(sequence, initial_state=state)
        states += state
        after += new
        layers.append(layer)
    projection = keras.layers.Dense(config.vocabulary, name="logits", kernel_initializer="zeros")
    stock = keras.Model([ids, *states], [projection(sequence), *after], name="charlm")
    embedding.set_weights([model.embedding.numpy()])
    for layer, trained in zip(layers, model.recurrent_layers, strict=True):
        layer.set_weights([w.numpy() for w in trained.weights])
    projection.set_weights([np.asarray(projection_of(model.named_weights())), model.bias.numpy()])
    return stock


def write(language_model: LanguageModel, path: Path) -> None:
    """Writes a .keras file that Keras from `OLDEST` on opens."""
    functional(language_model).save(path)
    with zipfile.ZipFile(path) as saved:
        contents = {name: saved.read(name) for name in saved.namelist()}
    contents["config.json"] = json.dumps(_oldest_form(json.loads(contents["config.json"]))).encode()
    with zipfile.ZipFile(path, "w") as written:
        for name, content in contents.items():
            written.writestr(name, content)


def _oldest_form(value: Any) -> Any:
    """A saved configuration without what older versions do not know: settings that say nothing, objects for types."""
    if isinstance(value, list):
        return [_oldest_form(part) for part in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "DTypePolicy":
        return value["config"]["name"]
    made = {key: _oldest_form(part) for key, part in value.items()}
    if {"class_name", "config"} <= made.keys():
        silent = {"optional": False, "ragged": False}
        settings = made["config"].items()
        made["config"] = {key: part for key, part in settings if part is not None and silent.get(key) is not part}
    return made


def _opened(path: Path) -> keras.Model:
    return keras.saving.load_model(path, safe_mode=True, compile=False)


def play(path: Path, script: Script) -> Played:
    """Plays the script with Keras."""
    model = _opened(path)
    run = tf.function(lambda *inputs: model(inputs), autograph=False)

    def step(ids: Any, state: Any) -> tuple[Any, Any]:
        logits, *state = run(tf.constant(ids[:, None]), *state)
        return logits[:, 0].numpy(), state

    zeros = [tf.zeros((1, spec.shape[-1])) for spec in model.inputs[1:]]
    return Played(f"Keras {keras.version()}", *played(step, zeros, *script[:3]))


def usage(language_model: LanguageModel, path: Path, title: str) -> str:
    """The part of the README on inputs and outputs, with an example."""
    model = language_model.config.model
    states = [f"{kind}_{n}" for n in range(model.layers) for kind in language_model.model.cell.states]
    shown = np.round(
        _opened(path)([np.zeros((1, 1), np.int32), *[np.zeros((1, model.units), np.float32)] * len(states)])[0][
            0, 0, :4
        ],
        4,
    )
    return f"""Keras {OLDEST} and later open it.

## Inputs and outputs

| | name | dtype, shape |
|---|---|---|
| in | `ids` | int32 [batch, time] |
| in | {", ".join(f"`{s}`" for s in states)} | float32 [batch, {model.units}], zeros at a text's beginning |
| out | logits of the next symbol | float32 [batch, time, {model.vocabulary}] |
| out | the same states, after the last symbol | float32 [batch, {model.units}] |

```python
import keras
import numpy as np

model = keras.saving.load_model("{title}")
state = [np.zeros((1, {model.units}), "float32")] * {len(states)}
logits, *state = model([np.array([[0]], "int32"), *state])
print(np.round(logits[0, 0, :4], 4))  # {shown}
```
"""


PLAYS = (play,)
