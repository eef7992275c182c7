"""Lanes divided among devices and processes: the curve of one, one writer, and what ends them."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from together import curve, ended, start_workers

from charlm.cluster import Cluster
from charlm.errors import CharlmError, UsageError
from charlm.replicas import Replicas
from charlm.runs import Run

SIZES = {"units": 16, "layers": 1, "lanes": 4, "bptt": 8, "dropout": 0.3}
LENGTH = {"steps": 30, "evaluate-every": 30, "save-every": 10}
SMALL = [f"--{option}={value}" for option, value in {**SIZES, **LENGTH}.items()]

DEVICES = """
import sys
import numpy as np
from charlm.machine import import_tensorflow, start_tensorflow
import_tensorflow()
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1]))
from charlm.config import ModelConfig, TrainConfig
from charlm.model import build_model
from charlm.replicas import Replicas
from charlm.tbptt import Trainer
from charlm.windows import Cursor, Lanes

start_tensorflow(side_by_side=True)
ids = np.random.default_rng(0).integers(0, 13, 2000)
lanes = Lanes(ids, 8, 12, 5, 1, np.array([40, 700, 701, 1500]))
config = TrainConfig(bptt=12, stride=5, lanes=8)
found = []
for count in (1, int(sys.argv[1])):
    devices = [f"CPU:{n}" for n in range(count)]
    replicas = Replicas(tf.distribute.MirroredStrategy(devices) if count > 1 else None)
    assert replicas.count == count
    model = build_model(ModelConfig(cell="lstm", layers=1, units=16, vocabulary=13, dropout=0.3), dtype="float64")
    trainer = Trainer(model, config, 1, replicas)
    cursor, state, losses = Cursor(), trainer.initial_state(), []
    for n in range(6):
        update = trainer(lanes.window(cursor), state, 0.01, (1, n))
        cursor, state = lanes.after(cursor), update.state
        losses.append([float(update.nats_sum), float(update.gradient_norm)])
    weights, training = trainer.arrays(state)
    found.append({"losses": np.array(losses), **weights, **training})
one, several = found
assert several.keys() == one.keys()
print(max(np.abs(several[name] - one[name]).max() for name in one))
"""


def difference_on_devices(count):
    """The largest between losses, norms, weights, slots and states of lanes on one device and on several, in float64.

    Six updates, with dropout and documents.
    """
    command = [sys.executable, "-c", DEVICES, str(count)]
    done = subprocess.run(command, check=True, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    return float(done.stdout)


def test_lanes_on_four_devices_are_trained_as_on_one():
    assert difference_on_devices(4) < 1e-9


def digest(run):
    return hashlib.sha256((Run(run).last().path / "weights.safetensors").read_bytes()).hexdigest()


def test_two_processes_have_the_curve_of_one_and_go_on_after_a_kill(tmp_path):
    """And what two began, one goes on with."""
    (tmp_path / "corpus.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 40)
    words, models = ["corpus.txt", *SMALL, "--name"], tmp_path / "models"
    processes = start_workers(1, [*words, "alone"], tmp_path) + start_workers(2, [*words, "two"], tmp_path)
    assert [code for code, _ in ended(processes)] == [0, 0, 0]
    alone, two = (curve(models / name) for name in ("alone", "two"))
    assert alone.keys() == two.keys()
    assert len(alone) > 1
    nearly = pytest.approx(list(alone.values()), rel=1e-2)  # products are of the machine's precision
    assert list(two.values()) == nearly

    chief, follower = start_workers(2, [*words, "killed"], tmp_path)
    while not (models / "killed" / "checkpoints" / "step-00000010").exists():
        assert chief.poll() is None
    follower.kill()
    (code, line), _ = ended([chief, follower])
    if code:  # it had not finished yet
        assert (code, "worker 1 is gone" in line, "--resume" in line) == (1, True, True)
        again = start_workers(2, ["--name", "killed", "--resume"], tmp_path)
        assert [code for code, _ in ended(again)] == [0, 0]
    assert digest(models / "killed") == digest(models / "two")

    alone = start_workers(1, ["--name", "two", "--resume", "--steps", "40"], tmp_path)
    assert [code for code, _ in ended(alone)] == [0]
    assert Run(models / "two").last().step == 40


def test_a_worker_refuses_what_differs_from_the_chief(tmp_path):
    (tmp_path / "corpus.txt").write_text("a text of some length " * 20)
    words = ["corpus.txt", "--name", "refused", *SMALL]
    chief, follower = ended(start_workers(2, words, tmp_path, {1: ["--units", "24"]}))
    assert (chief[0], "worker 1" in chief[1], "refused" in chief[1]) == (1, True, True)
    assert follower == (2, "charlm: --units: this worker has 24, worker 0 has 16; start all alike")
    assert not (tmp_path / "models" / "refused").exists()


def test_a_chief_that_fails_ends_the_others(tmp_path):
    chief, follower = ended(start_workers(2, ["missing.txt", "--name", "failed", *SMALL], tmp_path))
    assert (chief[0], "missing.txt" in chief[1]) == (2, True)
    assert follower == (1, "charlm: worker 0 has failed; its last line says why")


WORKERS = {"worker": ["a:1", "b:2"]}


@pytest.mark.parametrize(
    ("cluster", "task", "workers", "index"),
    [
        (WORKERS, ("worker", 1), ("a:1", "b:2"), 1),
        ({"chief": ["c:3"], **WORKERS}, ("chief", 0), ("c:3", "a:1", "b:2"), 0),
        ({"chief": ["c:3"], **WORKERS}, ("worker", 1), ("c:3", "a:1", "b:2"), 2),
        ({"worker": ["[::1]:2222"]}, ("worker", 0), ("[::1]:2222",), 0),
    ],
)
def test_a_cluster_is_read_as_tensorflow_reads_it(cluster, task, workers, index):
    text = json.dumps({"cluster": cluster, "task": {"type": task[0], "index": task[1]}})
    assert Cluster.named({"TF_CONFIG": text}) == Cluster(workers, index, len(cluster.get("chief", [])))


@pytest.mark.parametrize(
    ("chiefs", "index", "message", "said"),
    [
        (0, 0, "to /job:worker/replica:0/task:1: reset; from /job:worker/replica:0/task:0", "worker 1 is gone"),
        (1, 1, "to /job:worker/replica:0/task:1: reset; from /job:worker/replica:0/task:0", "worker 2 is gone"),
        (1, 0, "to /job:worker/replica:0/task:0: reset; from /job:chief/replica:0/task:0", "worker 1 is gone"),
        (1, 2, "to /job:chief/replica:0/task:0: reset", "worker 0 is gone"),
        (0, 0, "nobody answers", "a worker is gone"),
    ],
)
def test_a_worker_that_is_gone_is_called_by_its_number_whatever_its_job(chiefs, index, message, said):
    replicas = Replicas(cluster=Cluster(("a:1", "b:1", "c:1"), index, chiefs))
    with pytest.raises(CharlmError, match=f"^{said}; start all workers again"), replicas.watched():
        raise tf.errors.UnavailableError(None, None, message)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "needs the environment variable TF_CONFIG"),
        ("", "must look like"),
        ("[]", "must look like"),
        ("[" * 100_000, "must look like"),
        ('{"cluster": [], "task": {"type": "worker", "index": 0}}', "must look like"),
        ('{"cluster": {"worker": ["a:1"]}}', "must look like"),
        ('{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}', "must look like"),
        ('{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}', "must look like"),
        ('{"cluster": {"worker": ["a:99999"]}, "task": {"type": "worker", "index": 0}}', "must look like"),
        ('{"cluster": {"worker": [1]}, "task": {"type": "worker", "index": 0}}', "must look like"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": true}}', "must look like"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "no worker 1"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}', "no chief 0"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 1}}', "twice: a:1"),
        (
            '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
            "parameter servers",
        ),
        ('{"cluster": {"chief": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}', "2 chiefs"),
    ],
)
def test_a_cluster_that_is_none_is_refused_in_one_line(text, said):
    with pytest.raises(UsageError, match=said) as error:
        Cluster.named({} if text is None else {"TF_CONFIG": text})
    assert "\n" not in str(error.value)


def test_standard_input_is_no_corpus_of_several(tmp_path):
    [(code, line)] = ended(start_workers(1, ["-", "--strategy", "mirrored"], tmp_path))
    assert (code, "standard input" in line) == (2, True)
