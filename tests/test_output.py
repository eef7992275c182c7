"""Standard streams as shells, daemons and terminals leave them, in second processes; no TensorFlow."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from charlm.config import Config, ModelConfig
from charlm.runs import Run
from charlm.tokenizers import TOKENIZERS

TEXT = "λόγος 世界 🙂 é\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of a text in many scripts, whose file name is no UTF-8."""
    folder = tmp_path_factory.mktemp("scripts")
    tokenizer = TOKENIZERS["char"].train(lambda: iter([TEXT]), 0)
    config = Config(model=ModelConfig(units=2, vocabulary=tokenizer.vocabulary))
    corpus = {"paths": [os.fsdecode(b"/home/caf\xe9.txt")], "chars": 14}
    run = Run.create(folder / "models/one", {"config": config.to_dict(), "corpus": corpus, "versions": {}})
    progress = {"step": 1, "steps": 1, "best": 1, "best_nats": 1.0, "finished": False}
    run.save(1, {}, {}, progress, tokenizer)
    return folder


def shell(line, folder, **environment):
    """What a shell does with `charlm` in a line."""
    line = f"set -o pipefail; charlm() {{ '{sys.executable}' -m charlm \"$@\"; }}; {line}"
    environment = {**os.environ, **environment}
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, check=False)


def test_python_m_charlm_is_the_command(folder):
    assert shell("charlm --version", folder).stdout.startswith(b"charlm ")


CLOSED = "charlm: standard output: cannot be written (it is closed)\n"
FULL = "charlm: standard output: cannot be written (No space left on device)\n"


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("charlm info <&-", 0, ""),
        ("charlm info 2>&-", 0, ""),
        ("charlm info --json >&-", 1, CLOSED),
        ("charlm --help >&-", 1, CLOSED),
        ("charlm info <&- >&- 2>&-", 1, ""),
        ("charlm info >/dev/full", 1, FULL),
        ("charlm tokenize λ 2>/dev/full", 0, ""),
        ("charlm info | true", None, ""),
        ("charlm info --model nobody 2>&-", 5, ""),
    ],
)
def test_a_closed_or_full_stream_is_one_line_and_no_half_report(folder, line, code, says):
    result = shell(line, folder)
    assert result.stderr.decode() == says
    assert code is None or result.returncode == code
    assert bool(result.stdout) == (code == 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_a_command_is_one_line(number):
    code = """
import time
from charlm import cli
cli.cli.main = lambda **more: (print("here"), time.sleep(60))
cli.main()
"""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, **how) as process:
        process.stdout.readline()
        process.send_signal(number)
        assert process.stderr.read().strip() == "charlm: interrupted"
    assert process.returncode == 130


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "C"],
)
def test_a_terminal_without_the_characters_shows_them_escaped(folder, environment):
    about = shell("charlm info", folder, **environment)
    assert (about.returncode, about.stderr) == (0, b"")
    assert b"/home/caf\\udce9.txt" in about.stdout
    assert about.stdout.count(b"\n") == 7
    shown = shell("charlm tokenize 'λ世🙂é'", folder, **environment)
    assert (shown.returncode, shown.stderr, shown.stdout.count(b"\n")) == (0, b"", 4)
    assert b"'\\u4e16'" in shown.stdout
    assert b"'\\U0001f642'" in shown.stdout


def test_json_is_utf_8_whatever_the_terminal_has(folder):
    environment = {"PYTHONIOENCODING": "latin-1"}
    pieces = json.loads(shell("printf 'λ世🙂é' | charlm tokenize --json", folder, **environment).stdout.decode("utf-8"))
    assert pieces["pieces"] == ["λ", "世", "🙂", "é"]
    paths = json.loads(shell("charlm info --json", folder, **environment).stdout)["corpus"]["paths"]
    assert paths == ["/home/caf\udce9.txt"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_message_is_there_at_once_wherever_it_is_written(tmp_path, unbuffered):
    program = """
from charlm.cli.output import open_streams
from charlm.display import say
open_streams()
say("loading")
print(len(open("messages").read().splitlines()))
"""
    with (tmp_path / "messages").open("w") as messages:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=messages, env=environment, cwd=tmp_path)
    assert done.stdout == b"1\n"


def test_no_file_that_is_written_gets_the_number_of_a_closed_stream(tmp_path):
    """TensorFlow's C++ lines go to descriptor 2, whatever that is."""
    code = """
import os, sys
from charlm.machine import occupy_descriptors, standard_error_closed
occupy_descriptors()
with open(sys.argv[1], "w") as file:
    assert file.fileno() > 2
    with standard_error_closed():
        os.write(2, b"a line of C++")
    os.write(2, b"another")
"""
    arguments = [sys.executable, "-c", code, str(tmp_path / "checkpoint")]
    line = '"$@" <&- >&- 2>&-'
    assert subprocess.run(["bash", "-c", line, "bash", *arguments], check=False).returncode == 0
    assert Path(tmp_path / "checkpoint").read_bytes() == b""
