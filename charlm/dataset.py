"""A corpus made into ids: split, tokenized, cached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from charlm.config import DataConfig
from charlm.corpus import Corpus, open_corpus, split_bounds
from charlm.idcache import cached_ids
from charlm.reading import Reading
from charlm.streams import Ids
from charlm.tokenizers import TOKENIZERS, Tokenizer

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Data:
    """A tokenized corpus: the ids of its training and validation splits, memory-mapped."""

    corpus: Corpus
    tokenizer: Tokenizer
    train: Ids
    valid: Ids


def reading(config: DataConfig) -> Reading:
    """How text is read under a configuration; the byte tokenizer takes any bytes as they are."""
    errors = "surrogateescape" if config.tokenizer == "byte" and config.errors == "strict" else config.errors
    return Reading(config.encoding, errors, config.newlines)


def read(paths: list[str], config: DataConfig, progress: Progress | None = None) -> Corpus:
    """Opens a corpus as a configuration says; `progress` gets the input bytes read since its last call."""
    return open_corpus(paths, reading(config), progress)


def prepare(
    corpus: Corpus, config: DataConfig, tokenizer: Tokenizer | None = None, progress: Progress | None = None
) -> Data:
    """Tokenizes a corpus, with a tokenizer trained on its training split unless one is given.

    `progress` gets the characters encoded since its last call.
    """
    bounds = split_bounds(corpus.chars, config.split)
    if tokenizer is None:
        tokenizer = TOKENIZERS[config.tokenizer].train(lambda: corpus.pieces(*bounds["train"]), config.vocabulary)
    train, valid = (cached_ids(corpus, bounds[split], tokenizer, progress=progress) for split in ("train", "valid"))
    return Data(corpus, tokenizer, train, valid)
