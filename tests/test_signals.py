"""Signals: what waits for a thread hears them, and what has nothing to save is left at once."""

import contextvars
import os
import signal
import subprocess
import sys
import threading

import pytest

from metarun import cli, signals


def test_the_work_sees_the_context_of_its_caller():
    place = contextvars.ContextVar("place", default="none")
    place.set("here")
    assert signals.wait_for(place.get) == "here"


def test_what_a_thread_gives_or_raises_is_what_the_caller_gets():
    assert signals.wait_for(lambda: threading.current_thread() is threading.main_thread()) is False
    with pytest.raises(TimeoutError, match="mine"):
        signals.wait_for(lambda: (_ for _ in ()).throw(TimeoutError("mine")))
    assert not signals.is_working()


@pytest.fixture
def endless():
    """Work that lasts until the test is over."""
    over = threading.Event()
    yield over.wait
    over.set()
    assert not signals.is_working(patience=5.0)


def send_soon(number: int, times: int = 1) -> None:
    """Let this process get a signal while it waits."""
    for place in range(times):
        timer = threading.Timer(0.02 + 0.1 * place, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_wait_and_not_the_work(endless, number, code):
    with signals.StopRequest() as stop, pytest.raises(signals.Stopped) as stopped:
        send_soon(number)
        signals.wait_for(endless, stop.check)
    assert stopped.value.exit_code == code
    assert signals.is_working()


def test_a_second_interrupt_ends_a_wait_that_no_check_may_end(endless):
    with signals.StopRequest() as stop, pytest.raises(KeyboardInterrupt):
        send_soon(signal.SIGINT, times=2)
        signals.wait_for(endless)
    assert stop.signal == signal.SIGINT


def test_work_does_not_begin_after_a_signal():
    with signals.StopRequest() as stop, pytest.raises(signals.Stopped):
        os.kill(os.getpid(), signal.SIGTERM)
        signals.wait_for(pytest.fail, stop.check)


def test_a_signal_raises_nothing_in_the_work_itself():
    """A handler that raises within a trace would tear the caches of jax."""
    over, ends = threading.Event(), []

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        ends.append(over.wait(5.0))

    with signals.StopRequest() as stop, pytest.raises(signals.Stopped):
        signals.wait_for(work, stop.check)
    over.set()
    assert not signals.is_working(patience=5.0)
    assert ends == [True]


def test_a_command_does_not_wait_for_abandoned_work(endless, monkeypatch):
    """Else Python would wait for the thread at its end."""
    left = []
    monkeypatch.setattr(cli, "PATIENCE", 0.0)
    monkeypatch.setattr(os, "_exit", left.append)
    with pytest.raises(SystemExit):
        cli.leave(7)  # nothing is abandoned yet
    with signals.StopRequest() as stop, pytest.raises(signals.Stopped):
        send_soon(signal.SIGTERM)
        signals.wait_for(endless, stop.check)
    with pytest.raises(SystemExit):  # the stand-in of os._exit returns
        cli.leave(143)
    assert left == [143]


def test_an_error_that_an_interrupt_became_is_an_interrupt(monkeypatch, capsys):
    """In the middle of a trace jax turns KeyboardInterrupt into an error of its own."""

    def run(**_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("an exception was raised while checking equality") from None

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(cli, "application", run)
    monkeypatch.setattr(signals, "_interrupted", threading.Event())
    try:
        with pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == 130
    assert capsys.readouterr().err == ""


def test_an_interrupt_that_a_callback_drops_comes_again():
    """Python drops what is raised in a callback of the garbage collector, and jax has one."""
    code = """
import gc, os, signal, time
from metarun import signals
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
signals.note_interrupts()
gc.callbacks.append(lambda *_: os.kill(os.getpid(), signal.SIGINT) if not signals.was_interrupted() else None)
gc.collect()
assert signals.was_interrupted()
time.sleep(30)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.returncode == -signal.SIGINT
    assert "ignored" not in done.stderr
