"""Writes docs/serving.md: many clients of one server, every text compared with a lone client's.

python benchmarks/load.py PYDOCS
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import heading

import charlm

CHARLM = Path(sys.executable).with_name("charlm")
CLIENTS, LENGTH, ROUNDS = 200, 1000, 5
SHORT, LONG, SAMPLES = 200, 2200, 64  # of charlm generate
EACH = 3  # texts that a client asks for, one after the other
PAGE = Path(__file__).parent.parent / "docs/serving.md"
TEXT = Path(__file__).with_name("serving.template.md")


@dataclass(frozen=True)
class Told:
    """What a client saw of one stream: its text, when it asked, and when how many more symbols had come."""

    text: str
    asked: float
    arrived: tuple[tuple[float, int], ...]

    @property
    def first(self) -> float:
        return self.arrived[0][0] - self.asked

    @property
    def ended(self) -> float:
        return self.arrived[-1][0]


async def streamed(port: int, request: dict) -> Told:
    """One completion. By a plain socket, for the clients share the processor with the server that they measure."""
    body = json.dumps({**request, "stream": True, "stream_options": {"include_usage": True}}).encode()
    asked = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    text, arrived, written = "", [], None
    async for line in reader:
        if line.startswith(b"data: {"):
            event = json.loads(line.removeprefix(b"data: "))
            if event.get("usage"):
                written = event["usage"]["completion_tokens"]
            elif piece := event["choices"][0]["text"]:
                text += piece
                arrived.append((time.perf_counter(), len(piece)))
    writer.close()
    if written != request["max_tokens"]:
        raise RuntimeError(f"a stream that broke off after {len(text)} symbols")
    return Told(text, asked, tuple(arrived))


async def burst(port: int, requests: list[dict]) -> list[Told | BaseException]:
    """All at once."""
    return await asyncio.gather(*(streamed(port, request) for request in requests), return_exceptions=True)


async def steady(port: int, turns: list[list[dict]]) -> list[Told | BaseException]:
    """A client for each list, whose next text follows the one before."""

    async def client(requests: list[dict]) -> list[Told | BaseException]:
        return [(await burst(port, [request]))[0] for request in requests]

    return [told for one in await asyncio.gather(*map(client, turns)) for told in one]


@contextlib.contextmanager
def server(models: str) -> Iterator[int]:
    """`charlm serve`, ready, at a port."""
    command = [CHARLM, "serve", "--models", models, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)", process.stderr.readline())[1])
        threading.Thread(target=process.stderr.read, daemon=True).start()  # its access log
        try:
            while not _ready(port):
                if process.poll() is not None:
                    raise RuntimeError("the server has ended")
                time.sleep(0.2)
            yield port
        finally:
            process.terminate()


def _ready(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ready") as answer:
        return answer.status == 200
    return False


def generated(models: str) -> float:
    """Symbols per second of `charlm generate --samples 64`, without its start: what a longer text takes more."""
    seconds = []
    for length in SHORT, LONG:
        command = [CHARLM, "generate", "--models", models, "--prompt", "The ", "--seed", "1", "--json"]
        began = time.perf_counter()
        subprocess.run(
            [*command, "--samples", str(SAMPLES), "--length", str(length)], check=True, stdout=subprocess.DEVNULL
        )
        seconds.append(time.perf_counter() - began)
    return SAMPLES * (LONG - SHORT) / (seconds[1] - seconds[0])


def asked_for(corpus: str) -> list[dict]:
    """What the clients ask: pieces of a corpus, each with its own seed and temperature."""
    text, chance = Path(corpus).read_text("utf-8"), random.Random(1)
    places = [(at, at + chance.randrange(1, 200)) for at in chance.sample(range(len(text) - 200), CLIENTS)]
    return [
        {"prompt": text[a:b], "seed": n, "temperature": chance.choice([0.6, 0.8, 1.0]), "max_tokens": LENGTH}
        for n, (a, b) in enumerate(places)
    ]


class Load:
    """What was seen of one kind of load, over all rounds."""

    def __init__(self, name: str, expected: Callable[[int], str] | None = None) -> None:
        self.name, self._expected = name, expected
        self.told: list[Told] = []
        self.rates: list[float] = []
        self.errors = self.different = 0

    def add(self, requests: Iterable[dict], found: Iterable[Told | BaseException]) -> None:
        good = []
        for request, told in zip(requests, found, strict=True):
            if isinstance(told, BaseException):
                self.errors += 1
                continue
            good.append(told)
            if self._expected:
                self.different += told.text != self._expected(request["seed"])[: request["max_tokens"]]
        symbols = sum(len(told.text) for told in good)
        self.rates.append(symbols / (max(t.ended for t in good) - min(t.asked for t in good)))
        self.told += good

    def row(self) -> str:
        first = [told.first for told in self.told]
        steps = [
            (after - before, symbols)
            for told in self.told
            for (before, _), (after, symbols) in zip(told.arrived, told.arrived[1:], strict=False)
        ]
        gaps, symbols = np.array(steps).T
        between = np.repeat(gaps / symbols, symbols.astype(int))
        times = [f"{both(values)}" for values in (first, gaps, between)]
        cells = [
            self.name,
            len(self.told),
            f"{statistics.median(self.rates):,.0f}",
            *times,
            self.errors,
            self.different if self._expected else "",
        ]
        return f"| {' | '.join(map(str, cells))} |"


def both(seconds: Iterable[float]) -> str:
    """The median and the 99th percentile in milliseconds."""
    values = np.percentile(np.asarray(list(seconds)) * 1000, [50, 99])
    return " / ".join(f"{value:,.0f}" if value >= 10 else f"{value:.1f}" for value in values)


def main() -> None:
    corpus, chance = sys.argv[1], random.Random(2)
    with tempfile.TemporaryDirectory() as models:
        charlm.train(corpus, preset="tiny", layers=2, units=512, steps=150, models=models)
        requests = asked_for(corpus)
        lone: dict[int, Told] = {}
        alone = Load("1 client")
        together = Load(f"{CLIENTS} clients at once", lambda seed: lone[seed].text)
        going = Load(f"{CLIENTS} clients, texts of 100 to {LENGTH}", lambda seed: lone[seed].text)
        generations = []
        share = CLIENTS // ROUNDS
        bursts = []
        with server(models) as port:
            for n in range(ROUNDS):
                for request in requests[n * share : (n + 1) * share]:
                    lone[request["seed"]] = asyncio.run(streamed(port, request))
                    alone.add([request], [lone[request["seed"]]])
                bursts.append(asyncio.run(burst(port, requests)))
                generations.append(generated(models))
                print(
                    f"round {n + 1} of {ROUNDS}: {alone.rates[-1]:,.0f}, {generations[-1]:,.0f} symbols/s", flush=True
                )
            for found in bursts:
                together.add(requests, found)
            turns = [
                [{**requests[(n + k * 67) % CLIENTS], "max_tokens": chance.randrange(100, LENGTH)} for k in range(EACH)]
                for n in range(CLIENTS)
            ]
            going.add([request for turn in turns for request in turn], asyncio.run(steady(port, turns)))
    one, many, samples = (statistics.median(rates) for rates in (alone.rates, together.rates, generations))
    page = TEXT.read_text("utf-8").format(
        measured=heading("make load", "fastapi", "uvicorn"),
        rows="\n".join(load.row() for load in (alone, together, going)),
        one=f"{one:,.0f}",
        many=f"{many:,.0f}",
        samples=f"{samples:,.0f}",
        over_one=f"{many / one:.1f}",
        over_samples=f"{many / samples:.2f}",
        rounds=ROUNDS,
        length=LENGTH,
    )
    PAGE.write_text(page, "utf-8")
    print(page)


if __name__ == "__main__":
    main()
