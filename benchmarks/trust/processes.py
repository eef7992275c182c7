"""The real command in a process of its own: its exit code, what it says, its peak memory, its time."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

CHARLM = Path(sys.executable).with_name("charlm")
SECONDS = 120.0


class Ended(NamedTuple):
    """How a command ended."""

    code: int | None  # None if it was still running after `SECONDS`
    said: str  # on standard error
    megabytes: float  # peak of resident memory
    seconds: float

    @property
    def refused(self) -> bool:
        """Whether it said one line besides warnings, and ended with one of the codes of a refusal."""
        lines = [line for line in self.said.splitlines() if not line.startswith("charlm: warning: ")]
        one = len(lines) == 1 and lines[0].startswith("charlm: ") and "unexpectedly" not in lines[0]
        return one and self.code in (2, 3, 5) and not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", self.said)


def charlm(
    *words: object,
    folder: Path,
    stdin: IO[Any] | int = subprocess.DEVNULL,
    before: Sequence[str] = (),
    environment: Mapping[str, str] = {},
    until: str | None = None,
) -> Ended:
    """Runs a command in a folder; `before` are the words of a program that starts it.

    What has said `until` is ended: a server that has started.
    """
    began, peak, log = time.monotonic(), 0, folder / ".said"
    told = {**os.environ, "CHARLM_CACHE": str(folder / ".cache"), **environment}
    with log.open("wb") as file:
        command = [*before, str(CHARLM), *map(str, words)]
        process = subprocess.Popen(command, cwd=folder, stdin=stdin, stdout=subprocess.DEVNULL, stderr=file, env=told)
        while (code := process.poll()) is None and time.monotonic() - began < SECONDS:
            with contextlib.suppress(OSError):
                found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
                peak = max(peak, int(found[1]) if found else 0)
            if until and until in log.read_text("utf-8", "replace"):
                process.terminate()
            time.sleep(0.01)
        process.kill()
        process.wait()
    return Ended(code, log.read_text("utf-8", "replace"), peak / 1024, time.monotonic() - began)
