"""On PYTHONPATH: SIGUSR1 raises the exception that MORTAL names in the thread of a server's engine."""

import builtins
import ctypes
import os
import signal
import threading


def end(number: int, frame: object) -> None:
    kind = ctypes.py_object(getattr(builtins, os.environ["MORTAL"]))
    for thread in threading.enumerate():
        if thread.name == "charlm-engine":
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), kind)


if "MORTAL" in os.environ:
    signal.signal(signal.SIGUSR1, end)
