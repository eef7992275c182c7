"""Commands that are told to write where nothing can be written."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from processes import Ended, charlm
from small_runs import trained

AS_OTHERS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")  # root without its right to any file
SIZES = "--units 8 --layers 1 --embedding 8 --lanes 2 --bptt 8 --dropout 0 --steps 1"
COMMANDS = {
    "train": f"train pydocs.txt {SIZES} --models PLACE/models --name new",
    "train, in there": f"train pydocs.txt {SIZES} --models PLACE --name new",
    "export": "export --model run PLACE/serving",
    "export, a file": "export --model run PLACE/model.keras",
    "export --version": "export --model run PLACE --version 1",
    "corpus": "corpus pydocs PLACE/text.txt",
    "forecast --csv": "forecast --model series --horizon 3 --csv PLACE/a.csv",
    "forecast --plot": "forecast --model series --horizon 3 --plot PLACE/a.svg",
}
NOTE = (
    f"places: {', '.join(COMMANDS)}.\n"
    "A refusal is one line, with the exit code 1 or 2, that names the place or where its link leads; no file is left\n"
    "anywhere. Root has given up its right to write into any folder."
)


def closed(place: Path) -> None:
    place.mkdir(mode=0o555)


def hidden(place: Path) -> None:
    place.mkdir(mode=0)


def mounted(place: Path) -> None:
    """A file system that is mounted for reading alone."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", place], check=True)


PLACES: dict[str, Callable[[Path], object]] = {
    "a folder that may only be read": closed,
    "a folder without any permission": hidden,
    "a file system that may only be read": mounted,
    "a file": lambda place: place.write_text("mine"),
    "a link that leads nowhere": lambda place: place.symlink_to("/nowhere/at-all"),
    "a link to itself": lambda place: place.symlink_to(place.name),
    "a device": lambda place: place.symlink_to("/dev/full"),
}
LED_TO = ("/nowhere", "/dev/full")
LONG = "x" * 300  # longer than a name may be


def names(folder: Path) -> set[Path]:
    """Everything in a folder but what this part and the cache keep there."""
    return {path for path in folder.rglob("*") if not {".said", ".cache"} & set(path.parts)}


def refused(words: str, folder: Path, place: str) -> tuple[bool, Ended]:
    before = names(folder)
    ended = charlm(*words.replace("PLACE", place).split(), folder=folder, before=AS_OTHERS)
    lines = [line for line in ended.said.splitlines() if line.startswith("charlm: ") and "warning" not in line]
    named = len(lines) == 1 and any(one in lines[0] for one in (place, *LED_TO)) and "unexpectedly" not in lines[0]
    return ended.code in (1, 2) and named and "Traceback" not in ended.said and names(folder) == before, ended


def measure(folder: Path) -> list[dict[str, str]]:
    trained(folder)
    (folder / "series.csv").write_text("y\n" + "1\n2\n3\n4\n" * 30)
    made = charlm(*f"train series.csv --tokenizer series {SIZES} --name series".split(), folder=folder)
    assert made.code == 0, made
    rows, tries = [], 0
    for what, make in {**PLACES, "a name of 300 letters": None}.items():
        place = LONG if make is None else "place"
        if make:
            make(folder / place)
        found = {name: refused(words, folder, place) for name, words in COMMANDS.items()}
        tries += len(found)
        bad = [name for name, (right, _) in found.items() if not right]
        for name in bad:
            print("NOT", what, name, found[name][1], flush=True)
        if os.path.ismount(folder / place):
            subprocess.run(["umount", folder / place], check=True)
        if make:
            path = folder / place
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        rows.append((what, len(found) - len(bad), bad))
    right = sum(count for _, count, _ in rows)
    wrong = "; ".join(f"{what}: {', '.join(bad)}" for what, _, bad in rows if bad)
    return [
        {
            "what": f"commands are told to write where they cannot: {', '.join(what for what, *_ in rows)}",
            "tried": f"{len(COMMANDS)} commands, {len(rows)} places",
            "survived": f"{right} of {tries} refused in one line" + (f"; NOT: {wrong}" if wrong else ""),
        }
    ]
