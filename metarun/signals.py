"""Signals that ask a run to stop. The training loop stops between two chunks, after it has saved its state."""

import signal
import types


class Stopped(Exception):
    """The run was asked to stop and has saved its state. Exit codes: 130 after SIGINT, 143 after SIGTERM."""

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
