"""What is measured, each in a process of its own: charlm, PyTorch and stock Keras, training and generating.

python benchmarks/contenders.py NAME JOB CELL PRECISION UNITS LAYERS SIZE...

SIZE is lanes and window for `train`, samples for `generate`, columns for `products`, bytes for `reads`. Prints a line
when warm; then takes lines with a number of seconds, repeats its unit of work for that long, and answers each with the
median rate: symbols per second, floating-point operations for `products`, bytes for `reads`.

One training step is forward, backward through the window, clipping by global norm, and Adam, with the state carried;
65 symbols, no dropout. Generating draws every symbol from the softmax at temperature 0.8.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, TypeAlias

VOCABULARY = 65
GENERATED = {"charlm": 4096, "torch": 256}  # symbols in one unit of work

Work: TypeAlias = tuple[Callable[[], object], int]  # what is timed, and how much it does


def charlm_documents(*sizes: Any) -> Work:
    """Training with a document's beginning inside every window."""
    return charlm_train(*sizes, documents=True)


def charlm_train(
    cell: str, precision: str, units: int, layers: int, lanes: int, window: int, documents: bool = False
) -> Work:
    import numpy as np

    from charlm.config import ModelConfig, TrainConfig
    from charlm.machine import Machine, start_tensorflow

    start_tensorflow(side_by_side=True)
    from charlm.model import build_model
    from charlm.tbptt import Trainer
    from charlm.windows import Window

    config = ModelConfig(cell=cell, units=units, layers=layers, vocabulary=VOCABULARY)
    model = build_model(config, precision=Machine.here().precision(precision))
    trainer = Trainer(model, TrainConfig(bptt=window, lanes=lanes), Machine.here().lane_groups(lanes, layers))
    x, y = (np.random.default_rng(n).integers(0, VOCABULARY, (window, lanes)).astype(np.int32) for n in range(2))
    resets = np.zeros((window, lanes), bool)
    resets[window // 2, ::3] = documents
    at = Window(x, y, np.ones((window, lanes), bool), resets)
    state = [model.initial_state(lanes)]

    def step() -> None:
        update = trainer(at, state[0], 2e-3, (0, 0))
        float(update.nats_sum)
        state[0] = update.state

    return step, lanes * window


def charlm_generate(cell: str, precision: str, units: int, layers: int, samples: int) -> Work:
    import numpy as np

    from charlm.config import ModelConfig, SampleConfig
    from charlm.machine import start_tensorflow

    start_tensorflow(side_by_side=precision == "bfloat16")
    from charlm.generation import Generator
    from charlm.model import build_model

    config = ModelConfig(cell=cell, units=units, layers=layers, vocabulary=VOCABULARY)
    length = max(512, GENERATED["charlm"] // samples)
    sample = SampleConfig(temperature=0.8, length=length, samples=samples, precision=precision)
    generator = Generator(build_model(config), sample, np.zeros(0, np.int32))

    def step() -> None:
        for _ in generator.stream([0], length, range(samples)):
            pass

    return step, samples * length


def charlm_products(cell: str, precision: str, units: int, layers: int, columns: int) -> Work:
    """Large products, [2048, 512] by [512, columns], as many at a time as there are cores."""
    from charlm.machine import Machine, start_tensorflow

    start_tensorflow(side_by_side=True)
    import tensorflow as tf

    dtype = Machine.here().precision(precision)
    pairs = [
        (tf.cast(tf.random.normal((2048, 512)), dtype), tf.cast(tf.random.normal((512, columns)), dtype))
        for _ in range(Machine.here().cores)
    ]
    products = tf.function(lambda: tf.add_n([tf.matmul(a + tf.zeros((), dtype), b)[0, 0] for a, b in pairs]))
    return lambda: float(products()), 2 * 2048 * 512 * columns * Machine.here().cores


def charlm_reads(cell: str, precision: str, units: int, layers: int, size: int) -> Work:
    """Reads a buffer over and over, with the threads that generating has."""
    from charlm.machine import start_tensorflow

    start_tensorflow()
    import tensorflow as tf

    buffer, times = tf.random.normal((size // 4 // 512, 512)), 64

    @tf.function(jit_compile=True)
    def read(v: tf.Tensor) -> tf.Tensor:
        for _ in tf.range(times):
            v = tf.matmul(buffer, v)[:512] * 1e-3
        return v

    v = tf.ones((512, 1))
    return lambda: read(v).numpy(), times * 4 * 512 * buffer.shape[0]


def torch_train(cell: str, precision: str, units: int, layers: int, lanes: int, window: int) -> Work:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_float32_matmul_precision("high")  # on a GPU by TF32, as TensorFlow does
    torch.set_default_device(device := "cuda" if torch.cuda.is_available() else "cpu")
    embedding, projection = torch.nn.Embedding(VOCABULARY, units), torch.nn.Linear(units, VOCABULARY)
    rnn = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](units, units, layers)
    parameters = [p for module in (embedding, rnn, projection) for p in module.parameters()]
    adam = torch.optim.Adam(parameters, lr=2e-3)
    x, y = (torch.randint(0, VOCABULARY, (window, lanes)) for _ in range(2))
    carried = [None]

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            hidden, state = rnn(embedding(x), carried[0])
            logits = projection(hidden)
        loss = torch.nn.functional.cross_entropy(logits.float().view(-1, VOCABULARY), y.view(-1))
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        carried[0] = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        loss.item()

    return step, lanes * window


def torch_generate(cell: str, precision: str, units: int, layers: int, samples: int) -> Work:
    import torch

    length = max(64, GENERATED["torch"] // samples)
    torch.set_num_threads(os.cpu_count() or 1)
    dtype = getattr(torch, precision)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    embedding = torch.nn.Embedding(VOCABULARY, units).to(dtype)
    projection = torch.nn.Linear(units, VOCABULARY).to(dtype)
    rnn = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](units, units, layers).to(dtype)

    @torch.inference_mode()
    def step() -> None:
        symbols, state = torch.zeros(1, samples, dtype=torch.long), None
        for _ in range(length):
            hidden, state = rnn(embedding(symbols), state)
            probabilities = torch.softmax(projection(hidden[0]).float() / 0.8, -1)
            symbols = torch.multinomial(probabilities, 1).T
        symbols.tolist()  # waits for a GPU

    return step, samples * length


def keras_train(cell: str, precision: str, units: int, layers: int, lanes: int, window: int) -> Work:
    import keras
    import numpy as np
    import tensorflow as tf

    if precision == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    layer = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[cell]
    ids = keras.Input((window,), batch_size=lanes, dtype="int32")
    hidden = keras.layers.Embedding(VOCABULARY, units)(ids)
    for _ in range(layers):
        hidden = layer(units, return_sequences=True, stateful=True)(hidden)
    model = keras.Model(ids, keras.layers.Dense(VOCABULARY, dtype="float32")(hidden))
    adam = keras.optimizers.Adam(2e-3, global_clipnorm=1.0)
    adam.build(model.trainable_variables)
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    x, y = (tf.constant(np.random.default_rng(n).integers(0, VOCABULARY, (lanes, window)), tf.int32) for n in range(2))

    @tf.function
    def train() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = entropy(y, model(x, training=True))
        adam.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    return lambda: train().numpy(), lanes * window


def main() -> None:
    name, job, cell, precision, *given = sys.argv[1:]
    units, layers, *size = map(int, given)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    step, amount = globals()[f"{name}_{job}"](cell, precision, units, layers, *size)
    for _ in range(1 if job == "generate" else 3):
        step()
    print("warm", flush=True)
    for line in sys.stdin:
        until, times = time.perf_counter() + float(line), []
        while not times or time.perf_counter() < until:
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        print(amount / statistics.median(times), flush=True)


if __name__ == "__main__":
    main()
