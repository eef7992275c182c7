"""The command `charlm` as a fork of a process that has imported TensorFlow, which alone takes some seconds.

    warm.py SOCKET WORD...      runs a command in the warm process that listens there
    warm.py --listen SOCKET     is that process

The command has its caller's streams, folder, environment, signals and exit code.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def run(address, words):
    """Sends a command with the three standard streams; ends as it ends."""
    with socket.socket(socket.AF_UNIX) as warm:
        warm.connect(address)
        asked = json.dumps([words, str(Path.cwd()), dict(os.environ)]).encode()
        socket.send_fds(warm, [len(asked).to_bytes(8, "big")], [0, 1, 2])
        warm.sendall(asked)
        answers = warm.makefile()
        pid = int(answers.readline())
        for number in SIGNALS:
            signal.signal(number, lambda number, _: os.kill(pid, number))
        sys.exit(int(answers.readline()))


def listen(address):
    """Forks for every command a process that waits for it, and that forks the command itself; ends with its parent."""
    from charlm.machine import import_tensorflow

    import_tensorflow()
    parent = os.getppid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{address}.new")
        listening.listen()
        listening.settimeout(1)
        Path(f"{address}.new").rename(address)
        while os.getppid() == parent:
            try:
                caller = listening.accept()[0]
            except TimeoutError:
                continue
            if os.fork() == 0:
                listening.close()
                answer(caller)
            caller.close()


def answer(caller):
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, *_ = socket.recv_fds(caller, 8, 3)
    with caller.makefile("rb") as file:
        words, folder, environment = json.loads(file.read(int.from_bytes(head, "big")))
    pid = os.fork()
    if pid == 0:
        caller.close()
        for place, stream in enumerate(streams):
            os.dup2(stream, place)
            os.close(stream)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["charlm", *words]
        from charlm.cli import main

        main()
    for stream in streams:
        os.close(stream)
    caller.sendall(f"{pid}\n".encode())
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    caller.sendall(f"{status if status >= 0 else 128 - status}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "--listen":
        listen(sys.argv[2])
    else:
        run(sys.argv[1], sys.argv[2:])
