"""The training loop: exact resume, honest stops, and a log that others may rely on."""

import contextlib
import json
import math
import os
import re
import shutil
import signal
from pydoc_data.topics import topics

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

import charlm
from charlm import time_budget, training, validation
from charlm.errors import CharlmError, DataError, DivergedError, Interrupted, ModelError, UsageError
from charlm.events import BackedOff, Evaluated, Finished, Planned, Sampled, Saved, Started, Stepped
from charlm.files import read_json, write_manifest
from charlm.machine import Machine
from charlm.records import NO_STARTS, Records
from charlm.runs import Run
from charlm.session import Request, open_session
from charlm.tbptt import scheduled_rate
from charlm.training import Training
from charlm.validation import Validation, spread

SMALL = {
    "model": {"units": 16, "layers": 1, "dropout": 0.2},
    "train": {"lanes": 32, "bptt": 8, "steps": 30, "evaluate_every": 10, "learning_rate": 5e-3},
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

    def run(name, stop_at=10**9, resume=False, paths=None, stop=None, **settings):
        tables = {} if resume else {table: dict(values) for table, values in SMALL.items()}
        for table, values in settings.items():
            tables.setdefault(table, {}).update(values)
        request = Request([str(corpus)] if paths is None else paths, tables, tmp_path, name, "tiny", resume)
        trainer = Training(open_session(request), stop=stop or (lambda: trainer.step >= stop_at))
        return list(trainer.events())

    return run


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    """A run of 30 steps."""
    models = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CHARLM_CACHE", str(models / "cache"))
        list(Training(open_session(Request([str(corpus)], SMALL, models, "run", "tiny"))).events())
    return models / "run"


@pytest.fixture
def run(finished, tmp_path):
    """Its copy."""
    return Run(shutil.copytree(finished, tmp_path / "run"))


def digests(tmp_path, name, step):
    manifest = read_json(tmp_path / name / f"checkpoints/step-{step:08}/MANIFEST.json")
    return {file: entry["sha256"] for file, entry in manifest["files"].items() if file.endswith(".safetensors")}


def log(tmp_path, name):
    return [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize(("cell", "stride"), [("lstm", 16), ("gru", 10), ("rnn", 7)])
def test_a_stop_and_a_resume_change_no_bit(train, tmp_path, cell, stride):
    settings = {"model": {"cell": cell, "layers": 2}, "train": {"bptt": 16, "stride": stride}}
    train("whole", **settings)
    stopped = train("parted", stop_at=13, **settings)[-1]
    assert (stopped.reason, stopped.step) == ("interrupted", 13)
    assert train("parted", resume=True, paths=[])[-1].step == 30
    whole, parted = (digests(tmp_path, name, 30) for name in ("whole", "parted"))
    assert whole == parted
    assert set(whole) == {"weights.safetensors", "training.safetensors"}


def test_a_checkpoint_of_when_slots_had_numbers_is_resumed_to_the_last_bit(train, run, tmp_path):
    whole = digests(tmp_path, "run", 30)
    shutil.rmtree(run.last().path)
    folder = run.last().path
    training = safetensors.numpy.load_file(folder / "training.safetensors")
    layer = ["layers.0.kernel", "layers.0.recurrent_kernel", "layers.0.bias"]
    weights = ["embedding", "projection", "bias", *layer]
    slots = [f"{slot}.{weight}" for weight in weights for slot in ("momentum", "velocity")]
    for number, name in enumerate(["iteration", "learning_rate", *slots]):
        training[f"optimizer.{number:03}"] = training.pop(f"optimizer.{name}")
    assert {name.split(".")[0] for name in training if not re.fullmatch(r"optimizer\.\d{3}", name)} == {"state"}
    safetensors.numpy.save_file(training, folder / "training.safetensors")
    (folder / "MANIFEST.json").unlink()
    write_manifest(folder)
    assert train("run", resume=True)[0].step == 20
    assert digests(tmp_path, "run", 30) == whole


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


def spoil(training, what, value):
    """Puts a value that is not finite into a training."""
    if what == "a weight":
        training.model.embedding.assign(training.model.embedding * value)
    elif what == "a weight that is not used":  # a last symbol, which the text has not
        training.model.embedding[-1].assign(training.model.embedding[-1] * 0 + value)
    elif what == "a slot":
        training.trainer.slots()["optimizer.momentum.bias"].assign_add([value] * training.model.config.vocabulary)
    else:
        training.state = tf.nest.map_structure(lambda state: state + value, training.state)


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("what", ["a weight", "a weight that is not used", "a slot", "the state"])
def test_what_is_not_finite_ends_a_run_in_the_next_update_and_is_never_written(run, what, value):
    last = run.last()
    training = Training(open_session(Request([], {"train": {"steps": 32}}, run.path.parent, "run", None, True)))
    spoil(training, what, value)
    with pytest.raises(DivergedError, match=r"at step 31: .*step 30 is whole") as caught:
        list(training.events())
    assert caught.value.exit_code == 4
    assert run.last() == last


def test_a_training_backs_off_to_its_last_checkpoint_and_goes_on_with_half_the_rate(train, tmp_path, monkeypatch):
    spoiled, applied = [], Training._applied

    def update(training, window, rate):
        if training.at.step in (14, 27) and training.at.step not in spoiled:
            spoiled.append(training.at.step)
            spoil(training, "a weight", np.nan)
        return applied(training, window, rate)

    clean = {e.step: e for e in train("whole") if isinstance(e, Stepped)}
    monkeypatch.setattr(Training, "_applied", update)
    events = train("run", train={"on_divergence": "back-off"})
    back = [event for event in events if isinstance(event, BackedOff)]
    assert [(event.step, event.diverged, event.back_offs) for event in back] == [(10, 15, 1), (20, 28, 2)]
    assert all("nan" in event.found for event in back)
    updates = [event for event in events if isinstance(event, Stepped)]
    assert [e.step for e in updates] == [*range(1, 15), *range(11, 28), *range(21, 31)]
    assert updates[14].learning_rate == clean[11].learning_rate / 2
    assert updates[14].nats_per_symbol == clean[11].nats_per_symbol  # of the weights of step 10
    assert updates[-1].learning_rate == clean[30].learning_rate / 4
    assert events[-1].reason == "done"
    assert [line["event"] for line in log(tmp_path, "run")].count("backedoff") == 2


def test_a_training_backs_off_to_its_beginning_and_not_for_ever(train, monkeypatch):
    monkeypatch.setattr(training, "MOST_BACK_OFFS", 3)
    applied = Training._applied
    monkeypatch.setattr(
        Training, "_applied", lambda training, w, rate: applied(training, w, rate)._replace(nats_sum=np.float32(np.nan))
    )
    with pytest.raises(DivergedError, match="at step 1: loss nan; the checkpoint of step 0 is whole"):
        train("run", train={"on_divergence": "back-off"})


def test_what_is_not_finite_at_the_start_ends_a_run_as_what_becomes_so(train, monkeypatch):
    made = Training._save

    def save(training):
        spoil(training, "a weight", np.nan)
        return made(training)

    monkeypatch.setattr(Training, "_save", save)
    with pytest.raises(DivergedError, match="there is no checkpoint yet"):
        train("run", train={"on_divergence": "back-off"})


def test_what_backs_off_is_recorded_as_it_computes_now(run):
    settings = {"train": {"steps": 40, "on_divergence": "back-off"}}
    training = Training(open_session(Request([], settings, run.path.parent, "run", None, True)))
    training.at.threads = 7
    spoil(training, "a weight", np.nan)
    events = training.events()
    assert any(isinstance(event, BackedOff) for event in events)
    assert training.at.threads == 7


def test_patience_ends_a_run_that_no_longer_improves(train, tmp_path):
    events = train("run", train={"learning_rate": 1e-12, "steps": 400, "evaluate_every": 1, "patience": 3})
    assert events[-1].reason == "early"
    assert events[-1].step < 400
    assert train("run", resume=True)[-1].reason == "done"
    assert (
        Run(tmp_path / "run").pick("best").step
        == min((e for e in events if isinstance(e, Evaluated)), key=lambda e: e.score.nats_per_symbol).step
    )


@pytest.mark.parametrize(("native", "lanes", "window"), [(False, 32, 32), (True, 64, 64)])
def test_a_slow_processor_gets_more_and_smaller_updates(corpus, tmp_path, monkeypatch, native, lanes, window):
    monkeypatch.setattr(Machine, "here", lambda: Machine(bfloat16=native))
    opened = open_session(Request([str(corpus)], {}, tmp_path, "run", "small"))
    assert (opened.config.train.lanes, opened.config.train.bptt) == (lanes, window)
    asked = open_session(Request([str(corpus)], {"train": {"lanes": 16}}, tmp_path, "asked", "small"))
    assert asked.config.train.lanes == 16


class Clock:
    """A clock that goes on by a fiftieth of a second whenever it is looked at."""

    now = 0.0

    def monotonic(self):
        self.now += 0.02
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(training, "time", clock)
    monkeypatch.setattr(time_budget, "time", clock)
    monkeypatch.setattr(validation, "time", clock)
    return clock


MINUTES = {"steps": None, "minutes": 0.5, "evaluate_every": None}


def test_minutes_are_planned_before_they_are_used(train, tmp_path, clock):
    events = train("run", train=MINUTES)
    first = next(e for e in events if not isinstance(e, Started))
    assert isinstance(first, Planned)
    assert first.previous is None
    config, planned = Run(tmp_path / "run").last().config().train, {}
    for event in events:
        match event:
            case Planned():
                planned["steps"] = event.steps
            case Stepped():
                assert event.learning_rate == scheduled_rate(config, event.step - 1, planned["steps"])
    assert Run(tmp_path / "run").last().progress()["steps"] == planned["steps"] == events[-1].step
    assert 0.8 * 30 < events[-1].seconds < 1.1 * 30
    assert len([e for e in events if isinstance(e, Evaluated)]) > 1
    assert events[-1].best is not None


def test_a_resumed_run_keeps_the_steps_that_its_minutes_gave(train, tmp_path, clock):
    train("run", stop_at=40, train=MINUTES)
    progress = Run(tmp_path / "run").last().progress()
    assert progress["steps"] > 40
    events = train("run", resume=True)
    assert {e.steps for e in events if isinstance(e, Stepped)} == {events[-1].step} == {progress["steps"]}


def test_planning_changes_no_weight(train, tmp_path, clock):
    train("planned", stop_at=3, train=MINUTES | {"learning_rate": 1e-9, "warmup": 0})
    train("counted", stop_at=3, train={"learning_rate": 1e-9, "warmup": 0})
    planned, counted = (Run(tmp_path / name).last().arrays("training") for name in ("planned", "counted"))
    slots = [name for name in planned if name.startswith("optimizer.")]
    assert all(np.allclose(planned[name], counted[name], rtol=1e-4, atol=1e-9) for name in slots)
    assert planned["optimizer.iteration"] == 3  # updates


def test_what_an_interrupted_run_learnt_is_what_is_used(train, run):
    events = train("run", resume=True, stop_at=60, train={"steps": 100_000, "evaluate_every": 50_000})
    evaluated = [e for e in events if isinstance(e, Evaluated)]
    assert [(e.step, e.scheduled, e.best) for e in evaluated] == [(60, False, True)]
    assert events[-1].reason == "interrupted"
    assert run.pick("best").step == 60


def test_an_interrupted_run_is_saved_without_a_score_where_that_takes_long(train, run, monkeypatch):
    monkeypatch.setattr(training, "LAST_SECONDS", 0)
    far = {"steps": 100_000, "evaluate_every": 50_000}
    events = train("run", resume=True, stop_at=60, train=far)
    assert [type(event) for event in events[-2:]] == [Saved, Finished]
    assert events[-1].reason == "interrupted"
    assert run.last().step == 60


def test_a_run_with_a_far_end_is_scored_by_the_time_that_passes(train, tmp_path, clock, monkeypatch):
    monkeypatch.setattr(validation, "UNSCHEDULED_SECONDS", 0.3)
    monkeypatch.setattr(validation, "UNSCHEDULED_SHARE", 1.0)
    far = {"steps": 64, "evaluate_every": None}
    evaluated = [e for e in train("timed", train=far) if isinstance(e, Evaluated)]
    assert {e.step for e in evaluated if e.scheduled} == {8 * n for n in range(1, 9)}
    assert [e.step for e in evaluated if not e.scheduled]
    monkeypatch.setattr(validation, "UNSCHEDULED_SECONDS", 1e9)
    train("counted", train=far)
    assert digests(tmp_path, "timed", 64) == digests(tmp_path, "counted", 64)
    assert len({Run(tmp_path / name).pick("best").step for name in ("timed", "counted")}) == 1


def test_an_evaluation_that_would_delay_a_stop_is_abandoned(train):
    asked = []

    def stop():
        asked.append(None)
        return len(asked) > 12  # the second question within the first evaluation, after 10 updates

    events = train("run", stop=stop)
    assert events[-1].reason == "interrupted"
    assert events[-1].step == 10
    assert [e.scheduled for e in events if isinstance(e, Evaluated)] == [False]
    assert next(type(e) for e in events if not isinstance(e, Started | Stepped)) is Saved


class TestALongerRun:
    @pytest.mark.parametrize("length", [{"steps": 45}, {"epochs": 1}, {"minutes": 0.5}])
    def test_any_length_prolongs_a_run_whatever_it_began_with(self, train, run, length, clock):
        started, planned, *_, finished = train("run", resume=True, train=length)
        assert (started.step, planned.previous, finished.reason) == (30, 30, "done")
        assert finished.step == planned.steps > 30 or "minutes" in length
        assert planned.learning_rate > 10 * scheduled_rate(started.config.train, planned.steps, planned.steps)

    def test_the_minutes_of_a_run_are_all_that_it_has_taken(self, train, clock):
        seconds = train("run", train=MINUTES)[-1].seconds
        with pytest.raises(UsageError, match=r"already taken 0\.5\d? minutes"):
            train("run", resume=True, train={"minutes": 0.4})
        assert seconds < 35 < train("run", resume=True, train={"minutes": 0.75})[-1].seconds < 50

    @pytest.mark.parametrize("before", [{"steps": 30}, MINUTES])
    def test_scores_before_and_after_are_of_the_same_text(self, train, clock, monkeypatch, before):
        scored = []

        class Watched(Validation):
            def score(self, symbols=None, *abandon, **named):
                if symbols is None:  # no trial
                    scored.append(self.records.ids)
                return super().score(symbols, *abandon, **named)

        monkeypatch.setattr(training, "Validation", Watched)
        monkeypatch.setattr(time_budget, "EVALUATION_SHARE", 0.0)
        monkeypatch.setattr(validation, "FEWEST_SYMBOLS", 1800)
        first = train("run", train=before)
        monkeypatch.setattr(validation, "FEWEST_SYMBOLS", 1200)
        for minutes in (0.75, 1.0):
            train("run", resume=True, train={"minutes": minutes})
        assert len(scored[0]) == (1024 if before is MINUTES else first[0].valid_symbols)
        assert len(scored) >= 3  # in every one of the three trainings
        assert all(np.array_equal(ids, scored[0]) for ids in scored)

    def test_the_same_length_is_no_other(self, train, clock):
        train("run", train=MINUTES)
        assert [type(e) for e in train("run", resume=True, train={"minutes": 0.5})] == [Started, Finished]


def test_a_stop_before_the_first_update_leaves_no_checkpoint(train, tmp_path, clock):
    assert [type(e) for e in train("run", stop_at=0, train=MINUTES)] == [Started, Finished]
    assert Run(tmp_path / "run").last() is None
    assert train("run", resume=True)[-1].reason == "done"


def test_a_notebooks_stop_button_saves(corpus, tmp_path):
    def press(event):
        if isinstance(event, Stepped) and event.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    settings = {"units": 24, "lanes": 8, "bptt": 16, "steps": 100_000}
    with pytest.raises(Interrupted, match=r"charlm.train\(name='run', resume=True\)"):
        charlm.train(str(corpus), models=tmp_path, name="run", on_event=press, **settings)
    assert Run(tmp_path / "run").last().step == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class TestResume:
    @pytest.mark.parametrize(
        ("table", "key", "value", "named"),
        [
            ("model", "units", 32, "units was 16, now 32"),
            ("model", "cell", "gru", "cell was lstm, now gru"),
            ("data", "tokenizer", "byte", "tokenizer was char, now byte"),
            ("train", "bptt", 32, "bptt was 8, now 32"),
            ("train", "seed", 5, "seed was 1, now 5"),
        ],
    )
    def test_another_setting_is_refused_by_name(self, train, run, table, key, value, named):
        with pytest.raises(UsageError, match=named):
            train("run", resume=True, **{table: {key: value}})

    def test_the_same_settings_may_be_repeated(self, train):
        train("run", stop_at=3)
        assert train("run", resume=True, **SMALL)[-1].step == 30

    def test_another_corpus_is_refused(self, train, run, tmp_path, corpus):
        other = tmp_path / "other.txt"
        other.write_text(corpus.read_text("utf-8")[:-1] + "!", "utf-8")
        with pytest.raises(UsageError, match="the corpus has changed"):
            train("run", resume=True, paths=[str(other)])

    def test_a_finished_run_says_so(self, train, run):
        again = train("run", resume=True)
        assert [type(e) for e in again] == [Started, Finished]
        assert (again[-1].reason, again[-1].step) == ("done", 30)

    def test_fewer_steps_than_are_done_are_refused(self, train, run):
        with pytest.raises(UsageError, match="steps 20: the run has already made 30 updates"):
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

    def test_the_checkpoint_is_of_the_size_that_the_run_says(self, train, run):
        record = run.record
        record["config"]["model"]["units"] = 100_000  # 160 GB, of which nothing is allocated
        run.record_again(record)
        with pytest.raises(ModelError, match=r"embedding is \(\d+, 16\); config.json says \(\d+, 100000\)"):
            train("run", resume=True)

    def test_there_must_be_such_a_run(self, train):
        with pytest.raises(UsageError, match="no such run"):
            train("nobody", resume=True)


def test_a_text_too_small_for_its_lanes_leaves_no_run_behind(train, tmp_path):
    with pytest.raises(DataError, match="lanes="):
        train("run", train={"lanes": 5000})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("steps", [5, 60])
def test_a_refused_resume_changes_nothing(train, run, steps):
    """One that another process trains, and one that is to end before where it stands."""
    with run.lock() if steps == 60 else contextlib.nullcontext():
        before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
        with pytest.raises(CharlmError, match="another process" if steps == 60 else "already made 30 updates"):
            train("run", resume=True, train={"steps": steps})
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_a_name_that_exists_needs_resume(train, run):
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
    with pytest.raises(UsageError, match="colour: there is no such setting"):
        charlm.train(str(corpus), models=tmp_path, colour="red")


@pytest.mark.parametrize("length", [9000, 46_505, 1 << 20])
def test_the_score_of_a_short_training_is_of_pieces_from_all_over_the_held_out_text(length):
    ids = np.arange(length)
    part = spread(Records(ids, NO_STARTS), 1 << 13).ids
    assert len(part) == 1 << 13
    assert (part[0], part[-1]) == (0, length - 1)
    joints = np.flatnonzero(np.diff(part) != 1)
    assert len(joints) == 7
    assert np.diff(part[joints]).max() - np.diff(part[joints]).min() <= 1
    for most in None, length, 5:
        assert np.array_equal(spread(Records(ids, NO_STARTS), most).ids, ids[:most])
