"""Checkpoints of one stage: `<run>/checkpoints/<stage>/<step>/` with `weights/`, `memory/` and `manifest.json`.

`weights/` is what the stage has learned, and `memory/` is what the optimizer needs to go on training. A checkpoint
without `memory/` can be opened and evaluated, but not trained further, so a published one may leave that folder out.

A checkpoint is built under a temporary name and appears, complete, by one rename. It disappears by one rename, too.
So the folder of a step is whole unless something outside damaged it, and then its manifest shows the damage.
"""

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from metarun import errors
from metarun.base import PyTree
from metarun.runs import files, manifest, saved_arrays, state_files, strict_json
from metarun.runs.manifest import Checkpoint, Sealed, Skipped

START = 0  # the step of a checkpoint that has the weights of another run, which a stage starts from

NOTHING: Sealed = MappingProxyType({})  # what a checkpoint outside of any run holds of its run
ASK = (
    "restore it, name another one (RUN/checkpoints/STAGE/STEP), or let an older one stand in: --allow-older of the "
    "commands that open a run, allow_older=True in Python"
)

logger = logging.getLogger("metarun")


class Checkpoints:
    """The checkpoints of one stage, saved in the background while training goes on.

    Use it as a context: leaving the `with` waits for the save that is under way. The newest `keep` checkpoints and the
    newest one that was marked best are kept. Reading never writes, so the checkpoints of a run that another process
    is training can be read.
    """

    def __init__(self, folder: Path, keep: int = 1, sealed: Sealed = NOTHING) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}")
        self.folder = folder.absolute()  # Orbax takes only absolute paths
        self.keep = keep
        self.sealed = sealed  # what each checkpoint that is saved holds of its run; see `seals`
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._cleaned = False  # whether the leftovers of a killed process are removed

    def save(self, step: int, weights: PyTree, memory: PyTree, facts: dict[str, Any], best: bool) -> None:
        """Copy the arrays to the host, start to write them, and return.

        The caller may donate its buffers at once. A checkpoint of the same step is replaced. The call first waits for
        the previous save, and raises StorageError if that one failed.

        Args:
          weights: what the stage has learned.
          memory: what the optimizer keeps beside the weights.
          facts: values that fit into JSON.
        """
        self.wait()
        arrays = {
            name: state_files.copy_to_host(name, tree)
            for name, tree in ((manifest.WEIGHTS, weights), (manifest.MEMORY, memory))
        }
        leaves = {
            name: leaf for group in arrays.values() for name, leaf in state_files.describe(group).items()
        }
        facts = json.loads(strict_json.encode(facts))  # a copy, because the caller may go on changing its own
        path, stage = self.folder / str(step), self.folder.name
        checkpoint = Checkpoint(path, stage, step, best, facts, leaves, {}, self.sealed)
        self._thread = threading.Thread(target=self._save, args=(checkpoint, arrays), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Return when the last save has its manifest. Raise StorageError, once, if that save failed."""
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
            # The error that ended the `with` matters more.
            what = f"{failure.what}: {failure.where}" if isinstance(failure, errors.MetarunError) else failure
            logger.warning("the checkpoint is not saved: %s", what)

    def clear(self) -> None:
        """Remove every checkpoint of the stage, because it is going to be trained again from its start.

        A start that came from another run stays.

        Raises:
          StorageError: one of them cannot be removed; it would be taken for one of the new training.
        """
        self.wait()
        if START not in self.steps():
            files.remove(self.folder)
        for step in set(self.steps()) - {START}:
            files.remove(self.folder / str(step))
        self._cleaned = False

    def steps(self) -> list[int]:
        """Return the steps that have a folder, oldest first. Whether they are valid is for `verify` to say.

        What is no folder, such as a link to nowhere, and a name that is not its number again, such as 007, is ignored.
        """
        with files.storage_errors(self.folder):
            entries = list(self.folder.iterdir()) if self.folder.is_dir() else []
            steps = [manifest.parse_step(path.name) for path in entries if path.is_dir()]
        return sorted(step for step in steps if step is not None)

    def newest_valid(self, allow_older: bool = True) -> Checkpoint | None:
        """Return the newest checkpoint that verifies, or None. One logged warning names the damaged ones after it.

        Args:
          allow_older: whether damaged ones may be passed over; `Checkpoint.skipped` has them.

        Raises:
          OldCheckpointError: it was written by an older version of metarun.
          CheckpointError: the newest one is damaged, and may not be passed over.
        """
        return self._find_newest(lambda checkpoint: True, allow_older)

    def best_valid(self, allow_older: bool = True) -> Checkpoint | None:
        """Return the newest checkpoint that is marked best and verifies, or None; see `newest_valid`.

        Nobody knows whether one was the best whose manifest is damaged, so it counts as one that was.
        """
        return self._find_newest(lambda checkpoint: checkpoint.best, allow_older)

    def _find_newest(self, accept: Callable[[Checkpoint], bool], allow_older: bool) -> Checkpoint | None:
        self.wait()
        newest, skipped, tried, left = None, list[Skipped](), set[int](), self.steps()
        while left:
            tried.add(step := left.pop())
            path = self.folder / str(step)
            try:
                if accept(manifest.read(path)):
                    newest = manifest.verify(path)
                    break
            except manifest.OldCheckpointError:
                raise  # it is not damaged: to skip it would train again what is there
            except errors.CheckpointError as error:
                # The process that trains the run may have removed it just now, and added others.
                if not path.exists():
                    left = sorted(set(self.steps()) - tried)
                    continue
                if not allow_older:
                    raise errors.CheckpointError(error.what, error.where, ASK) from error
                skipped.append(Skipped(path, error.what))
        if skipped:
            said = "; ".join(f"{path}: {why}" for path, why in skipped)
            logger.warning("skipped %d damaged: %s", len(skipped), said)
        return newest._replace(skipped=tuple(skipped)) if newest else None

    def _save(self, checkpoint: Checkpoint, arrays: dict[str, dict[str, np.ndarray]]) -> None:
        """Build the checkpoint aside, publish it, and remove old ones. Runs in the background thread."""
        try:
            with files.storage_errors(checkpoint.path):
                self._clean()
                aside = files.temporary_beside(checkpoint.path)
                try:
                    aside.mkdir()
                    for name, group in arrays.items():
                        state_files.write(aside / name, group)
                    manifest.write(checkpoint._replace(path=aside))
                    self._publish(aside, checkpoint.path)
                except BaseException:
                    files.discard(aside)
                    self._cleaned = False  # threads of Orbax may go on for a moment, and make it again
                    raise
                self._retire(checkpoint.step)
        except BaseException as failure:
            self._failure = failure

    def _clean(self) -> None:
        """Remove, once, what a killed process left behind."""
        if not self._cleaned:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            files.make_folder(self.folder, self.folder.parents[1])
            for leftover in self.folder.glob(f"{files.TEMPORARY}*"):
                files.discard(leftover)
            self._cleaned = True

    def _publish(self, aside: Path, path: Path) -> None:
        """Give a complete checkpoint its name; what has this name already is replaced, a link to nowhere, too."""
        replaced = path.rename(files.temporary_beside(path)) if os.path.lexists(path) else None
        try:
            aside.rename(path)
        except OSError:
            if replaced is not None:
                replaced.rename(path)
            raise
        files.sync(self.folder)
        if replaced is not None:
            files.discard(replaced)

    def _retire(self, newest: int) -> None:
        """Remove all but the newest `keep`, the newest best and the start, counted back from the step just saved.

        Later steps, and steps without a readable manifest, are damaged ones that a resumed run skipped.
        """
        best = {}
        for step in self.steps():
            with contextlib.suppress(errors.CheckpointError):
                best[step] = manifest.read(self.folder / str(step)).best
        past = [step for step in best if step <= newest]
        kept = {START, *past[-self.keep :], *[step for step in past if best[step]][-1:]}
        for step in set(self.steps()) - kept:
            path = self.folder / str(step)
            files.discard(path.rename(files.temporary_beside(path)))


def load_weights(checkpoint: Checkpoint, template: PyTree) -> PyTree:
    """Return the saved weights as numpy arrays in the structure of `template`.

    Only the shapes and dtypes of its leaves are read, so it may come from `jax.eval_shape`.

    Raises:
      CheckpointError: one side lacks a leaf, or the two differ in its shape or dtype. The message names the leaf.
    """
    return saved_arrays.restore(checkpoint, manifest.WEIGHTS, template)


def load_memory(checkpoint: Checkpoint, template: PyTree) -> PyTree:
    """Return what the optimizer had kept, in the structure of `template`; see `load_weights`.

    Raises:
      CheckpointError: as `load_weights`, or the checkpoint was published without it.
    """
    return saved_arrays.restore(checkpoint, manifest.MEMORY, template)


def open_checkpoint(path: Path, stage: str | None = None, allow_older: bool = True) -> Checkpoint:
    """Return the checkpoint that a user means by a run or by `RUN/checkpoints/<stage>/<step>`, after verifying it.

    For a run this is the newest valid one of `stage`, which may be left out if the run has only one stage.

    Args:
      allow_older: as of `Checkpoints.newest_valid`.

    Raises:
      CheckpointError: there is none, or the one that was asked for is damaged.
    """
    path = path.resolve()
    if manifest.parse_step(path.name) is not None and path.parent.parent.name == "checkpoints":
        return manifest.verify(path)
    stages = sorted(folder.name for folder in path.glob("checkpoints/*") if folder.is_dir())
    if stage is None and len(stages) > 1:
        remedy = f"name one of its stages: {', '.join(stages)}"
        raise errors.CheckpointError("the run has several stages", str(path), remedy)
    chosen = stage if stage is not None else next(iter(stages), None)
    saved = Checkpoints(path / "checkpoints" / chosen) if chosen in stages else None
    newest = saved.newest_valid(allow_older) if saved else None
    if newest is None:
        raise _missing_checkpoint(path, chosen, [name for name in stages if name != chosen])
    return newest


def open_evaluated(path: Path, stage: str, kind: str, allow_older: bool = False) -> Checkpoint:
    """Return the checkpoint of a stage that a run is evaluated with, after verifying it.

    Args:
      path: the run directory.
      kind: "best" on the validation split, if one was marked so; or "last".
      allow_older: as of `Checkpoints.newest_valid`.

    Raises:
      CheckpointError: there is none, or the one that would be it is damaged.
    """
    saved = Checkpoints(path / "checkpoints" / stage)
    best = saved.best_valid(allow_older) if kind == "best" else None
    return best or open_checkpoint(path, stage, allow_older)


def _missing_checkpoint(path: Path, stage: str | None, others: list[str]) -> errors.CheckpointError:
    what = "there is no checkpoint here"
    if stage:
        what = f"there is no valid checkpoint of the stage {stage}"
    remedy = f"name a stage that has one, such as {others[0]}" if others else "give another run"
    return errors.CheckpointError(what, str(path), f"go on with `metarun train --resume`, or {remedy}")
