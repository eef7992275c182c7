"""The command line as a user meets it: a second process, its two outputs, its exit code."""

import fcntl
import hashlib
import json
import os
import platform
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest

CHARLM = [Path(sys.executable).with_name("charlm")]
WARM = Path(__file__).with_name("warm.py")
TEXT = "\n".join(topics[name] for name in sorted(topics))
QUICK = ["--units", "24", "--lanes", "8", "--bptt", "24"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a corpus and a trained model in it; commands that are typed there start warm."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "topics.txt").write_text(TEXT[:60_000], "utf-8")
    trained = charlm("train", "topics.txt", *QUICK, "--steps", "60", "--name", "trained", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout == b""
    with subprocess.Popen([sys.executable, WARM, "--listen", "warm"], cwd=folder) as warm:
        while not (folder / "warm").exists():
            assert warm.poll() is None
            time.sleep(0.01)
        try:
            yield folder
        finally:
            warm.kill()


def start(*words, cwd, cold=False, **options):
    environment = {**os.environ, "CHARLM_CACHE": str(cwd / "cache"), **options.pop("env", {})}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    program = CHARLM if cold or not (cwd / "warm").exists() else [sys.executable, WARM, "warm"]
    return subprocess.Popen([*program, *map(str, words)], cwd=cwd, env=environment, **pipes)


def charlm(*words, cwd, stdin=b"", **options):
    process = start(*words, cwd=cwd, **options)
    out, err = process.communicate(stdin)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def refused(code, *words, cwd, **options):
    """The one line that a command which exits with `code` writes to standard error."""
    result = charlm(*words, cwd=cwd, **options)
    lines = result.stderr.decode().splitlines()
    assert (result.returncode, result.stdout, len(lines)) == (code, b"", 1), result
    assert lines[0].startswith("charlm: ")
    return lines[0]


class TestBadInput:
    @pytest.fixture(autouse=True)
    def files(self, tmp_path):
        (tmp_path / "empty.txt").touch()
        (tmp_path / "one.txt").write_text("a")
        (tmp_path / "binary.dat").write_bytes(bytes(range(256)) * 20)
        (tmp_path / "latin.txt").write_bytes("caf\xe9 ".encode("latin-1") * 100)
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "binary.dat").write_bytes(bytes(range(256)))
        (tmp_path / "good.txt").write_text(TEXT[:20_000], "utf-8")
        (tmp_path / "unknown.toml").write_text("[train]\nlaness = 3\n")
        (tmp_path / "typed.toml").write_text('[train]\nlanes = "three"\n')
        (tmp_path / "broken.toml").write_text("[train\n")
        self.folder = tmp_path

    @pytest.mark.parametrize(
        ("code", "says", "words"),
        [
            (3, "empty.txt", "train empty.txt"),
            (3, "1 symbols", "train one.txt"),
            (3, "binary", "train binary.dat"),
            (3, "byte 3", "train latin.txt"),
            (2, "missing.txt", "train missing.txt"),
            (3, "folder", "train folder"),
            (3, "--lanes ", "train good.txt --lanes 5000"),
            (2, "laness", "train good.txt --config unknown.toml"),
            (
                2,
                "[train] lanes in typed.toml must be a whole number, not 'three'",
                "train good.txt --config typed.toml",
            ),
            (2, "broken.toml", "train good.txt --config broken.toml"),
            (2, "absent.toml", "train good.txt --config absent.toml"),
            (2, "corpus", "train"),
            (2, "stride", "train good.txt --bptt 8 --stride 9"),
            (2, "--epochs and --steps", "train good.txt --epochs 1 --steps 1"),
            (2, "--learning-rate must", "train good.txt --learning-rate nan"),
            (2, "--name", "train good.txt --name a/b"),
            (2, "no such run", "train --name nobody --resume"),
            (2, "--bogus", "train good.txt --bogus"),
            (2, "--temperature must", "generate --temperature nan"),
            (2, "--top-p must", "generate --top-p 0"),
            (2, "prompt-file", "generate --prompt-file absent"),
            (5, "charlm train", "generate"),
            (5, "nobody", "evaluate --model nobody"),
            (2, "--checkpoint", "generate --checkpoint newest"),
            (2, "No such command", "trane"),
        ],
    )
    def test_each_is_one_line_and_its_exit_code(self, code, says, words):
        assert says in refused(code, *words.split(), cwd=self.folder)
        assert not (self.folder / "models").exists()


class TestGenerate:
    def test_standard_output_is_the_text_and_nothing_else(self, folder):
        words = ["generate", "--length", "200", "--seed", "1"]
        first, again = (charlm(*words, cwd=folder, stdin=b"The \n") for _ in range(2))
        assert first.stdout == again.stdout
        assert first.stderr == b""
        text = first.stdout.decode()
        assert text.startswith("The ")
        assert len(text) - len("The ") in (200, 201)  # and a line end, if the text has none
        other = charlm(*words[:-1], "2", cwd=folder, stdin=b"The \n")
        assert other.stdout != first.stdout

    def test_needs_no_other_option_than_a_prompt(self, folder):
        result = charlm("generate", "--prompt", "class ", cwd=folder, cold=True)
        assert result.returncode == 0
        assert result.stdout.decode().startswith("class ")

    def test_no_echo_leaves_the_prompt_out(self, folder):
        words = ["generate", "--prompt", "The ", "--length", "40", "--seed", "1"]
        assert b"The " + charlm(*words, "--no-echo", cwd=folder).stdout == charlm(*words, cwd=folder).stdout

    def test_json_is_one_object_a_sample(self, folder):
        words = ["generate", "--prompt", "A", "--samples", "3", "--length", "10", "--seed", "7", "--json"]
        lines = [json.loads(line) for line in charlm(*words, cwd=folder).stdout.splitlines()]
        assert [line["seed"] for line in lines] == [7, 8, 9]
        assert all(line.keys() == {"prompt", "text", "symbols", "seed", "nats", "stopped"} for line in lines)
        assert all(line["symbols"] == len(line["text"]) == 10 and line["stopped"] == "length" for line in lines)
        assert len({line["text"] for line in lines}) == 3

    def test_an_unseen_character_is_shown_or_refused(self, folder):
        words = ["generate", "--prompt", "a☃b", "--length", "5", "--seed", "1"]
        lenient = charlm(*words, cwd=folder)
        assert lenient.returncode == 0
        assert lenient.stdout.decode().startswith("a☃b")
        assert lenient.stderr.decode().count("\n") == 1
        assert "☃" in lenient.stderr.decode()
        assert "☃" in refused(3, *words, "--strict", cwd=folder)

    def test_a_prompt_file_is_taken_as_it_is(self, folder):
        (folder / "prompt.txt").write_text("One\ntwo\n")
        result = charlm("generate", "--prompt-file", "prompt.txt", "--length", "5", cwd=folder)
        assert result.stdout.startswith(b"One\ntwo\n")

    def test_an_environment_variable_is_an_option_and_a_flag_beats_it(self, folder):
        words = ["generate", "--prompt", "A", "--json"]
        env = {"CHARLM_GENERATE_LENGTH": "4", "CHARLM_GENERATE_TOP_K": "2"}
        assert json.loads(charlm(*words, cwd=folder, env=env).stdout)["symbols"] == 4
        assert json.loads(charlm(*words, "--length", "6", cwd=folder, env=env).stdout)["symbols"] == 6

    def test_a_reader_that_goes_away_is_no_error_to_show(self, folder):
        process = start("generate", "--length", "5000", cwd=folder, stdin=subprocess.DEVNULL)
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait()


class TestEvaluate:
    def test_the_report_adds_up(self, folder):
        report = json.loads(charlm("evaluate", "--split", "valid", "--json", cwd=folder).stdout)
        held_out = "".join(c if c in TEXT[:54_000] else "\ufffd" for c in TEXT[54_000:60_000])
        unknown = held_out[1:].count("\ufffd")
        assert (report["context"], report["split"], report["unknown"]) == ("carried", "valid", unknown)
        assert report["symbols"] == report["chars"] == len(held_out) - 1
        assert report["bytes"] == len(held_out[1:].encode())
        nats = report["nats_per_symbol"] * report["symbols"]
        assert report["bits_per_char"] == pytest.approx(nats / np.log(2) / report["chars"])
        assert report["bits_per_byte"] == pytest.approx(nats / np.log(2) / report["bytes"])
        assert report["perplexity"] == pytest.approx(np.exp(report["nats_per_symbol"]))
        cold = json.loads(charlm("evaluate", "--cold", "16", "--json", cwd=folder).stdout)
        assert cold["context"] == "cold:16"
        assert cold["symbols"] == report["symbols"]
        assert cold["nats_per_symbol"] > report["nats_per_symbol"]

    def test_another_text_is_scored_whole_and_its_unknown_symbols_are_counted(self, folder):
        other = "Grüße ☃ ☃, " + TEXT[30_000:32_000]
        (folder / "other.txt").write_text(other, "utf-8")
        report = json.loads(charlm("evaluate", "other.txt", "--json", cwd=folder).stdout)
        unknown = sum(c not in TEXT[:54_000] for c in other)
        assert (report["split"], report["symbols"], report["unknown"]) == ("all", len(other) - 1, unknown)


def test_evaluate_without_a_text_says_which_text_the_model_learnt_from(folder):
    shutil.copytree(folder / "models/trained", folder / "elsewhere")
    record = json.loads((folder / "models/trained/config.json").read_text())
    moved = folder / "topics.txt"
    moved.rename(folder / "moved.txt")
    try:
        line = refused(2, "evaluate", "--model", "elsewhere", cwd=folder)
        (folder / "topics.txt").write_text(TEXT[:50_000], "utf-8")
        changed = refused(2, "evaluate", "--model", "elsewhere", cwd=folder)
    finally:
        (folder / "moved.txt").rename(moved)
    known = f"topics.txt ({record['corpus']['chars']:,} characters, SHA-256 {record['corpus']['sha256'][:12]}...)"
    assert f"{known}, which is not here; name where it is, or another text" in line
    assert f"{known}, which has changed since; name a text" in changed


def test_the_shipped_models_text_is_named_with_the_way_to_it(tmp_path):
    models = Path(__file__).parent.parent / "models"
    assert "or write it anew: charlm corpus kjv kjv.txt" in refused(2, "evaluate", "--models", models, cwd=tmp_path)


class TestTrain:
    def test_a_dropped_connection_saves_and_a_resume_goes_on_bit_for_bit(self, folder):
        words = ["topics.txt", *QUICK, "--dropout", "0.3", "--stride", "8", "--steps", "400"]
        assert charlm("train", *words, "--name", "whole", cwd=folder).returncode == 0
        parent, child = pty.openpty()
        process = start("train", *words, "--name", "parted", cwd=folder, stderr=child)
        os.close(child)
        metrics = folder / "models/parted/metrics.jsonl"
        while not (metrics.exists() and '"step": 9' in metrics.read_text()):
            time.sleep(0.02)
        os.close(parent)  # from here on, writing to the terminal fails
        process.send_signal(signal.SIGHUP)
        assert process.wait() == 130
        steps = sorted(path.name for path in (folder / "models/parted/checkpoints").iterdir())
        assert steps[-1] < "step-00000400"
        assert charlm("train", "--name", "parted", "--resume", cwd=folder).returncode == 0
        weights = [
            folder / f"models/{run}/checkpoints/step-00000400/weights.safetensors" for run in ("whole", "parted")
        ]
        assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in weights}) == 1

    def test_an_interrupt_before_the_first_update_says_how_to_go_on(self, folder):
        process = start("train", "topics.txt", *QUICK, "--name", "early", cwd=folder, cold=True)
        while not (folder / "models/early/config.json").exists():
            time.sleep(0.01)
        time.sleep(0.3)  # TensorFlow is being imported
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        assert process.returncode == 130
        wanted = "nothing is trained yet; go on with: charlm train --name early --resume"
        assert wanted in said.decode()

    def test_a_second_interrupt_ends_it_at_once(self, folder):
        process = start("train", "topics.txt", "--units", "512", "--steps", "9000", "--name", "twice", cwd=folder)
        metrics = folder / "models/twice/metrics.jsonl"
        while not (metrics.exists() and '"stepped"' in metrics.read_text()):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130

    def test_a_corpus_from_standard_input(self, folder):
        text = TEXT[:30_000].encode()
        result = charlm("train", "-", *QUICK, "--steps", "5", "--name", "piped", cwd=folder, stdin=text)
        assert result.returncode == 0, result.stderr
        assert "standard input" in refused(2, "evaluate", "--model", "piped", cwd=folder)

    def test_toml_lies_over_the_preset_and_under_the_flags(self, folder):
        (folder / "run.toml").write_text(
            "[model]\nunits = 20\ncell = 'gru'\n[train]\nsteps = 3\nbptt = 16\nlanes = 8\n"
        )
        words = ["train", "topics.txt", "--preset", "tiny", "--config", "run.toml", "--units", "28", "--name", "laid"]
        env = {"CHARLM_TRAIN_BPTT": "12"}
        assert charlm(*words, cwd=folder, env=env).returncode == 0
        config = json.loads(charlm("info", "--model", "laid", "--json", cwd=folder).stdout)["config"]
        assert (config["model"]["cell"], config["model"]["units"], config["train"]["bptt"]) == ("gru", 28, 12)
        assert (config["train"]["steps"], config["train"]["minutes"]) == (3, None)

    def test_a_narrow_dumb_terminal_sees_score_and_speed_and_no_escape(self, folder):
        parent, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 40, 0, 0))
        words = ["train", "topics.txt", *QUICK, "--steps", "40", "--name", "seen"]
        process = start(*words, cwd=folder, stderr=child, env={"TERM": "dumb"})
        os.close(child)
        shown = b""
        while True:
            try:
                shown += os.read(parent, 4096)
            except OSError:
                break
        assert process.wait() == 0
        for part in (
            b"bits/char",
            b"k chars/s",
            b"bits per character",
            b"a text that begins after",
            b"done at step 40",
        ):
            assert part in shown
        assert b"--name seen --resume --steps 80" in shown
        assert b"\x1b" not in shown
        assert b"Traceback" not in shown


def test_info_describes_the_run(folder):
    about = json.loads(charlm("info", "--model", "trained", "--json", cwd=folder).stdout)
    assert {"config", "parameters", "tokenizer", "vocabulary", "best", "last_step", "paths"} <= about.keys()
    vocabulary = about["vocabulary"]
    lstm = 4 * 24 * (24 + 24 + 1)
    assert about["parameters"] == vocabulary * 24 + lstm + 24 * vocabulary + vocabulary
    assert about["last_step"] == 60
    assert charlm("info", cwd=folder).returncode == 0


def test_tokenize_shows_ids_and_pieces(folder):
    shown = json.loads(charlm("tokenize", "--model", "trained", "--json", "The ☃", cwd=folder).stdout)
    assert shown["pieces"] == ["T", "h", "e", " ", "\ufffd"]
    assert shown["ids"][-1] == 0


def test_env_says_what_would_be_used(folder):
    about = json.loads(charlm("env", "--json", cwd=folder).stdout)
    assert {"charlm", "tensorflow", "cores", "gpu", "engine", "precision auto"} <= about.keys()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN is for these processors")
def test_onednn_is_on_unless_the_person_has_said_no(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    assert json.loads(charlm("env", "--json", cwd=tmp_path).stdout)["oneDNN"] == "on"
    said = charlm("env", "--json", cwd=tmp_path, env={"TF_ENABLE_ONEDNN_OPTS": "0"})
    assert json.loads(said.stdout)["oneDNN"] == "off"


def test_corpus_writes_text(tmp_path):
    result = charlm("corpus", "pydocs", "data/pydocs.txt", cwd=tmp_path)
    assert result.stdout == b""
    assert (tmp_path / "data/pydocs.txt").stat().st_size > 300_000


def test_a_damaged_model_is_refused_without_a_traceback(folder):
    shutil.copytree(folder / "models/trained", folder / "broken/damaged")
    for weights in (folder / "broken/damaged/checkpoints").glob("*/weights.safetensors"):
        data = bytearray(weights.read_bytes())
        data[len(data) // 2] ^= 1
        weights.write_bytes(data)
    words = ["generate", "--models", "broken", "--model", "damaged", "--prompt", "a"]
    result = charlm(*words, cwd=folder)
    assert result.returncode == 5
    assert b"damaged" in result.stderr
    assert b"Traceback" not in result.stderr
    debugged = charlm("--debug", *words, cwd=folder)
    assert b"Traceback" in debugged.stderr
    assert debugged.returncode == 5
