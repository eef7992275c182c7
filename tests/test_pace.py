import pytest

from charlm import pace
from charlm.pace import Pace


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


def whole_run(monkeypatch, minutes, evaluation, update, every=None, started=2.0):
    """The end of a simulated run, in seconds, and the steps of its evaluations; `update(seconds)` gives an update's."""
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    paced = Pace(minutes, -started)
    paced.evaluation = evaluation
    step, evaluated = 0, []

    def updated():
        took = update(clock.now)
        clock.now += took
        paced.updated(took)

    while not paced.measured():
        updated()
        step += 1
    clock.now += 2 * evaluation
    steps, every = paced.estimate(step, every)
    while step < steps:
        updated()
        step += 1
        if step == steps or (step % every == 0 and steps - step > every // 2):
            clock.now += evaluation
            evaluated.append(step)
        elif paced.due():
            steps, every = paced.estimate(step, every)
    return clock.now + started, evaluated


@pytest.mark.parametrize("minutes", [1.2, 10])
@pytest.mark.parametrize(
    "update",
    [
        lambda seconds: 0.05,
        lambda seconds: 0.1 if seconds < 60 else 0.05,  # another program ends
        lambda seconds: 0.05 if seconds < 40 else 0.12,  # another one begins
        lambda seconds: 0.05 + 0.03 * (int(seconds / 7) % 2),
    ],
)
@pytest.mark.parametrize("evaluation", [0.5, 3.0])
def test_a_run_takes_its_minutes_whatever_the_machine_does(monkeypatch, minutes, update, evaluation):
    seconds, evaluated = whole_run(monkeypatch, minutes, evaluation, update)
    assert 0.94 * 60 * minutes < seconds < 1.04 * 60 * minutes
    assert 1 <= len(evaluated) <= 17
    assert len(evaluated) == 1 or evaluation * len(evaluated) < 0.2 * 60 * minutes


def test_evaluations_that_are_asked_for_are_paid_from_the_same_time(monkeypatch):
    seconds, evaluated = whole_run(monkeypatch, 2, 1.5, lambda seconds: 0.05, every=100)
    assert 0.97 * 120 < seconds < 1.02 * 120
    assert len(evaluated) > 10


def test_a_run_without_time_for_anything_ends_at_once(monkeypatch):
    seconds, evaluated = whole_run(monkeypatch, 0.1, 5.0, lambda seconds: 7.0)
    assert evaluated == [2]
    assert seconds == 2 + 2 * 7 + 3 * 5
