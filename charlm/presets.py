"""Settings that go together, and which of them a text and a machine want."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from charlm.config import Tables, overlay


@dataclass(frozen=True)
class Preset:
    """Settings that go together, and what they are for."""

    purpose: str
    tables: Tables
    slow: Tables = field(default_factory=dict)  # laid over them on slow processors, which make fewer updates in a time

    def on(self, slow: bool) -> Tables:
        """The settings on a slow processor, or on a fast one or a GPU."""
        return overlay(self.tables, self.slow) if slow else self.tables


def _preset(
    purpose: str, minutes: float, model: dict[str, Any], train: dict[str, Any], slow: Tables | None = None
) -> Preset:
    return Preset(purpose, {"model": model, "train": {"minutes": minutes, **train}}, slow or {})


PRESETS = {
    "tiny": _preset(
        "LSTM 128 x 1; texts under 200 KB; a minute",
        1.0,
        {"units": 128, "layers": 1},
        {"lanes": 16, "bptt": 64, "learning_rate": 5e-3},
    ),
    "small": _preset(
        "LSTM 256 x 1 with a little dropout; texts of about 1 MB; two minutes on a laptop",
        2.0,
        {"units": 256, "layers": 1, "embedding": 64, "dropout": 0.1},
        {"lanes": 64, "bptt": 64, "learning_rate": 5e-3},
        slow={"model": {"dropout": 0.0}, "train": {"lanes": 32, "bptt": 32, "learning_rate": 7e-3}},
    ),
    "medium": _preset(
        "LSTM 512 x 1 with dropout; 1 MB thoroughly or several MB; ten minutes",
        10.0,
        {"units": 512, "layers": 1, "embedding": 64, "dropout": 0.3},
        {"lanes": 64, "bptt": 64, "learning_rate": 4e-3},
        slow={"train": {"lanes": 32}},
    ),
    "large": _preset(
        "LSTM 512 x 2; texts over 40 MB, or a GPU; two hours",
        120.0,
        {"units": 512, "layers": 2, "embedding": 128, "dropout": 0.1},
        {"lanes": 64, "bptt": 128, "learning_rate": 2e-3},
    ),
    "series": Preset(
        "LSTM 32 x 1 with dropout, for number series; a quarter of a minute",
        {
            "model": {"units": 32, "layers": 1, "embedding": 16, "dropout": 0.5},
            "data": {"tokenizer": "series", "split": (1.0, 0.0, 0.0)},
            "train": {"lanes": 16, "bptt": 32, "learning_rate": 5e-3, "weight_decay": 0.05, "steps": 800},
        },
    ),
    "pairs": Preset(
        "LSTM 256 x 1 with dropout, for pairs of strings; five minutes",
        {
            "model": {"units": 256, "layers": 1, "embedding": 64, "dropout": 0.4},
            "data": {"pairs": True, "split": (0.95, 0.05, 0.0)},
            "train": {"lanes": 64, "bptt": 64, "learning_rate": 8e-3, "minutes": 5.0},
        },
    ),
    "many-series": Preset(
        "LSTM 128 x 1, for number series of over 1 MB; ten minutes",
        {
            "model": {"units": 128, "layers": 1, "embedding": 32, "dropout": 0.2},
            "data": {"tokenizer": "series", "split": (0.95, 0.05, 0.0)},
            "train": {"lanes": 64, "bptt": 64, "learning_rate": 5e-3, "weight_decay": 0.01, "minutes": 10.0},
        },
    ),
    "enwik8": Preset(
        "LSTM 1840 x 3 on bytes, the size published for the 100 MB of enwik8 (Merity et al. 2018); 50 epochs; a GPU",
        {
            "model": {"units": 1840, "layers": 3, "embedding": 400, "dropout": 0.1},
            "data": {"tokenizer": "byte", "split": (0.9, 0.05, 0.05)},
            "train": {"lanes": 128, "bptt": 200, "learning_rate": 1e-3, "weight_decay": 1.2e-6, "epochs": 50},
        },
    ),
}
LONGER = 4  # times a preset's own minutes: from there on the next one scores better


MANY_SERIES = 1_000_000  # characters of tables


def choose_preset(chars: int, gpu: bool, minutes: float | None = None, alphabet: str = "char") -> tuple[str, str]:
    """The preset for a corpus of so many characters on this hardware, in so many minutes if given, and why.

    Number series and pairs have their own.
    """
    if alphabet == "pairs":
        return "pairs", f"{chars:,} characters of pairs"
    if alphabet == "series":
        return "many-series" if chars >= MANY_SERIES else "series", f"{chars:,} characters of tables"
    names = ["tiny", "small", "medium", "large"]
    size = next((n for n, most in enumerate((200_000, 4_000_000, 40_000_000)) if chars < most), 3)
    index, why = min(size + gpu, 3), f"{chars:,} characters of text, {'a GPU' if gpu else 'no GPU'}"
    if minutes is not None:
        why += f", {minutes:g} minute{'' if minutes == 1 else 's'}"
        while index < 3 and minutes >= LONGER * PRESETS[names[index]].tables["train"]["minutes"]:
            index += 1
        while index and minutes <= PRESETS[names[index]].tables["train"]["minutes"] / LONGER:
            index -= 1
    return names[index], why
