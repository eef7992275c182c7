"""The network: both engines agree, weights interchange with Keras, state is explicit, dropout is variational."""

import numpy as np
import pytest
import tensorflow as tf
from kinds import multiplies_bfloat16

from charlm.cells import CELL_NAMES, cell_of
from charlm.config import ModelConfig
from charlm.decoder import decoder_of
from charlm.errors import ModelError
from charlm.model import KERAS_LAYERS, _dropped, build_model, check_layers

IDS = tf.constant(np.random.default_rng(0).integers(0, 11, (21, 3)), tf.int32)
each_cell = pytest.mark.parametrize("cell", CELL_NAMES)
each_stock_cell = pytest.mark.parametrize("cell", KERAS_LAYERS)


def make(cell, engine="recurrence", **options):
    config = ModelConfig(**{"cell": cell, "layers": 2, "units": 24, "vocabulary": 11, **options})
    return build_model(config, engine=engine, dtype="float64")


def apart(a, b):
    return max(np.abs(p - q).max() for p, q in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True))


@each_cell
def test_every_cell_is_called_as_its_module_is(cell):
    assert cell_of(cell).name == cell


def test_layers_of_other_shapes_are_refused_before_a_network_of_their_size_is_built():
    sound = make("lstm").named_weights()
    config = ModelConfig(layers=2, units=24, vocabulary=11)
    check_layers(config, sound)
    narrow = {"layers.0.kernel": np.zeros((1, 4_000_000))}
    for made, weights in (
        (ModelConfig(layers=1, units=1_000_000, embedding=1), narrow),
        (ModelConfig(layers=100_000, units=24), {f"layers.{n}.kernel": np.zeros(0) for n in range(100_000)}),
        (config, {**sound, "layers.1.bias": np.zeros((96, 1))}),
    ):
        with pytest.raises(ModelError, match=r"layers\.[01]\.\w+ is .*; a layer of lstm has"):
            check_layers(made, weights)


@each_stock_cell
@pytest.mark.parametrize("carry", [None, 7])
@pytest.mark.parametrize("options", [{}, {"dropout": 0.4}, {"tie": True}, {"embedding": 6}, {"units": 8}])
def test_engines_agree(cell, carry, options):
    seed = tf.constant([3, 4])
    outputs = [
        model.apply(model.named_weights(), IDS, model.initial_state(3), carry=carry, masks=model.dropout_masks(seed, 3))
        for model in (make(cell, engine, **options) for engine in ("recurrence", "keras"))
    ]
    assert apart(*outputs) < 1e-13


@each_stock_cell
def test_engines_have_the_same_gradient(cell):
    found = []
    for engine in ("recurrence", "keras"):
        model = make(cell, engine, dropout=0.3)
        with tf.GradientTape() as tape:
            logits, _ = model(IDS, model.initial_state(3), masks=model.dropout_masks(tf.constant([1, 2]), 3))
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(IDS, logits))
        found.append([tf.convert_to_tensor(g) for g in tape.gradient(loss, list(model.named_weights().values()))])
    assert apart(*found) < 1e-13


@each_cell
def test_the_table_of_a_small_vocabulary_changes_nothing(cell):
    """V <= E goes through one-hot columns, V > E through gathered rows; the same weights give the same logits."""
    small = make(cell, embedding=16, vocabulary=11)
    large = make(cell, embedding=16, vocabulary=40)
    for name, variable in large.named_weights().items():
        value = small.named_weights()[name].numpy()
        pad = [(0, a - b) for a, b in zip(variable.shape, value.shape, strict=True)]
        variable.assign(np.pad(value, pad))
    a, _ = small(IDS, small.initial_state(3))
    b, _ = large(IDS, large.initial_state(3))
    assert apart(a, b[:, :, :11]) < 1e-13


@each_stock_cell
def test_recurrent_weights_interchange_with_keras(cell):
    model = make(cell, layers=1)
    layer = KERAS_LAYERS[cell](24, return_sequences=True, dtype="float64")
    inputs = tf.gather(model.embedding.value, tf.transpose(IDS))
    layer.build(inputs.shape)
    layer.set_weights(
        [model.named_weights()[f"layers.0.{kind}"].numpy() for kind in ("kernel", "recurrent_kernel", "bias")]
    )
    logits, _ = model(IDS, model.initial_state(3))
    theirs = layer(inputs) @ model.projection + model.bias
    assert apart(logits, tf.transpose(theirs, (1, 0, 2))) < 1e-6
    trained = [np.random.default_rng(n).normal(size=w.shape) for n, w in enumerate(layer.get_weights())]
    model.recurrent_layers[0].set_weights(trained)
    layer.set_weights(model.recurrent_layers[0].get_weights())
    logits, _ = model(IDS, model.initial_state(3))
    theirs = layer(inputs) @ model.projection + model.bias
    assert apart(logits, tf.transpose(theirs, (1, 0, 2))) < 1e-6


@each_cell
def test_one_symbol_at_a_time_is_the_window(cell):
    model = make(cell)
    logits, state = model(IDS, model.initial_state(3))
    for columns in (False, True):
        decoder = decoder_of(model, columns=columns)
        stepped = decoder.enter(model.initial_state(3))
        for t in range(21):
            stepped = decoder.read(IDS[t], stepped)
            assert apart(decoder.logits(stepped), logits[t]) < 1e-13
        assert apart(state, decoder.leave(stepped)) < 1e-13


@each_cell
def test_state_in_state_out(cell):
    model = make(cell)
    whole, end = model(IDS, model.initial_state(3))
    first, state = model(IDS[:9], model.initial_state(3))
    second, after = model(IDS[9:], state)
    assert apart(tf.concat([first, second], 0), whole) < 1e-13
    assert apart(after, end) < 1e-13
    _, inside = model(IDS, model.initial_state(3), carry=9)
    assert apart(inside, state) < 1e-13
    again, _ = model(IDS, model.initial_state(3))
    assert apart(again, whole) == 0  # nothing was remembered


@each_cell
def test_dropout_has_one_mask_for_a_window_and_another_for_the_next(cell):
    model = make(cell, layers=1, dropout=0.5, vocabulary=11)
    ones = tf.ones((7, 24, 3), tf.float64)

    def dropped(place, seed):
        mask = model.dropout_masks(tf.constant(seed), 3)[place]
        return tf.concat([_dropped(ones[:4], mask), _dropped(ones[4:], mask)], 0).numpy()

    a = dropped(0, [1, 2])
    assert (a == a[:1]).all()
    assert set(np.unique(a)) == {0.0, 2.0}
    assert (dropped(0, [1, 3]) != a).any()
    assert (dropped(1, [1, 2]) != a).any()
    assert (a[0, :, 0] != a[0, :, 1]).any()
    with_masks, _ = model(IDS, model.initial_state(3), masks=model.dropout_masks(tf.constant([1, 2]), 3))
    without, _ = model(IDS, model.initial_state(3))
    assert apart(with_masks, without) > 1e-3


def test_initial_weights():
    model = make("lstm", layers=1)
    named = {name: v.numpy() for name, v in model.named_weights().items()}
    u = named["layers.0.recurrent_kernel"]
    assert np.abs(u @ u.T - np.eye(24)).max() < 1e-6
    assert (named["layers.0.bias"][24:48] == 1).all()
    assert (np.delete(named["layers.0.bias"], np.arange(24, 48)) == 0).all()
    again, other = (
        build_model(model.config, seed=1, dtype="float64"),
        build_model(model.config, seed=2, dtype="float64"),
    )
    assert apart(list(named.values()), [v.numpy() for v in again.named_weights().values()]) == 0
    assert apart(named["projection"], other.projection.numpy()) > 0.01


@each_cell
def test_weights_that_others_replace_are_not_drawn(cell):
    config = ModelConfig(cell=cell, units=8, vocabulary=11)
    assert not any(np.any(w) for w in build_model(config, seed=None).get_weights())


@pytest.mark.parametrize("precision", [pytest.param("bfloat16", marks=multiplies_bfloat16), "float16"])
@each_stock_cell
def test_low_precision_of_keras_layers_stays_near(cell, precision):
    config = ModelConfig(cell=cell, layers=1, units=24, vocabulary=11)
    exact, low = build_model(config, engine="keras"), build_model(config, engine="keras", precision=precision)
    a, b = (model(IDS, model.initial_state(3)) for model in (exact, low))
    assert 0 < apart(a, b) < 0.05
    assert all(v.dtype == "float32" for v in low.weights)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=multiplies_bfloat16), "float16"])
@each_stock_cell
def test_keras_layers_get_all_operands_in_one_precision(cell, precision, monkeypatch):
    """cuDNN takes no others."""
    layer, found = KERAS_LAYERS[cell], set()
    inner_loop = layer.inner_loop

    def watched(self, sequences, initial_state, *args, **options):
        weights = (self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias)
        found.update(tf.convert_to_tensor(value).dtype.name for value in (sequences, *initial_state, *weights))
        return inner_loop(self, sequences, initial_state, *args, **options)

    monkeypatch.setattr(layer, "inner_loop", watched)
    model = build_model(ModelConfig(cell=cell, layers=2, units=8, vocabulary=11), engine="keras", precision=precision)
    tf.function(lambda: model(IDS, model.initial_state(3), carry=2), autograph=False)()
    assert found == {precision}
