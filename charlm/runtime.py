"""Functions of tensors compiled by XLA, or left plain for machines that may not have it."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

from charlm.machine import Machine


def kernel(function: Callable[..., Any]) -> Any:
    """A function of tensors compiled into one kernel by XLA; a plain graph where there is a GPU.

    What it is called with besides tensors is constant in it. Inside `portable()` it is no kernel.
    """
    import tensorflow as tf

    xla = not Machine.here().gpu

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
    """True if the graph that is being built is a kernel's, whose loops are fast and whose sorts are slow."""
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
