"""ONNX: `step.onnx`, one symbol a row, and `window.onnx`, a window of any length; state goes in and comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from charlm.export.card import printed
from charlm.export.parity import Played, Script
from charlm.export.probe import play as played
from charlm.language_model import LanguageModel
from charlm.model import projection_of

WEIGHTS = np.float32
OPSET, IR_VERSION = 17, 8  # old enough for every runtime in use
OPERATORS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
GATES = {"lstm": (0, 3, 1, 2), "gru": (0, 1, 2), "rnn": (0,)}  # ONNX has i, o, f, g and z, r, n

Array = npt.NDArray[np.float32]


def _rows(cell: str, weights: Array) -> Array:
    """Keras' gates [.., G] as ONNX' rows [1, G, ..]."""
    gates = np.split(weights, len(GATES[cell]), -1)
    return np.concatenate([gates[n] for n in GATES[cell]], -1).T[None]


def _layer(cell: str, n: int, units: int, weights: list[Array], states: tuple[str, ...]) -> tuple[list[Any], list[Any]]:
    """A layer's nodes, from [T, B, E] `x{n}` and states [1, B, H] to [T, B, H] `x{n+1}`, and its initializers."""
    kernel, recurrent_kernel, bias = weights
    biases = [bias, np.zeros_like(bias)] if bias.ndim == 1 else list(bias)
    constants = {
        f"W{n}": _rows(cell, kernel),
        f"R{n}": _rows(cell, recurrent_kernel),
        f"B{n}": np.concatenate([_rows(cell, b[None])[:, :, 0] for b in biases], 1),
    }
    befores, afters = ([f"{when}_{s}{n}" for s in states] for when in ("before", "after"))
    settings = {"hidden_size": units} | ({"linear_before_reset": 1} if cell == "gru" else {})
    nodes = [
        helper.make_node(OPERATORS[cell], [f"x{n}", *constants, "", *befores], [f"y{n}", *afters], **settings),
        helper.make_node("Squeeze", [f"y{n}", "one"], [f"x{n + 1}"]),
    ]
    return nodes, [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in constants.items()]


def graph_of(language_model: LanguageModel, step: bool) -> onnx.ModelProto:
    """The network as a graph.

    ids int64 [batch] for a step or [batch, time] for a window, and state float32 [batch, layers, states, units], give
    logits [batch, V] or [batch, time, V] and the state.
    """
    model, config = language_model.model, language_model.config.model
    states = model.cell.states
    shape = ["batch", config.layers, len(states), config.units]
    constants = {
        "embedding": model.embedding.numpy(),
        "projection": np.asarray(projection_of(model.named_weights())),
        "bias": model.bias.numpy(),
        "one": np.array([1], np.int64),
        "apart": np.array([config.layers * len(states), -1, config.units], np.int64),
        "together": np.array([config.layers, len(states), -1, config.units], np.int64),
    }
    nodes, initializers = [], [numpy_helper.from_array(a, name) for name, a in constants.items()]
    if step:
        initializers.append(numpy_helper.from_array(np.array([0], np.int64), "zero"))
        nodes.append(helper.make_node("Unsqueeze", ["ids", "zero"], ["times"]))
    else:
        nodes.append(helper.make_node("Transpose", ["ids"], ["times"], perm=[1, 0]))
    nodes.append(helper.make_node("Gather", ["embedding", "times"], ["x0"]))
    kept = [f"{s}{n}" for n in range(config.layers) for s in states]
    nodes.append(helper.make_node("Transpose", ["state"], ["by_layer"], perm=[1, 2, 0, 3]))
    nodes.append(helper.make_node("Reshape", ["by_layer", "apart"], ["befores"]))
    nodes.append(helper.make_node("Split", ["befores"], [f"before_{name}" for name in kept], axis=0))
    for n, layer in enumerate(model.recurrent_layers):
        more, weights = _layer(config.cell, n, config.units, [w.numpy() for w in layer.weights], states)
        nodes += more
        initializers += weights
    nodes.append(helper.make_node("Concat", [f"after_{name}" for name in kept], ["afters"], axis=0))
    nodes.append(helper.make_node("Reshape", ["afters", "together"], ["by_layer_after"]))
    nodes.append(helper.make_node("Transpose", ["by_layer_after"], ["state_after"], perm=[2, 0, 1, 3]))
    nodes.append(helper.make_node("MatMul", [f"x{config.layers}", "projection"], ["products"]))
    nodes.append(helper.make_node("Add", ["products", "bias"], ["rows"]))
    if step:
        nodes.append(helper.make_node("Squeeze", ["rows", "zero"], ["logits"]))
    else:
        nodes.append(helper.make_node("Transpose", ["rows"], ["logits"], perm=[1, 0, 2]))
    symbols, floats = ["batch"] if step else ["batch", "time"], TensorProto.FLOAT
    takes = {"ids": (TensorProto.INT64, symbols), "state": (floats, shape)}
    gives = {"logits": (floats, [*symbols, config.vocabulary]), "state_after": (floats, shape)}
    ends = ([helper.make_tensor_value_info(name, *of) for name, of in side.items()] for side in (takes, gives))
    graph = helper.make_graph(nodes, "step" if step else "window", *ends, initializers)
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="charlm")
    built.ir_version = IR_VERSION
    onnx.checker.check_model(built, full_check=True)
    return built


def write(language_model: LanguageModel, path: Path) -> None:
    """Writes the directory: two graphs and the tokenizer."""
    path.mkdir()
    for step in (True, False):
        onnx.save(graph_of(language_model, step), path / ("step.onnx" if step else "window.onnx"))
    language_model.tokenizer.save(path)


def play(path: Path, script: Script) -> Played:
    """Plays the script with ONNX Runtime: the given symbols as one window, the greedy ones step by step."""
    import onnxruntime

    sessions = {
        name: onnxruntime.InferenceSession(str(path / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        for name in ("step", "window")
    }
    state = np.zeros([1, *sessions["step"].get_inputs()[1].shape[1:]], np.float32)

    def step(ids: Any, state: Any) -> tuple[Any, Any]:
        logits, state = sessions["step"].run(None, {"ids": ids.astype(np.int64), "state": state})
        return logits, state

    stepped, greedy = played(step, state, *script[:3])
    whole, _ = sessions["window"].run(None, {"ids": np.array([script.ids]), "state": state})
    return Played(f"ONNX Runtime {onnxruntime.__version__}", np.stack([stepped, whole[0]]), greedy)


def usage(language_model: LanguageModel, path: Path, title: str) -> str:
    """The part of the README on inputs and outputs, with an example."""
    model, states = language_model.config.model, language_model.model.cell.states
    shape = [1, model.layers, len(states), model.units]

    def example() -> Any:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path / "step.onnx"), providers=["CPUExecutionProvider"])
        return session.run(None, {"ids": np.zeros(1, np.int64), "state": np.zeros(shape, np.float32)})[0][0, :4]

    return f"""## Inputs and outputs

| | name | `step.onnx` | `window.onnx` |
|---|---|---|---|
| in | `ids` | int64 [batch] | int64 [batch, time] |
| in | `state` | float32 [batch, {model.layers}, {len(states)}, {model.units}], zeros at a text's beginning | the same |
| out | `logits` of the next symbol | float32 [batch, {model.vocabulary}] | float32 [batch, time, {model.vocabulary}] |
| out | `state_after` the last symbol | as `state` | as `state` |

State is by layer, then {" and ".join(states)}.

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("step.onnx")
state = np.zeros({shape}, np.float32)
logits, state = session.run(None, {{"ids": np.zeros(1, np.int64), "state": state}})
print(np.round(logits[0, :4], 4)){printed(example)}
```
"""


PLAYS = (play,)
