"""A corpus made into ids: split, tokenized, cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from charlm.config import DataConfig
from charlm.corpus import Announce, Corpus, open_corpus, split_bounds
from charlm.idcache import cached_records
from charlm.reading import Reading
from charlm.records import Ids, Records, matches
from charlm.tokenizer import Tokenizer
from charlm.tokenizers import TOKENIZERS

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Data:
    """A tokenized corpus: its training and validation splits, memory-mapped."""

    corpus: Corpus
    tokenizer: Tokenizer
    train: Records
    valid: Records


def reading(config: DataConfig) -> Reading:
    """The reading of text under a configuration; the byte tokenizer takes any bytes as they are."""
    errors = "surrogateescape" if config.tokenizer == "byte" and config.errors == "strict" else config.errors
    return Reading(config.encoding, errors, config.newlines)


def read(paths: list[str], config: DataConfig, announce: Announce) -> Corpus:
    """Opens a corpus as a configuration says; see `open_corpus`."""
    return open_corpus(paths, reading(config), announce)


def read_again(paths: list[str], config: DataConfig, recorded: Mapping[str, Any], announce: Announce) -> Corpus:
    """Opens the corpus that a run's record tells of, from where it lay or from other paths; it may have changed.

    Runs that do not record how many files they read took what programs made too.
    """
    corpus = read(paths, config, announce)
    if corpus.sha256 == recorded["sha256"] or "files" in recorded or not corpus.sources.left_out:
        return corpus
    first = open_corpus([path for path in paths if path != "-"], reading(config), everything=True)
    return first if first.sha256 == recorded["sha256"] else corpus


def prepare(
    corpus: Corpus,
    config: DataConfig,
    tokenizer: Tokenizer | None = None,
    progress: Progress | None = None,
    *,
    grow: bool = False,
) -> Data:
    """Tokenizes a corpus, with a tokenizer trained on its training split unless one is given.

    Args:
        corpus, config: the text, and how it is split and tokenized.
        tokenizer: an earlier text's.
        progress: called with the characters encoded since its last call.
        grow: whether the tokenizer that is given gets ids for what this text has and the earlier one had not.
    """
    bounds = split_bounds(corpus.chars, config.split)

    def learnt() -> Iterator[str]:
        return corpus.pieces(*bounds["train"])

    if tokenizer is None:
        tokenizer = TOKENIZERS[config.tokenizer].train(learnt, config.vocabulary)
    elif grow:
        tokenizer = tokenizer.grown(learnt)
    starts = document_starts(corpus, config)
    train, valid = (
        cached_records(corpus, bounds[split], tokenizer, progress=progress, starts=starts)
        for split in ("train", "valid")
    )
    return Data(corpus, tokenizer, train, valid)


def document_starts(corpus: Corpus, config: DataConfig) -> Ids:
    """The characters [D] at which documents begin: files, unless they are joined, and after each match."""
    found = set() if config.join_files else set(corpus.file_starts)
    if config.reset_on is not None:
        found.update(matches(corpus.pieces(), config.reset_on))
    return np.array(sorted(found - {0, corpus.chars}), np.int64)
