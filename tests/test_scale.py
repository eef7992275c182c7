"""The files that start a training on several machines: a real shell runs them, with stand-ins for what they start."""

import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

from charlm.cluster import Cluster

SCALE = Path(__file__).parent.parent / "docs/scale"
SAYS = '#!/bin/sh\nprintf "%s\\n%s\\n" "$TF_CONFIG" "$*" > "$SAID/$SLURM_PROCID$JOB_COMPLETION_INDEX"\nexit $CODE\n'
SRUN = """#!/bin/bash
shift
worst=0
for n in $(seq 0 $((SLURM_NTASKS - 1))); do
    SLURM_PROCID=$n "$@"
    code=$?
    [ $code -gt $worst ] && worst=$code
done
echo $worst >> "$SAID/attempts"
exit $worst
"""


@pytest.fixture
def stage(tmp_path):
    """Runs a script where charlm, srun and scontrol are stand-ins; gives what ended, and what each worker was told."""
    (tmp_path / "bin").mkdir()
    hosts = '#!/bin/sh\n[ "$1 $2 $3" = "show hostnames node[1-3]" ] && printf "node1\\nnode2\\nnode3\\n"\n'
    for name, content in {"charlm": SAYS, "srun": SRUN, "scontrol": hosts}.items():
        (tmp_path / "bin" / name).write_text(content)
        (tmp_path / "bin" / name).chmod(0o755)

    def run(*command, code=0, **variables):
        said = tmp_path / "said"
        shutil.rmtree(said, ignore_errors=True)
        said.mkdir()
        paths = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SAID": str(said), "CODE": str(code)}
        done = subprocess.run(command, cwd=tmp_path, env=paths | variables, capture_output=True, text=True, check=False)
        told = [file.read_text().splitlines() for file in sorted(said.glob("[0-9]*"))]
        attempts = len((said / "attempts").read_text().split()) if (said / "attempts").exists() else 1
        return done, [(Cluster.named({"TF_CONFIG": config}), words) for config, words in told], attempts

    return run


def pod(stage, index):
    manifest = (SCALE / "kubernetes.yaml").read_text()
    script = textwrap.dedent(re.search(r"args:\n +- \|\n(.*?)\n {10}workingDir", manifest, re.S)[1])
    done, ((cluster, words),), _ = stage("sh", "-euc", script, NAME="writer", WORKERS="3", JOB_COMPLETION_INDEX=index)
    assert done.returncode == 0, done.stderr
    return cluster, words


def test_each_pod_of_the_manifest_knows_its_place_and_goes_on_with_the_run(stage, tmp_path):
    addresses = tuple(f"writer-{n}.writer:2222" for n in range(3))
    for index in "0", "2":
        cluster, words = pod(stage, index)
        assert cluster == Cluster(addresses, int(index))
        assert words == "train corpus.txt --name writer --strategy multiworker --minutes 120"
    (tmp_path / "models/writer").mkdir(parents=True)
    (tmp_path / "models/writer/config.json").touch()
    assert pod(stage, "0")[1].endswith(" --minutes 120 --resume")


def test_the_names_and_counts_in_the_manifest_agree():
    manifest = (SCALE / "kubernetes.yaml").read_text()
    counts = re.findall(r'(?:completions: |parallelism: |WORKERS\n +value: ")(\d+)', manifest)
    assert (len(counts), len(set(counts))) == (3, 1)
    names = re.findall(r"^  name: (\w+)$|subdomain: (\w+)|job-name: (\w+)|NAME .*\n +value: (\w+)", manifest, re.M)
    assert len(names) == 6
    assert {name for found in names for name in found if name} == {"writer"}


def slurm(stage, **how):
    variables = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "node[1-3]", "SLURM_NTASKS": "3"}
    return stage("bash", str(SCALE / "train.sbatch"), **(variables | how))


def test_each_task_of_the_batch_knows_its_place(stage):
    done, told, attempts = slurm(stage)
    assert (done.returncode, attempts) == (0, 1)
    addresses = tuple(f"node{n}:23456" for n in (1, 2, 3))
    assert [cluster for cluster, _ in told] == [Cluster(addresses, n) for n in range(3)]
    assert {words for _, words in told} == {"train corpus.txt --name writer --strategy multiworker --minutes 240"}


@pytest.mark.parametrize(("code", "attempts"), [(1, 5), (137, 5), (2, 1), (4, 1), (130, 1)])
def test_the_batch_starts_all_again_where_that_helps(stage, tmp_path, code, attempts):
    (tmp_path / "models/writer").mkdir(parents=True)
    (tmp_path / "models/writer/config.json").touch()
    done, told, made = slurm(stage, code=code)
    assert (done.returncode, made) == (1 if attempts > 1 else code, attempts)
    assert {words.split()[-1] for _, words in told} == {"--resume"}


def test_two_tasks_on_a_node_are_refused(stage):
    done, told, attempts = slurm(stage, SLURM_NTASKS="6")
    assert (done.returncode, told, attempts) == (2, [], 1)
    assert "6 tasks on 3 nodes: give one task to each" in done.stderr
