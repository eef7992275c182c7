"""docs/bptt.md: its programs print what it shows and says, its names exist, its maths and pictures are well formed."""

import contextlib
import importlib
import io
import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "bptt.md").read_text("utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", PAGE, re.S)  # code, what it printed
SOURCES = {path.stem: path.read_text("utf-8") for path in (DOCS.parent / "charlm").glob("*.py")}
PROSE = re.sub(r"```.*?```", "", PAGE, flags=re.S)
NAMES = sorted(set(re.findall(r"`([A-Za-z_][\w.]*)`", PROSE)))


def printed(n):
    """The words that program n prints, line by line; to a tenth they are those on the page.

    But for rounding errors: those below 1e-10 need only be small.
    """
    code, claimed = PROGRAMS[n]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    lines, shown = ([line.split() for line in text.splitlines()] for text in (out.getvalue(), claimed))
    assert [len(line) for line in lines] == [len(line) for line in shown]
    for word, expected in zip(itertools.chain(*lines), itertools.chain(*shown), strict=True):
        assert word == expected or float(word) == pytest.approx(float(expected), rel=0.1, abs=1e-10)
    return lines


def test_every_program_is_short_and_shows_its_output():
    assert len(PROGRAMS) == PAGE.count("```python") == 3
    assert all(len(code.splitlines()) <= 30 for code, _ in PROGRAMS)


def test_the_gradient_by_hand_is_that_by_autodiff():
    errors = {cell: float(error) for cell, error in printed(0)}
    assert set(errors) == {"lstm", "gru", "rnn"}
    assert max(errors.values()) < 1e-12


def test_gradients_vanish_unless_forget_gates_are_open():
    _, *untrained, opened = [line[2:] for line in printed(1)]
    for sizes in np.array(untrained, float):
        assert (np.diff(sizes) < 0).all()
        assert sizes[-1] < 1e-6
    assert np.array(opened, float).min() > 0.1


def test_the_truncated_gradient_nears_the_full_one():
    k2, alone, overlapped = np.array(printed(2), float).T
    assert (np.diff(alone) < 0).all()
    assert (np.diff(overlapped) < 0).all()
    assert (overlapped < alone).all()
    assert 0.6 < (alone[-1] / alone[0]) ** (1 / np.log2(k2[-1] / k2[0])) < 0.8  # "about 0.7" a doubling
    assert (np.diff(overlapped[1:] / overlapped[:-1]) < 0).all()  # geometric in k2: each doubling gains more
    assert overlapped[k2 == 16] < alone[k2 == 128]  # "a window of 16 with overlap"


@pytest.mark.parametrize("name", NAMES)
def test_names_exist(name):
    """`module.name` is looked up, a bare word has to stand in the code."""
    module, *path = name.split(".")
    if path:
        found = importlib.import_module(f"charlm.{module}")
        for part in path:
            found = getattr(found, part)
    else:
        assert any(re.search(rf"\b{name}\b", source) for source in SOURCES.values()), name


def test_the_page_names_the_equations_it_derives():
    derived = {f"cells.{cell.lower()}.{cell}.backward" for cell in ("RNN", "LSTM", "GRU")}
    assert derived | {"recurrence.backward_window", "recurrence.unroll", "tbptt.Trainer"} <= set(NAMES)


def test_inline_maths_is_such_as_github_renders():
    """$...$ on one line, beside a space or punctuation, with no character that Markdown takes first."""
    for line in re.sub(r"`[^`\n]*`", "", PROSE).splitlines():
        assert line.count("$") % 2 == 0, line
        for before, maths, after in re.findall(r"(^|.)\$([^$]+)\$(?=(.|$))", line):
            assert before in " (*", line
            assert after in " .,:;)", line
            assert not re.search(r"\\[^a-zA-Z]|[<>*]|^\s|\s$", maths), maths


@pytest.mark.parametrize("picture", ["unfolded.svg", "truncation.svg"])
def test_pictures_are_well_formed_with_a_title_and_a_background(picture):
    assert f"]({picture})" in PAGE
    root = ET.parse(DOCS / picture).getroot()
    svg = "{http://www.w3.org/2000/svg}"
    width, height = root.get("viewBox").split()[2:]
    assert root.find(f"{svg}title").text
    background = root.find(f"{svg}rect")
    assert (background.get("width"), background.get("height"), background.get("fill")) == (width, height, "#ffffff")
    named = {element.get("id") for element in root.iter()}
    assert all(use.get("href")[1:] in named for use in root.iter(f"{svg}use"))
