"""Signals that ask a training to save and end."""

import os
import signal
import threading

import pytest

from charlm.interrupts import SIGNALS, stop_requested


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_a_wish_and_the_handlers_come_back(number):
    before = signal.getsignal(number)
    with stop_requested() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
    assert signal.getsignal(number) == before


def test_a_second_interrupt_is_what_it_was_before():
    with stop_requested() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_second_signal_of_any_kind_can_have_its_own_effect():
    called = []
    with stop_requested(again=lambda: called.append(1)):
        os.kill(os.getpid(), signal.SIGTERM)
        assert not called
        os.kill(os.getpid(), signal.SIGHUP)
        assert called


def test_nohup_stays_undisturbed():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_requested() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_another_thread_catches_nothing():
    found = []

    def enter():
        with stop_requested() as stop:
            found.append(stop())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [False]
