"""One whole checkpoint on disk, and the arrays in it.

    models/NAME/checkpoints/step-00001200/
      config.json, tokenizer.json or tokenizer.model
      weights.safetensors   what generation needs
      training.safetensors  optimizer slots and the carried state
      progress.json         step, epoch, cursor, best score, schedule, threads and lane groups
      MANIFEST.json         size and SHA-256 of every file here, and a digest of itself

Whoever loads one verifies all of it. Nothing here is unpickled, and no Keras model file is read.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors

from charlm.config import Config, ModelConfig
from charlm.errors import ModelError, UsageError
from charlm.files import MANIFEST, is_sealed, open_regular, read_json, unsealed, verify_manifest
from charlm.progress import Progress
from charlm.tokenizer import Alphabet, Tokenizer
from charlm.tokenizers import load_alphabet

Arrays = dict[str, npt.NDArray[Any]]
MOST_GATES, MOST_ARRAYS = 16, 32  # of a layer; no cell has so many
SHOWN = 60  # characters of what a record should not hold
LATEST = 2.0**37  # seconds since 1970, the year 6325
LARGEST_HEADER = 1 << 24  # bytes that name arrays
FORMAT = 2  # of runs and checkpoints; larger ones are those of versions to come. From 2 on a record has a digest.


# What tables of a record hold, where they hold it.
RECORDED: dict[str, dict[str, type]] = {
    "record": {"config": dict, "corpus": dict, "from": dict, "versions": dict, "tokenizer": str, "groups": int}
    | {"preset": str},
    "corpus": {"paths": list, "files": int, "bytes": int, "chars": int, "sha256": str},
    "from": {"run": str, "step": int, "weights": str, "checkpoint": str},
}


class Record(dict[str, Any]):
    """A table of a record; what it does not hold, or of another kind, is a ModelError."""

    def __init__(self, values: Mapping[str, Any], path: Path, table: str = "record") -> None:
        self._where = f"{path}: is damaged, or not charlm's: {table}"
        for key, kind in RECORDED[table].items():
            if key in values and not _is_of(values[key], kind):
                raise ModelError(f"{self._where}: {key} is {json.dumps(values[key])[:SHOWN]}")
        inner = [key for key, kind in RECORDED[table].items() if kind is dict and key in RECORDED and key in values]
        tables = {key: Record(values[key], path, key) for key in inner}
        super().__init__({**values, **tables})

    def __missing__(self, key: str) -> Any:
        raise ModelError(f"{self._where}: there is no {key}")


def _is_path(value: Any) -> bool:
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def _is_of(value: Any, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and all(map(_is_path, value))
    return type(value) is kind and (not isinstance(value, int) or 0 <= value < 2**63)


def read_record(path: Path) -> Record:
    """The record in a run's or a checkpoint's `config.json`.

    Raises:
        ModelError: the file is missing, damaged, or of a later format.
    """
    record = unsealed(read_json(path))
    if (found := record.get("format", 1)) not in range(1, FORMAT + 1):
        raise ModelError(f"{path}: is of format {found}; this version of charlm reads {FORMAT}: install a newer one")
    return Record(record, path)


def verify_record(path: Path) -> None:
    """Holds a record against its digest; the first records had none. Raises ModelError if it is damaged."""
    record = read_json(path)
    if ("digest" in record or record.get("format", 1) != 1) and not is_sealed(path, record):
        raise ModelError(f"{path}: is damaged: it has changed since it was written")


@dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint on disk."""

    path: Path
    step: int

    def verify(self) -> None:
        """Compares every file with the manifest, but what systems leave.

        Raises:
            ModelError: a file is missing, added, or differs in size or content.
        """
        verify_manifest(self.path)

    @property
    def written(self) -> float:
        """When it was written, in seconds since 1970: as its manifest says, for a copy has a date of its own."""
        with suppress(KeyError, ModelError):  # an older one, or one that `verify` will refuse
            said = read_json(self.path / MANIFEST)["written"]
            if isinstance(said, int | float) and 0 <= said < LATEST:
                return float(said)
        return self.path.stat().st_mtime

    @property
    def record(self) -> Record:
        """The run's record: configuration, versions, corpus."""
        return read_record(self.path / "config.json")

    @property
    def run_name(self) -> str:
        """The name of the run that it belongs to; its own if it was copied alone."""
        path = self.path.resolve()
        return path.parents[1].name if path.parent.name == "checkpoints" else path.name

    def config(self) -> Config:
        """The configuration it was written with."""
        path = self.path / "config.json"
        try:
            return Config.recorded(self.record["config"], str(path))
        except UsageError as error:
            raise ModelError(f"{path}: is not a configuration that this version of charlm reads: {error}") from None

    def standing(self) -> Progress:
        """The state of the training; raises ModelError if it is damaged."""
        return Progress.of(self.progress(), str(self.path / "progress.json"))

    def progress(self) -> dict[str, Any]:
        """The state of the training, `progress.json`."""
        return read_json(self.path / "progress.json")

    def alphabet(self) -> Alphabet:
        """Its symbols; raises ModelError if the network has more of them or fewer."""
        config = self.config()
        alphabet = load_alphabet(self.path, config.data.alphabet)
        if alphabet.vocabulary != config.model.vocabulary:
            problem = f"has {alphabet.vocabulary:,} symbols; config.json says {config.model.vocabulary:,}"
            raise ModelError(f"{self.path / alphabet.file_name}: {problem}")
        return alphabet

    def tokenizer(self) -> Tokenizer:
        """Its tokenizer; raises UsageError if it is no model of text."""
        alphabet = self.alphabet()
        if not isinstance(alphabet, Tokenizer):
            what = {"series": "number series: charlm forecast goes on with them"}
            what["pairs"] = "pairs: charlm translate turns sources into targets"
            raise UsageError(f"{self.run_name}: is a model of {what[alphabet.name]}")
        return alphabet

    def shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        """The shapes of what `arrays` reads; of a run that was published without its training state, none."""
        path = self.path / f"{name}.safetensors"
        if name == "training" and not path.exists():
            return {}
        with _opened(path) as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118

    def arrays(self, name: str) -> Arrays:
        """The arrays in `weights.safetensors` or `training.safetensors`."""
        path = self.path / f"{name}.safetensors"
        if name == "training" and not path.exists():
            raise ModelError(f"{self.path}: was published without its training state, so it cannot be resumed")
        with _opened(path) as file:
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if foreign := [key for key, array in found.items() if array.dtype.isbuiltin != 1]:
            raise ModelError(f"{path}: {foreign[0]} is of a type that charlm does not write")
        return found

    def check_shapes(self, model: ModelConfig) -> None:
        """Holds the shapes of the weights against a configuration, before anything of their size is allocated.

        Of a layer, its kernel alone is asked: inputs by a multiple of units. `check_layers` knows the cells.

        Raises:
            ModelError: they are of another network.
        """
        path, shapes = self.path / "weights.safetensors", self.shapes("weights")
        wanted = {"embedding": (model.vocabulary, model.features), "bias": (model.vocabulary,)}
        if not model.tie:
            wanted["projection"] = (model.units, model.vocabulary)
        for name, shape in wanted.items():
            if shapes.get(name) != shape:
                raise ModelError(f"{path}: {name} is {shapes.get(name, 'missing')}; config.json says {shape}")
        if foreign := [name for name in shapes if name not in wanted and not name.startswith("layers.")]:
            raise ModelError(f"{path}: {foreign[0]} is no array of this network")
        layers: dict[str, list[str]] = {}  # the names of each one's arrays
        for name in shapes.keys() - wanted.keys():
            layers.setdefault(name.split(".")[1], []).append(name)
        if len(layers) != model.layers:
            raise ModelError(f"{path}: has {len(layers)} layers; config.json says {model.layers}")
        for n in range(model.layers):
            inputs, name = model.units if n else model.features, f"layers.{n}.kernel"
            rows, columns = (*shapes.get(name, ()), 0, 0)[:2]
            if rows != inputs or columns // model.units not in range(1, MOST_GATES + 1) or columns % model.units:
                has = shapes.get(name, "missing")
                raise ModelError(f"{path}: {name} is {has}; config.json says ({inputs}, a multiple of {model.units})")
            own = layers[str(n)]
            for name in own:
                if len(own) > MOST_ARRAYS or math.prod(shapes[name]) > (inputs + model.units) * columns:
                    raise ModelError(f"{path}: {name} is {shapes[name]}, which is no array of such a layer")

    def check_training(self) -> None:
        """Holds what resuming needs besides the weights against them, before anything of its size is allocated.

        Raises:
            ModelError: there is more than an optimizer's slots and the state of all lanes.
        """
        path, config = self.path / "training.safetensors", self.config()
        shapes, weights = self.shapes("training"), self.shapes("weights")
        most = max(config.train.lanes * config.model.units, *map(math.prod, weights.values()))
        for name, shape in shapes.items():
            if math.prod(shape) > most or len(shapes) > MOST_ARRAYS * len(weights):
                raise ModelError(f"{path}: {name} is {shape}, which is no array of such a training")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with open_regular(path) as raw:
            if int.from_bytes(raw.read(8), "little") > LARGEST_HEADER:
                raise ModelError(f"{path}: cannot be read: it begins like no file of arrays that charlm writes")
        with safetensors.safe_open(path, "np") as file:
            yield file
    # The last three: types that NumPy does not have, unless a package has added them.
    except (OSError, safetensors.SafetensorError, TypeError, AttributeError, KeyError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from None


def to_arrays(variables: Mapping[str, Any]) -> Arrays:
    """Variables or tensors by name as NumPy arrays."""
    return {name: np.asarray(value, order="C") for name, value in variables.items()}


def assign(variables: Mapping[str, Any], arrays: Arrays, where: Path) -> None:
    """Sets variables to the arrays of the same names.

    Raises:
        ModelError: names or shapes differ.
    """
    if variables.keys() != arrays.keys():
        differ = ", ".join(sorted(variables.keys() ^ arrays.keys()))
        raise ModelError(f"{where}: holds other arrays than this model has: {differ}")
    for name, variable in variables.items():
        if tuple(variable.shape) != arrays[name].shape:
            raise ModelError(f"{where}: {name} is {arrays[name].shape}, this model's is {tuple(variable.shape)}")
        variable.assign(arrays[name])


def named_slots(variables: Iterable[Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """A Keras optimizer's variables by the names they have in a checkpoint: `optimizer.momentum.layers.0.kernel`.

    Args:
        variables: the optimizer's; of those that it shares with what scales its loss, its own are `optimizer.inner.…`.
        weights: the model's, by name.
    """
    owners = {weight.path.replace("/", "_"): name for name, weight in weights.items()}
    named: dict[str, Any] = {}
    for variable in variables:
        owner, _, slot = variable.name.rpartition("_")
        name = f"{slot}.{owners[owner]}" if owner in owners else variable.name
        named[f"optimizer.{f'inner.{name}' if f'optimizer.{name}' in named else name}"] = variable
    return named


def slots_by_name(training: Arrays, named: Iterable[str]) -> Arrays:
    """The optimizer's arrays in `training.safetensors`, by the names of `named_slots`.

    The first checkpoints had them by number, those of the layers last.
    """
    in_order = sorted(named, key=lambda name: ".layers." in name)
    names = {f"optimizer.{number:03}": name for number, name in enumerate(in_order)}
    return {names.get(key, key): array for key, array in training.items() if key.startswith("optimizer.")}
