"""The first losses of every cell, which a change that leaves the mathematics alone does not change.

`python tests/golden.py` writes them anew, for a change that is meant to change them; its commit says which and why.
"""

import itertools
import json
from pathlib import Path

import numpy as np

from charlm.cells import CELL_NAMES
from charlm.config import ModelConfig, TrainConfig

FILE = Path(__file__).with_suffix(".json")
UPDATES, LANES, WINDOW, VOCABULARY = 60, 4, 12, 13
STRIDES = {"stride of the window": WINDOW, "stride of 5": 5}
DROPOUTS = {"no dropout": 0.0, "dropout 0.3": 0.3}
CURVES = {
    ", ".join((cell, stride, dropout)): (cell, STRIDES[stride], DROPOUTS[dropout])
    for cell, stride, dropout in itertools.product(CELL_NAMES, STRIDES, DROPOUTS)
}


def losses(cell: str, stride: int, dropout: float) -> list[float]:
    """Nats per scored symbol of each update of a training in float64, from the first: two layers of 16 units, AdamW."""
    from charlm.model import build_model
    from charlm.tbptt import Trainer
    from charlm.windows import Cursor, Lanes

    # Each symbol follows from the one before and its own place; one in ten is drawn.
    rng, ids = np.random.default_rng(7), [1]
    while len(ids) < 1000:
        follows = (ids[-1] + (1, 3, 7)[len(ids) % 3]) % VOCABULARY
        ids.append(int(rng.integers(VOCABULARY)) if rng.random() < 0.1 else follows)
    network = ModelConfig(cell=cell, layers=2, units=16, embedding=8, vocabulary=VOCABULARY, dropout=dropout)
    model = build_model(network, dtype="float64")
    trainer = Trainer(model, TrainConfig(bptt=WINDOW, stride=stride, lanes=LANES), groups=1)
    windows, cursor, found = Lanes(np.array(ids), LANES, WINDOW, stride, 1), Cursor(), []
    state = model.initial_state(LANES)
    for update in range(UPDATES):
        window = windows.window(cursor)
        made = trainer(window, state, 0.02, (1, update))
        found.append(float(made.nats_sum) / window.loss_mask.sum())
        cursor, state = windows.after(cursor), made.state
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: losses(*CURVES[name]) for name in CURVES}, indent=1) + "\n")
