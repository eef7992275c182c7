"""Configurations: strict in, the same out, laid over one another in the stated order."""

import dataclasses
import math
import re
import typing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.config import (
    Config,
    DataConfig,
    ModelConfig,
    SampleConfig,
    TrainConfig,
    overlay,
    read_toml,
    resolve,
)
from charlm.errors import UsageError
from charlm.presets import PRESETS, choose_preset

TABLES = {"model": ModelConfig, "data": DataConfig, "train": TrainConfig, "sample": SampleConfig}
FIELDS = [
    (table, field.name, typing.get_type_hints(cls)[field.name])
    for table, cls in TABLES.items()
    for field in dataclasses.fields(cls)
]
ILL_TYPED = {  # by type; what may be absent takes None besides
    "int": (True, 1.0, "1", [1], math.nan, math.inf),
    "float": (True, "1", [1.0], math.nan, math.inf, -math.inf, 10**400),
    "str": (1, True, ["a"], b"a"),
    "bool": (1, 0, "true", "on"),
    "tuple[float, float, float]": (
        "abc",
        1.0,
        [0.5, 0.5],
        [0.2] * 5,
        [math.nan] * 3,
        [math.inf, 0, 0],
        ["1", "0", "0"],
    ),
    "tuple[str, ...]": (1, [1], [["a"]]),
}


def cases():
    for table, field, kind in FIELDS:
        name = str(kind).removeprefix("<class '").removesuffix("'>")
        optional = name.endswith(" | None")
        for value in ILL_TYPED[name.removesuffix(" | None")] + (() if optional else (None,)):
            yield pytest.param(table, field, value, id=f"{table}.{field}={str(value)[:12]}")


@pytest.mark.parametrize(("table", "field", "value"), list(cases()))
def test_an_ill_typed_or_endless_value_is_refused_by_name(table, field, value):
    with pytest.raises(UsageError, match=rf"^\[{table}\] {field} in file must be") as caught:
        Config.from_dict({table: {field: value}}, "file")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("table", TABLES)
def test_an_unknown_key_is_refused_by_name(table):
    with pytest.raises(UsageError, match=rf"^\[{table}\] colour in file: there is no such setting"):
        Config.from_dict({table: {"colour": 1}}, "file")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"unit": 5}}, "[model] unit in run.toml: there is no such setting; did you mean units?"),
        (
            {"train": {"learning-rat": 5}},
            "[train] learning-rat in run.toml: there is no such setting; did you mean lea",
        ),
        ({"modle": {}}, "modle in run.toml: there is no such setting; did you mean model?"),
        ({"lanes": 5}, "lanes in run.toml: there is no such setting; did you mean [train] lanes in run.toml?"),
        ({"model": {"lanes": 5}}, "[model] lanes in run.toml: there is no such setting; did you mean [train] lanes in"),
        (
            {"model": {"cell": "ltsm"}},
            "[model] cell in run.toml must be one of gru, ln-lstm, lstm, mingru, mlstm, mogrifier, rnn",
        ),
        ({"data": {"cold": 5}}, "[data] cold in run.toml: there is no such setting (known: tokenizer, "),
        ({"sample": {"zzz": 5}}, "[sample] zzz in run.toml: there is no such setting (known: length, samples, "),
        ({"model": 5}, "model in run.toml must be a table of settings, not 5"),
    ],
)
def test_a_near_miss_in_a_toml_file_is_told_what_was_meant(values, message):
    with pytest.raises(UsageError) as caught:
        Config.from_dict(values, "run.toml")
    assert str(caught.value).startswith(message)


def test_what_other_libraries_call_a_number_is_one():
    values = {"units": np.int64(8), "dropout": np.float32(0.5), "tie": np.bool_(True), "layers": np.array(2)}
    assert ModelConfig.from_dict(values) == ModelConfig(units=8, dropout=0.5, tie=True, layers=2)
    assert DataConfig.from_dict({"split": np.array([0.75, 0.25, 0])}).split == (0.75, 0.25, 0)
    with pytest.raises(UsageError, match=r"^units must be a whole number, not array"):
        ModelConfig.from_dict({"units": np.array([1, 2])})


def test_one_stop_text_needs_no_list():
    assert SampleConfig.from_dict({"stop": "\n"}) == SampleConfig.from_dict({"stop": ["\n"]})


def test_every_setting_explains_itself():
    for table in TABLES.values():
        for one in table.settings():
            assert re.fullmatch(r"[A-Z0-9].{5,}\.", one.help), one


@pytest.mark.parametrize(
    ("table", "values", "named"),
    [
        ("model", {"layers": 0}, "layers"),
        ("model", {"dropout": 1.0}, "dropout"),
        ("model", {"cell": "transformer"}, "gru, ln-lstm, lstm, mingru, mlstm, mogrifier, rnn"),
        ("model", {"units": 8, "embedding": 4, "tie": True}, "tie"),
        ("data", {"split": [0.5, 0.4, 0.2]}, "split"),
        ("data", {"split": [0.0, 1.0, 0.0]}, "split"),
        ("train", {"bptt": 8, "stride": 9}, "stride"),
        (
            "train",
            {"steps": 1, "minutes": 1},
            r"\[train\] steps in file and \[train\] minutes in file exclude each other",
        ),
        ("train", {"clip": 0}, "clip"),
        ("sample", {"temperature": -1}, "temperature"),
        ("sample", {"top_p": 1.5}, "top_p"),
        ("sample", {"stop": [""]}, "stop"),
        ("sample", {"seed": 2**31}, "seed"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(table, values, named):
    with pytest.raises(UsageError, match=named):
        Config.from_dict({table: values}, "file")


configs = st.builds(
    Config,
    st.builds(ModelConfig, st.sampled_from(["lstm", "gru", "rnn"]), st.integers(1, 5), st.integers(1, 999)),
    st.builds(DataConfig, st.sampled_from(["char", "byte", "sentencepiece"]), split=st.just((0.8, 0.1, 0.1))),
    st.builds(TrainConfig, st.integers(9, 99), st.none() | st.integers(1, 9), minutes=st.none() | st.floats(0.1, 1e6)),
    st.builds(SampleConfig, top_p=st.floats(0.1, 1), stop=st.lists(st.text(min_size=1)).map(tuple)),
)


@given(configs)
def test_out_and_in_again_is_the_same(config):
    assert Config.from_dict(config.to_dict(), "file") == config


def test_later_settings_lie_on_top_key_by_key():
    merged = overlay({"model": {"units": 1, "layers": 2}}, {"model": {"units": 3}, "data": {"errors": "replace"}})
    assert merged == {"model": {"units": 3, "layers": 2}, "data": {"errors": "replace"}}


@pytest.mark.parametrize(("below", "above"), [("minutes", "steps"), ("steps", "epochs"), ("epochs", "minutes")])
def test_a_length_of_training_replaces_another_kind_of_length(below, above):
    config = resolve({"train": {below: 3, "lanes": 5}}, {"train": {above: 4}})
    assert (getattr(config.train, below), getattr(config.train, above), config.train.lanes) == (None, 4, 5)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_configurations_that_say_how_long(name):
    train = resolve(PRESETS[name].tables).train
    assert train.minutes or train.epochs or train.steps


def test_a_larger_text_never_gets_a_smaller_preset():
    names = list(PRESETS)
    for gpu in (False, True):
        for minutes in (None, 0.1, 1.0, 30.0):
            chosen = [names.index(choose_preset(10**n, gpu, minutes)[0]) for n in range(11)]
            assert chosen == sorted(chosen)
            if minutes is None:
                assert set(chosen) == {1, 2, 3} if gpu else {0, 1, 2, 3}
            assert names.index("enwik8") not in chosen


def test_more_minutes_never_get_a_smaller_preset():
    names = list(PRESETS)
    for chars in (10**5, 10**6, 10**7, 10**8):
        chosen = [names.index(choose_preset(chars, False, 0.1 * 2**n)[0]) for n in range(14)]
        assert chosen == sorted(chosen)
        assert len(set(chosen)) > 2


def test_toml_is_read_or_refused_by_name(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('[model]\ncell = "gru"\n[train]\nclip = 2\n')
    config = resolve(read_toml(path))
    assert (config.model.cell, config.train.clip) == ("gru", 2.0)
    path.write_text('[model]\ncell = "gru"\n', "utf-8-sig")
    assert resolve(read_toml(path)).model.cell == "gru"
    for content in (b"[model\n", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"run\.toml"):
            read_toml(path)
    with pytest.raises(UsageError, match=r"absent\.toml"):
        read_toml(tmp_path / "absent.toml")


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model.units = 3


def test_toml_nested_without_end_is_refused_by_name(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(UsageError, match=r"run\.toml"):
        read_toml(path)
