"""The house: a module imports only from lower floors, and the lower floors do not import TensorFlow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import charlm

FLOORS = [
    {"errors", "cell"},
    {"settings", "cells", "files", "cluster"},
    {"config", "questions", "interrupts", "machine", "reading", "score", "time_budget"},
    {"sources", "corpora", "presets", "tokenizer", "events", "operands", "runtime", "replicas", "progress"},
    {"records", "drafts", "pool"},
    {"corpus"},
    {"windows", "series", "pairs", "encoding"},
    {"tokenizers"},
    {"idcache", "recurrence", "sampling", "checkpoint"},
    {"scan", "dataset", "runs", "weights", "divergence"},
    {"model", "shelf", "trained"},
    {"origin"},
    {"tbptt", "decoder", "session"},
    {"decoding"},
    {"generation", "search"},
    {"evaluation", "forecast", "translation", "beam"},
    {"validation", "workers"},
    {"training"},
    {"trial"},
    {"display"},
    {"language_model"},
    {"api"},
    {"page"},
    {"export", "serve"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
PACKAGE = Path(charlm.__file__).parent
# What `charlm --help`, and preparing a corpus, must not wait for.
LIGHT = [
    "errors",
    "settings",
    "config",
    "presets",
    "files",
    "machine",
    "reading",
    "sources",
    "corpus",
    "corpora",
    "tokenizers",
    "series.choice",
    "series.tables",
    "windows",
    "idcache",
    "dataset",
]
LIGHT += ["checkpoint", "runs", "shelf", "weights", "origin", "session", "cli"]


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(("charlm", *path.relative_to(PACKAGE).with_suffix("").parts)), path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from ([f"charlm.{alias.name}" for alias in node.names] if node.module == "charlm" else [node.module])


@pytest.mark.parametrize(("module", "path"), list(modules())[1:])
def test_a_room_imports_from_lower_floors_alone(module, path):
    room = room_of(module)
    assert room in FLOOR, f"charlm/{room} has no floor yet: give it one here"
    for imported in imports(path):
        if imported.startswith("charlm.") and room_of(imported) in FLOOR and room_of(imported) != room:
            assert FLOOR[room_of(imported)] < FLOOR[room], f"{module} imports {imported}, which is not below it"


def test_no_room_is_listed_that_is_not_there():
    assert {room_of(module) for module, _ in modules()} - {"__init__"} == set(FLOOR)


@pytest.mark.parametrize("room", LIGHT)
def test_light_rooms_do_not_import_tensorflow(room):
    code = f"import sys, charlm.{room}; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_waits_for_no_package_but_click():
    code = "import sys; sys.argv[1:] = ['--help']; from charlm.cli import main; main()"
    said = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)
    imported = {line.split("|")[-1].strip().split(".")[0] for line in said.stderr.splitlines()}
    heavy = {"asyncio", "email", "numpy", "safetensors", "sentencepiece", "tensorflow", "tqdm", "zstandard"}
    assert imported & {"click", *heavy} == {"click"}
