"""The training loop: exact resume, honest stops, and a log that others may rely on."""

import json
import math
from pydoc_data.topics import topics

import numpy as np
import pytest

import charlm
from charlm.checkpoint import Run
from charlm.errors import CharlmError, DataError, DivergedError, UsageError
from charlm.events import Evaluated, Finished, Sampled, Saved, Started, Stepped
from charlm.files import read_json
from charlm.session import Request, open_session
from charlm.training import Training

SMALL = {
    "model": {"units": 24, "layers": 2, "dropout": 0.2},
    "train": {"lanes": 8, "bptt": 16, "steps": 30, "evaluate_every": 10, "learning_rate": 5e-3},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "topics.txt"
    path.write_text("\n".join(topics[name] for name in sorted(topics))[:30_000], "utf-8")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def train(corpus, tmp_path):
    """Trains with settings over SMALL, and returns the events; `stop_at` stops it after that many updates."""

    def run(name, stop_at=10**9, resume=False, paths=None, **settings):
        tables = {} if resume else {table: dict(values) for table, values in SMALL.items()}
        for table, values in settings.items():
            tables.setdefault(table, {}).update(values)
        request = Request([str(corpus)] if paths is None else paths, tables, tmp_path, name, "tiny", resume)
        training = Training(open_session(request), stop=lambda: training.step >= stop_at)
        return list(training.events())

    return run


def digests(tmp_path, name, step):
    manifest = read_json(tmp_path / name / f"checkpoints/step-{step:08}/MANIFEST.json")
    return {file: entry["sha256"] for file, entry in manifest["files"].items() if file.endswith(".safetensors")}


def log(tmp_path, name):
    return [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize(("cell", "stride"), [("lstm", 16), ("gru", 10), ("rnn", 7)])
def test_a_stop_and_a_resume_change_no_bit(train, tmp_path, cell, stride):
    settings = {"model": {"cell": cell}, "train": {"stride": stride}}
    train("whole", **settings)
    stopped = train("parted", stop_at=13, **settings)[-1]
    assert (stopped.reason, stopped.step) == ("interrupted", 13)
    assert train("parted", resume=True, paths=[])[-1].step == 30
    whole, parted = (digests(tmp_path, name, 30) for name in ("whole", "parted"))
    assert whole == parted
    assert set(whole) == {"weights.safetensors", "training.safetensors"}


def test_a_resume_crosses_epochs(train, tmp_path):
    settings = {"train": {"lanes": 64, "bptt": 16}}  # 26 windows an epoch
    assert train("whole", **settings)[-1].epoch == 1
    train("parted", stop_at=27, **settings)
    train("parted", resume=True)
    assert digests(tmp_path, "whole", 30) == digests(tmp_path, "parted", 30)


def test_the_seed_decides(train, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(name, train={"seed": seed})
    assert digests(tmp_path, "a", 30) == digests(tmp_path, "b", 30) != digests(tmp_path, "c", 30)


def test_evaluating_and_saving_never_touch_what_is_trained(train, tmp_path):
    train("often", train={"evaluate_every": 3, "save_every": 4})
    train("once", train={"evaluate_every": 30})
    assert digests(tmp_path, "often", 30) == digests(tmp_path, "once", 30)


def test_events_tell_the_story_in_order(train):
    events = train("run")
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert [e.step for e in events if isinstance(e, Stepped)] == list(range(1, 31))
    assert [e.step for e in events if isinstance(e, Evaluated)] == [10, 20, 30]
    assert [e.step for e in events if isinstance(e, Sampled)] == [10, 20, 30]
    scores = [e.score.nats_per_symbol for e in events if isinstance(e, Evaluated)]
    assert scores[-1] < scores[0] < math.log(120)
    assert events[-1].best == min(scores)
    assert all(e.path.is_dir() for e in events if isinstance(e, Saved))


def test_the_log_has_what_others_rely_on(train, tmp_path):
    train("run")
    lines = log(tmp_path, "run")
    assert all({"event", "step", "epoch", "seconds"} <= line.keys() for line in lines)
    assert [line["event"] for line in lines][:2] == ["started", "stepped"]
    stepped = [line for line in lines if line["event"] == "stepped"]
    assert all({"nats_per_symbol", "symbols_per_second", "gradient_norm", "learning_rate"} <= s.keys() for s in stepped)
    steps = [line["step"] for line in stepped]
    assert 3 <= len(steps) < 30
    evaluated = next(line for line in lines if line["event"] == "evaluated")
    wanted = {"nats_per_symbol", "bits_per_char", "bits_per_byte", "perplexity", "symbols", "chars", "bytes", "unknown"}
    assert wanted | {"context", "split"} <= evaluated.keys()
    assert evaluated["context"] == "carried"


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_checkpoint_whole(train, tmp_path):
    train("run", stop_at=12)
    run = Run(tmp_path / "run")
    last = run.last()
    training = Training(open_session(Request([], {}, tmp_path, "run", None, True)))
    training.model.embedding.assign(training.model.embedding * np.nan)
    with pytest.raises(DivergedError, match="step 12 is whole") as caught:
        list(training.events())
    assert caught.value.exit_code == 4
    assert run.last() == last


def test_patience_ends_a_run_that_no_longer_improves(train, tmp_path):
    events = train("run", train={"learning_rate": 1e-12, "steps": 400, "evaluate_every": 1, "patience": 3})
    assert events[-1].reason == "early"
    assert events[-1].step < 400
    assert train("run", resume=True)[-1].reason == "done"
    assert (
        Run(tmp_path / "run").pick("best").step
        == min((e for e in events if isinstance(e, Evaluated)), key=lambda e: e.score.nats_per_symbol).step
    )


def test_minutes_are_used_and_the_number_of_steps_is_recorded(train, tmp_path):
    events = train("run", train={"steps": None, "minutes": 0.25, "evaluate_every": None})
    planned = [e.steps for e in events if isinstance(e, Stepped)]
    assert planned[0] is None
    assert Run(tmp_path / "run").last().progress()["steps"] == planned[-1] == events[-1].step
    assert 0.25 * 60 * 0.8 < events[-1].seconds < 0.25 * 60 * 1.1
    assert events[-1].best is not None


def test_a_resumed_run_keeps_the_steps_that_its_minutes_gave(train, tmp_path):
    train("run", stop_at=40, train={"steps": None, "minutes": 0.1, "evaluate_every": None})
    progress = Run(tmp_path / "run").last().progress()
    assert progress["steps"] > 40
    events = train("run", resume=True)
    assert {e.steps for e in events if isinstance(e, Stepped)} == {events[-1].step} == {progress["steps"]}


class TestResume:
    @pytest.mark.parametrize(
        ("table", "key", "value", "named"),
        [
            ("model", "units", 32, "units was 24, now 32"),
            ("model", "cell", "gru", "cell was lstm, now gru"),
            ("data", "tokenizer", "byte", "tokenizer was char, now byte"),
            ("train", "bptt", 32, "bptt was 16, now 32"),
            ("train", "seed", 5, "seed was 1, now 5"),
        ],
    )
    def test_another_setting_is_refused_by_name(self, train, table, key, value, named):
        train("run", stop_at=3)
        with pytest.raises(UsageError, match=named):
            train("run", resume=True, **{table: {key: value}})

    def test_the_same_settings_may_be_repeated(self, train):
        train("run", stop_at=3)
        assert train("run", resume=True, **SMALL)[-1].step == 30

    def test_another_corpus_is_refused(self, train, tmp_path, corpus):
        train("run", stop_at=3)
        other = tmp_path / "other.txt"
        other.write_text(corpus.read_text("utf-8")[:-1] + "!", "utf-8")
        with pytest.raises(UsageError, match="the corpus has changed"):
            train("run", resume=True, paths=[str(other)])

    def test_a_finished_run_says_so_and_more_steps_go_on(self, train):
        train("run")
        again = train("run", resume=True)
        assert [type(e) for e in again] == [Started, Finished]
        assert (again[-1].reason, again[-1].step) == ("done", 30)
        assert train("run", resume=True, train={"steps": 45})[-1].step == 45

    def test_fewer_steps_than_are_done_are_refused(self, train):
        train("run")
        with pytest.raises(UsageError, match="already made 30"):
            train("run", resume=True, train={"steps": 20})

    def test_a_run_without_a_checkpoint_starts(self, train, tmp_path):
        train("run", stop_at=1)
        (folder,) = (tmp_path / "run/checkpoints").iterdir()
        folder.rename(tmp_path / "gone")
        assert train("run", resume=True)[-1].step == 30

    def test_a_damaged_last_checkpoint_costs_the_way_back_to_the_one_before(self, train, tmp_path, caplog):
        train("whole")
        train("run", stop_at=25)
        damaged = tmp_path / "run/checkpoints/step-00000025/training.safetensors"
        damaged.write_bytes(damaged.read_bytes()[:-1])
        events = train("run", resume=True)
        assert "damaged" in caplog.text
        assert events[0].step == 20
        assert digests(tmp_path, "whole", 30) == digests(tmp_path, "run", 30)

    def test_there_must_be_such_a_run(self, train):
        with pytest.raises(UsageError, match="no such run"):
            train("nobody", resume=True)


def test_a_text_too_small_for_its_lanes_leaves_no_run_behind(train, tmp_path):
    with pytest.raises(DataError, match="lanes="):
        train("run", train={"lanes": 5000})
    assert not (tmp_path / "run").exists()


def test_two_processes_cannot_train_one_run(train, tmp_path):
    train("run", stop_at=2)
    with Run(tmp_path / "run").locked(), pytest.raises(CharlmError, match="another process"):
        train("run", resume=True)


def test_a_name_that_exists_needs_resume(train):
    train("run", stop_at=1)
    with pytest.raises(UsageError, match="resume=True"):
        train("run")


@pytest.mark.parametrize("tokenizer", ["byte", "sentencepiece"])
def test_any_tokenizer_trains_and_loads_again(corpus, tmp_path, tokenizer):
    settings = {"tokenizer": tokenizer, "vocabulary": 400, "units": 24, "lanes": 8, "bptt": 16, "steps": 8}
    trained = charlm.train(str(corpus), models=tmp_path, name="run", **settings)
    loaded = charlm.load("run", models=tmp_path)
    assert loaded.tokenizer.fingerprint == trained.tokenizer.fingerprint
    assert loaded.evaluate().nats_per_symbol == pytest.approx(trained.evaluate().nats_per_symbol, rel=1e-6)
    text = loaded.generate("été", length=20, seed=3)
    assert isinstance(text, str)
    assert text == loaded.generate("été", length=20, seed=3) != loaded.generate("été", length=20, seed=4)


def test_the_python_interface_refuses_settings_it_does_not_know(corpus, tmp_path):
    with pytest.raises(UsageError, match="'colour'"):
        charlm.train(str(corpus), models=tmp_path, colour="red")
