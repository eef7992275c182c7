"""Versions for TensorFlow Serving: a reader that polls their folder, kill -9, and the requests that warm them up."""

import hashlib
import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

from small_runs import CHARLM, trained

import charlm.export.warmup

PACKAGES = ("tensorflow-serving-api",)
VERSIONS, KILLS, SEED = 10, 20, 1
REPLAY = Path(__file__).resolve().parent.parent.parent / "tests/replay.py"
NOTE = (
    "versions: no binary of TensorFlow Serving was at hand. What stood for it: a reader that lists the folder a\n"
    "thousand times a second and reads every numeric folder as soon as it is there; and a process that cannot import\n"
    "charlm, reads the requests by the definitions of tensorflow-serving-api, and runs each in a session by the names\n"
    "of its signature."
)


def digest(folder: Path) -> str:
    """The SHA-256 of all that is in a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b""))
    return found.hexdigest()


def numbered(place: Path) -> list[Path]:
    """The folders in which TensorFlow Serving would look."""
    return [path for path in place.glob("*") if path.name.isdecimal()]


class Reader(threading.Thread):
    """Polls a folder and reads each version once, as soon as it sees it."""

    def __init__(self, place: Path) -> None:
        super().__init__(daemon=True)
        self.place, self.polls, self.seen, self.ended = place, 0, {}, False

    def run(self) -> None:
        while not self.ended:
            for path in numbered(self.place):
                if path.name not in self.seen:
                    self.seen[path.name] = digest(path)
            self.polls += 1
            time.sleep(0.001)  # for the exports share the processor


def export(folder: Path, version: int) -> subprocess.Popen[bytes]:
    command = [CHARLM, "export", folder / "writer", "--version", version, "--models", folder, "--model", "run"]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def polled(folder: Path) -> dict[str, str]:
    """A row on versions that a reader saw."""
    reader = Reader(folder / "writer")
    reader.start()
    for version in range(1, VERSIONS + 1):
        assert export(folder, version).wait() == 0
    time.sleep(1)
    reader.ended = True
    reader.join()
    whole = sum(digest(path) == reader.seen[path.name] for path in numbered(folder / "writer"))
    again = export(folder, VERSIONS).wait()
    return {
        "what": "a reader polls a folder while versions are exported into it",
        "tried": f"{VERSIONS} versions, {reader.polls:,} polls; the last version once more",
        "survived": f"{whole} of {VERSIONS} were whole when first seen, and as they were at the end; once more: exit "
        f"code {again}",
    }


def killed(folder: Path) -> dict[str, str]:
    """A row on exports that are killed while their draft is there."""
    chance, place = random.Random(SEED), folder / "writer"
    before, kills, there = {path.name: digest(path) for path in numbered(place)}, 0, 0
    for version in range(VERSIONS + 1, VERSIONS + 1 + KILLS):
        process = export(folder, version)
        while process.poll() is None and not list(place.glob(f".*-{version}")):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 4))
        process.kill()
        if process.wait():
            kills += 1
            there += (place / str(version)).exists()
    same = sum(digest(place / name) == found for name, found in before.items())
    return {
        "what": "kill -9 while a version is written or checked",
        "tried": f"{kills} kills at random moments",
        "survived": f"{there} numeric folders of those; {same} of {len(before)} earlier versions as they were; "
        f"{len(list(place.glob('.*')))} hidden drafts stay, which TensorFlow Serving passes over",
    }


def warmed(path: Path) -> dict[str, str]:
    """A row on the requests of a version."""
    command = [sys.executable, "-I", str(REPLAY), "api", str(path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    answers = [json.loads(line) for line in said.splitlines()]
    first, again = (answer["seconds"] * 1000 for answer in answers if answer["signature"] == "generate")
    signatures = {answer["signature"] for answer in answers}
    return {
        "what": f"the requests in `{charlm.export.warmup.FILE}` are read and run",
        "tried": f"{len(answers)} requests to {len(signatures)} signatures",
        "survived": f"{len(answers)} answered; a text of 80 symbols took {first:.0f} ms, and {again:.0f} ms again",
    }


def measure(folder: Path) -> list[dict[str, str]]:
    trained(folder)
    (folder / "writer").mkdir()
    return [polled(folder), killed(folder), warmed(folder / "writer" / str(VERSIONS))]
