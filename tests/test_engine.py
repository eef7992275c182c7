"""Many texts in one batch, each of them what it would be alone."""

import queue
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from test_export import TOKENIZER, language_model

from charlm.config import KNOBS
from charlm.generation import prompt_ids
from charlm.serve import batch as batch_module
from charlm.serve.batch import FIRST, READERS, SIZES, Batch
from charlm.serve.engine import Closed, Engine, Full
from charlm.serve.slot import Request

SETTINGS = [
    {"temperature": 1.0},
    {"temperature": 0.0},
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 1.3, "top_p": 0.8},
    {"temperature": 0.9, "top_k": 9, "top_p": 0.6},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return language_model(tmp_path_factory.mktemp("engine"), "gru", units=32)


@pytest.fixture(scope="module")
def running(model):
    engine = Engine(model, waiting=40)
    engine.start()
    assert engine.ready.wait(600)
    yield engine
    engine.close()


class Reader:
    """Asks for a text and gathers its pieces."""

    def __init__(self, engine, model, prompt="the ", length=50, seed=1, **settings):
        self.pieces, self._queue = [], queue.Queue()
        ids = prompt_ids(model.tokenizer, prompt)
        knobs = {name: settings.pop(name) for name in KNOBS.keys() & settings.keys()}
        request = Request(ids, length, seed, knobs, **settings)
        self.cancel = engine.submit([request], lambda n, piece: self._queue.put(piece))

    def next(self):
        self.pieces.append(self._queue.get(timeout=600))
        return self.pieces[-1]

    @property
    def ended(self):
        return any(piece.stopped for piece in [*self.pieces, *self._queue.queue])

    def text(self):
        while not self.next().stopped:
            pass
        return "".join(piece.text for piece in self.pieces)


def asked(n):
    prompts = ["the ", "", "é世 the dog ", "x" * 300]
    return {"prompt": prompts[n % 4], "length": 20 + 37 * (n % 5), "seed": n, **SETTINGS[n % len(SETTINGS)]}


def test_the_first_text_is_answered_after_two_compilations_and_the_others_come_beside_it(model, monkeypatch):
    compiled, program, read, go_on = [], batch_module._program, batch_module._read, threading.Event()

    def extend(batch):
        go_on.wait()
        yield from extends(batch)

    extends = Batch.extend
    monkeypatch.setattr(Batch, "extend", extend)
    monkeypatch.setattr(batch_module, "_program", lambda size: compiled.append(("write", size)) or program(size))
    monkeypatch.setattr(batch_module, "_read", lambda *at: compiled.append(("read", at[1].shape[1])) or read(*at))
    engine = Engine(model)
    assert engine.seconds_to_ready is None
    engine.start()
    text = Reader(engine, model, "the quick brown", length=30, temperature=0.8, top_p=0.9).text()
    assert text == model.generate("the quick brown", length=30, seed=1, temperature=0.8, top_p=0.9)
    assert engine.ready.is_set()
    assert engine.seconds_to_ready > 0
    assert set(compiled) == {("write", FIRST), ("read", FIRST)}
    assert not engine.complete.is_set()
    go_on.set()
    assert engine.complete.wait(600)
    assert engine.rows == SIZES[-1]
    engine.close()


def test_every_text_among_many_is_the_one_that_the_model_writes_alone(running, model):
    readers = [Reader(running, model, **asked(n)) for n in range(90)]  # more than one size of batch holds
    for n, reader in enumerate(readers):
        assert reader.text() == model.generate(
            asked(n).pop("prompt"), **{k: v for k, v in asked(n).items() if k != "prompt"}
        )
        assert reader.pieces[-1].stopped == "length"
        assert sum(len(piece.ids) for piece in reader.pieces) == asked(n)["length"]


def test_a_text_that_may_not_repeat_itself_looks_back_on_its_prompt_as_the_model_does(running, model):
    settings = {"temperature": 1.1, "min_p": 0.1, "repetition_penalty": 4.0}
    for n in (5, 11, 17, 23):
        at = {"prompt": asked(n)["prompt"], "length": asked(n)["length"], "seed": n, **settings}
        assert Reader(running, model, **at).text() == model.generate(at.pop("prompt"), **at)


def test_a_request_joins_while_another_is_written_and_does_not_change_it(running, model):
    long = Reader(running, model, length=12_000, seed=5)
    long.next()
    text = Reader(running, model, "dog", length=60, seed=9).text()
    assert not long.ended
    assert text == model.generate("dog", length=60, seed=9, temperature=1.0)
    assert long.text() == model.generate("the ", length=12_000, seed=5, temperature=1.0)


def test_long_prompts_do_not_stall_the_others(running, model):
    """More of them than are read at once: a short one that comes after them ends before any."""
    prompt = "the quick brown fox. " * 600
    reading = [Reader(running, model, prompt, length=30, seed=n) for n in range(READERS + 6)]
    others = [Reader(running, model, "the dog " * 9, length=100, seed=n) for n in range(3)]
    for n, other in enumerate(others):
        assert other.text() == model.generate("the dog " * 9, length=100, seed=n, temperature=1.0)
    assert not any(reader.pieces or reader.ended for reader in reading)
    expected = model.generate(prompt, length=30, seed=READERS + 5, temperature=1.0)
    assert reading[-1].text() == expected
    for reader in reading:
        reader.cancel()


def test_stop_texts_end_a_row(running, model):
    whole = model.generate("the ", length=200, seed=3, temperature=1.0)
    reader = Reader(running, model, length=200, seed=3, stop=(whole[40:43], "\0"))
    assert reader.text() == whole[: whole.find(whole[40:43])]
    assert reader.pieces[-1].stopped == "stop"


def test_the_nats_are_the_models(running, model):
    reader = Reader(running, model, length=40, seed=3, temperature=0.5, top_k=3, alternatives=4)
    plain = Reader(running, model, length=40, seed=3, temperature=0.5, top_k=3)
    assert reader.text() == plain.text()
    assert not any(piece.likeliest for piece in plain.pieces)
    ids = prompt_ids(model.tokenizer, "the ") + [i for piece in reader.pieces for i in piece.ids]
    x = np.array(ids, np.int32)
    logits, _ = model.model(x[:-1, None], model.model.initial_state(1))
    logits = logits[:, 0].numpy().astype(np.float64)
    nats = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(x) - 1), x[1:]]
    np.testing.assert_allclose([n for piece in reader.pieces for n in piece.nats], nats[3:], rtol=1e-4)
    for told, row in zip([t for piece in reader.pieces for t in piece.likeliest], logits[3:], strict=True):
        assert list(told) == np.argsort(-row, kind="stable")[:4].tolist()
        np.testing.assert_allclose(list(told.values()), np.sort(row)[::-1][:4] - np.log(np.exp(row).sum()), atol=1e-4)


def test_the_prompt_is_scored_as_the_model_scores_it_and_the_text_after_it_stays_the_same(running, model):
    prompts = ["the quick brown fox jumps over the lazy dog. " * n for n in (1, 3)] + ["t", "th"]
    for prompt in prompts:
        readers = [Reader(running, model, prompt, length=30, seed=3, alternatives=2, score=True) for _ in range(3)]
        assert {reader.text() for reader in readers} == {model.generate(prompt, length=30, seed=3, temperature=1.0)}
        told = readers[0].pieces[0].prompt
        assert all(reader.pieces[0].prompt == told for reader in readers)
        assert not any(piece.prompt for piece in readers[0].pieces[1:])
        x = np.array(prompt_ids(model.tokenizer, prompt), np.int32)
        assert len(told.nats) == len(told.likeliest) == len(x) - 1
        if len(x) == 1:
            continue
        logits, _ = model.model(x[:-1, None], model.model.initial_state(1))
        logs = tf.nn.log_softmax(logits[:, 0]).numpy()
        np.testing.assert_allclose(told.nats, -logs[np.arange(len(x) - 1), x[1:]], atol=1e-4)
        for likeliest, row in zip(told.likeliest, logs, strict=True):
            assert list(likeliest) == np.argsort(-row, kind="stable")[:2].tolist()
        assert all(likeliest.get(i, -n) == -n for i, n, likeliest in zip(x[1:], told.nats, told.likeliest, strict=True))


def test_nothing_is_written_for_who_went_away(running, model):
    reader = Reader(running, model, length=10**6)
    reader.next()
    reader.cancel()
    deadline = time.monotonic() + 60
    while running.busy and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not running.busy
    assert not reader.ended


def test_a_text_of_length_0_is_empty(running, model):
    assert Reader(running, model, length=0).text() == ""


def test_no_more_wait_than_may(model):
    engine = Engine(model, waiting=3)  # not started: nothing leaves
    room = engine.rows + 3
    request = Request([1], 5, 1)
    engine.submit([request] * (room - 1), print)
    with pytest.raises(Full, match=f"0 texts are being written, and {room - 1} wait"):
        engine.submit([request, request], print)
    engine.submit([request], print)
    assert engine.queued == room


def test_what_was_taken_is_written_before_the_end_and_nothing_is_taken_after(model):
    engine = Engine(model)
    engine.start()
    readers = [Reader(engine, model, length=300, seed=n) for n in range(5)]
    closer = threading.Thread(target=engine.close)
    closer.start()
    texts = [reader.text() for reader in readers]
    closer.join(60)
    assert texts == [model.generate("the ", length=300, seed=n, temperature=1.0) for n in range(5)]
    with pytest.raises(Closed, match="shutting down"):
        engine.submit([Request([1], 5, 1)], print)


@pytest.mark.parametrize("end", [ZeroDivisionError, SystemExit])
def test_a_dead_engine_says_so_to_everybody_and_of_what_to_the_log(model, monkeypatch, caplog, end):
    def die(*args):
        raise end

    engine = Engine(model)
    engine.start()
    assert engine.ready.wait(600)
    reader = Reader(engine, model, length=10**6)
    reader.next()
    monkeypatch.setattr(engine._batch, "advance", die)
    while not reader.next().stopped:
        pass
    assert reader.pieces[-1].stopped == "failed"
    assert engine.failure == "the engine has died, of what the server's log says; it has to be started anew"
    assert end.__name__ in caplog.text
    with pytest.raises(Closed, match="the engine has died"):
        engine.submit([Request([1], 5, 1)], print)


def test_the_tokenizer_of_the_tests_has_a_symbol_for_every_prompt():
    assert not TOKENIZER["char"].unseen("the quick brown fox. é世 dogx")
