"""What no client should send, byte by byte."""

import contextlib
import itertools
import select
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
KIB = b"y" * 1024


def posted(body: bytes, headers: bytes = b"", head: bytes = HEAD) -> bytes:
    return head + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


def deep(begin: bytes, end: bytes) -> bytes:
    return b'{"prompt": ' + begin * 50_000 + b"1" + end * 50_000 + b"}"


def fields() -> Iterator[bytes]:
    """Values that a field cannot have."""
    for name in (b"n", b"max_tokens", b"seed", b"top_k", b"logprobs", b"temperature", b"top_p"):
        for value in (b"NaN", b"-Infinity", b"1e999", b"-7", b"1e18", b"9" * 30, b"9" * 5000, b'"1"', b"true", b"[]"):
            yield b'{"%s": %s}' % (name, value)
    yield from (b'{"n": 65}', b'{"max_tokens": 10001}', b'{"n": 64, "max_tokens": 10000}')


REFUSED = {  # 4xx at once
    "a body that is too large": posted(bytes(2_000_000)),
    "a length that is too large": HEAD + b"Content-Length: 2000000000\r\n\r\n{",
    "a length that is none": HEAD + b"Content-Length: -1\r\n\r\n{}",
    "two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "a chunk that is none": CHUNKED + b"zz\r\n{}",
    "a coding that is none": HEAD + b"Transfer-Encoding: none\r\n\r\n",
    "deep lists": posted(deep(b"[", b"]")),
    "deep objects": posted(deep(b'{"a":', b"}")),
    "no UTF-8": posted(b'{"prompt": "\xff"}'),
    "half a surrogate pair": posted(b'{"prompt": "\\ud800"}'),
    "a control character": posted(b'{"prompt": "\x01"}'),
    "no body": posted(b""),
    "a form": posted(b"prompt=a&n=1", b"Content-Type: application/x-www-form-urlencoded\r\n"),
    "parts": posted(b"--a\r\n\r\nx\r\n--a--", b"Content-Type: multipart/form-data; boundary=a\r\n"),
    "an image": posted(b"\x89PNG\r\n", b"Content-Type: image/png\r\n"),
    "compression": posted(b"x", b"Content-Encoding: gzip\r\n"),
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/1.0": posted(b"{", head=b"POST /v1/completions HTTP/1.0\r\n"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "a NUL in a head": b"GET /health HTTP/1.1\r\nHost: local\0host\r\n\r\n",
    "another host": b"GET /v1/models HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "an address that is none": b"GET /%ff%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "ten requests at once, all wrong": posted(b"{") * 10,
    **{f"field {n}": posted(body) for n, body in enumerate(fields())},
}
ENDLESS = {  # a beginning, and what comes after it again and again
    "chunks without end": (CHUNKED, b"400\r\n" + KIB + b"\r\n"),
    "headers without end": (HEAD, b"X-More: " + KIB + b"\r\n"),
    "a header without end": (HEAD + b"X-More: ", KIB),
    "a path without end": (b"GET /", KIB),
}
HALF = {  # and nothing more
    "nothing": b"",
    "half a line": b"POST /v1/comp",
    "half a head": HEAD,
    "half a body": HEAD + b'Content-Length: 100\r\n\r\n{"prompt',
    "half a chunk": CHUNKED + b"400\r\nyyy",
    "half a request after a whole one": b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
}


@dataclass(frozen=True)
class Told:
    """The status of the first answer, 0 if there was none, and the seconds to it or to the connection's end."""

    status: int
    seconds: float


def tell(port: int, sent: Iterable[bytes]) -> Told:
    """Sends pieces until there is an answer, or the connection ends."""
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        began, line = time.perf_counter(), b""
        with contextlib.suppress(ConnectionError):
            for piece in sent:
                client.sendall(piece)
                if select.select([client], [], [], 0)[0]:
                    break
        with contextlib.suppress(ConnectionError):
            line = client.recv(64)
        return Told(int(line.split()[1]) if line else 0, time.perf_counter() - began)


def ended(port: int, sent: bytes) -> float:
    """The seconds until the server ends a connection on which nothing more comes."""
    with socket.create_connection(("127.0.0.1", port), 600) as client:
        began = time.perf_counter()
        client.sendall(sent)
        while client.recv(1 << 16):
            pass
        return time.perf_counter() - began


def endless(begin: bytes, more: bytes) -> Iterator[bytes]:
    """At most 64 MB."""
    return itertools.chain([begin], itertools.repeat(more * 64, 1000))
