"""A model behind the server, for tests of what its clients see."""

import json
import threading
import time

import httpx
import uvicorn

from charlm.serve.app import build
from charlm.serve.connection import served
from charlm.serve.engine import Engine
from charlm.serve.limits import Limits

LIMITS = Limits(body=20_000, prompt=3000, length=100_000, texts=8, symbols=800_000)


class Server:
    """A model served at any free port."""

    def __init__(self, model, api_key=None, waiting=40, site=None, limits=LIMITS):
        self.model, self.engine = model, Engine(model, waiting)
        app = build(model, model.checkpoint.run_name, self.engine, limits, api_key, site)
        self._server = uvicorn.Server(served(app, limits, port=0))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        assert self.engine.ready.wait(600)
        while not self._server.started:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        self.http = httpx.Client(base_url=self.url, timeout=600)

    def close(self):
        self.http.close()
        self._server.should_exit = True
        self._thread.join(60)

    def complete(self, status=200, **body):
        answer = self.http.post("/v1/completions", content=json.dumps(body))
        assert answer.status_code == status, answer.text
        return answer.json()

    def text(self, prompt, length, seed, **settings):
        return self.model.generate(prompt, length=length, seed=seed, **{"temperature": 1.0, **settings})


def wait_for(condition):
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
