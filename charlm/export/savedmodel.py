"""A TensorFlow SavedModel: text goes in, text comes out; runs where charlm is not installed.

Every signature has its batch size free. State is one tensor, [batch, layers, states, units], h first, so that a server
without a memory can hand it back and forth.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from charlm.cell import Tensor
from charlm.config import KNOBS
from charlm.decoder import Decoder, decoder_of
from charlm.decoding import Decoded, DecodeState, decode, prefill
from charlm.export import probe, warmup
from charlm.export.codec import codec_of
from charlm.export.parity import Played, Script, Texts
from charlm.generation import prompt_ids
from charlm.language_model import LanguageModel
from charlm.model import ModelState
from charlm.runtime import portable
from charlm.sampling import RECENT

WEIGHTS = np.float32

SAMPLING = {
    "length": (tf.int32, "symbols to generate"),
    **{
        name: (tf.int32 if knob.kind is int else tf.float32, f"{knob.meaning.lower()}; {knob.neutral:g} is off")
        for name, knob in KNOBS.items()
    },
    "seed": (tf.int32, "the same seed draws the same"),
}
LONGEST = 1_000_000  # symbols of a text
PROMPT = "The "  # of the examples


class Network(tf.Module):
    """A network on ids, one symbol or several at a time, with its weights as variables."""

    def __init__(self, language_model: LanguageModel) -> None:
        super().__init__(name="charlm")
        model = language_model.model
        self._variables = tf.nest.map_structure(
            lambda part: tf.Variable(part, trainable=False) if tf.is_tensor(part) else part,
            decoder_of(model, columns=True),
        )
        self.state_shape = model.config.layers, len(model.cell.states), model.config.units
        self._vocabulary = model.config.vocabulary

    def _decoder(self) -> Decoder:
        decoder: Decoder = tf.nest.map_structure(
            lambda part: tf.convert_to_tensor(part) if isinstance(part, tf.Variable) else part, self._variables
        )
        return decoder

    def _unpacked(self, state: Tensor) -> ModelState:
        return tuple(tuple(tf.unstack(layer, axis=1)) for layer in tf.unstack(state, axis=1))

    def _packed(self, state: ModelState) -> Tensor:
        return tf.stack([tf.stack(layer, 1) for layer in state], 1)

    def initial_state(self, batch: Tensor) -> dict[str, Tensor]:
        """Zeros for so many rows."""
        return {"state": tf.zeros((batch, *self.state_shape))}

    def step(self, ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        """One symbol a row."""
        decoder = self._decoder()
        after = decoder.read(ids, decoder.enter(self._unpacked(state)))
        return {"logits": decoder.logits(after), "state": self._packed(decoder.leave(after))}

    def prefill(self, ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Several symbols a row; the logits after the last."""
        decoder = self._decoder()
        after, _ = prefill(decoder, tf.transpose(ids), self._unpacked(state))
        return {"logits": decoder.logits(decoder.enter(after)), "state": self._packed(after)}


class Served(Network):
    """The content of a SavedModel: the network, and texts by it."""

    def __init__(self, language_model: LanguageModel, assets: Path) -> None:
        super().__init__(language_model)
        tokenizer = language_model.tokenizer
        tokenizer.save(assets)
        self.tokenizer_file = tf.saved_model.Asset(str(assets / tokenizer.file_name))
        self._blocked = np.isin(np.arange(tokenizer.vocabulary), tokenizer.blocked)
        self._start = prompt_ids(tokenizer, "")[0]
        self.codec = codec_of(tokenizer)

    def functions(self) -> dict[str, Any]:
        """The signatures, by name."""
        ids, batch = tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32)
        state = tf.TensorSpec([None, *self.state_shape], tf.float32)
        settings = [tf.TensorSpec([None], dtype) for dtype, _ in SAMPLING.values()]
        found = {
            "prefill": _signature(self.prefill, {"ids": tf.TensorSpec([None, None], tf.int32), "state": state}),
            "step": _signature(self.step, {"ids": ids, "state": state}),
            "initial_state": _signature(self.initial_state, {"batch": batch}),
        }
        prompt = {"prompt": tf.TensorSpec([None], tf.string)} | dict(zip(SAMPLING, settings, strict=True))
        generate = _signature(self.generate, prompt)
        score = _signature(self.score, {"text": tf.TensorSpec([None], tf.string)})
        return {"serving_default": generate, "generate": generate, "score": score, **found}

    def score(self, text: Tensor) -> dict[str, Tensor]:
        """The nats of every text, from zero state, without those of its first symbol, which nothing comes before."""
        encoded = self.codec.encode(text)
        symbols = tf.cast(encoded.row_lengths(), tf.int32)
        ids = tf.transpose(encoded.to_tensor())  # [T, B]
        nats = self._decoded(ids, tf.zeros_like(symbols), symbols, {}).nats
        there = tf.range(1, tf.shape(ids)[0])[:, None] < symbols
        total = tf.reduce_sum(tf.where(there, nats[1:], 0.0), 0)
        counted = tf.maximum(symbols - 1, 0)
        return {
            "nats": total,
            "symbols": counted,
            "nats_per_symbol": tf.math.divide_no_nan(total, tf.cast(counted, tf.float32)),
        }

    def generate(self, prompt: Tensor, **sampling: Tensor) -> dict[str, Tensor]:
        """The continuation of every prompt; an empty prompt is a line end.

        Every row draws with its own seed at its own positions, so that the others do not change it.
        """
        _check(prompt, sampling)
        encoded = self.codec.encode(prompt)
        ids, symbols = encoded.to_tensor(), tf.cast(encoded.row_lengths(), tf.int32)
        ids = tf.where(symbols[:, None] > 0, tf.pad(ids, [[0, 0], [0, 1]]), self._start)
        symbols = tf.maximum(symbols, 1)
        ends = symbols + sampling["length"]
        steps = tf.reduce_max(tf.pad(ends, [[0, 1]], constant_values=1))
        places = tf.range(steps)[:, None]
        read = tf.gather(tf.transpose(ids), tf.minimum(places[:, 0], tf.shape(ids)[1] - 1))
        settings = {name: sampling[name] for name in KNOBS}
        decoded = self._decoded(tf.where(places < symbols, read, -1), sampling["seed"], symbols, settings)
        at = tf.range(steps)
        new = (at >= symbols[:, None]) & (at < ends[:, None])
        generated, cost = (tf.ragged.boolean_mask(tf.transpose(a), new) for a in (decoded.ids, decoded.nats))
        return {
            "text": self.codec.decode(generated),
            "ids": generated.to_tensor(),
            "log_probabilities": -cost.to_tensor(),
            "symbols": tf.cast(generated.row_lengths(), tf.int32),
        }

    def _decoded(self, forced: Tensor, seeds: Tensor, read: Tensor, settings: dict[str, Tensor]) -> Decoded:
        """Decodes every row from zero state; its draws are counted from where it has read so many symbols."""
        rows = tf.shape(forced)[1]
        start = DecodeState(
            tf.zeros((rows, self._vocabulary)),
            self._unpacked(self.initial_state(rows)["state"]),
            tf.fill((rows, RECENT), -1),
            -read[:, None],
        )
        return decode(self._decoder(), start, tf.shape(forced)[0], forced, seeds, settings, self._blocked)[0]


def _check(prompt: Tensor, sampling: dict[str, Tensor]) -> None:
    """Operations that fail on what `generate` cannot do."""
    for name, values in sampling.items():
        tf.debugging.assert_equal(tf.size(values), tf.size(prompt), f"{name}: wants one value for each prompt")
    in_range = (sampling["length"] >= 0) & (sampling["length"] <= LONGEST)
    tf.debugging.Assert(tf.reduce_all(in_range), [f"length: wants 0 to {LONGEST:,}, not", sampling["length"]])
    for name, knob in KNOBS.items():
        assert knob.allowed is not None
        values = sampling[name]
        ranges = [(values >= least) & (values <= most) for least, most in knob.allowed.ranges]
        in_range = tf.reduce_any(tf.stack(ranges), 0)
        tf.debugging.Assert(tf.reduce_all(in_range), [f"{name}: wants {knob.allowed.words}, not", values])


def _signature(function: Any, inputs: dict[str, tf.TensorSpec]) -> Any:
    named = {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in inputs.items()}
    return tf.function(function, autograph=False).get_concrete_function(**named)


def write(language_model: LanguageModel, path: Path) -> None:
    """Writes a SavedModel directory."""
    with tempfile.TemporaryDirectory() as assets, portable(), tf.device("/cpu:0"):
        served = Served(language_model, Path(assets))
        tf.saved_model.save(served, str(path), served.functions())
    warmup.write(path, _typical(served, language_model))


def _typical(served: Served, language_model: LanguageModel) -> list[warmup.Request]:
    """Requests to every signature but `initial_state`, which has nothing to warm.

    Each is of one row: a server that batches refuses a request of no dimension, as that to `initial_state` is, or of
    more rows than it allows, and a request that fails keeps it from loading the model.
    """
    plain, ids = _example(), np.array([prompt_ids(language_model.tokenizer, PROMPT)], np.int32)
    sampled = plain | {
        name: np.array([sum(knob.slider) / 2], plain[name].dtype) for name, knob in KNOBS.items() if knob.slider
    }
    state = np.zeros((1, *served.state_shape), np.float32)
    return [
        *(warmup.Request(name, inputs) for name in ("serving_default", "generate") for inputs in (plain, sampled)),
        warmup.Request("score", {"text": plain["prompt"]}),
        warmup.Request("prefill", {"ids": ids, "state": state}),
        warmup.Request("step", {"ids": ids[:, -1], "state": state}),
    ]


def play(path: Path, script: Script) -> Played:
    """Plays the script with plain TensorFlow, in a new process that cannot import charlm."""
    with tempfile.TemporaryDirectory() as folder:
        asked, played = Path(folder, "asked.json"), Path(folder, "played.npz")
        settings = {name: knob.neutral for name, knob in KNOBS.items()} | {"temperature": 0, "seed": 0}
        asked.write_text(json.dumps({"script": script, "settings": settings | {"length": script.length}}))
        command = [sys.executable, "-I", str(Path(probe.__file__)), str(path.resolve()), str(asked), str(played)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise RuntimeError(f"the process that plays it ended with {done.returncode}: {last}")
        with np.load(played) as arrays:
            texts = Texts(**json.loads(str(arrays["texts"])))
            return Played("TensorFlow, without charlm", arrays["logits"], arrays["greedy"].tolist(), texts)


def play_openvino(path: Path, script: Script) -> Played:
    """Plays the script through `step` as OpenVINO has it."""
    import openvino

    loaded = tf.saved_model.load(str(path))
    model = openvino.convert_model(loaded.signatures["step"])
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def step(ids: Any, state: Any) -> tuple[Any, Any]:
        found = compiled({"ids": ids, "state": state})
        return found["logits"].copy(), found[1].copy()

    zeros = loaded.signatures["initial_state"](batch=tf.constant(1))["state"].numpy()
    return Played(f"OpenVINO {openvino.__version__.split('-')[0]}", *probe.play(step, zeros, *script[:3]))


def usage(language_model: LanguageModel, path: Path, title: str) -> str:
    """The part of the README on inputs and outputs, with an example."""
    loaded = tf.saved_model.load(str(path))
    rows = [
        f"| `{name}` | {_listed(does.structured_input_signature[1])} | {_listed(does.structured_outputs)} |"
        for name, does in sorted(loaded.signatures.items())
    ]
    inputs, model = _example(), title.partition("/")[0]
    found = loaded.signatures["generate"](**{name: tf.constant(value) for name, value in inputs.items()})
    example = ", ".join(f"{name}=tf.constant({value.tolist()!r})" for name, value in inputs.items())
    request = json.dumps({"instances": [{name: value[0].item() for name, value in inputs.items()}]})
    settings = "\n".join(f"- `{name}`: {meaning}" for name, (_, meaning) in SAMPLING.items())
    return f"""## Signatures

`serving_default` is `generate`. Every batch size is free; state is by layer, then
{" and ".join(language_model.model.cell.states)}, and zeros at a text's beginning.

| signature | in | out |
|---|---|---|
{chr(10).join(rows)}

{settings}

`log_probabilities` are natural logarithms under the model, before the samplers; 0 after a row's end.
There is no text that stops a row: whoever calls cuts the text where it is found.
A score leaves a text's first symbol out, for nothing comes before it.

```python
import tensorflow as tf

generate = tf.saved_model.load("{title}").signatures["generate"]
found = generate({example})
print(found["text"][0].numpy().decode())
```

```
{found["text"][0].numpy().decode()}
```

TensorFlow Serving serves the highest version in a folder, and `charlm export {model} --version N` writes one there. As
it loads a version it runs the requests in `{warmup.FILE}`. It answers the same over HTTP:

```
curl -d '{request}' http://localhost:8501/v1/models/{model}:predict
```
"""


def _example() -> dict[str, Any]:
    """The inputs of `generate` for one prompt."""
    shown = {"length": 80, **{name: knob.neutral for name, knob in KNOBS.items()}, "temperature": 0.75, "seed": 1}
    settings = {name: np.array([shown[name]], dtype.as_numpy_dtype) for name, (dtype, _) in SAMPLING.items()}
    return {"prompt": np.array([PROMPT]), **settings}


def _listed(specs: dict[str, Any]) -> str:
    first = ["prompt", "ids", "symbols", *SAMPLING, "text", "log_probabilities", "nats", "logits"]
    named = sorted(specs.items(), key=lambda item: [*first, item[0]].index(item[0]))
    return ", ".join(
        f"`{name}` {spec.dtype.name} {[d if d else 'batch' if not n else 'time' for n, d in enumerate(spec.shape)]}"
        for name, spec in named
    ).replace("'", "")


PLAYS = (play, play_openvino)
