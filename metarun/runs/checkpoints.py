"""Checkpoints of one stage: `<run>/checkpoints/<stage>/<step>/` with `state/` and `manifest.json`.

A checkpoint is built under a temporary name and appears by one rename, complete; it disappears by one
rename, too. So a step's folder is whole unless something outside damaged it, which its manifest tells.
"""

import contextlib
import json
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from metarun import errors
from metarun.base import PyTree
from metarun.runs import files, manifest, state_files, strict_json
from metarun.runs.manifest import Checkpoint, Leaf

logger = logging.getLogger("metarun")


class Checkpoints:
    """Saves in the background while training goes on. Leave through `with`: exit cuts a save short.

    Keeps the newest `keep` and the newest that was marked best. Reading never writes, so that the
    checkpoints of a run that somebody else is training can be read.
    """

    def __init__(self, folder: Path, keep: int = 1) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}")
        self.folder = folder.absolute()  # Orbax takes no other
        self.keep = keep
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._cleaned = False  # from what a killed process left behind

    def save(self, step: int, state: PyTree, facts: dict[str, Any], best: bool) -> None:
        """Copies the state to the host and returns; the caller may donate its buffers at once.

        Waits for the save before, and raises StorageError if that one failed. Replaces a checkpoint of
        the same step. `facts` must fit into JSON.
        """
        self.wait()
        arrays = state_files.on_host(state)
        leaves = state_files.describe(arrays)
        facts = json.loads(strict_json.encode(facts))  # a copy: the caller may go on changing its own
        checkpoint = Checkpoint(self.folder / str(step), self.folder.name, step, best, facts, leaves, {})
        self._thread = threading.Thread(target=self._save, args=(checkpoint, arrays), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Returns when the last save has its manifest. Raises StorageError, once, if it failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
        except Exception as failure:
            if kind is None:
                raise
            logger.warning("%s", failure)  # the error that ended the `with` matters more

    def clear(self) -> None:
        """Removes every checkpoint of the stage: it is to be trained again from its start."""
        self.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._cleaned = False

    def steps(self) -> list[int]:
        """The steps that have a folder, oldest first; whether they are valid is for `verify` to say."""
        with files.storage_errors(self.folder):
            names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal())

    def newest_valid(self) -> Checkpoint | None:
        """The newest checkpoint that verifies. Damaged ones on the way are named in one logged warning."""
        return self._newest(lambda checkpoint: True)

    def best_valid(self) -> Checkpoint | None:
        """The newest of those marked best that verifies. Damaged ones are named in one logged warning."""
        return self._newest(lambda checkpoint: checkpoint.best)

    def _newest(self, wanted: Callable[[Checkpoint], bool]) -> Checkpoint | None:
        self.wait()
        found, skipped = None, []
        for path in [self.folder / str(step) for step in reversed(self.steps())]:
            try:
                if wanted(manifest.read(path)):
                    found = manifest.verify(path)
                    break
            except errors.CheckpointError as error:
                if not path.exists():  # retired meanwhile by a run that goes on: there is a newer one
                    return self._newest(wanted)
                skipped.append(f"{error.where}: {error.what}")
        if skipped:
            logger.warning("skipped %d damaged: %s", len(skipped), "; ".join(skipped))
        return found

    def _save(self, checkpoint: Checkpoint, arrays: dict[str, np.ndarray]) -> None:
        """The background thread: build aside, publish, forget the old."""
        try:
            with files.storage_errors(checkpoint.path):
                self._clean()
                aside = files.temporary_beside(checkpoint.path)
                try:
                    aside.mkdir()
                    state_files.write(aside / manifest.STATE, arrays)
                    manifest.write(checkpoint._replace(path=aside))
                    self._publish(aside, checkpoint.path)
                except BaseException:
                    shutil.rmtree(aside, ignore_errors=True)
                    raise
                self._retire(checkpoint.step)
        except BaseException as failure:
            self._failure = failure

    def _clean(self) -> None:
        """Removes, once, what a killed process left behind."""
        if not self._cleaned:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(f"{files.TEMPORARY}*"):
                shutil.rmtree(leftover, ignore_errors=True)
            self._cleaned = True

    def _publish(self, aside: Path, path: Path) -> None:
        """Gives a complete checkpoint its name, in the place of one that may have it already."""
        replaced = path.rename(files.temporary_beside(path)) if path.exists() else None
        aside.rename(path)
        files.sync(self.folder)
        if replaced is not None:
            shutil.rmtree(replaced, ignore_errors=True)

    def _retire(self, newest: int) -> None:
        """Keeps the newest `keep` and the newest best, counted back from the step just saved.

        Steps after it, and those without a readable manifest, are damaged ones that a resumed run skipped.
        """
        best = {}
        for step in self.steps():
            with contextlib.suppress(errors.CheckpointError):
                best[step] = manifest.read(self.folder / str(step)).best
        past = [step for step in best if step <= newest]
        kept = {*past[-self.keep :], *[step for step in past if best[step]][-1:]}
        for step in set(self.steps()) - kept:
            path = self.folder / str(step)
            shutil.rmtree(path.rename(files.temporary_beside(path)), ignore_errors=True)


def load(checkpoint: Checkpoint, template: PyTree) -> PyTree:
    """The saved state as numpy arrays in the tree structure of `template`, which only lends its shapes.

    Raises CheckpointError that names a leaf which one side lacks, or which differs in shape or dtype.
    """
    leaves, structure = state_files.flatten(template)
    expected = state_files.describe(leaves)
    _compare(checkpoint, checkpoint.leaves, expected)
    arrays = state_files.read(checkpoint.path / manifest.STATE, leaves)
    _compare(checkpoint, state_files.describe(arrays), expected)
    return structure.unflatten(arrays[name] for name in expected)


def open_checkpoint(path: Path, stage: str | None = None) -> Checkpoint:
    """The checkpoint that a user means by a run or by `RUN/checkpoints/<stage>/<step>`, verified.

    Of a run it is the newest valid one of `stage`; of a run with one stage only, that need not be named.
    Raises CheckpointError if there is none, or if the one that was asked for is damaged.
    """
    path = path.resolve()
    if path.name.isdecimal() and path.parent.parent.name == "checkpoints":
        return manifest.verify(path)
    stages = sorted(folder.name for folder in path.glob("checkpoints/*") if folder.is_dir())
    if stage is None and len(stages) > 1:
        remedy = f"name one of its stages: {', '.join(stages)}"
        raise errors.CheckpointError("the run has several stages", str(path), remedy)
    chosen = stage if stage is not None else next(iter(stages), None)
    found = Checkpoints(path / "checkpoints" / chosen).newest_valid() if chosen in stages else None
    if found is None:
        others = [name for name in stages if name != chosen]
        what = (
            f"there is no valid checkpoint of the stage {chosen}" if chosen else "there is no checkpoint here"
        )
        remedy = f"or name a stage that has one, such as {others[0]}" if others else "or give another run"
        raise errors.CheckpointError(what, str(path), f"go on with `metarun train --resume`, {remedy}")
    return found


def _compare(checkpoint: Checkpoint, saved: dict[str, Leaf], expected: dict[str, Leaf]) -> None:
    """Raises about the first leaf that is not the same on both sides."""
    for name in sorted(saved.keys() | expected.keys()):
        if saved.get(name) != expected.get(name):
            there, here = _spoken(saved.get(name)), _spoken(expected.get(name))
            what = f"{name} is {there} in the checkpoint, and {here} in this program"
            remedy = "use the config that the run was trained with, or another run"
            raise errors.CheckpointError(what, str(checkpoint.path), remedy)


def _spoken(leaf: Leaf | None) -> str:
    return "missing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
