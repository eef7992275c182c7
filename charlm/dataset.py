"""A corpus made into ids: split, tokenized, cached."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from charlm.config import DataConfig
from charlm.corpus import Announce, Corpus, open_corpus, split_bounds
from charlm.errors import DataError
from charlm.idcache import cached_records
from charlm.pairs.alphabet import Layout, PairAlphabet
from charlm.pairs.records import learnt_alphabet, parts_of
from charlm.pairs.records import records_of as pair_records
from charlm.pairs.table import Pair, read_pairs
from charlm.reading import Reading
from charlm.records import Ids, Records, matches
from charlm.series.alphabet import SeriesAlphabet
from charlm.series.cells import Series
from charlm.series.choice import choose
from charlm.series.records import records_of, training_values
from charlm.series.tables import Columns, read_table
from charlm.sources import STDIN
from charlm.tokenizer import Alphabet, Tokenizer
from charlm.tokenizers import TOKENIZERS

Progress = Callable[[int], None]
Passing = Callable[[str, int], Progress]  # of what is done to a text and its characters: what is called as they pass


@dataclass(frozen=True)
class Data:
    """A tokenized corpus: its training and validation splits, memory-mapped where it is text."""

    corpus: Corpus
    tokenizer: Alphabet
    train: Records
    valid: Records
    choice: str = ""  # what the symbols are and why, where that was chosen


def reading(config: DataConfig) -> Reading:
    """The reading of text under a configuration; the byte tokenizer takes any bytes as they are."""
    errors = "surrogateescape" if config.tokenizer == "byte" and config.errors == "strict" else config.errors
    return Reading(config.encoding, errors, config.newlines, as_bytes=config.alphabet in TOKENIZERS)


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
    tokenizer: Alphabet | None = None,
    passing: Passing = lambda what, chars: lambda count: None,
    *,
    grow: bool = False,
) -> Data:
    """Tokenizes a corpus, with a tokenizer trained on its training split unless one is given.

    Number series are tables in the corpus' files, and each is cut by time.

    Args:
        corpus, config: the text, and how it is split and tokenized.
        tokenizer: an earlier text's.
        passing: given what is done to the text and its number of characters, returns what is called with those that
            have passed since its last call.
        grow: whether the tokenizer that is given gets ids for what this text has and the earlier one had not.
    """
    if config.alphabet == SeriesAlphabet.name:
        return _prepare_series(corpus, config, tokenizer)
    if config.alphabet == PairAlphabet.name:
        return _prepare_pairs(corpus, config, tokenizer)
    assert tokenizer is None or isinstance(tokenizer, Tokenizer)
    bounds = split_bounds(corpus.chars, config.split)

    def learnt() -> Iterator[str]:
        progress = passing("learning symbols", bounds["train"][1])
        for piece in corpus.pieces(*bounds["train"]):
            progress(len(piece))
            yield piece

    if tokenizer is None:
        tokenizer = TOKENIZERS[config.tokenizer].train(learnt, config.vocabulary)
    elif grow:
        tokenizer = tokenizer.grown(learnt)
    starts, progress = document_starts(corpus, config), passing("encoding", bounds["valid"][1])
    train, valid = (
        cached_records(corpus, bounds[split], tokenizer, progress=progress, starts=starts)
        for split in ("train", "valid")
    )
    return Data(corpus, tokenizer, train, valid)


def part_of(corpus: Corpus, config: DataConfig, alphabet: Alphabet, part: str) -> Records:
    """The symbols of a part of a corpus: "train", "valid", "test" or "all"."""
    if isinstance(alphabet, SeriesAlphabet):
        return records_of(series_of(corpus, config), alphabet, config.split, part)
    if isinstance(alphabet, PairAlphabet):
        parts = parts_of(pairs_of(corpus), config.split)
        if part == "all":
            return pair_records(alphabet, parts["all"], [])[0]
        return pair_records(alphabet, parts["train"], parts[part])[1]
    assert isinstance(alphabet, Tokenizer)
    bounds = split_bounds(corpus.chars, config.split)[part]
    return cached_records(corpus, bounds, alphabet, starts=document_starts(corpus, config))


def document_starts(corpus: Corpus, config: DataConfig) -> Ids:
    """The characters [D] at which documents begin: files, unless they are joined, and after each match."""
    found = np.array([] if config.join_files else corpus.file_starts, np.int64)
    if config.reset_on is not None:
        found = np.append(found, np.fromiter(matches(corpus.pieces(), config.reset_on), np.int64))
    return np.unique(found[(found > 0) & (found < corpus.chars)])


def _prepare_series(corpus: Corpus, config: DataConfig, alphabet: Alphabet | None) -> Data:
    series, choice = series_of(corpus, config), ""
    if alphabet is None:
        known = training_values(series, config.split)
        season = series[0].calendar.season if config.season is None else config.season
        chosen = choose(known, season, all((one.values > 0).all() for one in series))
        alphabet, choice = SeriesAlphabet.learnt(known, chosen.scaling, config.bins), str(chosen)
    assert isinstance(alphabet, SeriesAlphabet)
    train, valid = (records_of(series, alphabet, config.split, part) for part in ("train", "valid"))
    return Data(corpus, alphabet, train, valid, choice)


def _prepare_pairs(corpus: Corpus, config: DataConfig, alphabet: Alphabet | None) -> Data:
    parts = parts_of(pairs_of(corpus), config.split)
    if alphabet is None:
        alphabet = learnt_alphabet(parts["train"], Layout(config.form, config.lookahead))
    assert isinstance(alphabet, PairAlphabet)
    train, valid = pair_records(alphabet, parts["train"], parts["valid"])
    return Data(corpus, alphabet, train, valid, f"{len(parts['train']):,} pairs: {alphabet.layout}")


def pairs_of(corpus: Corpus) -> list[Pair]:
    """The pairs in the files of a corpus; raises DataError as `read_pairs`."""
    return [pair for name, pieces in texts_of(corpus) for pair in read_pairs(pieces, name)]


def check_pairs_in(paths: list[str], data: dict[str, Any]) -> None:
    """Refuses files of pairs that nothing can be learnt from, as `prepare` would, but at once.

    Raises:
        UsageError, DataError: as `read`, `read_pairs` and `learnt_alphabet`.
    """
    if "-" not in paths:  # standard input is read once
        config = DataConfig.from_dict({**data, "pairs": True})
        with read(paths, config, lambda size: lambda count: None) as corpus:
            learnt_alphabet(parts_of(pairs_of(corpus), config.split)["train"], Layout())


def texts_of(corpus: Corpus) -> Iterator[tuple[str, Iterator[str]]]:
    """The name and the text, in pieces, of each file of a corpus."""
    ends = [*corpus.file_starts[1:], corpus.chars]
    for file, start, stop in zip(corpus.files, corpus.file_starts, ends, strict=True):
        yield "standard input" if file == STDIN else str(file), corpus.pieces(start, stop)


def series_of(corpus: Corpus, config: DataConfig) -> list[Series]:
    """The number series in the files of a corpus, each of a name of its own.

    A series without a name has its file's; where several files have one of a name, the file comes before it, as it is
    called from the folder that holds all of them.

    Raises:
        DataError: as `read_table`, or the steps of two files are not of one length.
    """
    columns = Columns(config.id_column, config.time_column, config.value_column, config.date_format)
    tables = [(Path(name), read_table("".join(pieces), columns, name)) for name, pieces in texts_of(corpus)]
    first, step = tables[0][0], tables[0][1][0].calendar
    for file, table in tables:
        if (table[0].calendar.unit, table[0].calendar.every) != (step.unit, step.every):
            raise DataError(f"{file}: its steps are not as long as those of {first}; train on each alone")
    named_series = [(file, one.name or file.stem, one) for file, table in tables for one in table]
    names = Counter(name for _, name, _ in named_series)
    folder = os.path.commonpath([file.absolute().parent for file, _ in tables])
    series = []
    for file, name, one in named_series:
        if names[name] > 1:
            name = "/".join([os.path.relpath(file.absolute(), folder), *([one.name] if one.name else [])])
        series.append(replace(one, name=name))
    return series
