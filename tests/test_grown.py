"""A run that begins from another: its weights, symbols and settings, what it forgets, and its resume."""

import json
import math
import shutil

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.cells import CELL_NAMES
from charlm.checkpoint import assign, to_arrays
from charlm.cli import cli
from charlm.cli.options import as_typed
from charlm.config import Config, ModelConfig
from charlm.errors import ModelError, UsageError, spelled
from charlm.events import Remembered, Stepped
from charlm.files import read_json, write_manifest
from charlm.model import build_model
from charlm.runs import Run, publish
from charlm.session import Request, open_session
from charlm.training import Training
from charlm.weights import grown, without

OLD = "the quick brown fox jumps over the lazy dog, and the dog sleeps.\n" * 30
NEW = "Über den Fluß geht der Fuchs; the dog sleeps.\n" * 40
BROUGHT = ";FÜß"  # the characters that NEW alone has
SMALL = {
    "model": {"units": 8, "layers": 1, "embedding": 5, "dropout": 0.2},
    "train": {"lanes": 4, "bptt": 8, "steps": 6, "evaluate_every": 3, "save_every": 2, "precision": "float32"},
}
TRAIN = {"train": SMALL["train"]}


def train(models, name, path, tables, stop_at=10**9, **request):
    paths = [] if path is None else [str(path)]
    session = open_session(Request(paths, tables, models, name, None if path is None else "tiny", **request))
    training = Training(session, stop=lambda: training.step >= stop_at)
    return session, list(training.events())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two texts, and a run called old of the first."""
    folder = tmp_path_factory.mktemp("grown")
    (folder / "old.txt").write_text(OLD, "utf-8")
    (folder / "new.txt").write_text(NEW, "utf-8")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CHARLM_CACHE", str(folder / "cache"))
        train(folder, "old", folder / "old.txt", SMALL)
    return folder


@pytest.fixture(scope="module")
def begun(folder):
    """The session and the events of a run called new, of the other text, that began from old."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CHARLM_CACHE", str(folder / "cache"))
        return train(folder, "new", folder / "new.txt", TRAIN, from_run="old")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def models(folder, begun, tmp_path):
    """A copy of the folder of runs, whose texts lie where they lay."""
    return shutil.copytree(folder, tmp_path / "models", ignore=shutil.ignore_patterns("cache", "*.txt"))


# ---- weights


def random_weights(symbols, tie, seed):
    rng = np.random.default_rng(seed)
    weights = {"embedding": rng.normal(size=(symbols, 5)), "bias": rng.normal(0, 3, symbols)}
    return weights if tie else weights | {"projection": rng.normal(0, 2, (5, symbols))}


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(0, 40), st.booleans(), st.integers(0, 2**32 - 1))
def test_new_symbols_have_together_less_than_one_old_one_on_average_and_old_ones_keep_their_logits(old, new, tie, seed):
    weights = random_weights(old, tie, seed)
    more = grown(weights, old + new)
    assert more.keys() == weights.keys()
    hidden = np.random.default_rng(seed).normal(0, 4, (20, 5))
    before, after = (hidden @ w.get("projection", w["embedding"].T) + w["bias"] for w in (weights, more))
    np.testing.assert_allclose(after[:, :old], before, rtol=1e-12, atol=1e-12)
    shares = np.exp(after - after.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    assert (shares[:, old:].sum(1) <= (1 + 1e-9) / (1 + old)).all()
    for name, array in weights.items():
        kept = more[name][:, :old] if name == "projection" else more[name][:old]
        assert (kept == array).all()
        assert more[name].dtype == array.dtype


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_cell_predicts_old_symbols_as_before_up_to_the_share_of_the_new(cell):
    ids, models = tf.constant(np.random.default_rng(1).integers(0, 7, (6, 2)), tf.int32), []
    for symbols in (7, 10):
        config = ModelConfig(cell=cell, units=4, layers=2, vocabulary=symbols, tie=cell == "gru")
        models.append(build_model(config, seed=3, dtype="float64"))
    small, large = models
    weights = to_arrays(small.named_weights())
    before, state = small(ids, small.initial_state(2))
    assign(large.named_weights(), grown(weights, 10), None)
    after, grown_state = large(ids, large.initial_state(2))
    for a, b in zip(tf.nest.flatten(state), tf.nest.flatten(grown_state), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)
    np.testing.assert_allclose(before, after[..., :7], rtol=0, atol=1e-14)
    share = tf.reduce_sum(tf.nn.softmax(after)[..., 7:], -1).numpy()
    assert 0 < share.min() <= share.max() < 1 / 8
    np.testing.assert_allclose(tf.nn.softmax(before), tf.nn.softmax(after)[..., :7] / (1 - share)[..., None], 1e-12)
    assign(large.named_weights(), without(grown(weights, 10), 7), None)
    silent = tf.nn.softmax(large(ids, large.initial_state(2))[0]).numpy()
    assert (silent[..., 7:] == 0).all()
    np.testing.assert_allclose(silent[..., :7], tf.nn.softmax(before), 1e-12)


# ---- a run


def test_a_run_has_the_network_of_the_other_its_own_training_and_rows_for_what_is_new(folder, begun):
    old, config = Run(folder / "old").pick("best").config(), begun[0].config
    vocabulary = old.model.vocabulary + len(BROUGHT)
    assert config.model == ModelConfig(**{**vars(old.model), "vocabulary": vocabulary})
    assert begun[0].data.tokenizer.characters.endswith(BROUGHT)
    assert (config.train.learning_rate, config.train.steps) == (5e-3, 6)
    assert begun[0].choice.startswith(
        f"from old, step {Run(folder / 'old').pick('best').step}: 4 new characters beside its 31 symbols: "
        "';', 'F', 'Ü', 'ß'; preset tiny"
    )
    assert [event.step for event in begun[1] if isinstance(event, Stepped)] == [1, 2, 3, 4, 5, 6]


def test_a_run_begins_at_the_weights_of_the_other_with_a_fresh_optimizer(folder, models):
    session = open_session(Request([str(folder / "new.txt")], TRAIN, models, "again", "tiny", from_run="old"))
    with session.lock:
        training = Training(session)
    weights = Run(folder / "old").pick("best").arrays("weights")
    for name, array in grown(weights, session.config.model.vocabulary).items():
        assert (training.model.named_weights()[name].numpy() == array).all()
    slots = [v for v in training.trainer.optimizer.variables if "momentum" in v.name or "velocity" in v.name]
    assert slots
    assert not any(np.any(v.numpy()) for v in slots)


def test_a_run_tells_where_it_came_from(folder, begun, tmp_path):
    best = Run(folder / "old").pick("best")
    files = read_json(best.path / "MANIFEST.json")["files"]
    expected = {"run": "old", "step": best.step, "weights": files["weights.safetensors"]["sha256"]}
    record = Run(folder / "new").record
    assert record["from"] == expected | {"checkpoint": str(best.path)}
    assert publish(Run(folder / "new").pick("best"), tmp_path / "published").record["from"] == expected
    told = CliRunner().invoke(cli, ["info", "--model", str(folder / "new")]).output
    assert f"from        old, step {best.step}, weights {expected['weights'][:12]}" in told


def test_what_is_forgotten_is_said_in_the_end_as_evaluate_says_it(folder, begun, capsys):
    from charlm.api import load
    from charlm.display import TrainingDisplay

    event = begun[1][-2]
    assert isinstance(event, Remembered)
    old, new = (load(name, models=folder) for name in ("old", "new"))
    assert event.before == pytest.approx(old.evaluate(split="valid").bits_per_char, rel=1e-6)
    assert event.after == pytest.approx(new.evaluate(folder / "old.txt", split="valid").bits_per_char, rel=1e-6)
    TrainingDisplay().show(event)
    said = f"on old.txt of old: {event.before:.3f} bits per character before, {event.after:.3f} after\n"
    assert capsys.readouterr().err == said
    line = json.loads((folder / "new" / "metrics.jsonl").read_text().splitlines()[-2])
    assert (line["event"], line["before"], line["after"]) == ("remembered", event.before, event.after)


def test_a_stop_and_a_resume_of_a_grown_run_change_no_bit(folder, begun, models):
    train(models, "parted", folder / "new.txt", TRAIN, stop_at=3, from_run=str(folder / "old"))
    session, events = train(models, "parted", None, {}, resume=True)
    assert session.choice == "resumed from step 3"
    for name in ("weights.safetensors", "training.safetensors"):
        whole, parted = (Run(at).last().path / name for at in (folder / "new", models / "parted"))
        assert whole.read_bytes() == parted.read_bytes()
    assert math.isclose(events[-2].after, begun[1][-2].after)


def test_a_grown_run_without_a_checkpoint_begins_again_where_it_began_and_not_without_that(folder, models):
    for name in ("parted", "stranded"):
        request = Request([str(folder / "new.txt")], TRAIN, models, name, "tiny", from_run=str(models / "old"))
        open_session(request).lock.close()
    train(models, "parted", None, {}, resume=True)
    whole, parted = (Run(at).last().path / "weights.safetensors" for at in (folder / "new", models / "parted"))
    assert whole.read_bytes() == parted.read_bytes()
    best = Run(models / "old").pick("best").path
    shutil.rmtree(best)
    with pytest.raises(UsageError, match=f"{best}: is not there any more, and nothing was trained yet"):
        open_session(Request([], {}, models, "stranded", resume=True))


def test_a_grown_run_that_has_a_checkpoint_needs_the_other_no_more(models, capsys):
    from charlm.display import TrainingDisplay

    record = Run(models / "new").record
    record["from"]["checkpoint"] = str(models / "gone")
    Run(models / "new").record_again(record)
    _, events = train(models, "new", None, {"train": {"steps": 7}}, resume=True)
    TrainingDisplay().show(events[-2])
    step = record["from"]["step"]
    assert capsys.readouterr().err == f"on the text of old: not scored, for step {step} of old is not there any more\n"


# ---- texts that are not at hand, tokenizers that do not grow, settings that differ


def old_run(models, tokenizer="char", **corpus):
    """A run whose network is no network, which suffices to open another from it."""
    path = models / "text.txt"
    path.write_text(OLD)
    data = {"tokenizer": tokenizer, "vocabulary": 300}
    session = open_session(Request([str(path)], {"data": data, "model": SMALL["model"]}, models, tokenizer, "tiny"))
    session.lock.close()
    session.run.record_again(session.run.record | {"corpus": session.run.record["corpus"] | corpus})
    symbols = session.config.model.vocabulary
    shapes = {"embedding": (symbols, 5), "layers.0.kernel": (5, 32), "projection": (8, symbols), "bias": (symbols,)}
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    session.run.save(3, weights, {}, {"step": 3, "best": 3, "scored": 3}, session.data.tokenizer)
    return models / tokenizer


def opened(models, run, settings=None, paths=None):
    (models / "new.txt").write_text(NEW, "utf-8")
    tables = {**TRAIN, **(settings or {})}
    session = open_session(Request(paths or [str(models / "new.txt")], tables, models, from_run=str(run)))
    session.lock.close()
    return session


GONE = "no such file or folder; check the path of the corpus"


GONE = "no such file or folder; check the path of the corpus"


@pytest.mark.parametrize(
    ("paths", "text", "why"),
    [
        (["-"], OLD, "standard input of char: it was not kept"),
        (
            ["/gone/old.txt"],
            OLD,
            f"old.txt of char: it is not here (/gone/old.txt: {GONE})",
        ),
        (None, OLD + "!", "text.txt of char: it has changed since"),
    ],
)
def test_a_text_that_is_not_at_hand_is_not_scored_and_said_why(tmp_path, paths, text, why):
    run = old_run(tmp_path, **({"paths": paths} if paths else {}))
    (tmp_path / "text.txt").write_text(text)
    old_text = opened(tmp_path, run).old_text
    assert f"{old_text.name} of {old_text.run}: {old_text.missing}" == why
    assert old_text.records is None


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [
        ("byte", "every byte has a symbol"),
        ("sentencepiece", "its sentencepieces cannot grow; characters that have no piece are read as bytes"),
    ],
)
def test_a_tokenizer_that_does_not_grow_says_so_and_goes_on(tmp_path, tokenizer, said):
    run = old_run(tmp_path, tokenizer)
    session = opened(tmp_path, run)
    assert session.choice.startswith(f"from {tokenizer}, step 3: {said}; preset tiny")
    assert session.data.tokenizer.fingerprint == Run(run).record["tokenizer"]
    assert session.data.tokenizer.decode(session.data.train.ids) == NEW[: round(0.9 * len(NEW))]


def test_a_text_without_a_new_character_says_that_there_is_none(tmp_path):
    run = old_run(tmp_path)
    session = opened(tmp_path, run, paths=[str(tmp_path / "text.txt")])
    assert session.choice.startswith("from char, step 3: no new characters beside its 31 symbols; ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": {"cell": "gru"}}, "cell gru: char has lstm"),
        ({"model": {"layers": 2}}, "layers 2: char has 1"),
        ({"model": {"units": 512}}, "units 512: char has 8"),
        ({"model": {"embedding": 8}}, "embedding 8: char has 5"),
        ({"model": {"tie": True}}, "tie True: char has False"),
        ({"data": {"tokenizer": "byte"}}, "tokenizer byte: char has char"),
    ],
)
def test_another_network_or_tokenizer_is_refused_in_a_line_that_names_both(tmp_path, settings, message):
    run = old_run(tmp_path)
    with pytest.raises(UsageError, match=f"^{message}, and a run that begins from it keeps that"):
        opened(tmp_path, run, settings)


def test_the_same_network_and_another_dropout_are_taken(tmp_path):
    config = opened(tmp_path, old_run(tmp_path), {"model": {"units": 8, "embedding": 5, "dropout": 0.5}}).config
    assert isinstance(config, Config)
    assert (config.model.units, config.model.dropout) == (8, 0.5)


def test_a_run_that_is_not_there_and_a_resume_are_refused(tmp_path):
    run = old_run(tmp_path)
    with pytest.raises(ModelError, match="nobody: no such model"):
        opened(tmp_path, "nobody")
    other = old_run(tmp_path, "byte")
    foreign = Run(other).last().path / "config.json"
    foreign.write_text(foreign.read_text().replace('"units": 8', '"units": 100000'))
    (foreign.parent / "MANIFEST.json").unlink()
    write_manifest(foreign.parent)
    with pytest.raises(ModelError, match=r"projection is \(8, 256\); config.json says \(100000, 256\)"):
        opened(tmp_path, other)
    with pytest.raises(UsageError, match="resume=True goes on with a run and from_run begins one"):
        open_session(Request([], {}, tmp_path, "char", resume=True, from_run=str(run)))
    typed = ["train", "--name", "char", "--models", str(tmp_path), "--resume", "--from", "char"]
    with spelled(as_typed):
        refusal = CliRunner().invoke(cli, typed).exception
    assert str(refusal) == "--resume goes on with a run and --from begins one: give one"
