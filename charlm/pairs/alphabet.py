"""The symbols of pairs, and how a pair is laid out as one sequence that a language model can learn.

    whole     START source... NEXT target... NEXT          the source is read, then the target is written
    reversed  the same, the source from its end to its beginning
    aligned   START ahead... (ahead... symbol target... NEXT)...
                                                           the source is read from its end, then each of its symbols
                                                           writes its own targets; before it, the `lookahead` symbols
                                                           after it are seen again, the farthest first

Only target symbols and the NEXT after them are scored. When a source is turned into a target, all else is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple, Self

import numpy as np

from charlm.errors import DataError
from charlm.pairs.alignment import LONGEST_CHUNK, Alignment
from charlm.pairs.table import Pair
from charlm.tokenizer import Alphabet, Ids, from_json, to_json

START, NEXT, EDGE = 0, 1, 2  # begins a record, ends what is written, stands beyond a source's end
SOURCES = 3  # the id of the first source symbol, which is the unknown one
DRAWN = -1  # in a script, where target symbols are drawn until NEXT
FORMS = ("whole", "reversed", "aligned")
MOST_WORDS = 256  # different ones; targets that have more are taken character by character
ROOM = 2, 8  # a target may be so many times as long as the longest of training, and so many symbols longer


class Layout(NamedTuple):
    """How pairs are laid out."""

    form: str = "whole"
    lookahead: int = 0

    def __str__(self) -> str:
        match self.form:
            case "aligned":
                return f"each source symbol writes its own targets, the {self.lookahead} after it seen"
            case "reversed":
                return "the source is read from its end, then the target is written"
        return "the source is read, then the target is written"


class PairAlphabet(Alphabet):
    """The symbols of sources and of targets, and the layout of pairs.

    Attributes:
        layout: of a pair.
        source: the source symbols, characters.
        target: the target symbols, characters or words.
        words: whether target symbols are words, with blanks between them.
        most: target symbols that are drawn before a NEXT, at most.
    """

    name = "pairs"
    file_name: ClassVar[str] = "pairs.json"
    fixed = "the symbols stay as they are"

    def __init__(self, layout: Layout, source: Sequence[str], target: Sequence[str], words: bool, most: int) -> None:
        self.layout, self.source, self.target, self.words, self.most = layout, tuple(source), tuple(target), words, most
        self._source = {symbol: n for n, symbol in enumerate(self.source, 1)}
        self._target = {symbol: n for n, symbol in enumerate(self.target, 1)}
        if len(self._source) < len(self.source) or len(self._target) < len(self.target):
            raise ValueError("its symbols are not distinct")
        self._ahead = SOURCES + len(self.source) + 1
        self.targets = self._ahead + (len(self.source) + 1 if layout.form == "aligned" else 0)
        vocabulary = self.targets + len(self.target) + 1
        blocked = [START, *range(EDGE, self.targets + 1)]  # all but NEXT and the known targets
        super().__init__([1] * vocabulary, [0] * vocabulary, None, blocked, self.content())

    @classmethod
    def learnt(cls, pairs: Sequence[Pair], layout: Layout) -> Self:
        """The alphabet of the pairs to train on; characters that one source alone has are left unknown."""
        often = Counter(character for pair in pairs for character in {*pair.source})
        rare = 1 if len(pairs) > 1 else 0
        source = sorted(character for character, count in often.items() if count > rare) or sorted(often)
        words = are_words([pair.target for pair in pairs])
        cut = [_cut(pair.target, words) for pair in pairs]
        longest = max(map(len, cut))
        times, more = ROOM
        most = times * longest + more if layout.form != "aligned" else max(longest, LONGEST_CHUNK)
        return cls(layout, source, sorted({symbol for target in cut for symbol in target}), words, most)

    def source_symbols(self, source: str) -> Ids:
        """The numbers of a source's symbols [n]; 0 is the unknown one."""
        return np.array([self._source.get(character, 0) for character in source], np.int64)

    def target_symbols(self, target: str) -> Ids:
        """The numbers of a target's symbols [m]; 0 is the unknown one."""
        return np.array([self._target.get(symbol, 0) for symbol in _cut(target, self.words)], np.int64)

    def unseen(self, source: str) -> str:
        """The distinct characters of a source that are unknown, in order of appearance."""
        return "".join(dict.fromkeys(character for character in source if character not in self._source))

    def script(self, source: str) -> Ids:
        """What is given for a source, and where its target is drawn [n]."""
        symbols = self.source_symbols(source)
        if self.layout.form != "aligned":
            read = symbols[::-1] if self.layout.form == "reversed" else symbols
            return np.array([START, *(read + SOURCES), NEXT, DRAWN])
        ahead = np.concatenate([symbols[1:] + self._ahead, np.full(self.layout.lookahead + 1, EDGE)])
        seen = [ahead[place : place + len(symbols)] for place in reversed(range(self.layout.lookahead))]
        each = np.stack([*seen, symbols + SOURCES, np.full(len(symbols), DRAWN)], 1)
        return np.concatenate([[START], symbols[::-1] + self._ahead, each.ravel()])

    def symbols(self, pair: Pair) -> int:
        """The symbols of a pair's record."""
        return len(self.script(pair.source)) + len(self.target_symbols(pair.target))

    def record(self, pair: Pair, sizes: Sequence[int]) -> tuple[Ids, Ids]:
        """A pair as symbols [n], and whether each is scored [n].

        Args:
            pair: a source and its target.
            sizes: how many target symbols are written at each place of the script where any are.
        """
        script, targets = self.script(pair.source), self.target_symbols(pair.target) + self.targets
        chunks = iter(np.split(targets, np.cumsum(sizes)[:-1]))
        ids, scored = list[int](), list[bool]()
        for symbol in script.tolist():
            drawn = [*next(chunks).tolist(), NEXT] if symbol == DRAWN else [symbol]
            ids += drawn
            scored += [symbol == DRAWN] * len(drawn)
        return np.array(ids), np.array(scored)

    def text(self, drawn: Iterable[int]) -> str:
        """The target that drawn symbols are; NEXT among them says nothing."""
        return (" " if self.words else "").join(self.target[n - self.targets - 1] for n in drawn if n > self.targets)

    def content(self) -> bytes:
        """JSON, in ASCII."""
        symbols = {"source": self.source, "target": self.target, "words": self.words, "most": self.most}
        return to_json(self.name, **self.layout._asdict(), **symbols)

    @classmethod
    def from_content(cls, content: bytes) -> Self:
        """Raises ValueError for anything but what `content` gives."""
        found = from_json(content, cls.name)
        if found.keys() != {*Layout._fields, "source", "target", "words", "most"}:
            raise ValueError("other keys or values than expected")
        symbols, numbers = (found["source"], found["target"]), (found["lookahead"], found["most"])
        texts = all(isinstance(s, list) and all(isinstance(c, str) and c for c in s) for s in symbols)
        whole = all(type(n) is int and 0 <= n < 2**31 for n in numbers)
        if not texts or not whole or found["form"] not in FORMS or type(found["words"]) is not bool:
            raise ValueError("other keys or values than expected")
        return cls(Layout(found["form"], found["lookahead"]), *symbols, found["words"], found["most"])


def are_words(targets: Sequence[str]) -> bool:
    """Whether the symbols of targets are words: blanks are in most of them, and there are few different words."""
    words = {word for target in targets for word in target.split(" ")}
    return len(words) <= MOST_WORDS and 2 * sum(" " in target for target in targets) > len(targets)


def _cut(target: str, words: bool) -> list[str]:
    return [word for word in target.split(" ") if word] if words else list(target)


def sizes_of(alphabet: PairAlphabet, pairs: Sequence[Pair], learnt: int) -> list[list[int]]:
    """How many target symbols are written at each place of each pair's script.

    Of an aligned layout, by the likeliest alignment, which is learnt from the first `learnt` pairs. What is too long
    for it is written by the last source symbol.
    """
    targets = [alphabet.target_symbols(pair.target) for pair in pairs]
    if alphabet.layout.form != "aligned":
        return [[len(target)] for target in targets]
    sources = [alphabet.source_symbols(pair.source) for pair in pairs]
    cut = [target[: LONGEST_CHUNK * len(source)] for source, target in zip(sources, targets, strict=True)]
    alignment = Alignment(sources, cut, len(alphabet.source) + 1, learnt)
    alignment.learn()
    sizes = alignment.chunk_sizes()
    for own, target in zip(sizes, targets, strict=True):
        own[-1] += len(target) - sum(own)
    return sizes


def check_pairs(pairs: Sequence[Pair]) -> None:
    """Refuses pairs that nothing can be learnt from; raises DataError."""
    if len(pairs) < 2:
        raise DataError(f"{len(pairs)} pairs are too few to train on")
    if not any(pair.target for pair in pairs):
        raise DataError("all targets are empty")
