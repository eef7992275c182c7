"""The gate of exports: rounding passes whatever the processor, and a fault does not."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from test_export import NEEDS, language_model

from charlm.cells import cell_of
from charlm.export import FORMATS, format_of, savedmodel
from charlm.export.parity import BOUND, Parity, Played, Reference, Script, compared
from charlm.export.probe import play as played

ULP = 2.0**-23
SCRIPT = Script(np.random.default_rng(3).integers(1, 39, 200).tolist(), 50, [0])


@pytest.fixture(scope="module", params=reference.LAYERS)
def model(request, tmp_path_factory):
    return language_model(tmp_path_factory.mktemp("parity"), request.param)


@pytest.fixture(scope="module")
def lstm(tmp_path_factory):
    return language_model(tmp_path_factory.mktemp("parity"))


@pytest.fixture(scope="module")
def exact(model):
    return Reference(model, np.float32)


def numpys(model, ulps=0, dtype=np.float32, carries=True):
    """Plays a model in NumPy whose states are wrong by up to so many units in the last place."""
    chance, cell = np.random.default_rng(7), model.config.model.cell
    weights = {name: weight.numpy().astype(dtype) for name, weight in model.model.named_weights().items()}
    zeros = [tuple(np.zeros((1, 24), dtype) for _ in cell_of(cell).states) for _ in range(2)]

    @np.errstate(over="ignore")  # of the sigmoid's exponential
    def step(ids, state):
        x, after = weights["embedding"][ids][None], []
        for n, before in enumerate(state if carries else zeros):
            layer = (weights[f"layers.{n}.{kind}"] for kind in ("kernel", "recurrent_kernel", "bias"))
            _, found = reference.LAYERS[cell](x, *layer, *before)
            after.append(tuple((s * (1 + ulps * ULP * chance.uniform(-1, 1, s.shape))).astype(dtype) for s in found))
            x = after[-1][0][None]
        return x[0] @ weights["projection"] + weights["bias"], after

    return lambda path, script: Played("NumPy", *played(step, zeros, *script[:3]))


# ---- rounding


@pytest.mark.parametrize("ulps", [0, 1, 4])
def test_an_engine_that_rounds_in_its_own_way_is_not_refused(ulps, model, exact):
    check = compared(exact, numpys(model, ulps), None, SCRIPT)
    assert check.holds, str(check)


def test_a_model_that_makes_much_of_a_rounding_is_not_refused(model):
    """With weights four times as large, a last bit becomes the largest difference there can be."""
    with Faulty(model, fourfold):
        chaotic = Reference(model, np.float32)
        checks = [compared(chaotic, numpys(model, ulps), None, SCRIPT) for ulps in (0, 1, 4)]
    assert all(check.holds for check in checks), list(map(str, checks))
    assert model.config.model.cell != "lstm" or max(check.difference for check in checks) > 0.1


def test_arithmetic_without_an_error_is_the_best_there_is(model, exact):
    check = compared(exact, numpys(model, dtype=np.float64), None, SCRIPT)
    assert check.noise < 1e-3
    assert check.greedy


def test_what_a_gpu_makes_of_float32_is_compared_in_all_its_bits(lstm):
    """TF32 keeps ten bits of a mantissa: logits would be wrong by 1e-3, and no export could pass."""
    whole, plays = tf.config.experimental.tensor_float_32_execution_enabled, numpys(lstm)
    seen = []
    before = whole()
    compared(Reference(lstm, np.float32), lambda *asked: seen.append(whole()) or plays(*asked), None, SCRIPT)
    assert (seen, whole()) == ([False], before)


# ---- faults


def fourfold(weights):
    for weight in weights.values():
        weight *= 4


def swapped_gates(weights):
    for name, weight in weights.items():
        if "layers.1" in name:
            first, second, *rest = np.split(weight, max(2, weight.shape[-1] // 24), -1)  # an RNN's one in halves
            weights[name] = np.concatenate([second, first, *rest], -1)


def swapped_layers(weights):
    one, other = "layers.0.recurrent_kernel", "layers.1.recurrent_kernel"
    weights[one], weights[other] = weights[other], weights[one]


def lost_bias(weights):
    weights["layers.0.bias"] = np.zeros_like(weights["layers.0.bias"])


def lost_half_of_a_bias(weights):
    bias = weights["layers.1.bias"].reshape(-1)  # of a GRU that of the recurrent products
    bias[len(bias) // 2 :] = 0


def turned_kernel(weights):
    weights["layers.0.recurrent_kernel"][:, :24] = weights["layers.0.recurrent_kernel"][:, :24].T


def half_precision(weights):
    for name, weight in weights.items():
        weights[name] = weight.astype(np.float16).astype(np.float32)


def one_weight_that_is_a_hundredth_off(weights):
    weights["layers.1.recurrent_kernel"][3, 5] *= 1.01


FAULTS = [
    swapped_gates,
    swapped_layers,
    lost_bias,
    lost_half_of_a_bias,
    turned_kernel,
    half_precision,
    one_weight_that_is_a_hundredth_off,
]


class Faulty:
    """A model whose weights have a fault while it is."""

    def __init__(self, model, fault):
        self.variables = model.model.named_weights()
        self.right = {name: variable.numpy() for name, variable in self.variables.items()}
        self.wrong = {name: weight.copy() for name, weight in self.right.items()}
        fault(self.wrong)

    def __enter__(self):
        for name, variable in self.variables.items():
            variable.assign(self.wrong[name])

    def __exit__(self, *error):
        for name, variable in self.variables.items():
            variable.assign(self.right[name])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_gate_order_or_a_lost_bias_is_refused(fault, model, exact):
    with Faulty(model, fault):
        play = numpys(model)
    check = compared(exact, play, None, SCRIPT)
    assert check.noise > (1 if fault is one_weight_that_is_a_hundredth_off else 10) * BOUND


def test_a_state_that_is_not_carried_is_refused(model, exact):
    assert not compared(exact, numpys(model, carries=False), None, SCRIPT).holds


@pytest.mark.parametrize(("name", "fault"), [("onnx", swapped_layers), ("litert", lost_bias), ("html", turned_kernel)])
def test_every_format_is_refused_for_a_fault_and_kept_without(name, fault, lstm, tmp_path):
    for module in NEEDS[name]:
        pytest.importorskip(module)
    written, exact = format_of(name), Reference(lstm, format_of(name).WEIGHTS)
    right, wrong = (tmp_path / f"{which}{FORMATS[name].suffix or ''}" for which in ("right", "wrong"))
    written.write(lstm, right)
    with Faulty(lstm, fault):
        written.write(lstm, wrong)
    check = compared(exact, written.PLAYS[0], right, SCRIPT)
    if check.difference is None:
        pytest.skip(str(check))
    assert check.holds, str(check)
    assert not compared(exact, written.PLAYS[0], wrong, SCRIPT).holds


@pytest.fixture(scope="module")
def saved(lstm, tmp_path_factory):
    """A SavedModel that was played, with its texts, and what is known of its model."""
    out = tmp_path_factory.mktemp("saved") / "out"
    savedmodel.write(lstm, out)
    text = "the quick brown fox. été, ночь, 世界 🙂\n"
    script = Script(lstm.tokenizer.encode(text).tolist(), 30, [0], text)
    return savedmodel.play(out, script), Reference(lstm, np.float32), script


@pytest.mark.parametrize(
    ("fault", "refused"),
    [
        (lambda texts: {}, False),
        (lambda texts: {"nats": texts.nats * (1 + 1e-6)}, False),
        (lambda texts: {"nats": texts.nats + 0.1}, True),
        (lambda texts: {"symbols": texts.symbols + 1}, True),
        (lambda texts: {"ids": texts.ids[1:] + texts.ids[:1]}, True),
        (lambda texts: {"text": texts.text[1:]}, True),
        (lambda texts: {"log_probabilities": [p - 0.01 for p in texts.log_probabilities]}, True),
    ],
)
def test_a_savedmodels_texts_are_those_of_the_model_or_refused(fault, refused, saved):
    played, exact, script = saved
    faulty = played._replace(texts=played.texts._replace(**fault(played.texts)))
    check = compared(exact, lambda *_: faulty, None, script)
    assert check.noise < BOUND
    assert check.holds != refused, str(check)


def test_a_prefill_that_computes_something_else_is_refused(saved):
    """Its logits are the second way; the first is by `step`."""
    played, exact, script = saved
    ways = played.logits.copy()
    assert (ways[0] != ways[1]).any(-1).sum() <= 1  # after the last symbol alone, for all were read at once
    ways[1, -1, 3] += 0.01
    assert not compared(exact, lambda *_: played._replace(logits=ways), None, script).holds


# ---- the judgement alone


class Known:
    """A reference of given logits, of which float32 would miss 0.01."""

    def __init__(self, *logits):
        self.logits = np.array(logits, np.float64)

    def after(self, ids):
        return self.logits[: len(ids)], np.full(len(ids), 0.01)


def judged(*logits, greedy, read=None, blocked=()):
    """Of a script of one symbol that two are written after."""
    exported = Played("engine", np.array([logits[0] if read is None else read], np.float32), greedy)
    return compared(Known(*logits), lambda *a: exported, None, Script([0], 2, list(blocked)))


def test_a_text_that_goes_another_way_where_two_symbols_are_as_likely_is_not_refused():
    assert judged([1.0, 1.1], [2.0, 0.0], [0.0, 0.0], greedy=[0, 0]).holds
    assert not judged([1.0, 1.3], [2.0, 0.0], [0.0, 0.0], greedy=[0, 0]).holds
    assert not judged([1.0, 1.1], [2.0, 0.0], [0.0, 0.0], greedy=[0, 1]).holds


def test_a_text_with_a_symbol_that_is_never_drawn_is_refused():
    assert judged([1.0, 2.0], [1.0, 2.0], [0.0, 0.0], greedy=[0, 0], blocked=[1]).holds
    assert not judged([1.0, 2.0], [1.0, 2.0], [0.0, 0.0], greedy=[1, 1], blocked=[1]).holds


def test_logits_that_are_not_numbers_are_refused():
    assert not judged([1.0, 2.0], [1.0, 2.0], [0.0, 0.0], greedy=[1, 1], read=[np.nan, 2.0]).holds


@pytest.mark.parametrize(
    ("noise", "greedy", "holds"), [(None, False, True), (1.0, True, True), (1.0, False, False), (20.0, True, False)]
)
def test_parity_is_both_logits_and_text(noise, greedy, holds):
    assert Parity("engine", noise, noise, greedy).holds == holds
