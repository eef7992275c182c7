"""Exports, each in the engine it is for, against the model it came from."""

import functools
import hashlib
import json
import math
import random
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from kinds import PATHS

from charlm.api import load
from charlm.cells import cell_of
from charlm.checkpoint import to_arrays
from charlm.cli import as_typed, cli
from charlm.config import KNOBS, Config, ModelConfig
from charlm.errors import UsageError, spelled
from charlm.export import (
    FORMATS,
    SUMS,
    Format,
    ParityError,
    export,
    format_for,
    format_of,
    keras_file,
    readme,
    savedmodel,
)
from charlm.files import EXPORT_TITLE
from charlm.model import build_model
from charlm.page import source
from charlm.runs import Run
from charlm.tokenizer import StreamDecoder
from charlm.tokenizers import TOKENIZERS

TEXT = "the quick brown fox jumps over the lazy dog. été, ночь, 世界 🙂\n" * 5
TOKENIZER = {name: kind.train(lambda: iter([TEXT]), 320) for name, kind in TOKENIZERS.items()}
NEEDS = {"onnx": ["onnx", "onnxruntime"], "litert": ["ai_edge_litert"], "html": ["py_mini_racer"]}
DTYPES = {name: dtype.as_numpy_dtype for name, (dtype, _) in savedmodel.SAMPLING.items()}
# A tokenizer and a cell do not meet in a SavedModel: one of each is enough.
every_saved = pytest.mark.parametrize(
    ("cell", "tokenizer"), list(zip(("lstm", "gru", "rnn"), FORMATS["savedmodel"].tokenizers, strict=True))
)
stock_cell = pytest.mark.parametrize("cell", FORMATS["keras"].cells)  # tests/test_cells.py has the others


def language_model(folder, cell="lstm", tokenizer="char", **settings):
    """A saved model of random weights that are large enough to have opinions, loaded again."""
    made = TOKENIZER[tokenizer]
    config = ModelConfig(**{"cell": cell, "layers": 2, "units": 24, "vocabulary": made.vocabulary, **settings})
    model, rng = build_model(config, seed=5), np.random.default_rng(1)
    calm = cell not in ("lstm", "gru")  # an RNN and others would be chaotic with more
    for weight in model.named_weights().values():
        weight.assign(weight * (1 if calm else 2) + rng.normal(0, 0.05 if calm else 0.3, weight.shape))
    tables = {"data": {"tokenizer": tokenizer}, "model": config.to_dict()}
    corpus = {"paths": ["texts/fox.txt"], "chars": len(TEXT), "sha256": ""}
    run = Run.create(folder / "run", {"config": Config.from_dict(tables, "test").to_dict(), "corpus": corpus})
    run.save(1, to_arrays(model.named_weights()), {}, {"best": None}, made)
    return load("run", models=folder)


def signatures(path):
    loaded = tf.saved_model.load(str(path))

    def call(name, **inputs):
        found = loaded.signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
        return {key: value.numpy() for key, value in found.items()}

    return call


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of a cell and a tokenizer, and the folder of its SavedModel."""

    @functools.cache
    def written(cell="lstm", tokenizer="char"):
        folder = tmp_path_factory.mktemp("saved")
        model = language_model(folder, cell, tokenizer)
        savedmodel.write(model, folder / "out")
        return model, folder / "out"

    return written


def sampling(rows, **settings):
    neutral = {name: knob.neutral for name, knob in KNOBS.items()}
    chosen = {"length": 40, "seed": 7, **neutral, "temperature": 0.8} | settings
    return {name: np.broadcast_to(np.array(chosen[name], kind), rows) for name, kind in DTYPES.items()}


@pytest.mark.parametrize(("name", "cell"), [(name, cell) for name in FORMATS for cell in FORMATS[name].cells or PATHS])
def test_an_export_computes_what_the_model_does(name, cell, tmp_path):
    for module in NEEDS.get(name, []):
        pytest.importorskip(module)
    suffix = FORMATS[name].suffix
    out = tmp_path / f"out{suffix or ''}"
    found, *others = export(language_model(tmp_path, cell, tie=cell == "gru"), out, name)
    assert found.difference is not None
    assert found.holds
    card = readme(out, name)
    assert {p.name for p in tmp_path.iterdir()} == {"run", out.name} | ({card.name} if suffix else set())
    assert all(str(check) in card.read_text() for check in (found, *others))
    assert all(check.difference is None or check.holds for check in others)
    assert card.read_text().startswith(f"# {out.name}\n\n{EXPORT_TITLE} ")
    assert "-out" not in card.read_text()
    if suffix:
        assert f"SHA-256: `{hashlib.sha256(out.read_bytes()).hexdigest()}`" in card.read_text()
    else:
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=out, check=True)
        files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
        assert {line.split(maxsplit=1)[1] for line in (out / SUMS).read_text().splitlines()} == files - {SUMS}


@every_saved
def test_a_savedmodel_writes_the_texts_of_the_model(cell, tokenizer, saved):
    model, path = saved(cell, tokenizer)
    call = signatures(path)
    prompts = ["the quick", "", "é世 🙂", "x", "the dog. the dog."]
    settings = {"temperature": [0.8, 0.0, 1.3, 0.5, 1.0], "top_k": [0, 0, 5, 3, 0], "top_p": [1, 1, 0.9, 0.7, 0.5]}
    settings |= {"min_p": [0, 0.1, 0, 0, 0.2], "repetition_penalty": [1, 1, 3.0, 1, 2.0]}
    settings |= {"seed": [1, 2, 3, 4, 2**31 - 1], "length": [40, 0, 17, 1, 60]}
    inputs = {"prompt": np.array(prompts)}
    found = call("serving_default", **inputs, **sampling(5, **settings))
    for n, prompt in enumerate(prompts):
        own = {name: values[n] for name, values in settings.items()}
        assert found["text"][n].decode() == model.generate(prompt, **own)
        alone = call("generate", **{k: v[n : n + 1] for k, v in inputs.items()}, **sampling(1, **own))
        assert alone["text"][0] == found["text"][n]
        assert found["symbols"][n] == own["length"]
        assert (found["log_probabilities"][n, own["length"] :] == 0).all()
        assert (found["log_probabilities"][n, : own["length"]] < 0).all()


def test_a_savedmodel_takes_no_prompts_and_no_wrong_settings(saved):
    call = signatures(saved()[1])
    found = call("generate", prompt=np.array([], object), **sampling(0))
    assert found["text"].shape == (0,)
    for settings in {"length": -1}, {"length": 2**31 - 1}:
        with pytest.raises(tf.errors.InvalidArgumentError, match="length: wants 0 to 1,000,000"):
            call("generate", prompt=np.array(["a"]), **sampling(1, **settings))
    with pytest.raises(tf.errors.InvalidArgumentError, match="one value for each prompt"):
        call("generate", prompt=np.array(["a", "b"]), **sampling(2) | {"seed": np.array([1], np.int32)})
    for settings in {"temperature": -1}, {"temperature": np.nan}, {"top_p": 7}, {"top_k": -3}, {"min_p": 1.1}:
        ((name, _),) = settings.items()
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{name}: wants {KNOBS[name].allowed.words}"):
            call("generate", prompt=np.array(["a"]), **sampling(1, **settings))
    greedy = call("generate", prompt=np.array(["a"]), **sampling(1, temperature=0.0))
    assert call("generate", prompt=np.array(["a"]), **sampling(1, top_p=1e-6))["text"] == greedy["text"]


@every_saved
def test_a_savedmodel_scores_texts_as_the_model_does(cell, tokenizer, saved):
    model, path = saved(cell, tokenizer)
    texts = ["the quick brown", "", "x", "é世§ 🙂 the lazy dog"]
    found = signatures(path)("score", text=np.array(texts))
    for n, text in enumerate(texts):
        ids = model.tokenizer.encode(text).astype(np.int32)
        nats = 0.0
        if len(ids) > 1:
            logits, _ = model.model(tf.constant(ids[:-1, None]), model.model.initial_state(1))
            nats = float(tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(ids[1:], logits[:, 0])))
        assert found["nats"][n] == pytest.approx(nats, rel=1e-5)
        assert found["symbols"][n] == max(0, len(ids) - 1)
        assert found["nats_per_symbol"][n] == pytest.approx(nats / max(1, len(ids) - 1), rel=1e-5)


@every_saved
def test_a_savedmodels_state_goes_in_and_comes_out(cell, tokenizer, saved):
    model, path = saved(cell, tokenizer)
    call = signatures(path)
    ids = np.random.default_rng(0).integers(1, model.tokenizer.vocabulary, (3, 9)).astype(np.int32)
    zeros = call("initial_state", batch=3)["state"]
    assert zeros.shape == (3, 2, len(cell_of(cell).states), 24)
    whole = call("prefill", ids=ids, state=zeros)
    parts = call("prefill", ids=ids[:, :5], state=zeros)
    for t in range(5, 9):
        parts = call("step", ids=ids[:, t], state=parts["state"])
    for key in ("logits", "state"):
        np.testing.assert_allclose(whole[key], parts[key], atol=1e-6)
    logits, state = model.model(tf.constant(ids.T), model.model.initial_state(3))
    np.testing.assert_allclose(whole["logits"], logits[-1], atol=1e-5)
    np.testing.assert_allclose(whole["state"], np.stack([np.stack(layer, 1) for layer in state], 1), atol=1e-5)


def test_a_savedmodel_holds_plain_operations_alone(saved):
    path = saved()[1]
    graph = tf.saved_model.load(str(path)).signatures["generate"].graph.as_graph_def()
    functions = list(graph.library.function)
    operations = {node.op for f in functions for node in f.node_def}
    assert "MatMul" in operations
    assert not [op for op in operations if "udnn" in op or "Xla" in op]
    assert not [f.signature.name for f in functions if f.attr["_XlaMustCompile"].b]
    assert (path / "assets/tokenizer.json").read_bytes() == TOKENIZER["char"].content()


def test_every_signature_of_a_savedmodel_has_requests_of_one_row_that_warm_it(saved):
    command = [sys.executable, "-I", Path(__file__).with_name("replay.py"), "numbers", saved()[1]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    (signatures,) = {tuple(answer["signatures"]) for answer in answers}
    plain = set(signatures) - {"initial_state", "__saved_model_init_op"}  # a server that batches refuses the former's
    assert {answer["signature"] for answer in answers} == plain
    assert {rows for answer in answers for rows in answer["rows"]} == {1}


@pytest.mark.parametrize("name", ["savedmodel", "keras"])
def test_an_export_that_computes_something_else_is_not_left(name, tmp_path, monkeypatch):
    model, module = language_model(tmp_path), format_of(name)
    write = module.write

    def wrong(language_model, path):
        weight = model.model.named_weights()["layers.1.recurrent_kernel"]
        right = weight.numpy()
        weight.assign(right * 1.001)
        write(language_model, path)
        weight.assign(right)

    monkeypatch.setattr(module, "write", wrong)
    with pytest.raises(ParityError, match="not written") as caught:
        export(model, tmp_path / ("out.keras" if name == "keras" else "out"), name)
    assert caught.value.exit_code == 1
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_what_is_there_is_replaced_by_force_alone(tmp_path):
    model, out = language_model(tmp_path), tmp_path / "out.keras"
    out.write_text("mine")
    with pytest.raises(UsageError, match="exists; force=True"):
        export(model, out)
    assert out.read_text() == "mine"
    export(model, out, force=True)
    assert out.stat().st_size > 10_000
    export(model, out, force=True)
    (tmp_path / "out.keras.md").write_text("mine")
    with pytest.raises(UsageError, match=r"out\.keras\.md: exists"):
        export(model, out, force=True)
    assert (tmp_path / "out.keras.md").read_text() == "mine"


def test_a_directory_is_replaced_if_it_is_an_export(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    model, out = language_model(tmp_path), tmp_path / "out"
    out.mkdir()
    export(model, out, "onnx", force=True)
    monkeypatch.chdir(out)
    with pytest.raises(UsageError, match="exists; force=True"):
        export(model, out, "onnx")
    (out / "models.config").write_text("mine")
    with pytest.raises(UsageError, match=r"also holds models\.config"):
        export(model, out, "onnx", force=True)
    assert (out / "models.config").read_text() == "mine"
    (out / "models.config").unlink()
    (out / "step.onnx").write_text("old")
    out.rename(out.with_name(".out.charlm-before"))  # by a process that was killed before it put the new one there
    with pytest.raises(UsageError, match="exists; force=True"):
        export(model, out, "onnx")
    assert (out / "step.onnx").read_text() == "old"
    export(model, Path(), "onnx", force=True)
    assert (out / "step.onnx").stat().st_size > 10_000
    assert {p.name for p in out.iterdir()} == {"README.md", SUMS, "step.onnx", "window.onnx", "tokenizer.json"}
    assert {p.name for p in tmp_path.iterdir()} == {"run", "out"}
    (tmp_path / "link").symlink_to(out)
    export(model, tmp_path / "link", "onnx", force=True)
    assert (tmp_path / "link").is_symlink()
    monkeypatch.chdir(tmp_path)
    for mine in tmp_path, tmp_path / "run":
        with pytest.raises(UsageError, match="something else than an export"):
            export(model, mine, "onnx", force=True)
    assert {p.name for p in tmp_path.iterdir()} == {"run", "out", "link"}


def test_destinations_that_cannot_be(tmp_path):
    model = language_model(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.keras").mkdir()
    for name, format_name, message in (
        ("file", "savedmodel", "writes a directory"),
        ("folder.keras", "keras", "writes a file"),
        ("none/out.keras", "keras", "no such directory"),
        ("model.h5", "keras", r"ends with \.keras"),
    ):
        with pytest.raises(UsageError, match=message):
            export(model, tmp_path / name, format_name, force=True)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.keras", "keras"),
        ("a.tflite", "litert"),
        ("b/a.html", "html"),
        ("a", "savedmodel"),
    ],
)
def test_an_ending_names_its_format(name, expected):
    assert format_for(Path(name)) == expected


@pytest.mark.parametrize("name", ["a.onnx", "a.h5", "model-1.2"])
def test_an_ending_that_is_no_formats_is_refused(name):
    with pytest.raises(UsageError, match="is no format's ending; format"):
        format_for(Path(name))


def test_an_engine_that_is_missing_is_not_a_pass(tmp_path, monkeypatch):
    def play(path, script):
        raise ModuleNotFoundError("No module named 'engine'", name="engine")

    monkeypatch.setattr(format_of("keras"), "PLAYS", (play,))
    (found,) = export(language_model(tmp_path), tmp_path / "out.keras")
    assert str(found) == "not checked: engine is not installed"
    assert "not checked" in (tmp_path / "out.keras.md").read_text()


def test_a_format_whose_extra_is_missing_says_so(monkeypatch):
    monkeypatch.setitem(FORMATS, "keras", Format("charlm.export.no_such_module", ".keras"))
    with pytest.raises(UsageError, match=r"pip install 'charlm\[keras\]'"):
        format_of("keras")


# ---- the page


@pytest.mark.parametrize(
    ("cell", "tokenizer"), list(zip(FORMATS["html"].cells, FORMATS["html"].tokenizers, strict=True))
)
def test_the_page_writes_what_the_rounded_model_does(cell, tokenizer, tmp_path):
    pytest.importorskip("py_mini_racer")
    model, html = language_model(tmp_path, cell, tokenizer, tie=cell == "rnn"), format_of("html")
    html.write(model, tmp_path / "out.html")
    for weight in model.model.named_weights().values():
        weight.assign(weight.numpy().astype(np.float16).astype(np.float32))
    with html.running(tmp_path / "out.html") as engine:
        for prompt, settings in (
            ("the ", {"temperature": 0.0}),
            ("", {"temperature": 0.8, "seed": 7}),
            ("é世", {"temperature": 1.2, "top_p": 0.8, "seed": 2**31 - 1}),
            ("the dog", {"temperature": 1.1, "top_k": 9, "min_p": 0.05, "repetition_penalty": 4.0}),
            ("the the", {"temperature": 0.0, "repetition_penalty": 1.5}),
        ):
            asked = json.dumps({"seed": 1, **settings})
            written = f"[...model.write({json.dumps(prompt)}, 300, {asked}, 5)].filter(Boolean)"
            symbols = json.loads(engine.eval(f"JSON.stringify({written})"))
            decoder, ids = StreamDecoder(model.tokenizer), [symbol["id"] for symbol in symbols]
            assert decoder.feed(ids) + decoder.flush() == model.generate(prompt, length=300, **{"seed": 1, **settings})
            for symbol in symbols:
                told = dict(symbol["likeliest"])
                assert list(told.values()) == sorted(told.values(), reverse=True)
                assert -told.get(symbol["id"], -symbol["nats"]) == pytest.approx(symbol["nats"])
                assert sum(map(math.exp, told.values())) < 1.001


@pytest.mark.parametrize("tokenizer", FORMATS["html"].tokenizers)
def test_a_page_ends_before_a_text(tokenizer, tmp_path):
    pytest.importorskip("py_mini_racer")
    model, html = language_model(tmp_path, "gru", tokenizer, units=8), format_of("html")
    html.write(model, tmp_path / "out.html")
    with html.running(tmp_path / "out.html") as engine:

        def written(stop):
            symbols = f"[...model.write('', 200, {{seed: 3}}, 0, {json.dumps(stop)})].filter(Boolean)"
            found = json.loads(engine.eval(f"JSON.stringify({symbols})"))
            texts = (model.tokenizer.decode_bytes([s["id"]]) if "text" not in s else s["text"].encode() for s in found)
            return b"".join(texts)

        whole = written("")
        readable = re.findall(r"[^\ufffd]{2,}", whole.decode("utf-8", "replace"))
        for stop in [run[at : at + 2] for run in readable for at in (0, len(run) // 2)][:12]:
            assert written(stop) == whole.partition(stop.encode())[0]
        assert written("not in it") == whole


def test_the_page_has_the_ids_of_the_tokenizer(tmp_path):
    pytest.importorskip("py_mini_racer")
    model, html = language_model(tmp_path, tokenizer="sentencepiece", units=4), format_of("html")
    html.write(model, tmp_path / "out.html")
    texts = [TEXT, "", "\n\t\n  x\0▁▁ a▁\r\n", "é世🙂 §", "the fox " * 2000, "o" * 9000 + "\n" + "the" * 3000]
    pieces, chance = list(model.tokenizer.scored_pieces), random.Random(3)
    texts += ["".join(chance.choices([*pieces, "▁", "§", "\n"], k=30)) for _ in range(300)]
    texts += [piece * 20 for piece in pieces]
    with html.running(tmp_path / "out.html") as engine:
        found = json.loads(engine.eval(f"JSON.stringify({json.dumps(texts)}.map(text => model.encode(text)))"))
        assert found == [model.tokenizer.encode(text).tolist() for text in texts]
        assert engine.eval("model.encode('a\\ud800').length") > 0


def test_a_page_that_could_not_work_is_not_left(tmp_path, monkeypatch):
    """Checked without any browser."""
    pytest.importorskip("py_mini_racer")
    html = format_of("html")
    monkeypatch.setattr(html, "source", lambda name: source(name).replace("sigmoid(z(1))", "sigmoid(z(0))"))
    with pytest.raises(ParityError, match="not written"):
        export(language_model(tmp_path, units=8), tmp_path / "out.html")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", [name for name, kind in FORMATS.items() if kind.engine])
def test_what_cannot_be_checked_here_is_written_only_when_asked_so(name, tmp_path, monkeypatch):
    for module in NEEDS[name]:
        pytest.importorskip(module)
    out, model = tmp_path / f"out{FORMATS[name].suffix or ''}", language_model(tmp_path, units=8)
    monkeypatch.setitem(sys.modules, FORMATS[name].engine, None)
    with pytest.raises(
        UsageError, match=rf"is not installed; pip install 'charlm\[{name}\]', or unchecked=True leaves"
    ):
        export(model, out, name)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    with spelled(as_typed), pytest.raises(UsageError, match="or --unchecked leaves"):
        cli.main(["export", str(out), "--format", name], standalone_mode=False)
    if name == "html":
        (found,) = export(model, out, name, unchecked=True)
        assert str(found) == "not checked: py_mini_racer is not installed"
        assert out.exists()


def test_a_page_of_one_layer_of_256_units_is_small(tmp_path):
    model = language_model(tmp_path, layers=1, units=256)
    format_of("html").write(model, tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text("utf-8")
    assert len(text.encode()) < 1.5 * 2**20
    record = json.loads(re.search(r'id="model">\n(.*?)</script>', text)[1])
    assert sum(array["size"] for array in record["arrays"]) == model.model.count_params()


# What layers said of themselves in Keras 3.0, as far as a file of ours says it.
OF_KERAS_3_0 = {
    "InputLayer": "name dtype batch_shape sparse",
    "Embedding": "name dtype trainable input_dim output_dim embeddings_initializer mask_zero",
    "LSTM": "name dtype trainable units activation recurrent_activation use_bias kernel_initializer "
    "recurrent_initializer bias_initializer unit_forget_bias dropout recurrent_dropout return_sequences return_state "
    "go_backwards stateful unroll zero_output_for_mask",
    "GRU": "name dtype trainable units activation recurrent_activation use_bias kernel_initializer "
    "recurrent_initializer bias_initializer dropout recurrent_dropout reset_after return_sequences return_state "
    "go_backwards stateful unroll zero_output_for_mask",
    "SimpleRNN": "name dtype trainable units activation use_bias kernel_initializer recurrent_initializer "
    "bias_initializer dropout recurrent_dropout return_sequences return_state go_backwards stateful unroll "
    "zero_output_for_mask",
    "Dense": "name dtype trainable units activation use_bias kernel_initializer bias_initializer",
}


@stock_cell
def test_an_older_keras_finds_nothing_in_a_file_that_it_does_not_know(cell, tmp_path):
    path = tmp_path / "old.keras"
    keras_file.write(language_model(tmp_path, cell, layers=2), path)
    with zipfile.ZipFile(path) as file:
        config = json.loads(file.read("config.json"))["config"]
    for layer in config["layers"]:
        assert layer["config"].keys() <= set(OF_KERAS_3_0[layer["class_name"]].split())
        assert isinstance(layer["config"]["dtype"], str)
        initializers = [value for key, value in layer["config"].items() if key.endswith("initializer")]
        assert {one["class_name"] for one in initializers} <= {"Zeros"}
