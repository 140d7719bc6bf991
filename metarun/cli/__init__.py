"""The command line: parse, call, print. Importing it imports neither jax nor a plug-in."""

import sys

from metarun import errors
from metarun.cli import failures, streams
from metarun.cli.application import application


def main() -> None:
    """Run the command that argv names, and exit with its code; no traceback reaches the user."""
    streams.secure()
    try:
        try:
            application(standalone_mode=True)
        finally:
            failures.flush_output()
    except SystemExit as end:
        sys.exit(errors.StorageError.exit_code if not end.code and streams.has_lost_reader() else end.code)
    except Exception as error:
        streams.drop_last_words()
        if isinstance(error, OSError):
            failures.drop_output()
        sys.exit(failures.report(error))
