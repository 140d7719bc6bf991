"""The command line: parse, call, print. Importing it imports neither jax nor a plug-in."""

import sys

from metarun.cli import failures
from metarun.cli.application import application


def main() -> None:
    """Run the command that argv names, and exit with its code; no traceback reaches the user."""
    try:
        try:
            application(standalone_mode=True)
        finally:
            failures.flush_output()
    except Exception as error:
        if isinstance(error, OSError):
            failures.drop_output()
        sys.exit(failures.report(error))
