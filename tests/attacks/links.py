"""Links out of the run, pipes, devices, names that terminals obey, and folders full of files."""

import os
import shutil
from pathlib import Path


def checkpoint(run: Path) -> Path:
    return sorted((run / "checkpoints").glob("step-*"))[-1]


def moved_out(place: Path, outside: Path) -> None:
    shutil.move(place, outside / place.name)
    place.symlink_to(outside / place.name)


def to_a_file_of_the_users(name: str):
    def attack(run: Path, outside: Path) -> None:
        (outside / "bashrc").write_text("no line end")
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(outside / "bashrc")

    return attack


def to_nothing(run: Path, outside: Path) -> None:
    (run / "metrics.jsonl").unlink(missing_ok=True)
    (run / "metrics.jsonl").symlink_to(outside / "new")


def checkpoints_elsewhere(run: Path, outside: Path) -> None:
    moved_out(run / "checkpoints", outside)


def in_the_place_of(name: str, device: str | None, of_checkpoint: bool):
    def attack(run: Path, outside: Path) -> None:
        place = (checkpoint(run) if of_checkpoint else run) / name
        place.unlink(missing_ok=True)
        place.symlink_to(device) if device else os.mkfifo(place)

    return attack


def names_of_files(*names: str):
    def attack(run: Path, outside: Path) -> None:
        for name in names:
            (checkpoint(run) / name).write_text("{}")

    return attack


def a_million_files(run: Path, outside: Path) -> None:
    for n in range(1_000_000):
        os.mknod(checkpoint(run) / f"file-{n}")


WRITES_ALONE = {
    "the log is a link to a file of the user's": to_a_file_of_the_users("metrics.jsonl"),
    "the lock is a link to a file of the user's": to_a_file_of_the_users("lock"),
    "the log is a link to a file that is not there": to_nothing,
    "checkpoints is a link out of the run": checkpoints_elsewhere,
    "the log is a pipe": in_the_place_of("metrics.jsonl", None, False),
    "the log is a device": in_the_place_of("metrics.jsonl", "/dev/zero", False),
    "the lock is a pipe": in_the_place_of("lock", None, False),
}
READ = [
    (name, device, True)
    for name in ("MANIFEST.json", "progress.json", "weights.safetensors", "tokenizer.json", "config.json")
    for device in (None, "/dev/zero")
]
LINKS = WRITES_ALONE | {
    f"{name} is {'a device' if device else 'a pipe'}": in_the_place_of(name, device, inside)
    for name, device, inside in READ
}
LINKS |= {
    "a pickle among the files": names_of_files("model.pkl"),
    "names that terminals obey": names_of_files("\x1b[2J\x1b]0;owned\x07", "a\nb"),
    "a million files": a_million_files,
}
