"""What charlm takes of a machine; a GPU is made believe, which is enough to see what it would choose."""

import pytest
import tensorflow as tf

from charlm import model as model_module
from charlm import runtime
from charlm.config import ModelConfig
from charlm.errors import UsageError
from charlm.model import build_model


@pytest.fixture
def gpu(monkeypatch):
    for module in (runtime, model_module):
        monkeypatch.setattr(module, "on_gpu", lambda: True)


@pytest.mark.parametrize(
    ("cores", "lanes", "layers", "groups"),
    [
        (2, 64, 1, 2),
        (2, 64, 2, 1),
        (2, 64, 3, 1),
        (8, 64, 2, 4),
        (8, 64, 3, 2),  # three would not divide the lanes
        (8, 16, 1, 2),  # eight lanes in a group at least
        (4, 6, 1, 1),
        (6, 50, 1, 5),
    ],
)
def test_lane_groups_are_for_the_cores_that_layers_leave(monkeypatch, cores, lanes, layers, groups):
    monkeypatch.setattr(runtime, "cores", lambda: cores)
    assert runtime.lane_groups(lanes, layers) == groups


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", None])
def test_automatic_precision_is_what_the_processor_multiplies(monkeypatch, flag):
    monkeypatch.setattr(runtime, "native_bfloat16", lambda: flag is not None)
    assert runtime.choose_precision("auto") == ("float32" if flag is None else "bfloat16")
    assert runtime.choose_precision("bfloat16") == "bfloat16"
    with pytest.raises(UsageError, match="needs a GPU"):
        runtime.choose_precision("float16")


def test_on_a_gpu_keras_layers_run_and_nothing_is_compiled_by_xla(gpu):
    assert build_model(ModelConfig(units=8, vocabulary=5)).engine == "keras"
    assert {runtime.choose_precision(p) for p in ("auto", "bfloat16", "float16")} == {"bfloat16", "float16"}
    squared = runtime.kernel(tf.square)
    assert float(squared(tf.constant(3.0))) == 9
    with pytest.raises(ValueError, match="jit_compile"):
        squared.compiled.experimental_get_compiler_ir(tf.constant(3.0))


def test_on_a_processor_a_kernel_is_one_xla_computation():
    hlo = runtime.kernel(lambda a, b: tf.tanh(a) * b)
    compiled = hlo.compiled.experimental_get_compiler_ir(tf.ones(64), tf.ones(64))(stage="optimized_hlo")
    assert "fusion" in compiled


def test_a_portable_graph_has_no_kernel():
    squared = runtime.kernel(tf.square)

    def operations():
        graph = tf.function(lambda x: squared(x) + 1).get_concrete_function(tf.TensorSpec([3])).graph
        return {op.type for op in graph.get_operations()}

    assert "StatefulPartitionedCall" in operations() or "PartitionedCall" in operations()
    with runtime.portable():
        assert operations() >= {"Square"}
        assert not any("Call" in op for op in operations())
