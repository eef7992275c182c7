"""CONTRIBUTING's recipes, followed: toys are registered, train, and meet every format."""

import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import charlm
from charlm.cell import GatedCell
from charlm.cells import CELL_NAMES
from charlm.cli import cli
from charlm.config import KNOBS, DataConfig, ModelConfig
from charlm.errors import UsageError
from charlm.export import FORMATS, export, onnx_files, parity, savedmodel
from charlm.export.codec import CODECS
from charlm.model import KERAS_LAYERS
from charlm.sampling import SAMPLERS
from charlm.serve.completions import Completion
from charlm.serve.foreign import FOREIGN
from charlm.serve.predictions import Instance
from charlm.settings import one_of
from charlm.tokenizer import UNKNOWN_BYTES, Tokenizer, lines_of
from charlm.tokenizers import TOKENIZERS

WORDS = "the cat sat on the mat , and the dog sat on the log .\n" * 60


class Words(Tokenizer):
    """One id for each word, blank or sign seen in training; 0 is every other one."""

    name = "words"
    about = "one id for each word, blank or sign seen in training; 0 is every other one"
    LINE_CHARS = 1000
    PART = re.compile(r"\w+|\W")

    def __init__(self, words):
        self.words = words
        self._ids = {word: n for n, word in enumerate(words, 1)}
        content = json.dumps(words).encode()
        super().__init__([UNKNOWN_BYTES, *map(str.encode, words)], unknown=0, blocked=[0], content=content)

    @classmethod
    def train(cls, pieces, vocabulary):
        return cls(sorted(set(cls.PART.findall("".join(pieces())))))

    def encode(self, text):
        words = (word for line in lines_of(text, self.LINE_CHARS) for word in self.PART.findall(line))
        return np.array([self._ids.get(word, 0) for word in words], self.dtype)

    def content(self):
        return json.dumps(self.words).encode()

    @classmethod
    def from_content(cls, content):
        return cls(json.loads(content))


class MGU(GatedCell):
    """Minimal gated unit (Zhou et al. 2016), the gate after the product. Gates f, n.

    f = σ(x_f + u_f)   n = tanh(x_n + f·u_n)   h = (1 − f)·h₋ + f·n
    """

    name = "mgu"
    gates = 2
    states = ("h",)
    direct = ("h",)

    def forward(self, projected, recurrent, state, axis=0):
        (xf, xn), (uf, un) = tf.split(projected, 2, axis), tf.split(recurrent, 2, axis)
        f = tf.sigmoid(xf + uf)
        n = tf.tanh(xn + f * un)
        return ((1 - f) * state[0] + f * n,), (f, n, un)

    def backward(self, d_state, activations, state):
        (dh,), (f, n, un) = d_state, activations
        dn = dh * f * (1 - n * n)
        df = (dh * (n - state[0]) + dn * un) * f * (1 - f)
        return tf.concat([df, dn], 0), tf.concat([df, dn * f], 0), (dh * (1 - f),)


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Models of toys: a cell alone, a tokenizer alone, and both."""
    folder, found = tmp_path_factory.mktemp("toys"), {}
    (folder / "words.txt").write_text(WORDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHARLM_CACHE", str(folder))
        patch.setitem(sys.modules, "charlm.cells.mgu", SimpleNamespace(CELL=MGU()))
        patch.setitem(TOKENIZERS, "words", Words)
        for table, key, names in ((ModelConfig, "cell", (*CELL_NAMES, "mgu")), (DataConfig, "tokenizer", TOKENIZERS)):
            declared = [replace(one, allowed=one_of(*names)) if one.key == key else one for one in table.settings()]
            patch.setattr(table, "settings", staticmethod(lambda declared=declared: declared))
        patch.setattr(parity, "SYMBOLS", 40)
        patch.setattr(parity, "GREEDY", 20)
        for cell, tokenizer in (("mgu", "char"), ("lstm", "words"), ("mgu", "words")):
            settings = {"cell": cell, "tokenizer": tokenizer, "units": 8, "lanes": 2, "bptt": 8, "steps": 3}
            name = f"{cell}-{tokenizer}"
            found[name] = charlm.train(str(folder / "words.txt"), name=name, models=folder / "models", **settings)
        yield found


@pytest.mark.parametrize("name", ["mgu-char", "lstm-words", "mgu-words"])
def test_a_cell_or_a_tokenizer_added_by_its_recipe_trains_and_writes(toys, name):
    model = toys[name]
    assert model.model.count_params() == sum(np.prod(w.shape) for w in model.model.named_weights().values())
    assert len(model.tokenizer.encode(model.generate("the cat", length=9, seed=1))) > 0
    assert model.evaluate().bits_per_char > 0


@pytest.mark.parametrize(
    ("name", "format_name", "message"),
    [
        ("mgu-char", "onnx", "onnx has nothing for the cell 'mgu'; savedmodel, litert have"),
        ("mgu-char", "keras", "keras has nothing for the cell 'mgu'; savedmodel, litert have"),
        ("lstm-words", "savedmodel", "savedmodel has nothing for the tokenizer 'words'; keras, onnx, litert have"),
        ("mgu-words", "html", "html has nothing for the cell 'mgu' and the tokenizer 'words'; litert has"),
    ],
)
def test_a_format_that_has_nothing_for_a_toy_says_so_before_any_work(
    toys, tmp_path, monkeypatch, name, format_name, message
):
    monkeypatch.setattr("charlm.machine.start_tensorflow", lambda **_: pytest.fail("TensorFlow was started"))
    models = str(toys[name].checkpoint.path.parents[2])
    asked = ["export", str(tmp_path / f"out{FORMATS[format_name].suffix or ''}"), "--format", format_name]
    done = CliRunner().invoke(cli, [*asked, "--models", models, "--model", name])
    assert isinstance(done.exception, UsageError)
    assert (str(done.exception), done.exception.exit_code) == (message, 2)
    with pytest.raises(UsageError, match=message):
        export(toys[name], tmp_path / f"out{FORMATS[format_name].suffix or ''}", format_name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "format_name"), [("mgu-char", "savedmodel"), ("lstm-words", "onnx"), ("mgu-words", "litert")]
)
def test_every_other_format_takes_a_toy_and_computes_what_it_does(toys, tmp_path, name, format_name):
    (found, *_) = export(toys[name], tmp_path / f"out{FORMATS[format_name].suffix or ''}", format_name)
    assert found.holds
    assert found.difference is not None


def test_what_formats_say_that_they_take_is_what_they_have():
    assert set(FORMATS["savedmodel"].tokenizers) == set(CODECS)
    assert set(FORMATS["keras"].cells) == set(KERAS_LAYERS)
    assert set(FORMATS["onnx"].cells) == set(onnx_files.OPERATORS) == set(onnx_files.GATES)


def test_the_help_of_export_lists_every_format():
    said = CliRunner().invoke(cli, ["export", "--help"]).output
    for name, made in FORMATS.items():
        assert re.search(rf"(?m)^  {name} +\w+", said), name
        assert (made.suffix or "") in said


def test_the_help_of_generate_gives_the_order_of_the_samplers():
    said = " ".join(CliRunner().invoke(cli, ["generate", "--help"]).output.split())
    order = re.search(r"The samplers apply in this order: (.*?)\.", said)[1]
    assert [re.sub(r"\W", "_", name) for name in order.split(", ")] == list(SAMPLERS)


def test_every_sampler_is_offered_wherever_texts_are_drawn():
    assert SAMPLERS.keys() == KNOBS.keys()
    for offered in (Completion.model_fields, Instance.model_fields, savedmodel.SAMPLING):
        assert KNOBS.keys() <= offered.keys()
    assert not KNOBS.keys() & FOREIGN.keys()
