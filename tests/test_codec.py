"""Tokenizers in a graph, against those outside."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from test_export import TEXT, TOKENIZER

from charlm.export.codec import CODECS, codec_of

CODEC = {name: codec_of(TOKENIZER[name]) for name in CODECS}
ENCODE = {
    name: tf.function(codec.encode, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    for name, codec in CODEC.items()
}
PIECES = list(TOKENIZER["sentencepiece"].scored_pieces)
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
familiar = st.lists(st.sampled_from([*PIECES, *"the \n\t▁§\0"]), max_size=40).map("".join)
repeated = st.tuples(st.sampled_from(PIECES), st.integers(1, 40)).map(lambda pair: pair[0] * pair[1])


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=150, deadline=None)
@given(st.lists(any_text | familiar | repeated, max_size=8))
def test_a_graph_has_the_ids_and_the_text_of_the_tokenizer(name, texts):
    expected = [TOKENIZER[name].encode(text).tolist() for text in texts]
    found = ENCODE[name](tf.constant(texts, tf.string))
    assert found.to_list() == expected
    ragged = tf.RaggedTensor.from_row_lengths(
        tf.constant([i for ids in expected for i in ids], tf.int32), tf.constant(list(map(len, expected)), tf.int32)
    )
    decoded = CODEC[name].decode(ragged)
    assert [text.decode() for text in decoded.numpy()] == [TOKENIZER[name].decode(np.array(i)) for i in expected]


@pytest.mark.parametrize(
    "text", [TEXT.replace("\n", " ") * 40, "o" * 8192 + "\n" + "the" * 6000, "\n" + "x" * 8191 + "\n", "a▁" * 5000]
)
def test_long_lines_are_cut_where_the_tokenizer_cuts_them(text):
    assert ENCODE["sentencepiece"]([text]).to_list() == [TOKENIZER["sentencepiece"].encode(text).tolist()]


def test_a_graph_has_the_ids_of_characters_that_came_later():
    tokenizer = TOKENIZER["char"].grown(lambda: iter(["§Ab\0"]))
    assert codec_of(tokenizer).encode(["the §\0Ab Ω"]).to_list() == [tokenizer.encode("the §\0Ab Ω").tolist()]


def test_bytes_that_are_not_text_are_read_as_the_replacement_character():
    for name in "char", "sentencepiece":
        assert ENCODE[name]([b"the \xff dog"]).to_list() == [TOKENIZER[name].encode("the \ufffd dog").tolist()]
    assert ENCODE["byte"]([b"the \xff"]).to_list() == [[116, 104, 101, 32, 255]]
