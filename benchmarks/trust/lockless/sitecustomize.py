"""On PYTHONPATH: a file system without flock, which answers the error that FLOCK numbers."""

import fcntl
import os


def flock(*arguments: object) -> None:
    number = int(os.environ["FLOCK"])
    raise OSError(number, os.strerror(number))


if "FLOCK" in os.environ:
    fcntl.flock = flock
