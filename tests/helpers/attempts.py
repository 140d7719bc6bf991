"""Attempts of a process that a test kills, forked from a server that has imported everything and computed nothing."""

import itertools
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest


def make_start(preload: Iterable[str], target: Callable) -> Callable[..., multiprocessing.Process]:
    """Make (arguments) -> the process of target(*arguments), which has just begun.

    Args:
      preload: the modules that the server imports, once for all tests of this process.
      target: a function of one of these modules.
    """
    context = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # else the server finds no helpers
        context.set_forkserver_preload([*preload, __name__])

        def begin(*arguments: Any) -> multiprocessing.Process:
            process = context.Process(target=target, args=arguments, daemon=True)
            process.start()
            return process

        ready = context.Process(target=do_nothing, daemon=True)
        ready.start()
        ready.join()  # the server is ready once it has served
    return begin


def do_nothing() -> None:
    """End at once."""


def attempt(arguments: list[str], messages: Path) -> None:
    """`metarun train` with the arguments."""
    with messages.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.argv = ["metarun", "train", *arguments, "--resume"]
    from metarun import cli

    cli.main()


def save_on(folder: Path, newest: int, ready: Path) -> None:
    """Save one checkpoint after another, for ever; `ready` appears when the first one is whole."""
    from helpers.training_states import training
    from metarun.runs.checkpoints import Checkpoints

    with Checkpoints(folder, keep=2) as saved:
        for step in itertools.count(newest + 1):
            saved.save(step, *training(step), {"step": step}, best=step % 3 == 0)
            if step == newest + 1:
                saved.wait()
                ready.touch()
