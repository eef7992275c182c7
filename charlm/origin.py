"""The model that a new run begins with, and its text, on which the new run may forget."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from charlm.checkpoint import Arrays, Checkpoint
from charlm.config import Tables
from charlm.corpus import Announce
from charlm.dataset import part_of, read_again
from charlm.errors import CharlmError, ModelError, UsageError, named
from charlm.files import MANIFEST, read_json
from charlm.records import Records
from charlm.shelf import find_run
from charlm.tokenizer import Alphabet, Tokenizer

# What weights and symbols have come with; a new run has the same.
KEPT = {
    "model": ("cell", "layers", "units", "embedding", "tie"),
    "data": ("tokenizer", "vocabulary", "pairs", "form", "lookahead"),
}
SHOWN = 20  # new characters, at most


@dataclass(frozen=True)
class OldText:
    """The text that an origin learnt from, and what it learnt."""

    run: str  # the origin's
    weights: Arrays  # the origin's; none if it is gone
    name: str
    missing: str = ""  # why it cannot be scored
    records: tuple[Records, Records] | None = None  # held out of it, by the origin's tokenizer and by the new run's


@dataclass(frozen=True)
class Origin:
    """The model that a new run begins with.

    Attributes:
        record: what the new run's record says of it.
        checkpoint: where it is.
        weights: by name; none if it is gone, which is no harm to a run that has a checkpoint of its own.
    """

    record: dict[str, Any]
    checkpoint: Checkpoint
    weights: Arrays

    @classmethod
    def named(cls, model: str, models: Path) -> Self:
        """The best checkpoint of a run, by directory or by name; raises ModelError if there is none."""
        return cls._of(find_run(model, models).pick("best"))

    @classmethod
    def recorded(cls, record: dict[str, Any], needed: bool) -> Self | None:
        """The origin that a run's record names, if it names one; raises UsageError if it is `needed` and gone."""
        if (known := record.get("from")) is None:
            return None
        checkpoint = Checkpoint(Path(known["checkpoint"]), known["step"])
        with suppress(ModelError, OSError):
            checkpoint.verify()
            if (found := cls._of(checkpoint)).record["weights"] == known["weights"]:
                return found
        if needed:
            raise UsageError(f"{checkpoint.path}: is not there any more, and nothing was trained yet; begin a new run")
        return cls(known, checkpoint, {})

    @classmethod
    def _of(cls, checkpoint: Checkpoint) -> Self:
        checkpoint.check_shapes(checkpoint.config().model)
        weights = read_json(checkpoint.path / MANIFEST)["files"]["weights.safetensors"]["sha256"]
        place = str(checkpoint.path.absolute())
        record = {"run": checkpoint.run_name, "step": checkpoint.step, "weights": weights, "checkpoint": place}
        return cls(record, checkpoint, checkpoint.arrays("weights"))

    def settings(self, given: Tables) -> Tables:
        """The settings that come with it.

        Raises:
            UsageError: one was given that differs from what the weights and symbols are of; dropout may.
        """
        config = self.checkpoint.config()
        kept = {table: {key: getattr(getattr(config, table), key) for key in keys} for table, keys in KEPT.items()}
        kept["model"]["embedding"] = config.model.features
        for table, values in kept.items():
            for key, value in values.items():
                if (asked := given.get(table, {}).get(key, value)) != value:
                    problem = f"{named(f'{table}.{key}')} {asked}: {self.record['run']} has {value}"
                    raise UsageError(f"{problem}, and a run that begins from it keeps that; leave it out")
        kept["model"]["dropout"] = config.model.dropout
        return kept

    def choice(self, alphabet: Alphabet) -> str:
        """The symbols that a run with this alphabet takes of it, and those that are new."""
        old = self.checkpoint.config().model.vocabulary
        contents = alphabet.id_bytes[old:] if isinstance(alphabet, Tokenizer) else ()
        new = [content.decode("utf-8", "surrogateescape") for content in contents]
        count = f"{len(new):,} new character{'' if len(new) == 1 else 's'}" if new else "no new characters"
        shown = ", ".join(map(repr, new[:SHOWN])) + (", ..." if len(new) > SHOWN else "")
        symbols = alphabet.fixed or f"{count} beside its {old:,} symbols{f': {shown}' if new else ''}"
        return f"from {self.record['run']}, step {self.record['step']}: {symbols}"

    def old_text(self, alphabet: Alphabet, announce: Announce) -> OldText:
        """Its text, for a run with this alphabet."""
        run = self.record["run"]
        if not self.weights:
            return OldText(run, self.weights, "the text", f"step {self.record['step']} of {run} is not there any more")
        recorded, config = self.checkpoint.record["corpus"], self.checkpoint.config().data
        name = ", ".join("standard input" if path == "-" else Path(path).name for path in recorded["paths"])
        if "-" in recorded["paths"]:
            return OldText(run, self.weights, name, "it was not kept")
        try:
            corpus = read_again(recorded["paths"], config, recorded, announce)
        except CharlmError as error:
            return OldText(run, self.weights, name, f"it is not here ({error})")
        if corpus.sha256 != recorded["sha256"]:
            return OldText(run, self.weights, name, "it has changed since")
        before, after = (part_of(corpus, config, one, "valid") for one in (self.checkpoint.alphabet(), alphabet))
        if not before.predicted:
            return OldText(run, self.weights, name, "nothing of it was held out")
        return OldText(run, self.weights, name, records=(before, after))
