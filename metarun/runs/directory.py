"""The directory of one run: where it is, who may write to it, and which files lie in it.

config.yaml   environment.json   status.json   metrics.jsonl   result.json   log.txt   lock
episodes/<stage>-<split>.npz     checkpoints/<stage>/<step>/
"""

import contextlib
import datetime
import fcntl
import io
import os
import re
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarun import errors, outside
from metarun.runs import environment, files, process_identity, regular_files, seals
from metarun.runs.metrics import MetricsFile
from metarun.runs.seals import Sealed

if TYPE_CHECKING:
    from metarun.runs.checkpoints import Checkpoints

CONFIG, STATUS, METRICS, RESULT = "config.yaml", "status.json", "metrics.jsonl", "result.json"
LOG, LOCK, ENVIRONMENT, SOURCES = "log.txt", "lock", "environment.json", "sources.json"
FILES = (CONFIG, STATUS, METRICS, RESULT, LOG, LOCK, ENVIRONMENT, SOURCES)
CHECKPOINTS = "checkpoints"
FOLDERS = (CHECKPOINTS, "episodes", "pictures", "sinks", "code", "tensorboard", "wandb")

# What refuses a run. If nothing is trained yet, its directory goes.
REFUSALS = (errors.ConfigError, errors.CheckpointError, errors.DataError, errors.UsageError)
STATUS_SECONDS = 10.0  # at least, between two renewals of status.json
_NAME = re.compile("[0-9]{8}-[0-9]{6}-[0-9a-f]{4}([0-9a-f]{4})?")  # four digits: of an older version


class UnreadableConfigError(errors.CheckpointError):
    """There is a run, and its config.yaml is no text file of a sensible size."""


def remove_empty(path: Path) -> None:
    """Remove the folder of a run, and the two above it, as far as they are empty and have the names of such folders."""
    with contextlib.suppress(OSError):
        if path.is_dir():
            path.rmdir()
        if has_stamp(path):
            path.parent.rmdir()
            path.parent.parent.rmdir()


def find_newest(config_name: str, root: Path = Path("runs")) -> Path | None:
    """Return the last run of a config that got as far as writing its config; None if there is none."""
    folders = files.child(root, config_name).glob("*")
    runs = [path for path in folders if has_stamp(path) and (path / CONFIG).is_file()]
    return max(runs, key=_age, default=None)


def has_stamp(run: Path) -> bool:
    """Return whether a run has the name that `new_run` gives it."""
    return bool(_NAME.fullmatch(run.name))


def is_run(names: Collection[str]) -> bool:
    """Return whether a folder with these names in it is a run directory, perhaps of a run that never got a config."""
    known = {LOCK, METRICS, LOG}
    return (CONFIG in names and not {LOCK, STATUS}.isdisjoint(names)) or (
        LOCK in names and known >= set(names)
    )


def _age(run: Path) -> tuple[str, int]:
    """Return the time in the name, which copying keeps, then the time of the config, for runs of the same second."""
    return run.name.rpartition("-")[0], (run / CONFIG).stat().st_mtime_ns


def read_config(path: Path) -> str:
    """Return the resolved config of a run, without locking the run.

    Raises:
      CheckpointError: there is no run.
      UnreadableConfigError: the config is no text file, or is too large.
    """
    with files.storage_errors(path):
        try:
            return regular_files.read_text(path / CONFIG)
        except regular_files.UnreadableError as error:
            what, remedy = f"the run's config cannot be read: {error}", "restore the file, or train again"
            raise UnreadableConfigError(what, str(path / CONFIG), remedy) from error
        except (FileNotFoundError, NotADirectoryError) as error:
            remedy = "give the directory that `metarun train` printed last"
            raise errors.CheckpointError("there is no run here", str(path), remedy) from error


class RunDirectory:
    """The locked directory of a run. Only one process at a time writes to it.

    The kernel frees the lock when the process ends, however it ends. The file `lock` stays, and means nothing by
    itself. A forked child holds the lock too, until it ends or runs another program.
    """

    def __init__(self, path: Path, lock: int, resumed: bool) -> None:
        self.path = path
        self.resumed = resumed  # whether there was a run to go on with
        self.log: Path | None = path / LOG  # None: another process writes it
        self._sealed: Sealed | None = None  # what checkpoints hold of the run; None: not looked at yet
        self._lock = lock
        self._written = -STATUS_SECONDS  # when status.json was written
        self.metrics = MetricsFile(path / METRICS)

    @classmethod
    def open(cls, path: Path, resume: bool) -> "RunDirectory":
        """Create a run directory. With `resume`, go on with the run that is there, if there is one.

        Raises:
          RunDirectoryError: another process holds it, there is a run and `resume` is false, the folder holds
            something that is no run, or a link is where the run is to be written. `path` itself may be a link.
          StorageError: the disk refuses, or the locale cannot name the folder; see `files.refuse_nameless`.
        """
        with files.storage_errors(path):
            files.refuse_nameless(path)
            try:
                path.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                what = "this is a file"
                raise errors.RunDirectoryError(what, str(path), "choose another --run-dir") from error
        _refuse_foreign(path)
        refuse_links(path)
        held = take_lock(path)
        try:
            resumed = _refuse_foreign(path)
            if resumed and not resume:
                remedy = "add --resume to go on with it, or choose another --run-dir"
                raise errors.RunDirectoryError("there is a run here already", str(path), remedy)
            _remove_leftovers(path)
            return cls(path, held, resumed)
        except BaseException:
            os.close(held)
            raise

    def write_config(self, text: str) -> None:
        """Write the resolved config. This makes the directory a run; its checkpoints accept the new config."""
        if self.resumed:
            seals.accept(self.path, CONFIG, text.encode())
        files.write_text(self.path / CONFIG, text)
        self._sealed = None

    @property
    def sealed(self) -> Sealed:
        """What the checkpoints and the result of this training hold of the run's files; see `seals`.

        It is taken once they are written, so that a later edit is not sealed with them.
        """
        if self._sealed is None:
            self._sealed = seals.take(self.path)
        return self._sealed

    def read_config(self) -> str:
        """Return the resolved config that the run was started with."""
        return read_config(self.path)

    def write_environment(self, argv: list[str], devices: list[str]) -> None:
        """Write the versions, the machine, the commits, and an allow-list of variables.

        A resumed run keeps, as "begun", when, where and with which command it was begun.
        """
        file = self.path / ENVIRONMENT
        begun = environment.read_begin(file) if self.resumed else {}
        files.write_sealed(file, environment.describe(argv, devices) | begun)

    def write_status(
        self, status: str, stage: str | None = None, step: int | None = None, message: str | None = None
    ) -> None:
        """Write how far the run is: running, done, preempted, diverged or failed."""
        content = {
            "status": status,
            "stage": stage,
            "step": step,
            "updated": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **process_identity.describe_process(),
        }
        files.write_sealed(self.path / STATUS, content | ({"message": message} if message else {}))
        self._written = time.monotonic()

    def renew_status(self, stage: str, step: int) -> None:
        """Write how far the running run is, unless that was written a few seconds ago."""
        if time.monotonic() - self._written > STATUS_SECONDS:
            self.write_status("running", stage, step)

    def write_result(self, result: dict[str, Any]) -> None:
        """Write the final evaluation of every stage."""
        files.write_json(self.path / RESULT, result)

    def write_sources(self, records: dict[str, Any]) -> None:
        """Write what the run has from other runs; see `stage_reference`."""
        files.write_sealed(self.path / SOURCES, records)

    def write_episodes(self, stage: str, split: str, values: Mapping[str, Any]) -> None:
        """Write the values of every episode, for pairwise comparisons. Equal values give equal bytes."""
        arrays: dict[str, Any] = {name: np.asarray(values[name]) for name in sorted(values)}
        if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
            raise TypeError(f"{objects} would need pickle")
        content = io.BytesIO()
        np.savez(content, **arrays)
        path = files.child(self.path / "episodes", f"{stage}-{split}.npz")
        files.make_folder(path.parent, self.path)
        files.write_bytes(path, content.getvalue())

    def checkpoints(self, stage: str, keep: int) -> "Checkpoints":
        """Return the checkpoints of one stage, for writing and reading. Imports jax and orbax."""
        from metarun.runs.checkpoints import Checkpoints

        return Checkpoints(files.child(self.path / CHECKPOINTS, stage), keep, self.sealed)

    def close(self) -> None:
        """Release the lock, so that others may write here. Raises StorageError."""
        try:
            self.metrics.close()
        finally:
            os.close(self._lock)

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        if isinstance(error, REFUSALS) or (error is not None and outside.has_failed(error)):
            self._remove_unused()
        self.close()

    def _remove_unused(self) -> None:
        """Remove the directory of a refused run, and the folders that `new_run` made if nothing else is there."""
        if self.resumed or self.metrics.size():  # nothing is trained before the first line
            return
        with contextlib.suppress(OSError, errors.StorageError):
            for entry in self.path.iterdir():  # the directory itself may be a link
                files.remove(entry)
            remove_empty(self.path)


def _refuse_foreign(path: Path) -> bool:
    """Return whether there is a run here.

    Raises:
      RunDirectoryError: the folder holds something else. Nothing has been written to it yet.
    """
    with files.storage_errors(path):
        names = {entry.name for entry in path.iterdir() if not entry.name.startswith(files.TEMPORARY)}
    if not names:
        return False
    if is_run(names):  # one that was killed before it had a config is begun anew
        return CONFIG in names
    remedy = "choose another --run-dir: an empty one, or one that does not exist yet"
    raise errors.RunDirectoryError("the folder is not empty and is no run", str(path), remedy)


def take_lock(path: Path, write: bool = True) -> int:
    """Take the lock of a run, write our process id into it for whoever comes second, and return its descriptor.

    Without `write` nothing is written, so the file may have a second name, as after `cp -al`; both have one lock.

    Raises:
      RunDirectoryError: another process holds it.
    """
    descriptor = files.open_own(path / LOCK, os.O_RDWR, alone=write)
    with files.storage_errors(path / LOCK):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), os.lstat(path / LOCK)):
                what, remedy = "another process has just removed this run", "call the command again"
                raise errors.RunDirectoryError(what, str(path), remedy)
            if write:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            remedy = "wait until it ends, stop it, or choose another --run-dir"
            what = f"process {holder} is writing to this run"
            raise errors.RunDirectoryError(what, str(path), remedy) from error
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def _remove_leftovers(path: Path) -> None:
    """Remove what a killed process was about to rename. The next save removes leftovers of checkpoints."""
    for leftover in [*path.glob(f"{files.TEMPORARY}*"), *path.glob(f"episodes/{files.TEMPORARY}*")]:
        files.remove(leftover)


def refuse_links(path: Path) -> None:
    """Refuse a run directory with a link, a pipe or a device where a run is written; see `files.refuse_links`.

    A link inside the folder of a stage is none of them: it is no checkpoint unless it leads to one, and is replaced.
    """
    stages = [f"{CHECKPOINTS}/{stage}" for stage in files.list_folders(path / CHECKPOINTS)]
    files.refuse_links(path, FILES, [*FOLDERS, *stages])
