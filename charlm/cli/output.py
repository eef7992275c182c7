"""Standard streams as whoever started the command left them: closed, full, gone, in an encoding of few characters."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any

from charlm.errors import CharlmError
from charlm.files import to_json
from charlm.machine import occupy_descriptors


class _Output(io.FileIO):
    """Standard output: what cannot be written is an error, but for a reader that has gone away."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            problem = "it is closed" if error.errno == errno.EBADF else error.strerror
            raise CharlmError(f"standard output: cannot be written ({problem})") from None


class _Messages(io.FileIO):
    """Standard error: what cannot be written is lost, and the work goes on."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(data)
        return memoryview(data).nbytes


def open_streams() -> None:
    """Opens the standard streams anew: a character that their encoding lacks is escaped, a closed one is empty."""
    occupy_descriptors()
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 (a descriptor, for as long as the process lives)
    sys.stdout = _written(
        _Output(1, "w", closefd=False), sys.stdout, by_line=os.isatty(1) or "PYTHONUNBUFFERED" in os.environ
    )
    sys.stderr = _written(_Messages(2, "w", closefd=False), sys.stderr, by_line=True)


def _written(file: io.FileIO, before: Any, by_line: bool) -> io.TextIOWrapper:
    encoding = before.encoding if before else "utf-8"
    return io.TextIOWrapper(io.BufferedWriter(file), encoding, "backslashreplace", line_buffering=by_line)


def typed_text(argument: str) -> str:
    """An argument that is text: its bytes as UTF-8, whatever the locale, those that are not escaped."""
    try:
        return os.fsencode(argument).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # it came by a way that has no locale
        return argument


def print_json(value: object) -> None:
    """Writes a value as a line of JSON, which is UTF-8 whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(to_json(value))
