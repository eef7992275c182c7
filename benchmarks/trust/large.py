"""A text much larger than memory should have to be: what it takes, and what a stop costs."""

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from small_runs import CHARLM, make_corpus

from charlm.machine import cores
from charlm.runs import Run
from charlm.tokenizer import code_points

GIGABYTES = float(os.environ.get("CORPUS_GB", "10"))
RATED = {"char": 1.0, "byte": 1.0, "sentencepiece": 0.1}  # gigabytes, at most
SCRIPTS = (
    "Все люди рождаются свободными\nすべての人間は、生まれながら\nΌλοι οι άνθρωποι\nيولد جميع الناس\n人人生而自由\n"
)
OPTIONS = ("--units=64", "--layers=1", "--embedding=16", "--lanes=16", "--bptt=32", "--tokenizer=char")
MOST_MEGABYTES = 500
SEED = 1
NOTE = (
    "large: Python's reference text with changing numbers, and lines in other scripts, of CORPUS_GB (10); memory is\n"
    "anonymous (RssAnon), of a training and its processes together. Rates are of encoding alone, by the clock, beside\n"
    "`LC_ALL=C.UTF-8 wc -m` on the same file just before; other programs may be at work."
)
RATE = """
import sys, time
from pathlib import Path
from charlm.corpus import open_corpus
from charlm.idcache import cached_records
from charlm.tokenizers import TOKENIZERS
corpus = open_corpus([sys.argv[1]])
tokenizer = TOKENIZERS[sys.argv[2]].train(lambda: corpus.pieces(0, 1_000_000), 2000)
begun = time.monotonic()
cached_records(corpus, (0, corpus.chars), tokenizer, Path(sys.argv[3]))
print(corpus.chars, time.monotonic() - begun)
"""


def make_text(folder: Path, gigabytes: float) -> Path:
    """A large text of several scripts, in which numbers change."""
    lines = make_corpus(folder).read_text("utf-8").splitlines(keepends=True)
    varied = "".join(
        line + ("########\n" if n % 20 == 0 else SCRIPTS if n % 60 == 1 else "") for n, line in enumerate(lines)
    )
    block, path = varied.encode(), folder / f"text-{gigabytes:g}.txt"
    with path.open("wb") as file:
        while file.tell() < gigabytes * 1e9:
            file.write(block.replace(b"########", b"%08d" % (file.tell() % 10**8)))
    return path


def anonymous(pid: int) -> float:
    """RssAnon of a process and of those that it started, in megabytes."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
        own = int(status.split("RssAnon:")[1].split()[0]) / 1024 if "RssAnon:" in status else 0.0
    except OSError:
        return 0.0
    return own + sum(map(anonymous, children))


class Training:
    """A `charlm train`, and the most memory that it took."""

    def __init__(self, text: Path, folder: Path, name: str) -> None:
        command = [CHARLM, "train", text, *OPTIONS, "--steps", "20", "--models", folder / "models", "--name", name]
        environment = os.environ | {"CHARLM_CACHE": str(folder / "cache")}
        self.process = subprocess.Popen(
            list(map(str, command)), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.most = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while self.process.poll() is None:
            self.most = max(self.most, anonymous(self.process.pid))
            time.sleep(0.05)

    def said(self) -> str:
        return self.process.communicate()[1].strip()


def kept(folder: Path) -> tuple[int, int]:
    """How many characters are kept for another start, and how many are encoded."""
    done, drafts = [0], [0]
    for path in (folder / "cache" / "ids").glob(".*"):
        with contextlib.suppress(FileNotFoundError, ValueError):  # it is being written or renamed
            if path.suffix == ".json":
                done.append(json.loads(path.read_text())["done"])
            else:
                drafts.append(path.stat().st_size - 128)
    return max(done), max(drafts)


def stopped(text: Path, folder: Path, number: int, share: float, chance: random.Random) -> tuple[Training, float]:
    """A training that is stopped soon after a share of the text is encoded, and the share to be encoded again."""
    training, size = Training(text, folder, "large"), text.stat().st_size
    while training.process.poll() is None and kept(folder)[0] < share * size:
        time.sleep(0.02)
    time.sleep(chance.uniform(0, 1))
    encoded = kept(folder)[1]
    training.process.send_signal(number)
    print(training.said(), training.process.returncode, flush=True)
    return training, (encoded - kept(folder)[0]) / size


def digest(text: Path, run: Path) -> str:
    """The SHA-256 of the ids of what a run trains on, made here, character by character."""
    record, tokenizer = Run(run).record, Run(run).last().tokenizer()
    table = np.zeros(0x110000, np.uint8)
    table[code_points(tokenizer.characters)] = np.arange(1, tokenizer.vocabulary)
    left, found = round(record["corpus"]["chars"] * record["config"]["data"]["split"][0]), hashlib.sha256()
    with text.open(encoding="utf-8", newline="") as file:
        while left and (part := file.read(min(left, 1 << 20))):
            found.update(table[code_points(part)])
            left -= len(part)
    return found.hexdigest()


def rates(folder: Path, text: Path, name: str) -> str:
    """How fast a tokenizer encodes, on one core and on all."""
    begun = time.monotonic()
    subprocess.run(["wc", "-m", text], env=os.environ | {"LC_ALL": "C.UTF-8"}, check=True, stdout=subprocess.DEVNULL)
    size, found = text.stat().st_size / 1e6, {"`wc -m`": time.monotonic() - begun}
    for how, bound in (("1 core", ["taskset", "-c", "0"]), (f"{cores()} cores", [])):
        command = [*bound, sys.executable, "-c", RATE, text, name, folder / f"rate {name} {how}"]
        chars, seconds = subprocess.check_output(list(map(str, command)), text=True).split()
        found[how] = float(seconds)
    rated = ", ".join(f"{how} {size / seconds:.0f} MB/s" for how, seconds in found.items())
    return f"{rated} ({int(chars) / float(seconds) / 1e6:.0f} million characters/s)"


def measure(folder: Path) -> list[dict[str, str]]:
    made = {size: make_text(folder, min(size, GIGABYTES)) for size in set(RATED.values())}
    rows = [
        {
            "what": f"encoding: {name}",
            "tried": f"{made[size].stat().st_size / 1e9:.2g} GB of text",
            "survived": rates(folder, made[size], name),
        }
        for name, size in RATED.items()
    ]
    print(*rows, sep="\n", flush=True)
    text = make_text(folder, GIGABYTES)
    small = Training(folder / "pydocs.txt", folder, "small")
    assert small.process.wait() == 0, small.said()
    chance = random.Random(SEED)
    killed, again_killed = stopped(text, folder, signal.SIGKILL, 0.2, chance)
    interrupted, again_interrupted = stopped(text, folder, signal.SIGINT, 0.5, chance)
    assert (killed.process.returncode, interrupted.process.returncode) == (-signal.SIGKILL, 130)
    begun = time.monotonic()
    large = Training(text, folder, "large")
    said = large.said()
    assert large.process.returncode == 0, said
    seconds = time.monotonic() - begun
    more = max(killed.most, interrupted.most, large.most) - small.most
    ids = max((folder / "cache" / "ids").glob("[!.]*.npy"), key=lambda file: file.stat().st_size)
    with ids.open("rb") as file:
        file.seek(128)
        same = hashlib.file_digest(file, "sha256").hexdigest() == digest(text, folder / "models" / "large")
    size = f"{text.stat().st_size / 1e9:.2g} GB of text"
    return [
        *rows,
        {
            "what": "a large text: anonymous memory",
            "tried": f"`charlm train --steps 20` on {size}, and on 0.5 MB",
            "survived": f"{small.most + more:.0f} MB at most, {more:.0f} MB more than on the small one "
            f"({'within' if more <= MOST_MEGABYTES else 'NOT WITHIN'} {MOST_MEGABYTES} MB)",
        },
        {
            "what": "kill -9 and Ctrl-C while a large text is encoded",
            "tried": f"`charlm train` on {size}, stopped at a fifth and at half",
            "survived": f"{100 * again_killed:.1f} % and {100 * again_interrupted:.1f} % are encoded again; the third "
            f"start ends after {seconds:.0f} s; SHA-256 of the ids "
            f"{'equal to that of ids made one by one' if same else 'DIFFERS'}",
        },
    ]
