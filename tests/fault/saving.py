"""The process that `test_storage` starts with a failing disk in it: `python -m fault.saving ATTACK FOLDER ...`.

Each try is one line of JSON on stdout: what was tried, and what went wrong, or null. Programs are compiled once for all
tries. What a kill ends is a child that was forked before this process has computed anything.
"""

import itertools
import json
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from fault import shim
from helpers import runs
from helpers.saved_states import assert_same, load, names, save
from helpers.training_states import training
from metarun import errors
from metarun.runs import files
from metarun.runs.checkpoints import Checkpoints

Try = tuple[str, str | None]  # what was tried; what went wrong, None: nothing


class Warnings(logging.Handler):
    """What metarun warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def save_fourth(folder: Path) -> None:
    """Save step 4, which pushes out steps 2 and 3."""
    with Checkpoints(folder, keep=1) as saved:
        saved.save(4, *training(4), {"step": 4}, best=False)


def make_intact(folder: Path) -> None:
    """Make three checkpoints, of which the first was the best."""
    save(folder, 1, 2, 3, best=(1,))


def fail_each(place: Path, kind: str, stays: bool, first: int, stride: int) -> Iterator[Try]:
    """Let every `stride`-th operation of a save fail in turn. With `stays` the disk refuses all after it, too."""
    make_intact(place / "intact" / "maml")
    refused = 0
    for at in itertools.count(first, stride):
        folder = shutil.copytree(place / "intact" / "maml", place / f"{kind}-{at}" / "maml")
        ended, counted = "saved", []
        try:
            with shim.fail(folder, at, shim.KINDS[kind], stays) as counted:
                save_fourth(folder)
        except errors.StorageError:
            ended = "refused"
        except Exception:
            ended = traceback.format_exc(limit=-3)
        if counted[0] < at:
            # What is cut short is written again.
            assert refused or kind == "short", "the disk has refused nothing"
            return
        refused += ended == "refused"
        yield f"{kind}{' from then on' * stays}, operation {at}", explain(check, folder, ended, at % 5 == 1)
        shutil.rmtree(folder.parent, ignore_errors=True)


def check(folder: Path, ended: str, thoroughly: bool) -> None:
    """Check that the newest checkpoint is whole and that nothing looks damaged.

    Args:
      thoroughly: load it, too, and see that the next save tidies up, which takes as long as all the rest.
    """
    assert ended in ("saved", "refused"), ended
    handler = Warnings()
    logging.getLogger("metarun").addHandler(handler)
    try:
        found = Checkpoints(folder).newest_valid()
    finally:
        logging.getLogger("metarun").removeHandler(handler)
    assert found is not None and found.step in ((4,) if ended == "saved" else (3, 4)), found
    assert not handler.messages, handler.messages
    if thoroughly:
        assert_same(load(found, training(0)), training(found.step))
        save(folder, 5, keep=1)
        # Threads of Orbax go on for a moment after it has failed, and make its folder again.
        whole = [name for name in names(folder) if not name.startswith(files.TEMPORARY)]
        assert whole == ["1", "5"], names(folder)


def kill_each(place: Path, stride: int) -> Iterator[Try]:
    """Kill a process at every `stride`-th operation of a save in turn.

    `fail_each` with `stays` leaves the same on the disk, because nothing happens there after the operation.
    """
    in_child(lambda: make_intact(place / "intact" / "maml"))
    for at in itertools.count(1, stride):
        folder = shutil.copytree(place / "intact" / "maml", place / f"kill-{at}" / "maml")

        def save_until_killed(folder: Path = folder, at: int = at) -> None:
            with shim.fail(folder, at, shim.KILL):
                save_fourth(folder)

        if in_child(save_until_killed) == 0:
            return
        ended = in_child(lambda folder=folder: check(folder, "refused", True))
        outcome = (
            None if (ended, names(folder)) == (0, ["1", "5"]) else f"{ended}, and {names(folder)} is there"
        )
        yield f"kill, operation {at}", outcome
        shutil.rmtree(folder.parent)


def in_child(work: Callable[[], object]) -> int:
    """Do something in a forked process, and return its exit code; negative: the signal that has killed it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fail_runs(place: Path, tries: int) -> Iterator[Try]:
    """Let operations of a whole run fail, spread over its life, each in another way; then resume the run."""
    reference, counting = runs.train(place / "reference"), place / "counting"
    with shim.fail(counting, shim.ALL, shim.COUNT) as counted:
        runs.train(counting)
    kinds = itertools.cycle(itertools.product(("full", "broken", "short", "quota"), (False, True)))
    refused = 0
    for number, (kind, stays) in zip(range(tries), kinds, strict=False):
        at = 1 + number * counted[0] // tries
        run, ended = place / f"run-{at}", "done"
        try:
            with shim.fail(run, at, shim.KINDS[kind], stays):
                runs.train(run)
        except errors.StorageError:
            ended = "refused"
        except Exception:
            ended = traceback.format_exc(limit=-3)
        refused += ended == "refused"
        what = f"{kind}{' from then on' * stays}, operation {at} of {counted[0]} of a run"
        yield what, explain(go_on, run, reference, ended)
        shutil.rmtree(run)
    assert refused, "the disk has refused nothing"


def go_on(run: Path, reference: Path, ended: str) -> None:
    """Check how a run ended, and that it goes on to the result of another one."""
    assert ended in ("done", "refused"), ended
    runs.assert_same_run(runs.train(run, resume=True), reference)


def kill_runs(place: Path, tries: int) -> Iterator[Try]:
    """Kill a process at operations of a whole run, spread over its life; then resume the run."""
    reference, notes = place / "reference", place / "operations"

    def count() -> None:
        with shim.fail(reference, shim.ALL, shim.COUNT) as counted:
            runs.train(reference)
        notes.write_text(str(counted[0]))

    assert in_child(count) == 0
    operations = int(notes.read_text())
    for number in range(tries):
        at, run = 1 + number * operations // tries, place / f"run-{number}"

        def train(run: Path = run, at: int = at) -> None:
            with shim.fail(run, at, shim.KILL):
                runs.train(run)

        ended = in_child(train)
        again = in_child(lambda run=run: go_on(run, reference, "refused"))
        outcome = None if (ended, again) == (-signal.SIGKILL, 0) else f"ended with {ended}, then with {again}"
        yield f"kill, operation {at} of {operations} of a run", outcome


def explain(work: Callable[..., object], *arguments: object) -> str | None:
    """Return what goes wrong, or None."""
    try:
        work(*arguments)
    except Exception:
        return traceback.format_exc(limit=-3)
    return None


def main(attack: str, place: Path, *arguments: str) -> None:
    """Try, and print one line for each try."""
    attacks: dict[str, Callable[[], Iterator[Try]]] = {
        "fail-each": lambda: fail_each(
            place, arguments[0], arguments[1] == "stays", *map(int, arguments[2:])
        ),
        "kill-each": lambda: kill_each(place, int(arguments[0])),
        "fail-runs": lambda: fail_runs(place, int(arguments[0])),
        "kill-runs": lambda: kill_runs(place, int(arguments[0])),
    }
    for what, outcome in attacks[attack]():
        print(json.dumps([what, outcome]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
