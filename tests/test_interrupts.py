"""Signals that ask a training to save and end."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from charlm.interrupts import SIGNALS, interrupt_anew, stop_requested


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
    called = threading.Event()
    with stop_requested(again=called.set) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        assert not called.is_set()
        os.kill(os.getpid(), signal.SIGHUP)
        assert called.wait(60)


@pytest.mark.parametrize("ignored", [[], [signal.SIGINT]], ids=["terminal", "background"])
def test_an_interrupt_in_a_destructor_is_not_lost(monkeypatch, capsys, ignored):
    class Interrupted:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    class Broken:
        def __del__(self):
            raise ValueError("of another kind")

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    monkeypatch.setattr(sys, "unraisablehook", interrupt_anew)
    Broken()
    assert "of another kind" in capsys.readouterr().err

    def wait():
        Interrupted()
        threading.Event().wait(60)

    with pytest.raises(KeyboardInterrupt):
        wait()
    assert not capsys.readouterr().err


def test_a_second_signal_ends_a_process_whose_main_thread_is_busy_outside_of_python():
    code = """
import ctypes, os
from charlm.interrupts import stop_requested
with stop_requested(again=lambda: os._exit(130)):
    print("begun", flush=True)
    while True:
        ctypes.CDLL(None).poll(None, 0, 60_000)  # as long as a compilation
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        assert process.wait(30) == 130


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
