"""Functions of tensors compiled by XLA, or left plain for machines that do not have it."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

from charlm.machine import Machine, standard_error_closed


def kernel(function: Callable[..., Any]) -> Any:
    """A function of tensors compiled into one kernel by XLA; a plain graph where XLA cannot compile for the GPU.

    What it is called with besides tensors is constant in it. Inside `portable()` it is no kernel.
    """

    @functools.wraps(function)
    def traced(*args: Any) -> Any:
        with _set(_on_processor, not Machine.here().gpu):
            return function(*args)

    @functools.cache
    def compiled() -> Any:
        import tensorflow as tf

        return tf.function(traced, jit_compile=xla_compiles(), autograph=False)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return (function if _portable.get() else compiled())(*args)

    call.compiled = compiled  # type: ignore[attr-defined]
    return call


@functools.cache
def xla_compiles() -> bool:
    """True if XLA compiles here: on every processor, and for a GPU if it finds its compiler and library."""
    if not Machine.here().gpu:
        return True
    import tensorflow as tf

    try:
        with tf.init_scope(), standard_error_closed():
            tf.function(lambda x: tf.exp(tf.math.log1p(x)), jit_compile=True, autograph=False)(tf.ones(8)).numpy()
    except tf.errors.OpError as error:
        reason = error.message.partition("\n")[0]
        way_out = (
            "charlm goes operation by operation, and writes texts slowly; pip install 'charlm[gpu]' has what it needs"
        )
        logging.getLogger("charlm").warning("XLA cannot compile for this GPU (%s): %s", reason, way_out)
        return False
    return True


_on_processor = contextvars.ContextVar("on_processor", default=False)
_portable = contextvars.ContextVar("portable", default=False)


def kernel_on_processor() -> bool:
    """True if the graph that is being built is a processor's kernel, whose loops are fast and whose sorts are slow."""
    return _on_processor.get()


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
