"""Replicas: the devices that the lanes of a training are divided among, on one machine or several, by tf.distribute.

Variables are those of one process: each of its replicas reads them and computes its own lanes' gradients, the
gradients of all replicas are added, and each process makes the same update.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from charlm.cell import Tensor
from charlm.cluster import Cluster
from charlm.errors import CharlmError, named
from charlm.interrupts import SIGNALS
from charlm.machine import start_tensorflow

SENT_WORDS = 1 << 21  # of four bytes, at a time
ALONE = Cluster()
REASONS = ("done", "early", "interrupted", "failed")  # for the end of a training
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)
NUMBERS = 4  # of a command, at most


class Command(IntEnum):
    """The next step of the chief, which is worker 0, and of all others with it."""

    ENLIST = 0  # all who train
    UPDATE = 1  # of an epoch, a window, a learning rate and a step
    GATHER = 2  # the state of all lanes
    TAKE = 3  # other weights, slots and state
    END = 4  # for one of `REASONS`


class Replicas:
    """The replicas of a training. Without a strategy there is one, and nothing is divided.

    Attributes:
        cluster: the processes.
        count: replicas in all.
        here: replicas of this process.
        asked_to_stop: whether another worker was asked to stop.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None, cluster: Cluster = ALONE) -> None:
        self._strategy, self.cluster = strategy, cluster
        self.count = 1 if strategy is None else int(strategy.num_replicas_in_sync)
        self.here = self.count // len(cluster.workers)
        self.asked_to_stop, self._ended = False, False

    @property
    def several_workers(self) -> bool:
        return len(self.cluster.workers) > 1

    @property
    def announces(self) -> bool:
        """True for the chief of several workers."""
        return self.several_workers and self.cluster.index == 0

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Calls a function of tensors on each replica of this process, inside a graph; returns what each returned."""
        if self._strategy is None:
            return [function(*args)]
        returned = self._strategy.run(function, args)
        values = [self._strategy.experimental_local_results(value) for value in tf.nest.flatten(returned)]
        return [tf.nest.pack_sequence_as(returned, [of[n] for of in values]) for n in range(self.here)]

    def own(self, tensor: Tensor, axis: int, of_process: bool = False) -> Tensor:
        """Inside `run`: this replica's share of lanes.

        Args:
            tensor: with the lanes of all replicas along an axis, in their order.
            axis: that one.
            of_process: whether these are the lanes of this process alone.
        """
        if self.count == 1:
            return tensor
        number = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int32)
        first, shares = (self.cluster.index * self.here, self.here) if of_process else (0, self.count)
        begin, size = [0] * len(tensor.shape), list(tensor.shape)
        size[axis] //= shares
        begin[axis] = (number - first) * size[axis]
        return tf.slice(tensor, begin, size)

    def total(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Inside `run`: the sums of tensors of one type over all replicas, reduced as one vector."""
        if self.count == 1:
            return list(tensors)
        flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
        sums = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, flat)
        parts = tf.split(sums, [tensor.shape.num_elements() for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def mine(self, lanes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """This process' share of an array [B, ...] of all lanes."""
        size = len(lanes) // len(self.cluster.workers)
        return lanes[self.cluster.index * size : (self.cluster.index + 1) * size]

    def gathered(self, lanes: Any) -> Any:
        """A structure of tensors [B', ...] of this process' lanes, with those of all processes [B, ...]."""
        return self._gathered(lanes) if self.several_workers else lanes

    @tf.function(autograph=False)
    def _gathered(self, lanes: Any) -> Any:
        def gather(tensors: Any) -> Any:
            context = tf.distribute.get_replica_context()
            return tf.nest.map_structure(lambda t: context.all_gather(self.own(t, 0, of_process=True), 0), tensors)

        return self.run(gather, lanes)[0]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float64)], autograph=False)
    def _sums(self, values: Tensor) -> Tensor:
        def summed(values: Tensor) -> Tensor:
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(values))

        return self.run(summed, values)[0] / self.here

    def sums(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The sums over all processes of numbers [N]; every process calls this."""
        return np.asarray(self._sums(np.asarray(values, np.float64)))

    def broadcast(self, content: bytes = b"") -> bytes:
        """The chief's bytes, in every process; every process calls this."""
        size = int(self.sums([len(content)])[0])
        words = np.frombuffer(content.ljust(-(-size // 4) * 4, b"\0"), np.uint32)
        if self.cluster.index:
            words = np.zeros(-(-size // 4), np.uint32)
        parts = [self.sums(words[n : n + SENT_WORDS]) for n in range(0, len(words), SENT_WORDS)]
        return b"".join(part.astype(np.uint32).tobytes() for part in parts)[:size]

    def announce(self, command: Command, *numbers: float) -> None:
        """Tells the others what the chief does next; nobody else tells anything."""
        if self.announces:
            *_, stops = self.sums([command, *numbers, *[0.0] * (NUMBERS - len(numbers)), 0.0])
            self.asked_to_stop |= bool(stops)

    def next_command(self, stop: bool = False) -> tuple[Command, list[float]]:
        """Waits for the chief's next command, and returns it with its numbers.

        Args:
            stop: whether to ask it to stop.
        """
        command, *numbers, _ = self.sums([0.0] * (1 + NUMBERS) + [float(stop)])
        return Command(int(command)), list(map(float, numbers))

    def end(self, reason: str) -> None:
        """Tells the others why the training ends."""
        self.announce(Command.END, REASONS.index(reason))
        self._ended = True

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Inside, the chief trains; the others are told if it fails."""
        with self.watched():
            try:
                yield
            except LOST:
                raise
            except BaseException:
                if not self._ended:
                    with contextlib.suppress(*LOST):
                        self.end("failed")
                raise

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, a worker that is gone raises CharlmError."""
        try:
            yield
        except LOST as error:
            if not self.several_workers:
                raise
            tasks = re.findall(r"/job:(\w+)/(?:replica:0/)?task:(\d+)", error.message)
            numbers = [self.cluster.number(job, int(task)) for job, task in tasks[::-1]]
            lost = next((f"worker {number}" for number in numbers if number != self.cluster.index), "a worker")
            way_out = f"start all workers again, with {named('resume', True)}: they go on from the last checkpoint"
            raise CharlmError(f"{lost} is gone; {way_out}") from None


def start_replicas(
    strategy: str, cluster: Cluster = ALONE, say: Callable[[str], object] = lambda line: None
) -> Replicas:
    """Starts TensorFlow for a training on the devices of a strategy.

    Args:
        strategy: "mirrored" or "multiworker".
        cluster: the workers.
        say: told what it waits for.

    Raises:
        CharlmError: see `start_tensorflow`; or the workers do not find each other.
    """
    if strategy == "mirrored":
        start_tensorflow(side_by_side=True)
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return Replicas(tf.distribute.MirroredStrategy([device.name for device in devices]))
    others = ", ".join(one for one in cluster.workers if one != cluster.workers[cluster.index])
    say(f"worker {cluster.index} of {len(cluster.workers)} waits for the others: {others or 'there are none'}")
    joined: list[Any] = []
    with ended_by_signals():
        try:
            start_tensorflow(
                side_by_side=True, first=lambda: joined.append(tf.distribute.MultiWorkerMirroredStrategy())
            )
        except (tf.errors.OpError, RuntimeError) as error:
            raise CharlmError(f"the workers do not find each other: {str(error).splitlines()[0]}") from None
    return Replicas(joined[0], cluster)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside, each of `SIGNALS` ends the process at once, for Python handles no signal while TensorFlow waits."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores one
    before = {number: signal.signal(number, signal.SIG_DFL) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
