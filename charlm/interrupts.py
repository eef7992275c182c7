"""Signals that ask a training to save and end: Ctrl-C, a terminal that is closed, a system that shuts down."""

from __future__ import annotations

import _thread
import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stop_requested(again: Callable[[], object] | None = None) -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether one of `SIGNALS` has come.

    A signal that the process ignores stays ignored: SIGHUP under `nohup`, SIGINT in a shell's background job. Signals
    reach the main thread alone; in another thread the function always says no.

    Args:
        again: called by a second signal, at once and in another thread; without it, a second signal does what it did
            before.
    """
    asked = False
    before: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if again is None:
            restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
        for number in before:
            signal.signal(number, ask)
    with contextlib.nullcontext() if again is None or not before else _second(set(before), again):
        try:
            yield lambda: asked
        finally:
            restore()


@contextlib.contextmanager
def _second(numbers: set[int], call: Callable[[], object]) -> Iterator[None]:
    """Calls a function at the second of some signals, in another thread: the main one may compile for a long time.

    Python's own handlers wait until it is done.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)

    def hear() -> None:
        count = 0
        while number := heard.recv(1):
            count += number[0] in numbers
            if count == 2:
                call()

    hearing = threading.Thread(target=hear, name="charlm-signals", daemon=True)
    hearing.start()
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        told.close()
        hearing.join()
        heard.close()


def interrupt_anew(dropped: sys.UnraisableHookArgs) -> None:
    """Interrupts the main thread a little later where Python drops a KeyboardInterrupt: in a destructor or a callback.

    Stands for `sys.unraisablehook`, which would print "Exception ignored in" and go on.
    """
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        heeded = next((number for number in SIGNALS if callable(signal.getsignal(number))), signal.SIGINT)
        threading.Timer(0.05, _thread.interrupt_main, [heeded]).start()
    else:
        sys.__unraisablehook__(dropped)
