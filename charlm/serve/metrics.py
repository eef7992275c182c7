"""Prometheus' metrics of a server."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPMethod

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from charlm.serve.engine import Engine

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

METHODS = {method.value for method in HTTPMethod}


class Metrics:
    """Counters and histograms, in a registry of their own."""

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("charlm_requests", "Requests", ["method", "status"], registry=self._registry)
        self._first = Histogram(
            "charlm_first_symbol_seconds", "To a text's first symbol", buckets=SECONDS, registry=self._registry
        )
        self._whole = Histogram("charlm_request_seconds", "Whole requests", buckets=SECONDS, registry=self._registry)
        for name, about, value in (
            ("charlm_queue", "Texts that wait for a row", lambda: engine.queued),
            ("charlm_slots_busy", "Texts whose prompts are read or that are written", lambda: engine.busy),
            ("charlm_slots", "Texts that can be", lambda: engine.rows),
            ("charlm_symbols_per_second", "Written in the latest chunk", lambda: engine.rate),
        ):
            Gauge(name, about, registry=self._registry).set_function(value)
        self._registry.register(_Symbols(engine))

    def answered(self, method: str, status: int, seconds: float) -> None:
        """A request is over."""
        self._requests.labels(method if method in METHODS else "other", str(status)).inc()
        self._whole.observe(seconds)

    def first_symbol(self, seconds: float) -> None:
        """A text has its first symbol, so long after it was asked for."""
        self._first.observe(seconds)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)


class _Symbols(Collector):
    """A counter that the engine keeps."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily("charlm_symbols", "Written so far", self._engine.symbols)
