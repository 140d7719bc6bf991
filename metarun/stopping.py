"""Stopping cleanly: a signal asks, the training loop answers between two chunks, with its state saved."""

import signal
import types


class Stopped(Exception):
    """The run was asked to stop and has saved its state. Exit codes: 130 after SIGINT, 143 after SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class StopRequest:
    """Notes SIGINT and SIGTERM while it is entered; the second Ctrl-C is not waited for."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def check(self) -> None:
        """Raise Stopped if a signal has asked for it."""
        if self.signal is not None:
            raise Stopped(self.signal)
