"""The tokenizers: one module each, with a subclass of `Tokenizer`, and one line in `TOKENIZERS`."""

from pathlib import Path

from charlm.tokenizer import Tokenizer
from charlm.tokenizers.byte import ByteTokenizer
from charlm.tokenizers.char import CharTokenizer
from charlm.tokenizers.sentencepiece import SentencePieceTokenizer

TOKENIZERS: dict[str, type[Tokenizer]] = {
    "char": CharTokenizer,
    "byte": ByteTokenizer,
    "sentencepiece": SentencePieceTokenizer,
}


def load_tokenizer(directory: Path, name: str) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote into a directory; raises ModelError as `Tokenizer.load` does."""
    return TOKENIZERS[name].load(directory)
