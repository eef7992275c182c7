import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

LARGEST: dict[tuple[str, str, int], float] = {}


@pytest.fixture
def errors():
    """Notes a relative error under (comparison, cell, layers), for the table at the end of the run, and returns it."""

    def note(comparison: str, cell: str, layers: int, error: float) -> float:
        key = (comparison, cell, layers)
        LARGEST[key] = max(LARGEST.get(key, 0.0), float(error))
        return float(error)

    return note


def pytest_terminal_summary(terminalreporter):
    if LARGEST:
        terminalreporter.section("largest relative errors")
        for (comparison, cell, layers), error in LARGEST.items():
            terminalreporter.line(f"{comparison:30} {cell:5} layers {layers}   {error:.1e}")
