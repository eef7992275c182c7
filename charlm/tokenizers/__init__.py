"""The tokenizers: one module each, with a subclass of `Tokenizer`, and one line in `TOKENIZERS`."""

from pathlib import Path

from charlm.pairs.alphabet import PairAlphabet
from charlm.series.alphabet import SeriesAlphabet
from charlm.tokenizer import Alphabet, Tokenizer
from charlm.tokenizers.byte import ByteTokenizer
from charlm.tokenizers.char import CharTokenizer
from charlm.tokenizers.sentencepiece import SentencePieceTokenizer

TOKENIZERS: dict[str, type[Tokenizer]] = {
    "char": CharTokenizer,
    "byte": ByteTokenizer,
    "sentencepiece": SentencePieceTokenizer,
}


OTHERS: dict[str, type[Alphabet]] = {"series": SeriesAlphabet, "pairs": PairAlphabet}


def load_alphabet(directory: Path, name: str) -> Alphabet:
    """The alphabet that `Alphabet.save` wrote into a directory; raises ModelError as `Alphabet.load` does."""
    return {**TOKENIZERS, **OTHERS}[name].load(directory)
