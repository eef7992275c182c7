"""The text that a model learnt from, found again."""

from __future__ import annotations

from pathlib import Path

from charlm.checkpoint import Checkpoint
from charlm.corpora import CORPORA
from charlm.corpus import Announce, Corpus
from charlm.dataset import read_again
from charlm.errors import UsageError


def corpus_of(checkpoint: Checkpoint, paths: list[str], reading: Announce) -> Corpus:
    """The corpus in paths, read as the one that a model learnt from; without paths, that one.

    Raises:
        UsageError: it is not there or has changed; the message says which text it was, and how to get it.
    """
    config, trained = checkpoint.config().data, checkpoint.record["corpus"]
    if paths:
        return read_again(paths, config, trained, reading)
    paths, piped = trained["paths"], "-" in trained["paths"]
    known = f"{trained['chars']:,} characters, SHA-256 {trained['sha256'][:12]}..."
    names = "standard input" if piped else ", ".join(paths)
    text = f"{checkpoint.run_name} learnt from {names} ({known})"
    if piped:
        raise UsageError(f"{text}, which is not kept; name a text to evaluate")
    written = next((path for path in paths if Path(path).stem in CORPORA), None)
    anew = f", or write it anew: charlm corpus {Path(written).stem} {Path(written).name}" if written else ""
    try:
        corpus = read_again(paths, config, trained, reading)
    except UsageError as error:
        raise UsageError(f"{text}, which is not here; name where it is, or another text{anew} ({error})") from None
    if corpus.sha256 != trained["sha256"]:
        raise UsageError(f"{text}, which has changed since; name a text to evaluate{anew}")
    return corpus
