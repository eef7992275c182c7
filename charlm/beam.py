"""A likely text, found by beam search in place of drawing one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from charlm.config import SampleConfig
from charlm.decoder import decoder_of
from charlm.decoding import prefill
from charlm.generation import Sample, TextRow, prompt_ids
from charlm.model import CharLM, ModelState
from charlm.records import Ids
from charlm.runtime import kernel
from charlm.search import DRAWN, search, traced
from charlm.tokenizer import Tokenizer

READ = kernel(prefill)
STEPS = 64  # of a prompt that are read at a time
NEVER = -1  # closes no part: all symbols are drawn in one


def likely_text(
    model: CharLM, tokenizer: Tokenizer, prompt: str, config: SampleConfig, seed: int
) -> Iterator[tuple[int, str] | Sample]:
    """Finds a text of `config.length` symbols by following the `config.beam` likeliest side by side.

    A text is the likelier the greater the sum of log p is. The samplers have no part in it, and there is one text.
    Graves, "Sequence Transduction with Recurrent Neural Networks" (2012).

    Yields (0, text), and its `Sample`, as `stream_text` does.
    """
    assert config.beam is not None
    ids = prompt_ids(tokenizer, prompt)
    row = TextRow(tokenizer, prompt, config.stop, seed)
    if config.length:
        found, nats = _likeliest(model, tokenizer.blocked, ids, config.length, config.beam)
        if text := row.feed(found, nats):
            yield 0, text
    if text := row.finish():
        yield 0, text
    yield row.sample


def _likeliest(model: CharLM, blocked: Ids, prompt: Sequence[int], length: int, beam: int) -> tuple[Ids, Ids]:
    """The likeliest symbols [length] after a prompt, and -log p of each."""
    decoder = decoder_of(model, "float32", columns=False)
    state = _read(model, prompt[:-1])
    start = tf.nest.map_structure(lambda s: tf.repeat(s, beam, 0), state)
    allowed = tf.constant(~np.isin(np.arange(model.config.vocabulary), blocked))
    script = tf.constant([[prompt[-1], DRAWN]], tf.int32)
    found = search(decoder, start, script, allowed, NEVER, length + 1, beam, length + 1, {})
    lines = traced(found.symbols.numpy(), found.parents.numpy())[1:, 0]
    best = lines[:, int(found.nats.numpy()[0].argmin())]
    logits, _ = model(tf.constant([prompt[-1], *best[:-1].tolist()])[:, None], state)
    nats = tf.nn.sparse_softmax_cross_entropy_with_logits(best, logits[:, 0])
    return best, nats.numpy()


def _read(model: CharLM, ids: Sequence[int]) -> ModelState:
    """The state [1, H] after symbols."""
    decoder, state = decoder_of(model, "float32", columns=False), model.initial_state(1)
    symbols = np.full((-(-len(ids) // STEPS) * STEPS, 1), -1, np.int32)
    symbols[len(symbols) - len(ids) :, 0] = ids
    for start in range(0, len(symbols), STEPS):
        state, _ = READ(decoder, tf.constant(symbols[start : start + STEPS]), state)
    return state
