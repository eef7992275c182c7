"""Every cell by its equations alone: its derivative, windows, resets; and a whole life from training to SavedModel."""

import numpy as np
import pytest
import tensorflow as tf
from kinds import multiplies_bfloat16

import charlm
from charlm.cell import GatedCell
from charlm.cells import CELL_NAMES, cell_of
from charlm.errors import UsageError
from charlm.export import savedmodel
from charlm.recurrence import in_blocks
from charlm.scan import step_by_step, unroll

T, B, E, H = 11, 3, 4, 5
TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps.\n" * 40
every_cell = pytest.mark.parametrize("cell", list(map(cell_of, CELL_NAMES)), ids=CELL_NAMES)


class Layer:
    """A layer in float64 with a fixed random linear read-out of its outputs and its final state."""

    def __init__(self, cell):
        rng = np.random.default_rng(0)
        self.cell, self.x = cell, tf.constant(rng.normal(size=(T, B, E)))
        specs = cell.weights(E, H)
        self.weights = {name: tf.constant(rng.normal(0.3, 0.5, spec.shape)) for name, spec in specs.items()}
        self.state = tuple(tf.constant(rng.normal(size=(B, H))) for _ in cell.states)
        self.read = tf.constant(rng.normal(size=(T, B, H)))
        self.read_final = tuple(tf.constant(rng.normal(size=(B, H))) for _ in cell.states)
        self.parameters = tf.nest.flatten((self.x, self.weights, self.state))

    def loss(self, parameters, run=step_by_step, resets=None):
        x, weights, state = tf.nest.pack_sequence_as((self.x, self.weights, self.state), list(parameters))
        outputs, final = run(self.cell, x, weights, state, resets)
        read = sum(tf.reduce_sum(a * b) for a, b in zip(final, self.read_final, strict=True))
        return tf.reduce_sum(outputs * self.read) + read

    def gradient(self, run=step_by_step, resets=None):
        with tf.GradientTape() as tape:
            tape.watch(self.parameters)
            loss = self.loss(self.parameters, run, resets)
        return [g.numpy() for g in tape.gradient(loss, self.parameters, unconnected_gradients="zero")]


def by_the_fastest_path(cell, x, weights, state, resets):
    hidden, state = unroll(cell, in_blocks(tf.transpose(x, (0, 2, 1))), weights, state, resets)
    return tf.transpose(tf.concat(hidden, 0), (0, 2, 1)), state


def written_out(cell, x, weights, state, resets):
    outputs = []
    for t in range(T):
        if resets is not None:
            state = tuple(tf.where(resets[t][:, None], tf.zeros_like(s), s) for s in state)
        state = cell.step(weights, x[t], state)
        outputs.append(state[0])
    return tf.stack(outputs), state


def apart(a, b):
    return max(np.abs(np.subtract(p, q)).max() for p, q in zip(a, b, strict=True))


@pytest.fixture
def resets():
    return tf.constant(np.random.default_rng(1).random((T, B)) < 0.2)


@every_cell
def test_the_gradient_is_that_of_finite_differences(cell, errors):
    layer, eps, rng = Layer(cell), 1e-5, np.random.default_rng(2)
    loss, found = tf.function(layer.loss), layer.gradient()
    estimated, expected = [], []
    for n, p in enumerate(p.numpy() for p in layer.parameters):
        for index in rng.choice(p.size, min(p.size, 8), replace=False):
            moved = np.stack([p, p])
            moved.reshape(2, -1)[:, index] += eps, -eps
            up, down = (float(loss([*layer.parameters[:n], m, *layer.parameters[n + 1 :]])) for m in moved)
            estimated.append((up - down) / (2 * eps))
            expected.append(found[n].flat[index])
    error = np.abs(np.subtract(estimated, expected)).max() / np.abs(estimated).max()
    assert errors("finite differences, own step", cell.name, 1, error) < 1e-6


@every_cell
@pytest.mark.parametrize("reset", [False, True])
def test_every_path_has_the_gradient_of_the_steps_written_out(cell, reset, resets):
    layer, resets = Layer(cell), resets if reset else None
    expected = layer.gradient(written_out, resets)
    assert apart(layer.gradient(step_by_step, resets), expected) < 1e-11
    assert apart(layer.gradient(by_the_fastest_path, resets), expected) < 1e-11


@every_cell
def test_two_windows_are_one_double_window(cell):
    layer = Layer(cell)
    whole, end = step_by_step(cell, layer.x, layer.weights, layer.state)
    first, middle = step_by_step(cell, layer.x[:4], layer.weights, layer.state)
    second, after = step_by_step(cell, layer.x[4:], layer.weights, middle)
    assert apart([tf.concat([first, second], 0), *after], [whole, *end]) < 1e-14
    _, inside = step_by_step(cell, layer.x, layer.weights, layer.state, carry=4)
    assert apart(inside, middle) < 1e-14


@every_cell
def test_rows_do_not_meet(cell):
    layer = Layer(cell)
    moved = layer.x + tf.constant([0.0, 1.0, 0.0], tf.float64)[:, None]
    a, b = (step_by_step(cell, x, layer.weights, layer.state)[0].numpy() for x in (layer.x, moved))
    assert (a[:, [0, 2]] == b[:, [0, 2]]).all()
    assert (a[:, 1] != b[:, 1]).any()


@every_cell
def test_weights_that_decay_are_matrices(cell):
    for name, spec in cell.weights(E, H).items():
        assert ("kernel" in name) == (len(spec.shape) == 2) or name == "bias"


@pytest.fixture(scope="module", params=CELL_NAMES)
def trained(request, tmp_path_factory):
    """A model of a cell that was trained in one go, and one that was stopped on the way and resumed."""
    folder = tmp_path_factory.mktemp("cells")
    (folder / "text.txt").write_text(TEXT)
    found = {}

    def stop(event):
        if event.step == 4 and type(event).__name__ == "Stepped":
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARLM_CACHE", str(folder))
        settings = {"cell": request.param, "units": 16, "layers": 2, "dropout": 0.2, "lanes": 4, "bptt": 8, "steps": 8}
        for name in ("whole", "parted"):
            at = {"name": name, "models": folder, "seed": 3, "save_every": 4, "evaluate_every": 8, **settings}
            if name == "parted":
                with pytest.raises(KeyboardInterrupt):
                    charlm.train(folder / "text.txt", on_event=lambda e: stop(e), **at)
                at = {"name": name, "models": folder, "resume": True}
            found[name] = charlm.train(*([] if "resume" in at else [folder / "text.txt"]), **at)
        yield found


def test_a_resumed_run_is_the_same_to_the_last_bit(trained):
    whole, parted = (trained[name].checkpoint for name in ("whole", "parted"))
    assert whole.step == parted.step
    for name in ("weights", "training"):
        file = f"{name}.safetensors"
        assert (whole.path / file).read_bytes() == (parted.path / file).read_bytes()


def test_the_savedmodel_writes_what_the_model_writes(trained, tmp_path):
    model = trained["whole"]
    savedmodel.write(model, tmp_path / "out")
    generate = tf.saved_model.load(str(tmp_path / "out")).signatures["generate"]
    asked = {"length": 40, "temperature": 0.9, "top_k": 9, "top_p": 1.0, "seed": 5}
    asked |= {"min_p": 0.02, "repetition_penalty": 1.3}
    text = generate(prompt=tf.constant(["the "]), **{k: tf.constant([v]) for k, v in asked.items()})["text"]
    assert text[0].numpy().decode() == model.generate("the ", **asked)
    score = model.evaluate()
    assert 0 < score.bits_per_char < 8


@multiplies_bfloat16
def test_a_precision_that_a_cell_does_not_compute_in_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path))
    (tmp_path / "text.txt").write_text(TEXT)
    cell = next(name for name in CELL_NAMES if not isinstance(cell_of(name), GatedCell))
    with pytest.raises(UsageError, match=f"bfloat16: the cell {cell} computes in float32"):
        charlm.train(tmp_path / "text.txt", models=tmp_path, cell=cell, units=8, steps=1, precision="bfloat16")
