"""A text as ids: in parts that are encoded by themselves, on all cores."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Generator
from typing import NamedTuple

import numpy as np

from charlm.corpus import Corpus
from charlm.pool import on_all_cores
from charlm.records import Ids
from charlm.tokenizer import Tokenizer


class Part(NamedTuple):
    """A part of a text."""

    start: int
    stop: int  # in characters
    documents: Ids  # where documents begin inside
    text: str | None  # None: whoever encodes it reads it


class Encoded(NamedTuple):
    """The ids of a part."""

    chars: int
    ids: Ids
    documents: Ids  # int64: where in the ids they begin


def encoded(corpus: Corpus, start: int, stop: int, documents: Ids, tokenizer: Tokenizer) -> Generator[Encoded]:
    """The ids of the characters [start, stop) of a text, part by part; each document is encoded by itself.

    Args:
        corpus: the text.
        start, stop: of it; at `start`, a line or a part of a long one begins, as far as the tokenizer is concerned.
        documents: the characters at which documents begin, sorted.
        tokenizer: what encodes.

    Raises:
        DataError: the text has changed since it was measured.
    """
    cuts = corpus.cuts(start, stop, documents, tokenizer.LINE_CHARS)
    texts = itertools.repeat(None) if corpus.seekable else corpus.parts(cuts)
    begins = np.searchsorted(documents, cuts).tolist()
    inside = (documents[a:b] for a, b in itertools.pairwise(begins))
    parts = map(Part, cuts, cuts[1:], inside, texts)
    return on_all_cores(functools.partial(encode_part, corpus, tokenizer), parts)


def encode_part(corpus: Corpus, tokenizer: Tokenizer, part: Part) -> Encoded:
    """The ids of a part."""
    text = "".join(corpus.pieces(part.start, part.stop)) if part.text is None else part.text
    inside = part.documents - part.start
    ids = [tokenizer.encode(text[a:b]) for a, b in itertools.pairwise([0, *inside.tolist(), len(text)])]
    return Encoded(len(text), np.concatenate(ids), np.cumsum([len(one) for one in ids[:-1]], dtype=np.int64))
