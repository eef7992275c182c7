"""Values that are not finite, put into a training while it runs."""

import itertools
import random
from pathlib import Path

import numpy as np
from small_runs import SAVED_EVERY, make_corpus

from charlm.errors import DivergedError
from charlm.events import BackedOff, Finished, Stepped
from charlm.machine import start_tensorflow
from charlm.runs import Run
from charlm.session import Request, open_session

NOTE = (
    "divergence: one element of a matrix of weights or slots, a gradient, all of the state, or the loss. An infinite\n"
    "second moment of AdamW's is no weight's: it holds that weight still, and is noticed before the next save."
)
SEED = 1
PLACES = ("weights", "optimizer slots", "state", "gradient", "loss")
VALUES = (np.nan, np.inf, -np.inf)
STEPS = 40
MOMENTS = 3  # of each place and value
SETTINGS = {
    "model": {"units": 16, "layers": 1, "embedding": 8},
    "train": {"lanes": 4, "bptt": 8, "steps": STEPS, "save_every": SAVED_EVERY, "evaluate_every": STEPS},
}


def gradient_noise(training):
    """A variable, 0 now, that is added to a gradient in every update."""
    import tensorflow as tf

    noise, total = tf.Variable(0.0), training.trainer.replicas.total

    def noisy(tensors):
        loss, *gradients = total(tensors)
        return [loss, gradients[0] + noise, *gradients[1:]]

    training.trainer.replicas.total = noisy
    return noise


def poison(training, place: str, value: float, noise, rng: random.Random) -> None:
    """Puts a value into one element of a training, or into what the next update says."""
    import tensorflow as tf

    if place == "gradient":
        noise.assign(value)
        return
    if place == "loss":
        applied = training._applied

        def once(*args):
            training._applied = applied
            return applied(*args)._replace(nats_sum=tf.constant(value, tf.float32))

        training._applied = once
        return
    if place == "state":
        training.state = tf.nest.map_structure(lambda s: tf.fill(s.shape, tf.cast(value, s.dtype)), training.state)
        return
    variables = training.model.named_weights() if place == "weights" else training.trainer.slots()
    chosen = rng.choice([one for name, one in sorted(variables.items()) if len(one.shape) == 2])
    array = np.array(chosen)
    array.flat[rng.randrange(array.size)] = value
    chosen.assign(array)


def finite(run: Path) -> bool:
    """True if no checkpoint of a run holds a value that is not."""
    checkpoints = Run(run).checkpoints()
    arrays = [array for c in checkpoints for name in ("weights", "training") for array in c.arrays(name).values()]
    return all(np.isfinite(array).all() for array in arrays if array.dtype.kind == "f")


def tried(corpus: Path, models: Path, name: str, case: tuple, reaction: str, rng: random.Random) -> dict[str, bool]:
    """Poisons one training; returns what it did about it."""
    from charlm.training import Training

    place, value, _ = case
    at = rng.randrange(SAVED_EVERY + 1, STEPS - 1)
    train = SETTINGS["train"] | {"on_divergence": reaction}
    training = Training(open_session(Request([str(corpus)], SETTINGS | {"train": train}, models, name, "tiny")))
    noise = gradient_noise(training)
    code, found, done, last_step = 0, 0, False, 0
    try:
        for event in training.events():
            if isinstance(event, Stepped):
                last_step = event.step
                if event.step == at and not found:
                    poison(training, place, value, noise, rng)
            if isinstance(event, BackedOff):
                found = event.diverged
                noise.assign(0.0)
            done |= isinstance(event, Finished) and event.step == STEPS
    except DivergedError as error:
        code, found = error.exit_code, last_step + 1
    whole = Run(models / name).last()
    kept = whole is not None and finite(models / name)
    return {"noticed": found == at + 1, "kept": kept, "ended": code == 4 if reaction == "stop" else done}


def measure(folder: Path) -> list[dict[str, str]]:
    start_tensorflow(side_by_side=True)
    rng, corpus = random.Random(SEED), folder / "corpus.txt"
    corpus.write_text(make_corpus(folder).read_text("utf-8")[:20_000], "utf-8")
    cases = list(itertools.product(PLACES, VALUES, range(MOMENTS)))
    rows = []
    for reaction in ("stop", "back-off"):
        names = (f"{reaction}-{n}" for n in itertools.count())
        ends = [tried(corpus, folder / "models", next(names), case, reaction, rng) for case in cases]
        count = {what: sum(end[what] for end in ends) for what in ends[0]}
        end = "end with code 4" if reaction == "stop" else "go on from the last checkpoint to the end"
        rows.append(
            {
                "what": f"a value that is not finite in a training, --on-divergence {reaction}",
                "tried": f"{len(cases)}: NaN, Inf and -Inf in {', '.join(PLACES)}",
                "survived": f"{count['noticed']} of {len(cases)} noticed in the next update, the others before a save; "
                f"{count['ended']} {end}; "
                f"in {count['kept']} every checkpoint is finite and the last one whole",
            }
        )
    return rows
