"""The machine that charlm runs on: cores, GPU, precision, and TensorFlow's start."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from charlm.errors import CharlmError, UsageError, named

FEWEST_LANES_IN_A_GROUP = 8
X86_64 = ("x86_64", "AMD64")
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"  # read when TensorFlow is imported
LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # likewise; "0" lets all of its messages through


@dataclass(frozen=True)
class Machine:
    """The hardware that charlm computes with.

    Attributes:
        cores: that this process may use.
        gpu: whether TensorFlow computes on a GPU.
        bfloat16: whether the processor multiplies it natively.
    """

    cores: int = 1
    gpu: bool = False
    bfloat16: bool = False

    @staticmethod
    @functools.cache
    def here() -> Machine:
        """This machine, asked once. TensorFlow is imported, and has the last word, where a driver finds a GPU."""
        return Machine(cores(), _driver_finds_gpu() and _tensorflow_sees_gpu(), _processor_has_bfloat16())

    @property
    def slow(self) -> bool:
        """True if it makes few updates in a time; see `presets.Preset`."""
        return not (self.gpu or self.bfloat16)

    def lane_groups(self, lanes: int, layers: int) -> int:
        """The number of groups to compute lanes in: one on a GPU, which computes all lanes at a time.

        The layers of a stack run side by side already; groups are for the cores beyond them, if they divide the lanes
        and leave each group enough.
        """
        most = 1 if self.gpu else min(-(-self.cores // layers), max(1, lanes // FEWEST_LANES_IN_A_GROUP))
        return next(groups for groups in range(most, 0, -1) if lanes % groups == 0)

    def precision(self, wanted: str) -> str:
        """`--precision` resolved: auto is bfloat16 on a processor that multiplies it natively, else float32.

        A GPU multiplies float32 by TF32, with ten bits of the mantissa, as fast as bfloat16. Gradients of TensorFlow's
        cuDNN layers in bfloat16 were wrong where they were tried; docs/gpu.md.

        Raises:
            UsageError: float16 where there is no GPU, bfloat16 where there is one or where oneDNN may not multiply it.
        """
        if wanted == "float16" and not self.gpu:
            raise UsageError(f"{named('train.precision')} float16 needs a GPU; float32 and bfloat16 run on a processor")
        if wanted == "bfloat16" and self.gpu:
            raise UsageError(f"{named('train.precision')} bfloat16 needs a processor; a GPU has float32 and float16")
        if wanted == "bfloat16":
            check_bfloat16("train.precision")
        if wanted != "auto":
            return wanted
        return "bfloat16" if self.bfloat16 and not self.gpu else "float32"


def check_bfloat16(setting: str) -> None:
    """Refuses a setting of bfloat16 where oneDNN, told to use an older processor's instructions, would end the process.

    Raises:
        UsageError: so it is; the message names the variable.
    """
    if variable := _limit_below_bfloat16():
        limit = f"{variable}={os.environ[variable]}"
        raise UsageError(f"{named(setting)} bfloat16: {limit} keeps oneDNN from it; unset it, or take float32")


def cores() -> int:
    """Those that this process is bound to, or as many as its control groups leave it the time of, if they are fewer."""
    return math.ceil(min(_bound_cores(), quota()))


def _bound_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota(root: Path = Path("/")) -> float:
    """Cores whose time the control groups of this process, of version 1 or 2, leave it; infinite without a quota.

    Every group holds for those inside it. A container sees its own group as the outermost one.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    least = math.inf
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        group = PurePath(path.lstrip("/"))
        for outer in (group, *group.parents):
            with contextlib.suppress(OSError):  # it is not seen from here, or has no quota
                time, period = " ".join((mounted / outer / name).read_text() for name in files).split()
                least = least if time in ("max", "-1") else min(least, int(time) / int(period))
    return least


def _driver_finds_gpu() -> bool:
    """True if there is an NVIDIA GPU that this process may use; asks its driver, without importing TensorFlow."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    import ctypes

    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _tensorflow_sees_gpu() -> bool:
    import_tensorflow()
    import tensorflow as tf

    with standard_error_closed():
        return bool(tf.config.get_visible_devices("GPU"))


def _processor_has_bfloat16() -> bool:
    """True if it has AVX512-BF16 or AMX, and oneDNN may use it."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_processor_flags()) and _limit_below_bfloat16() is None


def _processor_flags() -> list[str]:
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text("ascii", "replace")
    except OSError:
        return []
    return next((line.split() for line in cpuinfo.splitlines() if line.startswith("flags")), [])


def _limit_below_bfloat16() -> str | None:
    """The variable, if there is one, that hides AVX-512 from oneDNN; TensorFlow, which sees it, asks for bfloat16."""
    variables = (f"{prefix}_MAX_CPU_ISA" for prefix in ("ONEDNN", "DNNL"))
    limits = (v for v in variables if re.fullmatch(r"SSE41|AVX2?|AVX2_VNNI(_2)?", os.environ.get(v, "").upper()))
    return next(limits, None) if "avx512f" in _processor_flags() else None


def import_tensorflow() -> None:
    """Imports TensorFlow, and Keras on it, without start-up lines unless LOG_LEVEL asks for them.

    A program that has imported TensorFlow keeps its settings.

    Raises:
        UsageError: Keras has been imported on something else.
    """
    occupy_descriptors()
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever other programs want of the environment or of ~/.keras
    if "tensorflow" not in sys.modules:
        talks = os.environ.setdefault(LOG_LEVEL, "3") == "0"
        if platform.machine() in X86_64:
            os.environ.setdefault(ONEDNN, "1")  # by itself only with AVX-512: 1.15 to 1.65 times the speed on AVX2
        with standard_error_closed():
            import tensorflow as tf
        tf.get_logger().setLevel("WARNING" if talks else "ERROR")
    import keras

    if (backend := keras.backend.backend()) != "tensorflow":
        raise UsageError(f"Keras has been imported on {backend}; import charlm first, or set KERAS_BACKEND=tensorflow")


def check_threads() -> None:
    """Looks whether TensorFlow's threads are in this process, and not in the one that it was forked from.

    Raises:
        CharlmError: they stayed behind, so that TensorFlow would wait for them without end.
    """
    global _forked
    if not _forked:
        return
    threading = sys.modules["tensorflow"].config.threading
    now = threading.get_inter_op_parallelism_threads()
    try:
        threading.set_inter_op_parallelism_threads(now + 1)  # refused once it has started
        threading.set_inter_op_parallelism_threads(now)
    except RuntimeError:
        raise CharlmError(
            "this process was forked from one in which TensorFlow had started, and cannot use it: load no model before "
            "the fork, or start the process by 'spawn' (multiprocessing.set_start_method)"
        ) from None
    _forked = False


def _note_fork() -> None:
    global _forked
    _forked = "tensorflow" in sys.modules


_forked = False
os.register_at_fork(after_in_child=_note_fork)


def start_tensorflow(*, side_by_side: bool = False, first: Callable[[], object] | None = None) -> None:
    """Imports TensorFlow as `import_tensorflow` does, sets its threads and starts its devices.

    Args:
        side_by_side: on a processor, run as many operations at a time as there are cores, each on one thread, as
            layers and lane groups side by side want it; each on all of them if false. If TensorFlow has already
            run something, it keeps its threads.
        first: called once the threads are set, before anything else runs.

    Raises:
        CharlmError: see `check_threads`.
    """
    check_threads()
    import_tensorflow()
    machine = Machine.here()
    with standard_error_closed():
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # it has started
            alone = side_by_side and not machine.gpu
            if alone or machine.cores < _bound_cores():  # TensorFlow knows nothing of quotas
                tf.config.threading.set_intra_op_parallelism_threads(1 if alone else machine.cores)
                tf.config.threading.set_inter_op_parallelism_threads(machine.cores)
            for gpu in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(gpu, True)
        if first is not None:
            first()
        tf.zeros(1)  # starts the devices, which print too


def onednn() -> str:
    """The state of oneDNN in TensorFlow: as the environment says, or TensorFlow's own choice."""
    return {"1": "on", "true": "on", None: "TensorFlow's choice"}.get(os.environ.get(ONEDNN), "off")


def threads() -> int:
    """Threads that TensorFlow runs one operation on; 0 is one for each core."""
    import tensorflow as tf

    return int(tf.config.threading.get_intra_op_parallelism_threads())


def trains_side_by_side() -> bool:
    """True if TensorFlow has the threads that `start_tensorflow` sets for training; on a GPU it needs none."""
    return Machine.here().gpu or threads() == 1


@contextlib.contextmanager
def whole_float32() -> Iterator[None]:
    """Inside, a GPU multiplies float32 with all of its bits, instead of ten of a mantissa's 23 (TF32)."""
    import tensorflow as tf

    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def occupy_descriptors() -> None:
    """Puts /dev/null in the place of a closed standard stream, so that no file which is opened later gets its number.

    A checkpoint that got number 2 would have TensorFlow's log lines in it. Reading gives nothing, writing to 1 fails.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)  # takes the lowest free number


@contextlib.contextmanager
def standard_error_closed() -> Iterator[None]:
    """Sends file descriptor 2 nowhere, to which C++ code writes whatever the log level but "0"."""
    if os.environ.get(LOG_LEVEL) == "0":
        yield
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
