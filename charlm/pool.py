"""A function over many arguments on all cores, in processes of our own.

They are started as commands, so that they import nothing of the program that uses charlm, and in sessions of their
own, so that Ctrl-C reaches them through us alone. They end when we do, however that comes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

from charlm.errors import CharlmError
from charlm.machine import cores

ALONE_SECONDS = 1.0  # what is done sooner needs no processes
WORK = "from charlm.pool import work; work()"

Argument = TypeVar("Argument")
Value = TypeVar("Value")
Pipe: TypeAlias = tuple[Connection, Connection]  # to a process, and from it


def on_all_cores(function: Callable[[Argument], Value], arguments: Iterable[Argument]) -> Generator[Value]:
    """The values of a function, in the order of its arguments, which are taken as they are needed.

    Other processes get copies of the function and its arguments, and return a copy of the value.

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
    processes, pipes = list[subprocess.Popen[bytes]](), list[Pipe]()
    idle = SimpleQueue[Pipe]()

    def value_of(argument: Argument) -> Value:
        arguments, values = pipe = idle.get()
        try:
            arguments.send(argument)
            value, error = values.recv()
        except (OSError, EOFError):
            raise CharlmError("one of charlm's own processes was ended from outside; start again") from None
        finally:
            idle.put(pipe)
        if error is not None:
            raise error
        return value

    threads = ThreadPoolExecutor(count, thread_name_prefix="charlm-pool")
    try:
        try:
            for _ in range(count):
                _start(processes, pipes)
        except OSError as error:
            raise CharlmError(f"processes cannot be started: {error.strerror}; end others, or raise a limit") from None
        for pipe in pipes:
            with suppress(BrokenPipeError):  # `value_of` says so
                pipe[0].send(function)
            idle.put(pipe)
        yield lambda argument: threads.submit(value_of, argument)
    finally:
        for process in processes:
            process.kill()
        threads.shutdown(cancel_futures=True)
        for connection in (end for pipe in pipes for end in pipe):
            connection.close()
        for process in processes:
            process.wait()


def _start(processes: list[subprocess.Popen[bytes]], pipes: list[Pipe]) -> None:
    """Starts another process, with its pipes; raises OSError where the system has no room for them."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    read, write = os.pipe()
    answered, answers = os.pipe()
    pipes.append((Connection(write, readable=False), Connection(answered, writable=False)))
    with Connection(read, writable=False), Connection(answers, readable=False):  # the process has its own
        processes.append(
            subprocess.Popen(
                [sys.executable, "-P", "-c", WORK, str(read), str(answers)],
                env=environment,
                pass_fds=(read, answers),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        )


def work() -> None:
    """A process of `on_all_cores`: reads the function and then arguments from a pipe, and writes values into another.

    Whatever prints in it prints where warnings go.
    """
    os.dup2(2, 1)
    arguments = Connection(int(sys.argv[1]), writable=False)
    values = Connection(int(sys.argv[2]), readable=False)
    with suppress(EOFError, BrokenPipeError):
        function: Callable[[Any], Any] = arguments.recv()
        while True:
            argument = arguments.recv()
            answer: tuple[Any, Exception | None]
            try:
                answer = function(argument), None
            except Exception as error:
                answer = None, error
            values.send(answer)
    os._exit(0)
