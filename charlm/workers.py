"""A function over many arguments on all cores, in processes of our own.

They are started as commands, so that they import nothing of the program that uses charlm, and in sessions of their
own, so that Ctrl-C reaches them through us alone. They end when we do, however that comes.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from charlm.errors import CharlmError
from charlm.machine import cores

ALONE_SECONDS = 1.0  # what is done sooner needs no processes
WORK = "from charlm.workers import work; work()"

Argument = TypeVar("Argument")
Value = TypeVar("Value")


def on_all_cores(function: Callable[[Argument], Value], arguments: Iterable[Argument]) -> Generator[Value]:
    """The values of a function, in the order of its arguments, which are taken as they are needed.

    Both it and its arguments and values are pickled, except on one core.

    Raises:
        CharlmError: a process was ended from outside.
        Exception: as the function.
    """
    coming, count, begun = iter(arguments), cores(), time.monotonic()
    while count == 1 or time.monotonic() - begun < ALONE_SECONDS:
        try:
            argument = next(coming)
        except StopIteration:
            return
        yield function(argument)
    with _workers(function, count) as value_of:
        values = deque[Future[Value]]()
        for argument in coming:
            values.append(value_of(argument))
            if len(values) > count + 1:  # one more, so that none waits
                yield values.popleft().result()
        for value in values:
            yield value.result()


@contextmanager
def _workers(function: Callable[[Argument], Value], count: int) -> Iterator[Callable[[Argument], Future[Value]]]:
    """Processes that wait for arguments, and what gives one of them an argument."""
    command, environment = [sys.executable, "-P", "-c", WORK], {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = list[subprocess.Popen[bytes]]()
    idle = SimpleQueue[subprocess.Popen[bytes]]()

    def value_of(argument: Argument) -> Value:
        process = idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(argument, process.stdin)
            process.stdin.flush()
            value, error = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise CharlmError("one of charlm's own processes was ended from outside; start again") from None
        finally:
            idle.put(process)
        if error is not None:
            raise error
        return value

    threads = ThreadPoolExecutor(count, thread_name_prefix="charlm-worker")
    try:
        for _ in range(count):
            started = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
            )
            processes.append(started)
        for process in processes:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # `value_of` says so
                pickle.dump(function, process.stdin)
                process.stdin.flush()
            idle.put(process)
        yield lambda argument: threads.submit(value_of, argument)
    finally:
        for process in processes:
            process.kill()
        threads.shutdown(cancel_futures=True)
        for process in processes:
            with process, suppress(BrokenPipeError):
                pass


def work() -> None:
    """A process of `on_all_cores`: reads the function and then arguments from standard input, and writes values."""
    arguments, values = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints is no value
    with suppress(EOFError, BrokenPipeError):
        function: Callable[[Any], Any] = pickle.load(arguments)
        while True:
            argument = pickle.load(arguments)
            answer: tuple[Any, Exception | None]
            try:
                answer = function(argument), None
            except Exception as error:
                answer = None, error
            pickle.dump(answer, values)
            values.flush()
    os._exit(0)  # nobody reads what is left in the buffer
