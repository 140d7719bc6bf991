"""An attempt of `metarun train`, which a test kills."""

import os
import sys
from pathlib import Path


def attempt(arguments: list[str], messages: Path) -> None:
    """`metarun train` with the arguments, in a process that the server has forked."""
    with messages.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.argv = ["metarun", "train", *arguments, "--resume"]
    from metarun import cli

    cli.main()
