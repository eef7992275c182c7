"""Run directories from strangers are refused in one line before TensorFlow starts, and nothing outside is written."""

import ast
import re
import shutil
from pathlib import Path

import pytest
from attacks import ATTACKS, HARMLESS_TO_READ, OF_LAYERS
from fuzzing import made_run, read_run

import charlm
from charlm.cli.listing import described, row, table
from charlm.errors import CharlmError, visible
from charlm.runs import Run

SLOW = ("2 GB", "a hundred thousand", "a million", "many layers", "100 MB", "wide")  # which `make trust` tries


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return made_run(tmp_path_factory.mktemp("good")).path


QUICK = [name for name in ATTACKS if name not in OF_LAYERS and not any(word in name for word in SLOW)]


@pytest.mark.parametrize("name", QUICK)
def test_an_attack_is_refused_by_what_reads_and_by_what_writes(good, tmp_path, name):
    run, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(good, run)
    outside.mkdir()
    ATTACKS[name](run, outside)
    before = {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
    read_run(run)
    with pytest.raises(CharlmError) as caught:
        Run(run).lock() if name in HARMLESS_TO_READ else whole(Run(run))
    assert len(visible(str(caught.value))) < 1000
    assert {path: path.stat().st_mtime_ns for path in outside.rglob("*")} == before


def whole(run: Run) -> None:
    """What commands read of a run, all of it, before TensorFlow starts."""
    found = run.pick("best")
    found.alphabet()
    found.check_shapes(found.config().model)
    found.standing()
    assert run.record["corpus"]["chars"] >= 0


def test_what_a_terminal_obeys_is_escaped_where_runs_are_shown(good, tmp_path):
    run = Run(shutil.copytree(good, tmp_path / "\x1b[2Jrun"))
    shown = table([row(described(run))])
    assert r"\x1b[2Jrun" in shown[1]
    assert not re.search(r"[\x00-\x1f]", "".join(shown))


FORBIDDEN = {"eval", "exec", "compile", "__import__"}
LOADERS = ("load_model", "load_weights", "os.system", "os.popen", "_read_pickle")
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}


def test_the_package_runs_nothing_that_a_file_says():
    """But for an export to Keras, which is played once after charlm itself has written it."""
    for path in sorted(Path(charlm.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names} if isinstance(node, ast.Import) else set()
                module = (getattr(node, "module", None) or "").split(".")[0]
                assert not MODULES & {*names, module}, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in FORBIDDEN, (path, node.lineno)
                assert not called.endswith(LOADERS) or path.name == "keras_file.py", (path, node.lineno)
                told = {key.arg: ast.unparse(key.value) for key in node.keywords}
                assert told.get("allow_pickle", "False") == "False", (path, node.lineno)
                assert told.get("shell", "False") == "False", (path, node.lineno)
