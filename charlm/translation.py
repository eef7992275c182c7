"""Sources turned into targets by a model of pairs."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from charlm.decoder import decoder_of
from charlm.model import CharLM
from charlm.pairs.alphabet import NEXT, PairAlphabet
from charlm.questions import TranslationConfig
from charlm.records import Ids
from charlm.sampling import Setting
from charlm.search import FINISHED, search, traced

ROWS = 1024  # hypotheses that are computed side by side, at most
SHORTEST = 32  # a script is padded to this length or to a double of it, for each length is compiled
NORMALISED = 0.6  # hypotheses are compared by -log p over their length to this power: Wu et al. (2016), simplified


class Hypothesis(NamedTuple):
    """A target, and -log p of it in nats; equal targets that came by different ways are one."""

    text: str
    nats: float
    length: int  # symbols of the target

    @property
    def cost(self) -> float:
        """What hypotheses are compared by."""
        return self.nats / (self.length + 1) ** NORMALISED


class Translator:
    """A model of pairs, ready to turn sources into targets."""

    def __init__(self, model: CharLM, alphabet: PairAlphabet) -> None:
        self.model, self.alphabet = model, alphabet
        self._decoder = decoder_of(model, "float32", columns=False)
        self._allowed = tf.constant(~np.isin(np.arange(alphabet.vocabulary), alphabet.blocked))

    def found(
        self, sources: Sequence[str], config: TranslationConfig, progress: Callable[[int], None] = lambda count: None
    ) -> list[list[Hypothesis]]:
        """What a configuration asks for: the likeliest targets of each source, or drawn ones."""
        if config.samples is None:
            return self.likeliest(sources, config.beam, progress)
        seed = secrets.randbelow(2**31) if config.seed is None else config.seed
        warm = {} if config.temperature == 1 else {"temperature": tf.constant(config.temperature)}
        return self.drawn(sources, config.samples, warm, seed, progress)

    def likeliest(
        self, sources: Sequence[str], beam: int = 4, progress: Callable[[int], None] = lambda count: None
    ) -> list[list[Hypothesis]]:
        """The likeliest targets that a beam search finds for each source, the best first.

        Args:
            sources: texts, none of them empty.
            beam: hypotheses side by side; 1 is a greedy search.
            progress: called with the number of sources turned since the last call.
        """
        return self._found(sources, beam, {}, None, progress)

    def drawn(
        self,
        sources: Sequence[str],
        samples: int,
        settings: dict[str, Setting],
        seed: int,
        progress: Callable[[int], None] = lambda count: None,
    ) -> list[list[Hypothesis]]:
        """Targets drawn for each source, the likeliest first; equal ones are one."""
        repeated = [source for source in sources for _ in range(samples)]
        seeds = [(seed + n) % 2**31 for _ in sources for n in range(samples)]
        found = self._found(repeated, 1, settings, seeds, progress)
        grouped = (found[n : n + samples] for n in range(0, len(found), samples))
        return [sorted({one.text: one for (one,) in group}.values(), key=lambda one: one.nats) for group in grouped]

    def _found(
        self,
        sources: Sequence[str],
        beam: int,
        settings: dict[str, Setting],
        seeds: Sequence[int] | None,
        progress: Callable[[int], None],
    ) -> list[list[Hypothesis]]:
        if not sources:
            return []
        scripts = [self.alphabet.script(source) for source in sources]
        order = sorted(range(len(scripts)), key=lambda n: len(scripts[n]))
        found: list[list[Hypothesis]] = [[] for _ in sources]
        at_once = min(max(1, ROWS // beam), len(sources))
        for start in range(0, len(order), at_once):
            own = order[start : start + at_once]
            doubled = max(0, math.ceil(math.log2(len(scripts[own[-1]]) / SHORTEST)))
            padded = np.full((at_once, SHORTEST << doubled), FINISHED, np.int32)
            for row, n in enumerate(own):
                padded[row, : len(scripts[n])] = scripts[n]
            some = None if seeds is None else np.resize([seeds[n] for n in own], at_once)
            for row, hypotheses in enumerate(self._searched(padded, beam, settings, some)[: len(own)]):
                found[own[row]] = hypotheses
            progress(len(own))
        return found

    def _searched(self, scripts: Ids, beam: int, settings: dict[str, Setting], seeds: Any) -> list[list[Hypothesis]]:
        most = self.alphabet.most
        layout = self.alphabet.layout
        parts = scripts.shape[1] // (layout.lookahead + 2) if layout.form == "aligned" else 1
        found = search(
            self._decoder,
            self.model.initial_state(len(scripts) * beam),
            tf.constant(scripts),
            self._allowed,
            NEXT,
            most,
            beam,
            scripts.shape[1] + parts * (most + 1),
            settings,
            None if seeds is None else tf.constant(seeds, tf.int32),
        )
        symbols, written, parents = (part.numpy()[: int(found.count)] for part in found[:3])
        nats = found.nats.numpy()
        lines = traced(np.where(written[..., None], symbols, -1), parents)
        return [self._merged(lines[:, n], nats[n]) for n in range(len(scripts))]

    def _merged(self, lines: Ids, nats: Any) -> list[Hypothesis]:
        """The hypotheses [steps, N] of a source by their targets."""
        ways: dict[str, list[float]] = {}
        lengths = {}
        for line, cost in zip(lines.T, nats.tolist(), strict=True):
            if np.isfinite(cost):
                text = self.alphabet.text(line.tolist())
                ways.setdefault(text, []).append(-cost)
                lengths[text] = int((line > NEXT).sum())
        merged = [Hypothesis(text, -float(np.logaddexp.reduce(own)), lengths[text]) for text, own in ways.items()]
        return sorted(merged, key=lambda one: one.cost)
