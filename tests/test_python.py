"""Python as people type it: one for many and many for one, `Path`, `bytes`, `None`, values of other libraries."""

import contextlib
import io
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import charlm
from charlm.errors import ModelError, UsageError
from charlm.export import export

TEXT = "It was the best of times, it was the worst of times, \n" * 60
QUICK = {"steps": 3, "units": 8, "lanes": 4, "bptt": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    """A model, and what its training showed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARLM_CACHE", str(folder / "cache"))
        with contextlib.redirect_stderr(io.StringIO()) as shown:
            paths = folder / "a.txt", str(folder / "b.txt")
            model = charlm.train(paths, models=folder / "models", name="run", progress=True, on_event=None, **QUICK)
        yield model, shown.getvalue()


@pytest.fixture(scope="module")
def model(trained):
    return trained[0]


def refused(kind, call, *values, **settings):
    """The message of the error that a call ends in: one line, of which nothing speaks of the command line."""
    with pytest.raises(kind) as caught:
        call(*values, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert "--" not in message
    assert "None" not in message
    return message


def test_one_path_or_many_as_texts_or_paths_are_the_same_corpus(folder, model):
    one, two = folder / "a.txt", folder / "b.txt"
    assert len(model.checkpoint.record["corpus"]["paths"]) == 2
    both = model.evaluate([one, str(two)], split="all")
    assert both.symbols == 2 * (len(TEXT) - 1)  # each is a document
    for paths in (one, str(one), bytes(one), [one], (str(one),)):
        assert model.evaluate(paths).symbols == len(TEXT) - 1
    assert model.evaluate(None) == pytest.approx(model.evaluate([])) or model.evaluate().split == "valid"
    assert model.evaluate(one, cold=np.int64(16)).context == "cold:16"


def test_a_second_text_is_scored_by_the_graph_of_the_first(folder, model):
    model = charlm.load(model.checkpoint.path)
    first, again = (model.evaluate(folder / name).symbols for name in ("a.txt", "b.txt"))
    assert first == again == len(TEXT) - 1
    assert model._evaluator._evaluate.experimental_get_tracing_count() == 1


def test_a_list_of_files_or_a_missing_path_to_train(folder, model):
    missing = folder / "missing.txt"
    for paths in ([missing], [[str(missing)]], [[folder / "a.txt", missing]]):
        assert "missing.txt: no such file" in refused(UsageError, charlm.train, *paths, models=folder / "models")
    assert "needs a corpus" in refused(UsageError, charlm.train)
    for text in (TEXT, "long " * 2000):
        assert "is a text where a path is wanted" in refused(UsageError, charlm.train, text)
    assert "must be a text or a Path" in refused(UsageError, charlm.train, 5)
    assert "run exists: add resume=True" in refused(
        UsageError, charlm.train, folder / "a.txt", models=folder / "models", name="run"
    )


def test_several_prompts_give_several_texts(model):
    asked = {"length": 12, "seed": 3}
    alone = [model.generate(prompt, **asked) for prompt in ("It ", "was ")]
    assert model.generate(["It ", "was "], **asked) == alone
    assert model.generate((b"It ", "was "), **asked) == alone
    two = model.generate(["It ", "was "], samples=2, **asked)
    assert [len(texts) for texts in two] == [2, 2]
    assert [texts[0] for texts in two] == alone
    assert model.generate([], **asked) == []


def test_bytes_none_and_numbers_of_other_libraries_are_taken(model):
    plain = model.generate("It ", length=9, seed=1)
    assert model.generate(b"It ", length=np.int64(9), seed=np.int32(1), temperature=np.float32(0.8)) != ""
    assert model.generate(b"It ", length=np.int64(9), seed=np.array(1), top_k=None, stop=None) == plain
    assert model.generate(None, length=9, seed=1) == model.generate(length=9, seed=1)
    assert "t" not in model.generate("It ", stop="t", seed=1)


def test_a_wrong_value_is_named_as_it_was_typed(model):
    assert refused(UsageError, model.generate, 5).startswith("prompt must be")
    assert refused(UsageError, model.generate, [5]).startswith("prompt must be")
    assert refused(UsageError, model.generate, b"\xff").startswith("prompt: byte 0 is not UTF-8")
    assert refused(UsageError, model.generate, length="5") == "length must be a whole number, not '5'"
    assert refused(UsageError, model.generate, lenght=5).endswith("did you mean length?")
    assert refused(UsageError, model.evaluate, cold=0) == "cold must be at least 1, not 0"
    assert refused(UsageError, model.evaluate, split="vald").endswith("did you mean valid?")
    assert refused(UsageError, charlm.train, "x", lerning_rate=1).endswith("did you mean learning_rate?")
    assert refused(UsageError, charlm.train, "x", cell="ltsm").endswith("did you mean lstm?")
    assert refused(UsageError, charlm.train, "x", preset="smal").endswith("did you mean small?")
    assert refused(UsageError, charlm.train, "x", steps=1, minutes=1).startswith("steps and minutes exclude each")
    assert refused(UsageError, charlm.train, resume=True) == "resume=True needs the name of the run to go on with"


def test_a_misspelt_run_is_told_which_was_meant(folder, model):
    assert "did you mean run?" in refused(ModelError, charlm.load, "rum", models=folder / "models")
    assert charlm.load(folder / "models" / "run").checkpoint == model.checkpoint
    assert charlm.load("run", models=str(folder / "models"), checkpoint=3).checkpoint.step == 3


def test_what_a_notebook_shows_of_a_model_and_a_score_can_be_read(model):
    assert repr(model).startswith("<LanguageModel run: lstm 8 x 1, ")
    score = model.evaluate()
    assert f"{score.bits_per_char:.4f} bits per character" in repr(score)
    assert str(score) in repr(score)
    assert score.to_dict()["bits_per_char"] == score.bits_per_char


def test_tab_completion_and_help_show_what_there_is():
    assert {"train", "load", "LanguageModel", "Score", "errors", "events"} <= set(dir(charlm))
    assert not {"Any", "importlib"} & set(dir(charlm))
    for name in dir(charlm):
        assert getattr(charlm, name) is not None
    for setting in ("lanes", "minutes", "learning_rate", "tokenizer", "units"):
        assert f"\n            {setting}: " in charlm.train.__doc__
    assert "top_k: " in charlm.LanguageModel.generate.__doc__
    assert all(len(line) < 120 for line in charlm.train.__doc__.splitlines())


def test_training_shows_its_progress_where_somebody_watches(folder, trained, capsys, monkeypatch):
    assert "done at step 3" in trained[1]
    again = {"name": "run", "models": folder / "models", "resume": True}
    charlm.train(**again)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    charlm.train(**again)
    assert "finished already at step 3" in capsys.readouterr().err
    charlm.train(**again, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_program_that_imports_charlm_alone_sees_no_noise_of_others_and_none_of_their_settings(folder, model):
    code = f"import charlm; print(charlm.load('run', models={str(folder / 'models')!r}).generate('It ', length=3))"
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment["KERAS_BACKEND"] = "jax"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stderr == b""
    assert len(done.stdout.decode()) == len("abc\n")


def test_a_program_that_has_imported_tensorflow_keeps_its_settings(model):
    logger, before = tf.get_logger(), dict(os.environ)
    logger.setLevel("INFO")
    assert charlm.load("run", models=model.checkpoint.path.parents[2]).generate(length=0) == ""
    assert logger.level == logging.INFO
    assert dict(os.environ) == before


def test_two_threads_write_from_one_model(model):
    expected = [model.generate("It ", length=40, seed=seed) for seed in range(4)]
    written: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=n: written.update({n: model.generate("It ", length=40, seed=n)}))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [written[n] for n in range(4)] == expected


def test_an_export_goes_to_a_text_or_a_path_and_never_speaks_of_options(folder, model):
    written = str(folder / "model.keras")
    assert refused(UsageError, export, model, folder / "x.html", "kerras").endswith("did you mean keras?")
    Path(written).touch()
    assert refused(UsageError, export, model, written).endswith("exists; force=True replaces it")


# ---- other processes


def told_by_a_fork(function, *arguments):
    """What a forked process says of a call; one that waits without end is ended."""
    readable, writable = os.pipe()
    if not (child := os.fork()):
        signal.alarm(120)
        try:
            said = f"returned {function(*arguments)!r}"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writable, said.encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


def test_a_model_in_a_forked_process_is_an_error_and_no_endless_wait(trained, folder):
    model, _ = trained
    for function, *arguments in (
        (model.generate, "It "),
        (model.evaluate, folder / "a.txt"),
        (charlm.load, folder / "models/run"),
        (export, model, folder / "exported"),
    ):
        assert told_by_a_fork(function, *arguments).startswith("CharlmError: this process was forked")
    assert model.generate("It ", length=3, seed=1) == model.generate("It ", length=3, seed=1)


def test_a_model_goes_to_a_spawned_process(trained):
    model, _ = trained
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(model.generate, ["It "], {"length": 9, "seed": 1}) == model.generate("It ", length=9, seed=1)


def test_a_training_after_a_load_says_that_its_threads_are_others_and_so_does_its_resume(folder, trained):
    program = f"""
import charlm
if {{loads}}:
    charlm.load({str(folder / "models/run")!r})
charlm.train({str(folder / "a.txt")!r}, name="threads", models={str(folder / "threads")!r}, resume={{resumes}},
    steps={{steps}}, **{{settings}})
"""
    settings = {"lanes": 2, "bptt": 8, "preset": "tiny"}
    said = [
        subprocess.run(
            [sys.executable, "-c", program.format(loads=n == 0, resumes=n == 1, steps=1 + n, settings=given)],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for n, given in enumerate([settings, {}])
    ]
    assert "TensorFlow was in use before this training began and keeps its threads" in said[0]
    was = "it was computed with all threads for an operation and is now with 1 thread for an operation"
    assert f"{was}; it will not go on bit for bit" in said[1]


def test_a_process_that_was_forked_before_tensorflow_started_loads_a_model(trained, folder):
    program = f"""
import os
import charlm.machine
if not os.fork():
    import charlm
    print(charlm.load({str(folder / "models/run")!r}).generate("It ", length=9, seed=1), end="", flush=True)
    os._exit(0)
os.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == trained[0].generate("It ", length=9, seed=1)
