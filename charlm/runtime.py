"""The machine that charlm runs on: cores, GPU, precision, and TensorFlow's start."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from charlm.errors import CharlmError, UsageError, named

FEWEST_LANES_IN_A_GROUP = 8
X86_64 = ("x86_64", "AMD64")
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"  # read when TensorFlow is imported


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lane_groups(lanes: int, layers: int) -> int:
    """How many groups to compute lanes in.

    The layers of a stack run side by side already; groups are for the cores beyond them, if they divide the lanes and
    leave each group enough.
    """
    most = min(-(-cores() // layers), max(1, lanes // FEWEST_LANES_IN_A_GROUP))
    return next(groups for groups in range(most, 0, -1) if lanes % groups == 0)


def import_tensorflow(debug: bool = False) -> None:
    """Imports TensorFlow, and Keras on it, without start-up lines; a program that has imported it keeps its settings.

    Raises:
        UsageError: Keras has been imported on something else.
    """
    occupy_descriptors()
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever other programs want of the environment or of ~/.keras
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if debug else "3")
        if platform.machine() in X86_64:
            os.environ.setdefault(ONEDNN, "1")  # by itself only with AVX-512: 1.15 to 1.65 times the speed on AVX2
        with contextlib.nullcontext() if debug else standard_error_closed():
            import tensorflow as tf
        tf.get_logger().setLevel("WARNING" if debug else "ERROR")
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


def start_tensorflow(*, side_by_side: bool = False, debug: bool = False) -> None:
    """Imports TensorFlow as `import_tensorflow` does, sets its threads and starts its devices.

    Args:
        side_by_side: on a processor, run as many operations at a time as there are cores, each on one thread, as
            layers and lane groups side by side want it; TensorFlow's own choice of threads if false, or if
            TensorFlow has already run something.
        debug: let the start-up lines through.

    Raises:
        CharlmError: see `check_threads`.
    """
    check_threads()
    import_tensorflow(debug)
    with contextlib.nullcontext() if debug else standard_error_closed():
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # it has started
            if side_by_side and not on_gpu():
                tf.config.threading.set_intra_op_parallelism_threads(1)
                tf.config.threading.set_inter_op_parallelism_threads(cores())
            for gpu in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(gpu, True)
        tf.zeros(1)  # starts the devices, which print too


def onednn() -> str:
    """Whether TensorFlow computes with oneDNN: what the environment says, or TensorFlow's own choice."""
    return {"1": "on", "true": "on", None: "TensorFlow's choice"}.get(os.environ.get(ONEDNN), "off")


def threads() -> int:
    """Threads that TensorFlow runs one operation on; 0 is one for each core."""
    import tensorflow as tf

    return int(tf.config.threading.get_intra_op_parallelism_threads())


def trains_side_by_side() -> bool:
    """Whether TensorFlow has the threads that `start_tensorflow` sets for training; on a GPU it needs none."""
    return on_gpu() or threads() == 1


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
    """Sends file descriptor 2 nowhere, to which C++ code writes whatever the log level."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def gpu_present() -> bool:
    """Whether the machine has an NVIDIA driver at work; asks without importing TensorFlow."""
    return Path("/proc/driver/nvidia/version").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")


def on_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def kernel(function: Callable[..., Any]) -> Any:
    """A function of tensors compiled into one kernel by XLA; a plain graph where there is a GPU.

    What it is called with besides tensors is constant in it. Inside `portable()` it is no kernel.
    """
    import tensorflow as tf

    xla = not on_gpu()

    @functools.wraps(function)
    def traced(*args: Any) -> Any:
        with _set(_compiled, xla):
            return function(*args)

    compiled = tf.function(traced, jit_compile=xla, autograph=False)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return (function if _portable.get() else compiled)(*args)

    call.compiled = compiled  # type: ignore[attr-defined]
    return call


_compiled = contextvars.ContextVar("compiled", default=False)
_portable = contextvars.ContextVar("portable", default=False)


def compiled_by_xla() -> bool:
    """Whether the graph that is being built is a kernel's, whose loops are fast and whose sorts are slow."""
    return _compiled.get()


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Graphs built inside hold plain operations alone, for machines that may not have XLA."""
    with _set(_portable, True):
        yield


@contextlib.contextmanager
def _set(variable: contextvars.ContextVar[bool], value: bool) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def native_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively (AVX512-BF16 or AMX)."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text("ascii", "replace")
    except OSError:
        return False
    flags = next((line.split() for line in cpuinfo.splitlines() if line.startswith("flags")), [])
    return "avx512_bf16" in flags or "amx_bf16" in flags


def choose_precision(wanted: str) -> str:
    """`--precision` resolved: auto is bfloat16 where the hardware multiplies it natively, else float32.

    Raises:
        UsageError: float16 where there is no GPU.
    """
    if wanted == "float16" and not on_gpu():
        raise UsageError(f"{named('train.precision')} float16 needs a GPU; float32 and bfloat16 run on a processor")
    if wanted != "auto":
        return wanted
    return "bfloat16" if on_gpu() or native_bfloat16() else "float32"
