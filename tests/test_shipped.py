"""The model that comes with a clone."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from charlm.api import load
from charlm.cli import cli
from charlm.errors import ModelError
from charlm.files import read_json, write_json, write_manifest
from charlm.shelf import find_run

MODELS = Path(__file__).parent.parent / "models"
SHIPPED = MODELS / "kjv-small"


def test_it_is_small_and_says_what_it_is():
    checkpoint = find_run("kjv-small", MODELS).pick("best")
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) < 2_000_000
    assert checkpoint.progress()["best_nats"] < 1.24
    assert checkpoint.record["corpus"]["chars"] > 4_000_000
    assert checkpoint.record["corpus"]["paths"] == ["kjv.txt"]


def test_what_it_writes_is_seen_at_a_glance_to_be_in_the_manner_of_the_bible():
    model = load(SHIPPED)
    text = model.generate("And it came to pass", length=2000, temperature=0.6, seed=1)
    assert text == model.generate("And it came to pass", length=2000, temperature=0.6, seed=1)
    words = text.split()
    known = {"the", "and", "of", "that", "in", "he", "shall", "unto", "to", "his", "LORD", "they", "them"}
    assert np.mean([word.strip(",.;:") in known for word in words]) > 0.25
    assert len({*words}) > 60


def test_a_configuration_that_says_another_size_is_refused_before_the_network_is_built(tmp_path, monkeypatch):
    place = Path(
        shutil.copytree(SHIPPED, tmp_path / "run"), "checkpoints", find_run("kjv-small", MODELS).last().path.name
    )
    record = read_json(place / "config.json")
    record["config"]["model"]["units"] = 100_000
    write_json(place / "config.json", record)
    (place / "MANIFEST.json").unlink()
    write_manifest(place)
    monkeypatch.setattr("charlm.language_model.build_model", lambda config: pytest.fail("allocates 160 GB"))
    with pytest.raises(ModelError, match=r"weights.safetensors: .* config.json says \(.*100000"):
        load(tmp_path / "run")


def test_a_reader_who_types_the_readmes_first_command_gets_its_text():
    readme = (MODELS.parent / "README.md").read_text("utf-8")
    command, text = re.search(r"^\$ charlm (generate --model kjv-small .*)\n(.*)$", readme, re.M).groups()
    written = CliRunner().invoke(cli, [*shlex.split(command), "--models", str(MODELS)])
    assert written.stdout.rstrip("\n") == text
