"""A training as people watch it."""

import io
import sys

import pytest
from tqdm.utils import disp_len

from charlm.display import SAMPLE_LINES, TrainingDisplay, bar_form, shown
from charlm.events import Finished, Sampled

LEFT = " 42% 1.923 bits/char 34.1k chars/s"
RIGHTS = ["0:50 of 2:00, step 1,021, epoch 3", "0:50 of 2:00", ""]


@pytest.mark.parametrize(("width", "wanted"), [(200, RIGHTS[0]), (80, RIGHTS[0]), (62, RIGHTS[1]), (40, None)])
def test_score_and_speed_are_what_stays_in_a_narrow_window(width, wanted):
    form = bar_form(width, LEFT, RIGHTS)
    assert form.startswith(LEFT)
    assert disp_len(form) <= width
    assert form == LEFT if wanted is None else form.endswith(f"|{{bar}}| {wanted}")


def test_a_terminal_obeys_nothing_in_a_sample():
    text = "red \x1b[31m\x07 bell\r\n\u202eright to left\x00"
    assert all(character.isprintable() for line in shown(text, 80).split("\n") for character in line)
    assert "\\x1b[31m" in shown(text, 80)


@pytest.mark.parametrize(("terminal", "environment"), [(True, {}), (True, {"NO_COLOR": "1"}), (False, {})])
def test_a_sample_is_dim_in_a_terminal_alone(monkeypatch, terminal, environment):
    written = io.StringIO()
    written.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    TrainingDisplay().show(Sampled(step=1, epoch=0, seconds=1.0, prompt="a", text="b\x1b[31mc"))
    dim = terminal and not environment
    assert written.getvalue().splitlines()[1:] == ["\x1b[2m  | b\\x1b[31mc\x1b[0m" if dim else "  | b\\x1b[31mc"]


def test_runs_of_blanks_and_of_empty_lines_are_short():
    assert shown("a" + " " * 60 + "b\n\n\n \n\nc\td\n\n", 80) == "a    b\n\nc    d"
    assert shown("\n".join("abcdefghij"), 80).count("\n") == SAMPLE_LINES - 1


@pytest.mark.parametrize("text", ["春眠不覺曉" * 20, "a" * 200, "한국어 " * 40, "e\u0301" * 90])
def test_lines_are_cut_by_the_columns_that_they_take(text):
    assert 36 <= disp_len(shown(text, 40)) <= 40


def test_a_run_that_was_finished_before_does_not_look_like_a_training(capsys):
    TrainingDisplay().show(Finished(8, 1, 2.0, "done", None))
    assert capsys.readouterr().err == "finished already at step 8\n"
