"""Configurations, tokenizers and standings with values that they should not have, sealed as charlm seals them."""

import json
from pathlib import Path

import numpy as np
import safetensors.numpy
from fuzzing import seal

from attacks.links import checkpoint
from charlm.files import sealed, to_json, unsealed

DEEP, HUGE = b"[" * 1_000_000 + b"]" * 1_000_000, b'{"a":' + b"9" * 100_000 + b"}"
WIDE = b"[" + b"{}," * 5_000_000 + b"{}]"


def replaced(name: str, content: bytes):
    """Another content of a file of the checkpoint, and of the run's own where it has one of the name."""

    def attack(run: Path, outside: Path) -> None:
        place = checkpoint(run)
        for file in (place / name, *([run / name] if (run / name).exists() else [])):
            file.write_bytes(content)
        if name != "MANIFEST.json":
            seal(place)

    return attack


def configured(table: str, name: str, **values):
    """Other values in a table of a JSON file."""

    def attack(run: Path, outside: Path) -> None:
        place = checkpoint(run)
        for file in (place / name, *([run / name] if (run / name).exists() else [])):
            record = unsealed(json.loads(file.read_bytes()))
            part = record
            for key in filter(None, table.split(".")):
                part = part[key]
            part.update(values)
            file.write_bytes(to_json(sealed(record) if name == "config.json" else record, indent=2))
        seal(place)

    return attack


def narrow(run: Path, outside: Path) -> None:
    """A small file for which a network of 16 TB would be built."""
    units, place = 1_000_000, checkpoint(run)
    configured("config.model", "config.json", units=units, embedding=1, layers=1, tie=False)(run, outside)
    vocabulary = json.loads((place / "config.json").read_bytes())["config"]["model"]["vocabulary"]
    shapes = {"embedding": (vocabulary, 1), "bias": (vocabulary,), "layers.0.kernel": (1, 4 * units)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    arrays["projection"] = np.zeros((units, vocabulary), np.float32)
    (place / "weights.safetensors").write_bytes(safetensors.numpy.save(arrays))
    seal(place)


def layered(run: Path, outside: Path) -> None:
    """A hundred thousand layers that hold nothing."""
    place, count = checkpoint(run), 100_000
    configured("config.model", "config.json", layers=count)(run, outside)
    arrays = safetensors.numpy.load((place / "weights.safetensors").read_bytes())
    arrays |= {f"layers.{n}.kernel": np.zeros((0,), np.float32) for n in range(count)}
    (place / "weights.safetensors").write_bytes(safetensors.numpy.save(arrays))
    seal(place)


OF_MODEL = {
    "units of 10^9": {"units": 10**9},
    "a vocabulary of 10^9": {"vocabulary": 10**9},
    "no vocabulary": {"vocabulary": 0},
    "a vocabulary below 0": {"vocabulary": -5},
    "10^6 layers": {"layers": 10**6},
    "an embedding of 10^12": {"embedding": 10**12},
    "a cell that is a path": {"cell": "../../evil"},
    "units that are no number": {"units": float("nan")},
    "units of 400 digits": {"units": 10**400},
}
VALUES = {what: configured("config.model", "config.json", **values) for what, values in OF_MODEL.items()} | {
    "a small file for a huge network": narrow,
    "many layers of nothing": layered,
    "a tokenizer that is a path": configured("config.data", "config.json", tokenizer="../../etc/passwd"),
    "paths that are no texts": configured("corpus", "config.json", paths=[1, None]),
    "a path that no file can have": configured("corpus", "config.json", paths=["a\0b"]),
    "a path of half a character": configured("corpus", "config.json", paths=["a\ud800"]),
    "a pattern that is none": configured("config.data", "config.json", reset_on="a{99999999999999999999}"),
    "a scored step that is a text": configured("", "progress.json", scored="x"),
    "characters that are no number": configured("corpus", "config.json", chars="\x1b[2J"),
    "a corpus that is none": configured("", "config.json", corpus=[]),
    "an origin of another kind": configured("", "config.json", **{"from": {"run": 3}}),
    "a best step that is a list": configured("", "progress.json", best=[[]]),
    "a score that is a text": configured("", "progress.json", best_nats="\x1b[2J"),
    "a step of 400 digits": configured("", "progress.json", step=10**400),
    "a junk sentencepiece model": configured("config.data", "config.json", tokenizer="sentencepiece"),
    "a junk tokenizer": replaced("tokenizer.json", b"\x08\x96\x01" * 100),
}
for name in ("config.json", "progress.json", "MANIFEST.json", "tokenizer.json"):
    for what, content in {"deep": DEEP, "wide": WIDE, "huge numbers in": HUGE}.items():
        VALUES[f"{what} {name}"] = replaced(name, content)
