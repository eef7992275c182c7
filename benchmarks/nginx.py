"""nginx before a server: bare, and below a prefix."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

SETTINGS = """
daemon off; pid {folder}/pid; error_log {folder}/log;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{bare}; location / {{ proxy_pass {url}; }} }}
  server {{ listen 127.0.0.1:{below}; location /charlm/ {{ proxy_pass {url}/; }} }}
}}
"""


def found() -> str | None:
    """Where nginx is; Debian's is not on everybody's path."""
    return shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")


@contextlib.contextmanager
def before(url: str, folder: Path) -> Iterator[tuple[str, str]]:
    """The addresses of a server behind a bare proxy_pass, and below a prefix.

    Raises:
        RuntimeError: nginx is not installed, or ends.
    """
    program = found()
    if program is None:
        raise RuntimeError("nginx is not installed")
    bare, below = _free_port(), _free_port()
    (folder / "nginx.conf").write_text(SETTINGS.format(folder=folder, bare=bare, below=below, url=url), "utf-8")
    urls = f"http://127.0.0.1:{bare}", f"http://127.0.0.1:{below}/charlm"
    with subprocess.Popen([program, "-c", folder / "nginx.conf"]) as process:
        try:
            while not all(map(_answers, urls)):
                if process.poll() is not None:
                    raise RuntimeError(f"nginx has ended: {(folder / 'log').read_text('utf-8')}")
                time.sleep(0.05)
            yield urls
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health") as answer:
        return answer.status == 200
    return False


def _free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]
