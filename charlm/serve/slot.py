"""One text that the engine writes: what is asked for, how far it is, and what of it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from charlm.decoding import Decoded
from charlm.generation import TextRow
from charlm.serve.batch import PIECE, RowState, Told
from charlm.tokenizer import Tokenizer


@dataclass(frozen=True)
class Piece:
    """What a request has written in a chunk.

    Attributes:
        text: that has become certain.
        ids, nats: the symbols and what each cost under the model, before the samplers.
        stopped: "length" or "stop" in the last piece, "failed" if the engine died; None before.
        likeliest: for each symbol, the likeliest ones in its place with their log probabilities, if asked for.
        prompt: of the prompt's symbols but the first, in the first piece of a request that asked for it.
    """

    text: str
    ids: tuple[int, ...]
    nats: tuple[float, ...]
    stopped: str | None = None
    likeliest: tuple[dict[int, float], ...] = ()
    prompt: Told | None = None


@dataclass(frozen=True)
class Request:
    """One text to write.

    Attributes:
        prompt: ids to read, at least one.
        length, stop, seed: as in `SampleConfig`.
        settings: of samplers, by name; neutral where nothing is said.
        alternatives: how many of the likeliest symbols to tell in each place, up to `ALTERNATIVES`.
        score: whether to tell what the prompt's symbols cost.
    """

    prompt: Sequence[int]
    length: int
    seed: int
    settings: Mapping[str, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    alternatives: int = 0
    score: bool = False


class Slot:
    """A request that is taken: it waits, reads its prompt but for the last symbol, begins with that one, and writes.

    Attributes:
        state: after what it has read, until it has a row of the batch.
        read: symbols of the prompt, before it joins the batch.
        begins: whether its next step is the prompt's last symbol, whose position is -1; its own are 0, 1, ...
        written: symbols of its text.
        told: of the prompt's symbols so far, until it is delivered; None if nobody asked.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer, deliver: Callable[[Piece], object]) -> None:
        self.request, self.deliver = request, deliver
        self.text = TextRow(tokenizer, "", request.stop, request.seed)
        self.state: RowState = []
        self.read = self.written = 0
        self.begins, self.cancelled = True, False
        self.told = Told([], []) if request.score else None

    @property
    def unread(self) -> int:
        """Symbols that it has to read before it joins the batch."""
        return len(self.request.prompt) - 1 - self.read

    @property
    def piece(self) -> Sequence[int]:
        """What it reads next."""
        return self.request.prompt[self.read : self.read + min(PIECE, self.unread)]

    @property
    def following(self) -> Sequence[int]:
        """The symbol after each one of `piece`."""
        return self.request.prompt[self.read + 1 : self.read + 1 + len(self.piece)]

    def reads(self, state: RowState, told: Told | None = None) -> None:
        """Has read its piece; `told` is of what follows each symbol of it."""
        self.read += len(self.piece)
        self.state = state
        if self.told is not None and told is not None:
            most = self.request.alternatives
            self.told.nats.extend(told.nats)
            self.told.likeliest.extend(dict(list(place.items())[:most]) for place in told.likeliest)

    @property
    def left(self) -> int:
        """Steps until it ends, if nothing stops it before."""
        return self.request.length - self.written + self.begins

    @property
    def stopped(self) -> str | None:
        return self.text.sample.stopped or None

    def take(self, drawn: Decoded) -> None:
        """Delivers what a chunk wrote, of which the prompt's share is not given."""
        left, most = self.request.length - self.written, self.request.alternatives
        text = self.text.feed(drawn.ids[:left], drawn.nats[:left])
        count = self.text.sample.symbols - self.written
        self.written += count
        if self.written == self.request.length:
            text += self.text.finish()
        if count or self.stopped:
            ids, nats = drawn.ids[:count].tolist(), drawn.nats[:count].tolist()
            told: tuple[dict[int, float], ...] = ()
            if most:
                best = (part[:count, :most].tolist() for part in (drawn.likeliest, drawn.log_probabilities))
                told = tuple(dict(zip(i, p, strict=True)) for i, p in zip(*best, strict=True))
            self.deliver(Piece(text, tuple(ids), tuple(nats), self.stopped, told, self.told))
            self.told = None
