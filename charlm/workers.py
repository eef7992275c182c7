"""A training by several processes: the chief trains as one process does, and the others follow what it announces.

A follower has the corpus, but neither a run nor a plan of its own. It waits for the chief's next command, so that all
processes make the same collective operations in the same order.
"""

from __future__ import annotations

import base64
import concurrent.futures
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.numpy

from charlm import __version__
from charlm.config import Config
from charlm.corpus import Announce
from charlm.dataset import Passing, prepare, read_again
from charlm.errors import CharlmError, Interrupted, UsageError, named
from charlm.files import remove_folder
from charlm.machine import Machine
from charlm.model import build_model
from charlm.replicas import REASONS, Command, Replicas, ended_by_signals
from charlm.session import Request, Session, lanes_of
from charlm.tbptt import Trainer, replica_groups
from charlm.tokenizers import load_alphabet
from charlm.windows import Cursor, Lanes

LOOK_SECONDS = 0.2  # from one look at signals to the next
FAILED = CharlmError("worker 0 has failed; its last line says why")
Stop = Callable[[], bool]


def enlist(session: Session, request: Request, replicas: Replicas) -> None:
    """Tells the followers what is trained, and lets each compare.

    Args:
        session: the chief's.
        request: as it was typed.
        replicas: of all workers.

    Raises:
        CharlmError: a follower has refused; a run that was made for this training is removed. Where a follower is
            gone, the run stays, to be resumed.
    """
    tokenizer = session.data.tokenizer
    facts = {
        "version": __version__,
        "asked": _asked(request),
        "config": session.config.to_dict(),
        "precision": Machine.here().precision(session.config.train.precision),
        "corpus": session.run.record["corpus"],
        "alphabet": {
            "name": tokenizer.file_name,
            "content": base64.b64encode(tokenizer.content()).decode("ascii"),
        },
    }
    try:
        replicas.announce(Command.ENLIST)
        replicas.broadcast(json.dumps(facts).encode())
        refused = replicas.sums([0.0] * len(replicas.cluster.workers))
        if refused.any():
            number = int(refused.argmax())
            address = replicas.cluster.workers[number]
            raise CharlmError(f"worker {number} ({address}) has refused to train; its last line says why")
    except CharlmError:
        session.lock.close()
        if session.checkpoint is None and not request.resume:
            remove_folder(session.run.path)
        raise


def _asked(request: Request) -> dict[str, Any]:
    """What every worker must be told alike, in JSON."""
    origin = request.from_run and Path(request.from_run).name
    flat = {f"{table}.{key}": value for table, values in request.settings.items() for key, value in values.items()}
    asked: dict[str, Any] = json.loads(json.dumps({"preset": request.preset, "from": origin, **flat}))
    return asked


def enlisted(
    request: Request,
    replicas: Replicas,
    reading: Announce = lambda size: lambda count: None,
    passing: Passing = lambda what, chars: lambda count: None,
) -> tuple[Trainer, Lanes]:
    """Waits for what the chief trains, and makes a follower's trainer and lanes of it.

    Args:
        request: what this worker was started with.
        replicas: of all workers.
        reading, passing: as `open_session` takes them.

    Raises:
        UsageError: this worker has another version, setting or corpus than the chief.
        CharlmError: the chief has failed, or a worker is gone or has refused.
    """
    with replicas.watched():
        with ended_by_signals():
            if replicas.next_command()[0] is Command.END:
                raise FAILED
            facts = json.loads(replicas.broadcast())
        problem, found = None, None
        try:
            found = _enlisted(request, facts, replicas, reading, passing)
        except CharlmError as error:
            problem = error
        own = [float(problem is not None and n == replicas.cluster.index) for n in range(len(replicas.cluster.workers))]
        with ended_by_signals():
            refused = replicas.sums(own)
            if refused.any():
                replicas.next_command()  # the end
        if found is None or refused.any():
            raise problem or CharlmError(f"worker {int(refused.argmax())} has refused to train; its last line says why")
        return found


def obey(trainer: Trainer, lanes: Lanes, stop: Stop) -> None:
    """Computes a share of the chief's lanes, until the chief's training ends.

    Args:
        trainer, lanes: of `enlisted`.
        stop: asked before every update whether all are to save and stop.

    Raises:
        Interrupted: the training was, and the chief has saved it.
        CharlmError: the chief has failed, or a worker is gone.
    """
    pool = concurrent.futures.ThreadPoolExecutor(1, "charlm-worker")  # for Python handles no signal where one waits
    work = pool.submit(_obey, trainer, lanes, stop)
    while not work.done():
        concurrent.futures.wait([work], LOOK_SECONDS)
    with trainer.replicas.watched():
        reason = work.result()
    if reason == "interrupted":
        raise Interrupted("worker 0 has saved the run")
    if reason == "failed":
        raise FAILED


def _enlisted(
    request: Request, facts: dict[str, Any], replicas: Replicas, reading: Announce, passing: Passing
) -> tuple[Trainer, Lanes]:
    """A trainer and lanes as the chief has them; raises UsageError if what this worker has differs."""
    if facts["version"] != __version__:
        raise UsageError(f"this worker is charlm {__version__}, worker 0 is {facts['version']}: install one of them")
    own, asked = _asked(request), facts["asked"]
    for setting in sorted({*own, *asked}):
        if (here := own.get(setting)) != (there := asked.get(setting)):
            values = ("none" if value is None else value for value in (here, there))
            raise UsageError("{}: this worker has {}, worker 0 has {}; start all alike".format(named(setting), *values))
    config = Config.recorded(facts["config"], "worker 0")
    recorded = facts["corpus"]
    corpus = read_again(list(request.paths) or recorded["paths"], config.data, recorded, reading)
    if corpus.sha256 != recorded["sha256"]:
        raise UsageError(
            f"this worker's corpus is another than worker 0's: {corpus.bytes} bytes ({corpus.sha256[:12]}), "
            f"there {recorded['bytes']} ({recorded['sha256'][:12]})"
        )
    with tempfile.TemporaryDirectory(prefix="charlm-") as folder:
        Path(folder, facts["alphabet"]["name"]).write_bytes(base64.b64decode(facts["alphabet"]["content"]))
        alphabet = load_alphabet(Path(folder), config.data.alphabet)
    data = prepare(corpus, config.data, alphabet, passing)
    model = build_model(config.model, seed=None, precision=Machine.here().precision(facts["precision"]))
    groups = replica_groups(replicas, config)
    return Trainer(model, config.train, groups, replicas), lanes_of(data, config)


def _obey(trainer: Trainer, lanes: Lanes, stop: Stop) -> str:
    """Does what the chief announces until it ends; returns why it does."""
    state, seed = trainer.initial_state(), trainer.config.seed
    while True:
        command, numbers = trainer.replicas.next_command(stop())
        match command:
            case Command.UPDATE:
                epoch, window, rate, step = numbers
                state = trainer(lanes.window(Cursor(int(epoch), int(window))), state, rate, (seed, int(step))).state
            case Command.GATHER:
                trainer.arrays(state)
            case Command.TAKE:
                weights, training = (safetensors.numpy.load(trainer.replicas.broadcast()) for _ in range(2))
                state = trainer.take(weights, training, Path("worker 0"))
            case Command.END:
                return REASONS[int(numbers[0])]
