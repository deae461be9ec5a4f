"""Ctrl-C while another process starts: the new one is deaf to it, the caller hears it afterwards."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from allweather.interrupts import deaf_to_interrupts, interruptions_wait, terminations_interrupt

pytestmark = pytest.mark.usefixtures("hears_interrupts")
IS_DEAF = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"


def born_deaf() -> bool:
    with deaf_to_interrupts():
        return subprocess.run([sys.executable, "-c", IS_DEAF], capture_output=True, text=True).stdout == "True\n"


def test_an_interruption_is_heard_once_the_process_has_started():
    reached = []

    def interrupted():
        with deaf_to_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert reached and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_no_interruption_is_made_up():
    with deaf_to_interrupts():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_the_first_sigterm_is_heard_as_ctrl_c_is_and_waits_as_it_does():
    reached = []

    def ended():
        with interruptions_wait():
            signal.raise_signal(signal.SIGTERM)
            reached.append("the end")

    with terminations_interrupt() as heard:
        with pytest.raises(KeyboardInterrupt):
            ended()
        signal.raise_signal(signal.SIGTERM)
    assert reached and heard == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_that_python_cannot_put_back_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: None)  # what it says of one that C installed
    with interruptions_wait():
        assert signal.signal(signal.SIGINT, signal.default_int_handler) is signal.default_int_handler


def test_what_is_not_the_main_thread_to_python_does_not_wait(monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object):
        raise ValueError("signal only works in main thread of the main interpreter")  # also where a host embeds Python

    reached = []
    with monkeypatch.context() as patched:
        patched.setattr(signal, "signal", refused)
        with interruptions_wait():
            reached.append("inside")
    assert reached and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_is_born_deaf_in_any_thread():
    found = [born_deaf()]
    thread = threading.Thread(target=lambda: found.append(born_deaf()))
    thread.start()
    thread.join()
    assert found == [True, True]


def test_another_thread_that_takes_the_signal_changes_nothing():
    busy = threading.Event()
    thread = threading.Thread(target=busy.wait)
    thread.start()
    try:
        test_an_interruption_is_heard_once_the_process_has_started()
    finally:
        busy.set()
        thread.join()
