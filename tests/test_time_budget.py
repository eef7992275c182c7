import pytest

from charlm import time_budget
from charlm.time_budget import FEWEST_EVALUATIONS, FEWEST_SYMBOLS, TimeBudget


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


def whole_run(monkeypatch, minutes, evaluation, update, every=None, started=2.0):
    """The end of a simulated run, in seconds, and the steps of its evaluations; `update(seconds)` gives an update's."""
    clock = Clock()
    monkeypatch.setattr(time_budget, "time", clock)
    paced = TimeBudget(60 * minutes, -started)
    paced.evaluation = evaluation
    step, evaluated = 0, []

    def updated():
        took = update(clock.now)
        clock.now += took
        paced.updated(took)

    def tried():
        clock.now += update(clock.now)

    assert paced.measure(tried, lambda: False)
    clock.now += 2 * evaluation
    steps, every = paced.plan(step, every)
    while step < steps:
        updated()
        step += 1
        if step == steps or (step % every == 0 and steps - step > every // 2):
            clock.now += evaluation
            evaluated.append(step)
        elif paced.due():
            steps, every = paced.plan(step, every)
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
    assert len(evaluated) <= 2 or evaluation * len(evaluated) < 0.2 * 60 * minutes


def test_evaluations_that_are_asked_for_are_paid_from_the_same_time(monkeypatch):
    seconds, evaluated = whole_run(monkeypatch, 2, 1.5, lambda seconds: 0.05, every=100)
    assert 0.97 * 120 < seconds < 1.02 * 120
    assert len(evaluated) > 10


def test_a_run_without_time_for_anything_ends_at_once(monkeypatch):
    seconds, evaluated = whole_run(monkeypatch, 0.1, 5.0, lambda seconds: 7.0)
    assert evaluated == [1]
    assert seconds == 2 + 3 * 7 + 3 * 5


@pytest.mark.parametrize("minutes", [0.5, 0.7, 2])
@pytest.mark.parametrize("symbols_per_second", [5_000, 50_000])
def test_a_short_run_has_more_than_one_point_of_a_learning_curve(monkeypatch, minutes, symbols_per_second):
    monkeypatch.setattr(time_budget, "time", Clock())
    budget = TimeBudget(60 * minutes, -8.0)
    scored = budget.plan_evaluation(100_000, symbols_per_second, 0.1)
    assert scored == 100_000 or budget.evaluation * FEWEST_EVALUATIONS < 0.1 * budget.left or scored == FEWEST_SYMBOLS
    budget.updated(0.1)
    steps, every = budget.plan(0, None)
    assert steps / every > 1
