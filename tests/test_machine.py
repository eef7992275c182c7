"""What charlm takes of a machine; a GPU is made believe, which is enough to see what it would choose."""

import math
import os
import types
from pathlib import Path

import pytest
import tensorflow as tf
from test_export import language_model

from charlm import machine, runtime
from charlm.config import ModelConfig, SampleConfig
from charlm.errors import UsageError
from charlm.generation import Generator
from charlm.machine import Machine, quota, start_tensorflow
from charlm.model import build_model
from charlm.runs import Run
from charlm.session import Request, open_session


@pytest.fixture
def on(monkeypatch):
    """Makes believe another machine."""

    def on(**facts):
        monkeypatch.setattr(Machine, "here", lambda: Machine(**facts))

    return on


@pytest.fixture
def asked(monkeypatch):
    """Asks a machine anew whose driver finds a GPU, or not, that TensorFlow sees, or not."""

    def asked(driver, seen=True, flag="avx2"):
        monkeypatch.setattr(machine, "cores", lambda: 2)
        monkeypatch.setattr(Path, "read_text", lambda *_: f"model name: a\nflags : fpu {flag} sse\n")
        monkeypatch.setattr(machine, "_driver_finds_gpu", lambda: driver)
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["GPU:0"] if seen else [])
        return Machine.here.__wrapped__()

    return asked


@pytest.fixture
def threads(monkeypatch):
    """The threads that TensorFlow was told to take, within an operation and beside one another."""
    told, of = {}, tf.config.threading
    for kind in ("intra", "inter"):
        monkeypatch.setattr(of, f"set_{kind}_op_parallelism_threads", lambda n, kind=kind: told.update({kind: n}))
    return told


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
def test_lane_groups_are_for_the_cores_that_layers_leave(cores, lanes, layers, groups):
    assert Machine(cores).lane_groups(lanes, layers) == groups


def test_on_a_gpu_lanes_are_one_group_in_training_and_in_evaluation(on, tmp_path):
    text, models = tmp_path / "text.txt", tmp_path / "models"
    settings = {"train": {"lanes": 64}, "model": {"layers": 1}}
    text.write_text("It was the best of times. " * 2000)

    def opened(name, settings=settings, **request):
        with (session := open_session(Request([str(text)], settings, models, name, **request))).lock:
            return session

    on(cores=4)
    assert opened("begun-on-a-processor").groups == 4
    assert language_model(tmp_path / "processor", units=8, layers=1)._evaluator.groups == 4
    on(cores=4, gpu=True)
    assert language_model(tmp_path / "gpu", units=8, layers=1)._evaluator.groups == 1
    assert opened("new").groups == opened("begun-on-a-processor", {}, resume=True).groups == 1
    assert Run(models / "new").record["machine"].items() >= {"cores": 4, "gpu": True, "bfloat16": False}.items()


FLAGS = {"avx512_bf16": "bfloat16", "amx_bf16": "bfloat16", "avx2": "float32"}


@pytest.mark.parametrize(("flag", "precision"), FLAGS.items())
def test_automatic_precision_is_what_the_processor_multiplies(asked, flag, precision):
    here = asked(driver=False, flag=flag)
    assert here.precision("auto") == precision
    assert here.precision("bfloat16") == "bfloat16"
    with pytest.raises(UsageError, match="needs a GPU"):
        here.precision("float16")


@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(
    ("limit", "precision"),
    [("AVX2", "float32"), ("avx2_vnni_2", "float32"), ("AVX512_CORE", "bfloat16"), ("ALL", "bfloat16")],
)
def test_where_onednn_may_not_multiply_bfloat16_float32_is_taken(asked, monkeypatch, variable, limit, precision):
    for other in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(variable, limit)
    here = asked(driver=False, flag="avx512f avx512_bf16")
    assert here.precision("auto") == precision
    if precision == "float32":
        with pytest.raises(UsageError, match=f"precision bfloat16: {variable}={limit} keeps oneDNN from it"):
            here.precision("bfloat16")
        with pytest.raises(UsageError, match=variable):
            Generator(None, SampleConfig(precision="bfloat16"), [])
    assert asked(driver=False, flag="avx2").precision("bfloat16") == "bfloat16"  # TensorFlow asks oneDNN for none there


@pytest.mark.parametrize("flag", FLAGS)
def test_a_gpu_computes_in_float32_or_float16(asked, flag):
    here = asked(driver=True, flag=flag)
    assert here.gpu
    assert not here.slow
    assert here.precision("auto") == "float32"
    assert here.precision("float16") == "float16"
    with pytest.raises(UsageError, match="bfloat16 needs a processor"):
        here.precision("bfloat16")


@pytest.mark.parametrize(("flag", "precision"), FLAGS.items())
def test_a_gpu_that_tensorflow_does_not_see_is_none(asked, flag, precision):
    here = asked(driver=True, seen=False, flag=flag)
    assert not here.gpu
    assert here.slow == (precision == "float32")
    assert here.precision("auto") == precision


def test_tensorflow_is_not_asked_where_no_driver_finds_a_gpu(asked, monkeypatch):
    monkeypatch.setattr(machine, "import_tensorflow", lambda: pytest.fail("TensorFlow was imported"))
    assert not asked(driver=False).gpu


def driver(status=0, gpus=1):
    """CUDA's driver, as ctypes loads it."""

    def count(at):
        at._obj.value = gpus
        return status

    return types.SimpleNamespace(cuInit=lambda flags: status, cuDeviceGetCount=count)


def test_the_driver_is_asked_and_not_where_its_files_lie(monkeypatch):
    """WSL 2 has a driver, and no /proc/driver/nvidia; a machine may have those files and no GPU."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    loaded = []
    monkeypatch.setattr("ctypes.CDLL", lambda name: loaded.append(name) or driver())
    assert machine._driver_finds_gpu()
    assert loaded == ["libcuda.so.1"]
    for none in (driver(gpus=0), driver(status=100), None):
        monkeypatch.setattr("ctypes.CDLL", lambda name, none=none: none or Path(name).read_bytes())
        assert not machine._driver_finds_gpu()


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_is_hidden_is_none(monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    monkeypatch.setattr("ctypes.CDLL", lambda name: driver())
    assert not machine._driver_finds_gpu()


V1 = "12:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n3:cpuset:/docker/a\n"


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),  # docker --cpus=2
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a.slice/b.scope\n", {"a.slice/cpu.max": "150000 100000\n", "a.slice/b.scope/cpu.max": "max 100000"}, 1.5),
        ("0::/a.slice/b.scope\n", {"a.slice/cpu.max": "400000 100000\n", "a.slice/b.scope/cpu.max": "9000 3000"}, 3),
        ("0::/../..\n", {}, math.inf),
        ("0::/\n", {}, math.inf),
        (V1, {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        (V1, {"cpu/docker/a/cpu.cfs_quota_us": "50000\n", "cpu/docker/a/cpu.cfs_period_us": "100000\n"}, 0.5),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        (None, {}, math.inf),
    ],
)
def test_a_control_group_leaves_the_least_that_one_above_it_leaves(tmp_path, groups, files, cores):
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, content in files.items():
        (path := tmp_path / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert quota(tmp_path) == cores


@pytest.mark.parametrize(
    ("bound", "left", "cores"), [(64, 2.0, 2), (64, 1.5, 2), (64, 0.1, 1), (4, 8.0, 4), (4, math.inf, 4)]
)
def test_cores_are_those_that_a_process_may_use_the_time_of(monkeypatch, bound, left, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(bound)), raising=False)
    monkeypatch.setattr(machine, "quota", lambda: left)
    assert machine.cores() == cores


def test_tensorflow_takes_as_many_threads_as_a_quota_leaves_cores(monkeypatch, on, threads):
    monkeypatch.setattr(machine, "_bound_cores", lambda: 64)
    for facts, side_by_side, told in [
        ({"cores": 2}, False, {"intra": 2, "inter": 2}),
        ({"cores": 2}, True, {"intra": 1, "inter": 2}),
        ({"cores": 64}, True, {"intra": 1, "inter": 64}),
        ({"cores": 64}, False, {}),
        ({"cores": 64, "gpu": True}, True, {}),
        ({"cores": 2, "gpu": True}, True, {"intra": 2, "inter": 2}),
    ]:
        threads.clear()
        on(**facts)
        start_tensorflow(side_by_side=side_by_side)
        assert threads == told


@pytest.fixture
def xla():
    """Whether XLA compiles is found out anew, before the test and after it."""
    runtime.xla_compiles.cache_clear()
    yield
    runtime.xla_compiles.cache_clear()


@pytest.mark.parametrize("gpu", [False, True])
def test_a_kernel_is_one_xla_computation(gpu, on, xla):
    on(gpu=gpu)
    assert build_model(ModelConfig(units=8, vocabulary=5)).engine == ("keras" if gpu else "recurrence")
    seen = []
    hlo = runtime.kernel(lambda a, b: seen.append(runtime.kernel_on_processor()) or tf.tanh(a) * b)
    compiled = hlo.compiled().experimental_get_compiler_ir(tf.ones(64), tf.ones(64))(stage="optimized_hlo")
    assert "fusion" in compiled
    assert set(seen) == {not gpu}


def test_where_xla_cannot_compile_for_the_gpu_a_kernel_is_a_plain_graph(on, xla, monkeypatch, caplog):
    on(gpu=True)
    function = tf.function

    def without_libdevice(made, jit_compile=False, **options):
        def failing(*inputs):
            raise tf.errors.InternalError(None, None, "libdevice not found at ./libdevice.10.bc\n[[node]]")

        return failing if jit_compile else function(made, jit_compile=False, **options)

    monkeypatch.setattr(tf, "function", without_libdevice)
    squared = runtime.kernel(tf.square)
    assert [float(squared(tf.constant(x))) for x in (3.0, 4.0)] == [9, 16]
    (line,) = caplog.messages
    assert line.startswith("XLA cannot compile for this GPU (libdevice not found at ./libdevice.10.bc): ")
    with pytest.raises(ValueError, match="jit_compile"):
        squared.compiled().experimental_get_compiler_ir(tf.constant(3.0))


def test_a_portable_graph_has_no_kernel():
    squared = runtime.kernel(tf.square)

    def operations():
        graph = tf.function(lambda x: squared(x) + 1).get_concrete_function(tf.TensorSpec([3])).graph
        return {op.type for op in graph.get_operations()}

    assert "StatefulPartitionedCall" in operations() or "PartitionedCall" in operations()
    with runtime.portable():
        assert operations() >= {"Square"}
        assert not any("Call" in op for op in operations())
