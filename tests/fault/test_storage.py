"""Every file operation of a save fails in turn, and operations of whole runs: the newest checkpoint is always whole.

A library that is compiled here and preloaded lets the N-th operation below a folder fail; see `shim.c`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fault import shim
from fault.share import seed, share


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """The compiled disk."""
    return shim.compile_shim(tmp_path_factory.mktemp("shim"))


def carry_out(attack, library: Path, place: Path, *arguments: object) -> None:
    """Let the process of `fault.saving` try, and count what it says."""
    command = [sys.executable, "-m", "fault.saving", arguments[0], place, *arguments[1:]]
    done = subprocess.run(
        list(map(str, command)),
        env=shim.make_environment(library),
        capture_output=True,
        text=True,
        timeout=3600,
    )
    for line in done.stdout.splitlines():
        what, outcome = json.loads(line)
        attack.tries += 1
        if outcome:
            attack.fail(f"{what}: {outcome}")
    if done.returncode:
        attack.fail(f"the attack ended with {done.returncode}: {done.stderr[-3000:]}")


WAYS = [("full", True), ("broken", False), ("short", False)]
MORE_WAYS = [("full", False), ("broken", True), ("quota", False), ("quota", True)]  # of the long suite


@pytest.mark.parametrize(("kind", "stays"), WAYS + MORE_WAYS * (share(1) > 1))
def test_a_save_whose_operations_fail_in_turn_leaves_the_newest_checkpoint_whole(
    attack, library, tmp_path, kind, stays
):
    """The long suite lets all operations fail, and the share a quarter: which one, the seed says."""
    stride = 1 if share(1) > 1 else 4
    carry_out(
        attack,
        library,
        tmp_path,
        "fail-each",
        kind,
        "stays" if stays else "once",
        1 + seed() % stride,
        stride,
    )


def test_a_save_that_is_killed_at_its_operations_leaves_the_newest_checkpoint_whole(
    attack, library, tmp_path
):
    carry_out(attack, library, tmp_path, "kill-each", 1 if share(1) > 1 else 24)


def test_a_run_whose_disk_refuses_somewhere_goes_on_to_the_uninterrupted_result(attack, library, tmp_path):
    carry_out(attack, library, tmp_path, "fail-runs", share(8))


def test_a_run_that_is_killed_at_a_file_operation_goes_on_to_the_uninterrupted_result(
    attack, library, tmp_path
):
    carry_out(attack, library, tmp_path, "kill-runs", share(2))
