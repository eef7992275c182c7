import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What XLA has compiled once, no other process of this run compiles again; the machine code is the same.
COMPILED = None if "TF_XLA_FLAGS" in os.environ else tempfile.mkdtemp(prefix="charlm-compiled-")
if COMPILED:
    cache = f"--tf_xla_persistent_cache_directory={COMPILED} --tf_xla_persistent_cache_device_types=CPU"
    os.environ["TF_XLA_FLAGS"] = cache


# Whoever starts the tests may ignore these, as nohup and a shell's background jobs do; the tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

LARGEST: dict[str, float] = {}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    from picture import launched

    with playwright.sync_playwright() as driver:
        try:
            opened = launched(driver)
        except ModuleNotFoundError as error:
            pytest.skip(str(error))
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """One model behind one server, for all tests of what clients see."""
    for name in ("fastapi", "httpx", "uvicorn"):
        pytest.importorskip(name)
    from serving import Server
    from test_export import language_model

    server = Server(language_model(tmp_path_factory.mktemp("serve"), "lstm", units=32))
    yield server
    server.close()


@pytest.fixture
def errors():
    """Notes a relative error under (comparison, cell, layers), for the table at the end of the run, and returns it."""

    def note(comparison: str, cell: str, layers: int, error: float) -> float:
        _merge({f"{comparison:30} {cell:5} layers {layers}": float(error)})
        return float(error)

    return note


def _merge(errors: dict[str, float]) -> None:
    for key, error in errors.items():
        LARGEST[key] = max(LARGEST.get(key, 0.0), error)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # one of pytest-xdist's processes
        session.config.workeroutput["largest"] = LARGEST
    elif COMPILED:
        shutil.rmtree(COMPILED, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    _merge(getattr(node, "workeroutput", {}).get("largest", {}))


def pytest_terminal_summary(terminalreporter):
    if LARGEST:
        terminalreporter.section("largest relative errors")
        for comparison, error in sorted(LARGEST.items()):
            terminalreporter.line(f"{comparison}   {error:.1e}")
