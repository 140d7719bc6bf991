"""The command line: parse, call, print. Importing it imports neither jax nor a plug-in."""

import contextlib
import os
import sys

from metarun import errors, signals
from metarun.cli import failures, streams
from metarun.cli.application import application

PATIENCE = 0.2  # seconds that an abandoned computation has to end in


def main() -> None:
    """Run the command that argv names, and exit with its code; no traceback reaches the user."""
    streams.secure()
    signals.note_interrupts()
    try:
        try:
            application(standalone_mode=True)
        finally:
            failures.flush_output()
    except SystemExit as end:
        leave(errors.StorageError.exit_code if not end.code and streams.has_lost_reader() else end.code)
    except (Exception, signals.Stopped) as error:
        streams.drop_last_words()
        if isinstance(error, OSError):
            failures.drop_output()
        leave(failures.report(error))


def leave(code: str | int | None) -> None:
    """Exit. What still computes, and nobody waits for any more, would hold Python back: it is cut off."""
    if isinstance(code, int) and signals.is_working(PATIENCE):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
