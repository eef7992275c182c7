"""Clients that send or read too slowly, before an application that does nothing."""

import asyncio
import socket
import threading

import pytest

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from serving import wait_for  # noqa: E402

from charlm.serve import connection  # noqa: E402
from charlm.serve.limits import Limits  # noqa: E402

POST = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
PART = b"10\r\n" + b"x" * 16 + b"\r\n"


@pytest.fixture
def connect(monkeypatch):
    """Connections to a server of an application, by what it does."""
    monkeypatch.setattr(connection, "WATCHED_EVERY", 0.05)
    monkeypatch.setattr(connection, "SLOW_SECONDS", 0.2)
    closing = []

    def connected(app):
        server = uvicorn.Server(connection.served(app, Limits(arrival=0), port=0, lifespan="off"))
        thread = threading.Thread(target=server.run)
        thread.start()
        wait_for(lambda: server.started)
        client = socket.create_connection(server.servers[0].sockets[0].getsockname())
        client.settimeout(600)
        closing.append((client, server, thread))
        return client

    yield connected
    for client, server, thread in closing:
        client.close()
        server.should_exit = True
        thread.join(60)


async def answer(send, content=b"done"):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]})
    await send({"type": "http.response.body", "body": content})


async def refuse_unread(scope, receive, send):
    await answer(send, b"refused")


async def answer_late(scope, receive, send):
    await asyncio.sleep(0.5)
    await answer(send)


def read(client):
    """All that comes until the connection ends, by whichever end."""
    content = b""
    try:
        while part := client.recv(1 << 16):
            content += part
    except ConnectionError:
        pass
    return content


@pytest.mark.parametrize("sent", [b"", b"POST / HT", POST])
def test_a_connection_ends_where_no_whole_head_arrives(connect, sent):
    client = connect(refuse_unread)
    client.sendall(sent)
    assert read(client) == b""


def test_a_body_without_end_that_was_refused_ends_its_connection(connect):
    client = connect(refuse_unread)
    client.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    assert client.recv(100).startswith(b"HTTP/1.1 200")
    with pytest.raises(ConnectionError):
        client.sendall(PART * (1 << 24))


def test_a_whole_request_is_answered_however_long_that_takes(connect):
    client = connect(answer_late)
    client.sendall(POST + b"Connection: close\r\nContent-Length: 0\r\n\r\n")
    assert read(client).endswith(b"done")


def test_a_client_that_reads_nothing_more_is_given_up(connect):
    ended = threading.Event()

    async def flood(scope, receive, send):
        await answer(send, bytes(100_000_000))
        while (await receive())["type"] != "http.disconnect":
            pass
        ended.set()

    client = connect(flood)
    client.sendall(POST + b"Content-Length: 0\r\n\r\n")
    assert ended.wait(600)
    assert len(read(client)) < 100_000_000
