"""Run directories from strangers, in tests/attacks, through every command that reads a run."""

import hashlib
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attacks import ATTACKS
from processes import Ended, charlm

MOST_MEGABYTES = 512.0
SIZES = ["--units", "8", "--layers", "1", "--embedding", "8", "--lanes", "2", "--bptt", "8", "--dropout", "0"]
COMMANDS = {
    "info": "info --model models/run",
    "runs": "runs --models models",
    "generate": "generate --model models/run --prompt a --length 5",
    "train --resume": "train --models models --name run --resume --steps 3",
    "train --from": "train text.txt --models new --from models/run --lanes 2 --bptt 8 --steps 1",
    "export": "export --model models/run --format keras out.keras",
    "serve": "serve --model models/run --port 0",
}
STARTED = "see /docs"
NOTE = (
    f"strangers: {len(ATTACKS)} run directories of `tests/attacks`, through {', '.join(COMMANDS)}.\n"
    "A refusal is one line and the exit code 2, 3 or 5. What only a training would fall for is read by the others,\n"
    f"and a training refuses it. A failure is more memory than {MOST_MEGABYTES:.0f} MB above that of a good run, two\n"
    "minutes, a traceback, a control character, or any change outside the run. Where a layer lacks one of its\n"
    "kernels, a training says so after TensorFlow has started and after other lines, which is counted as a failure."
)


def contents(folder: Path) -> dict[Path, str]:
    """The digests of the files in a folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.name != "good"}


def world(folder: Path, good: Path) -> Path:
    """A folder to type commands in, with a copy of a good run."""
    folder.mkdir()
    (folder / "outside").mkdir()
    (folder / "text.txt").write_text("What is so, is so.\n" * 200)
    shutil.copytree(good, folder / "models" / "run")
    return folder


def kind_of(command: str, ended: Ended, bare: float, unchanged: bool) -> str:
    """What came of an attack in a word."""
    if not unchanged:
        return "wrote outside"
    if ended.code is None:
        return "did not end"
    if ended.megabytes > bare + MOST_MEGABYTES:
        return "took too much memory"
    if ended.refused:
        return "refused"
    harmless = ended.code in (0, -15, 130) and command != "train --resume" and "Traceback" not in ended.said
    return "harmless" if harmless else "failed otherwise"


def tried(name: str, folder: Path, good: Path, bare: dict[str, float]) -> Counter[str]:
    """An attack, through all commands; each has a run of its own."""
    kinds: Counter[str] = Counter()
    for number, (command, words) in enumerate(COMMANDS.items()):
        place = world(folder / f"{name.replace('/', ' ')} {number}", good)
        ATTACKS[name](place / "models" / "run", place / "outside")
        before = contents(place / "outside")
        ended = charlm(*words.split(), folder=place, until=STARTED if command == "serve" else None)
        kind = kind_of(command, ended, bare[command], contents(place / "outside") == before)
        kinds[kind] += 1
        if kind not in ("refused", "harmless"):
            print(f"{kind}: {name}: {command}: {ended}", flush=True)
        shutil.rmtree(place)
    return kinds


def measure(folder: Path) -> list[dict[str, str]]:
    (folder / "text.txt").write_text("What is so, is so.\n" * 200)
    charlm("train", "text.txt", *SIZES, "--steps", "2", "--name", "good", folder=folder)
    good, bare = folder / "models" / "good", {}
    for older in sorted((good / "checkpoints").iterdir())[:-1]:  # else a run goes on from the one before a damaged one
        shutil.rmtree(older)
    for number, (command, words) in enumerate(COMMANDS.items()):
        place = world(folder / f"bare {number}", good)
        ended = charlm(*words.split(), folder=place, until=STARTED if command == "serve" else None)
        assert ended.code in (0, -15, 130), ended
        bare[command] = ended.megabytes
    with ThreadPoolExecutor(3) as pool:
        kinds = sum(pool.map(lambda name: tried(name, folder, good, bare), ATTACKS), Counter())
    bad = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if kind not in ("refused", "harmless"))
    return [
        {
            "what": "a run directory from a stranger",
            "tried": f"{len(ATTACKS)} attacks through {len(COMMANDS)} commands",
            "survived": f"{kinds['refused']} refused in one line, {kinds['harmless']} read without harm"
            + (f"; NOT: {bad}" if bad else ", none else"),
        }
    ]
