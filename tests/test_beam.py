"""A text by beam search, against all texts there are."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from test_export import language_model

from charlm.config import SampleConfig
from charlm.errors import UsageError
from charlm.generation import Sample


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return language_model(tmp_path_factory.mktemp("beam"), "lstm", units=16)


def nats_of(model, ids):
    """-log p of each symbol after the first two, by the model over the whole text."""
    logits, _ = model.model(tf.constant(np.array(ids)[:, None], tf.int32), model.model.initial_state(1))
    return tf.nn.sparse_softmax_cross_entropy_with_logits(ids[2:], logits[1:-1, 0]).numpy()


def test_a_wide_beam_finds_the_likeliest_text_there_is(model):
    prompt, length = "wh", 2
    allowed = np.setdiff1d(np.arange(model.tokenizer.vocabulary), model.tokenizer.blocked).tolist()
    ids = model.tokenizer.encode(prompt).tolist()
    texts = {pair: nats_of(model, [*ids, *pair]).sum() for pair in itertools.product(allowed, repeat=length)}
    best = min(texts, key=texts.get)
    *_, sample = model.stream(prompt, SampleConfig(length=length, beam=min(64, len(allowed))))
    assert model.tokenizer.encode(sample.text).tolist() == list(best)
    assert sample.nats == pytest.approx(texts[best], abs=1e-4)


def test_a_beam_finds_no_less_likely_a_text_than_taking_the_likeliest_symbol(model):
    found = {}
    for settings in ({"beam": 1}, {"beam": 8}, {"temperature": 0.0}):
        *_, found[str(settings)] = model.stream("so, ", SampleConfig(length=40, **settings))
    alone, several, greedy = found.values()
    assert alone.text == greedy.text
    assert alone.nats == pytest.approx(greedy.nats, abs=1e-3)
    assert several.nats <= greedy.nats + 1e-3
    assert isinstance(several, Sample)
    assert several.symbols == 40


def test_a_beam_stops_before_a_stop_text_and_takes_a_long_or_empty_prompt(model):
    whole = model.generate("so, ", length=30, beam=3)
    assert model.generate("so, ", length=30, beam=3, stop=whole[10]) == whole[: whole.index(whole[10])]
    assert len(model.generate("", length=5, beam=2)) == 5
    assert len(model.generate("what is so, " * 20, length=5, beam=2)) == 5
    assert model.generate("so", length=0, beam=2) == ""


def test_samples_are_drawn_and_a_beam_draws_nothing():
    with pytest.raises(UsageError, match="beam must be left out where several texts are drawn"):
        SampleConfig(beam=4, samples=2)
