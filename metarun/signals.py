"""Signals that ask a run to stop. The training loop stops between two chunks, after it has saved its state.

What has nothing to save, such as a compilation or an evaluation, is left where it is. It runs in a thread of its own
(`wait_for`): Python hears no signal while its main thread waits for a compiled program, and what a signal's handler
raises in the middle of a trace tears jax's caches (a RecursionError or a ValueError of its own, or a crash).
"""

import contextvars
import os
import signal
import sys
import threading
import types
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

LISTEN_SECONDS = 0.05  # between two looks at signals, while another thread works

_left: list[threading.Thread] = []  # threads whose result nobody waits for any more
_interrupted = threading.Event()  # whether this process has heard a Ctrl-C outside of a StopRequest


class Stopped(BaseException):
    """The run was asked to stop and has saved its state. Exit codes: 130 after SIGINT, 143 after SIGTERM.

    As KeyboardInterrupt it is no Exception, so nobody who explains whatever a library raises takes it for damage.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class StopRequest:
    """Whether SIGINT or SIGTERM has asked the run to stop. A second Ctrl-C stops it at once.

    Use it as a context: it handles the two signals inside the `with`.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> "StopRequest":
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._previous = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self.signal is not None:
            raise Stopped(self.signal)


def note_interrupts() -> None:
    """Remember each Ctrl-C from now on. It raises KeyboardInterrupt as before, of which a library may make an error.

    What is raised in a callback, such as one of the garbage collector, is dropped: then the signal comes again.
    """

    def note(number: int, frame: types.FrameType | None) -> None:
        _interrupted.set()
        raise KeyboardInterrupt

    def repeat(dropped: "sys.UnraisableHookArgs", otherwise: Callable = sys.unraisablehook) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            otherwise(dropped)
            return
        timer = threading.Timer(LISTEN_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)
        sys.unraisablehook = repeat


def was_interrupted() -> bool:
    """Return whether `note_interrupts` has noted a Ctrl-C."""
    return _interrupted.is_set()


def ignore() -> None:
    """Look at no signal: the check of a wait that only the handlers of the process may end."""


def wait_for(work: Callable[[], Result], check: Callable[[], None] = ignore) -> Result:
    """Return work(), which a thread of its own does, in the caller's context. Meanwhile the process hears signals.

    What a signal's handler or `check` raises ends the wait, and the thread goes on alone: no compiled program can be
    interrupted. See `is_working`.

    Args:
      check: is called before the work begins, and then every LISTEN_SECONDS.
    """
    check()
    results: list[Result] = []
    failures: list[BaseException] = []
    done, context = threading.Event(), contextvars.copy_context()

    def do() -> None:
        try:
            results.append(context.run(work))
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=do, name="work")
    thread.start()
    try:
        while not done.wait(LISTEN_SECONDS):
            check()
    except BaseException:
        _left.append(thread)
        raise
    if failures:
        raise failures[0]
    return results[0]


def is_working(patience: float = 0.0) -> bool:
    """Return whether a thread of `wait_for` still does what nobody waits for any more.

    Python would wait for it before it ends, so the process should then leave by `os._exit`.

    Args:
      patience: seconds that each thread has to end in.
    """
    for thread in _left:
        thread.join(patience)
    _left[:] = [thread for thread in _left if thread.is_alive()]
    return bool(_left)
