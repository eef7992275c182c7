"""`charlm serve` before clients that mean no good, are slow, go away, and with an engine that dies."""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bad_requests import ENDLESS, HALF, REFUSED, Told, ended, endless, posted, tell
from load import streamed
from small_runs import CHARLM

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent.parent / "models"
PACKAGES = ("schemathesis", "fastapi", "uvicorn", "h11")
CASES, AT_ONCE = 5000, 0.1  # seconds
REFUSALS = [400, 404, 405, 413, 415]
ARRIVAL, CROWD = 2, 500
CLIENTS, SLOW, LEAVING, SECONDS_OF_SLOW = 200, 50, 50, 20
REQUESTS, WARM_UP = 10_000, 2000
LONG = posted(b'{"max_tokens": 10000, "n": 8}')
DEATHS = ("RuntimeError", "MemoryError", "SystemExit")
NOTE = (
    "server: `charlm serve` with models/kjv-small in a process of its own. schemathesis draws requests from the\n"
    "server's own description, right ones and wrong ones; how much all fields ask for together, how long columns are\n"
    "beside each other and what base 64 hides, no schema can say. A slow client reads a byte a second,\n"
    f"and the rest after {SECONDS_OF_SLOW} seconds. The engine is killed by {', '.join(DEATHS)}, each raised in\n"
    "its thread while it loads, waits and writes."
)


@dataclass(frozen=True)
class Server:
    """A server that runs, and where."""

    process: subprocess.Popen[str]
    port: int

    def get(self, path: str) -> tuple[int, str]:
        """The status, 0 if there is no answer, and the text."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait(self, path: str, status: int) -> float:
        """The seconds until an address has a status."""
        began = time.perf_counter()
        while self.get(path)[0] != status:
            assert time.perf_counter() < began + 600, f"{path} is not {status}"
            time.sleep(0.01)
        return time.perf_counter() - began

    @property
    def anonymous(self) -> int:
        """KiB of memory that no file is behind."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+)", status)[1])

    def compiled(self) -> None:
        """Waits until all sizes of batches are there."""
        while "charlm_slots 256.0" not in self.get("/metrics")[1]:
            time.sleep(0.5)

    def free(self) -> float:
        """The seconds until no row is taken and nobody waits."""
        began = time.perf_counter()
        while not {"charlm_slots_busy 0.0", "charlm_queue 0.0"} <= {*self.get("/metrics")[1].splitlines()}:
            assert time.perf_counter() < began + 600
            time.sleep(0.01)
        return time.perf_counter() - began


@contextlib.contextmanager
def serving(*options: str, ready: bool = True, **environment: str) -> Iterator[Server]:
    command = [CHARLM, "serve", "--models", MODELS, "--model", "kjv-small", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}) as process:
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)", process.stderr.readline())[1])
        threading.Thread(target=process.stderr.read, daemon=True).start()
        server = Server(process, port)
        try:
            server.wait("/ready" if ready else "/health", 200)
            yield server
        finally:
            process.kill()


def described(folder: Path) -> dict[str, str]:
    """Cases that schemathesis draws from the description."""
    answers, report = folder / "answers", folder / "report.json"
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "described", "PYTHONPATH": path, "ANSWERS": str(answers)}
    (folder / "schemathesis.toml").write_text(f"[checks]\nnegative_data_rejection.expected-statuses = {REFUSALS}\n")
    generated, failures = 0, 0
    with serving("--max-length", "32", "--max-symbols", "2048") as server:
        for seed in range(1, 100):
            url = f"http://127.0.0.1:{server.port}/openapi.json"
            how = f"--max-examples 1000 --seed {seed} --continue-on-failure --phases examples,coverage,fuzzing".split()
            checks = ["--exclude-checks", "positive_data_acceptance", "--report-json-path", report]
            command = [Path(sys.executable).with_name("schemathesis"), "run", url, *how, *checks]
            with (folder / "said").open("w") as said:
                subprocess.run(command, env=environment, cwd=folder, stdout=said, check=False)
            found = json.loads(report.read_text())
            print((folder / "said").read_text() if found["failures"] else "", found["test_cases"], flush=True)
            generated += found["test_cases"]["generated"]
            failures += found["test_cases"]["unique_failures"] + len(found["errors"])
            if generated >= CASES:
                break
        lives = server.get("/health")[0] == 200
    told = [Told(*json.loads(line)) for line in answers.read_text().splitlines()]
    refused = [one.seconds for one in told if 400 <= one.status < 500]
    late = sum(seconds > AT_ONCE for seconds in refused)
    return {
        "what": "requests by the server's own description, right and wrong ones",
        "tried": f"{generated:,} by schemathesis, {len(refused):,} of them refused",
        "survived": f"{failures} failures; {sum(one.status >= 500 for one in told)} answers of 500 or more; "
        f"{late} refusals later than 100 ms, half within {1000 * statistics.median(refused):.0f} ms; "
        f"it {'lives' if lives else 'IS DEAD'}",
    }


def bad() -> dict[str, str]:
    """What is no request, and half of one."""
    with serving("--max-arrival", str(ARRIVAL)) as server:
        server.compiled()
        for sent in REFUSED.values():
            tell(server.port, [sent])
        before, told = server.anonymous, {}
        for round_ in range(10):
            for name, sent in REFUSED.items():
                told[name, round_] = tell(server.port, [sent])
            for name, (begin, more) in ENDLESS.items():
                told[name, round_] = tell(server.port, endless(begin, more))
        wrong = {name: one for name, one in told.items() if one.status and not 400 <= one.status < 500}
        late = {name: one for name, one in told.items() if one.seconds > AT_ONCE}
        print("wrong", wrong, "late", late, flush=True)
        open_for = {name: ended(server.port, sent) for name, sent in HALF.items()}
        crowd = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(CROWD)]
        for client in crowd:
            client.sendall(HALF["half a head"])
        healthy = server.get("/health")[0]
        for client in crowd:
            assert client.recv(1) == b""
            client.close()
        grown = server.anonymous / before - 1
    return {
        "what": "what is no request: bodies, headers and chunks without end, half requests, numbers that are none",
        "tried": f"{len(told):,} of {len(REFUSED) + len(ENDLESS)} kinds, {len(HALF)} half ones, and {CROWD} at once",
        "survived": f"{len(told) - len(wrong):,} refused or their connection ended, {len(late)} of them later than "
        f"100 ms; half requests ended within {max(open_for.values()):.1f} s (--max-arrival {ARRIVAL}), meanwhile "
        f"/health is {healthy}; anonymous memory {grown:+.1%} of {before / 1024:,.0f} MiB",
    }


def asked(seed: int, length: int) -> dict[str, object]:
    return {"prompt": f"And {seed} ", "max_tokens": length, "seed": seed, "temperature": 1}


async def opened(port: int, request: dict[str, object]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    body = json.dumps({**request, "stream": True}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 12)
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    return reader, writer


async def slow(port: int, request: dict[str, object]) -> str:
    """The text of a client that reads a byte a second, for a while."""
    reader, writer = await opened(port, request)
    content = b""
    for _ in range(SECONDS_OF_SLOW):
        content += await reader.read(1)
        await asyncio.sleep(1)
    content += await reader.read()
    writer.close()
    events = re.findall(rb"^data: (\{.*\})$", content, re.M)
    return "".join(choice["text"] for event in events for choice in json.loads(event)["choices"])


async def leaving(port: int, request: dict[str, object]) -> None:
    """A client that goes away after the first words."""
    reader, writer = await opened(port, request)
    await reader.readuntil(b'"text": ')
    writer.transport.abort()


async def crowd(port: int, lone: dict[int, str], length: int) -> int:
    """How many clients got another text than they would alone, when they ask all together."""
    seeds = list(lone)
    fast = [streamed(port, asked(seed, length)) for seed in seeds[SLOW:]]
    slows = [slow(port, asked(seed, length)) for seed in seeds[:SLOW]]
    gone = [leaving(port, asked(10_000 + n, 10_000)) for n in range(LEAVING)]
    found = await asyncio.gather(*slows, *fast, *gone)
    texts = [one if isinstance(one, str) else one.text for one in found[: len(seeds)]]
    return sum(text != lone[seed] for seed, text in zip(seeds, texts, strict=True))


async def many(port: int, count: int, rng: random.Random) -> None:
    """Requests of all kinds, some at a time."""
    turns = iter(range(count))

    async def client() -> None:
        for n in turns:
            length = rng.randrange(1, 60)
            if n % 10 == 0:
                await leaving(port, asked(n, 2000))
            elif n % 10 == 1:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(rng.choice(list(REFUSED.values())))
                await reader.read(16)
                writer.transport.abort()
            else:
                await streamed(port, asked(n, length))

    await asyncio.gather(*(client() for _ in range(32)))


def clients() -> list[dict[str, str]]:
    """Slow ones and ones that go away among others; memory in the long run."""
    length, rng = 1000, random.Random(1)
    with serving() as server:
        server.compiled()
        lone = {n: asyncio.run(streamed(server.port, asked(n, length))).text for n in range(CLIENTS - LEAVING)}
        asyncio.run(many(server.port, WARM_UP, rng))
        different, freed = asyncio.run(crowd(server.port, lone, length)), server.free()
        asyncio.run(gone_together(server.port))
        freed_of_gone = server.free()
        before = server.anonymous
        asyncio.run(many(server.port, REQUESTS, rng))
        server.free()
        grown = server.anonymous / before - 1
    return [
        {
            "what": "clients that read a byte a second, and clients that go away, among others",
            "tried": f"{CLIENTS} clients at once, {SLOW} of them slow, {LEAVING} go away after their first words",
            "survived": f"{len(lone) - different} of {len(lone)} texts are those of the same seeds alone; rows free "
            f"{freed:.2f} s after the last, and {freed_of_gone:.2f} s after all {CLIENTS} went away together",
        },
        {
            "what": "many requests, one in ten given up, one in ten wrong",
            "tried": f"{REQUESTS:,} after {WARM_UP:,} to warm up",
            "survived": f"anonymous memory {grown:+.1%} of {before / 1024:,.0f} MiB",
        },
    ]


async def gone_together(port: int) -> None:
    await asyncio.gather(*(leaving(port, asked(20_000 + n, 10_000)) for n in range(CLIENTS)))


def death(kind: str, moment: str) -> float:
    """The seconds until /health is no longer 200, after the engine's thread got an exception."""
    more = {
        "MORTAL": kind,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE / "mortal"), os.getenv("PYTHONPATH")])),
    }
    with serving(ready=moment != "loads", **more) as server, socket.socket() as client:
        client.connect(("127.0.0.1", server.port))
        if moment == "writes":
            client.sendall(LONG)
            time.sleep(0.3)
        server.process.send_signal(signal.SIGUSR1)
        if moment == "waits":
            client.sendall(LONG)  # it does nothing, and cannot end, before it is asked for something
        return server.wait("/health", 503)


def deaths() -> dict[str, str]:
    found = {(kind, moment): death(kind, moment) for kind in DEATHS for moment in ("loads", "waits", "writes")}
    print(found, flush=True)
    return {
        "what": "the engine's thread ends by an exception",
        "tried": f"{len(DEATHS)} kinds of exceptions, while it loads, waits and writes",
        "survived": f"/health is 503 within {max(found.values()):.2f} s in {len(found)} of {len(found)}",
    }


def measure(folder: Path) -> list[dict[str, str]]:
    return [described(folder), bad(), *clients(), deaths()]
