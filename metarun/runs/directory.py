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
import secrets
import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarun import errors
from metarun.runs import environment, files, process_identity
from metarun.runs.metrics import MetricsFile

if TYPE_CHECKING:
    from metarun.runs.checkpoints import Checkpoints

CONFIG, STATUS, METRICS, RESULT = "config.yaml", "status.json", "metrics.jsonl", "result.json"
LOG, LOCK, ENVIRONMENT, SOURCES = "log.txt", "lock", "environment.json", "sources.json"

STATUS_SECONDS = 10.0  # at least, between two renewals of status.json

_NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")


def make_path(config_name: str, root: Path = Path("runs")) -> Path:
    """Return the path for a new run of a config: `runs/<config name>/<UTC time>-<4 hex>`. Creates nothing."""
    now = datetime.datetime.now(datetime.UTC)
    return files.child(root, config_name) / f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def find_newest(config_name: str, root: Path = Path("runs")) -> Path | None:
    """Return the last run of a config that got as far as writing its config; None if there is none."""
    folders = files.child(root, config_name).glob("*")
    runs = [path for path in folders if has_stamp(path) and (path / CONFIG).is_file()]
    return max(runs, key=_age, default=None)


def has_stamp(run: Path) -> bool:
    """Return whether a run has the name that `make_path` gives it."""
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
      ConfigError: the config is damaged.
    """
    with files.storage_errors(path):
        try:
            return (path / CONFIG).read_text("utf-8")
        except UnicodeDecodeError as error:
            remedy = "restore the file, or train again"
            raise errors.ConfigError("the file is not UTF-8 text", str(path / CONFIG), remedy) from error
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
        self.log = path / LOG
        self._lock = lock
        self._written = -STATUS_SECONDS  # when status.json was written
        self.metrics = MetricsFile(path / METRICS)

    @classmethod
    def open(cls, path: Path, resume: bool) -> "RunDirectory":
        """Create a run directory. With `resume`, go on with the run that is there, if there is one.

        Raises:
          RunDirectoryError: another process holds it, there is a run and `resume` is false, or the folder holds
            something that is no run.
        """
        with files.storage_errors(path):
            try:
                path.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                what = "this is a file"
                raise errors.RunDirectoryError(what, str(path), "choose another --run-dir") from error
        _refuse_foreign(path)
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
        """Write the resolved config. This makes the directory a run."""
        files.write_text(self.path / CONFIG, text)

    def read_config(self) -> str:
        """Return the resolved config that the run was started with."""
        return read_config(self.path)

    def write_environment(self, argv: list[str], devices: list[str]) -> None:
        """Write the versions, the machine, the commits, and an allow-list of variables.

        A resumed run keeps, as "begun", when, where and with which command it was begun.
        """
        file = self.path / ENVIRONMENT
        begun = environment.read_begin(file) if self.resumed else {}
        files.write_json(file, environment.describe(argv, devices) | begun)

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
        files.write_json(self.path / STATUS, content | ({"message": message} if message else {}))
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
        files.write_json(self.path / SOURCES, records)

    def write_episodes(self, stage: str, split: str, values: Mapping[str, Any]) -> None:
        """Write the values of every episode, for pairwise comparisons. Equal values give equal bytes."""
        arrays: dict[str, Any] = {name: np.asarray(values[name]) for name in sorted(values)}
        if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
            raise TypeError(f"{objects} would need pickle")
        content = io.BytesIO()
        np.savez(content, **arrays)
        path = files.child(self.path / "episodes", f"{stage}-{split}.npz")
        with files.storage_errors(path):
            path.parent.mkdir(exist_ok=True)
        files.write_bytes(path, content.getvalue())

    def checkpoints(self, stage: str, keep: int) -> "Checkpoints":
        """Return the checkpoints of one stage, for writing and reading. Imports jax and orbax."""
        from metarun.runs.checkpoints import Checkpoints

        return Checkpoints(files.child(self.path / "checkpoints", stage), keep)

    def close(self) -> None:
        """Release the lock, so that others may write here."""
        self.metrics.close()
        os.close(self._lock)

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and issubclass(kind, errors.ConfigError | errors.CheckpointError):
            self._remove_unused()
        self.close()

    def _remove_unused(self) -> None:
        """Remove the directory of a refused run, and the folders that `make_path` named if nothing else is there."""
        if self.resumed or (self.path / "checkpoints").exists():
            return
        with contextlib.suppress(OSError):
            shutil.rmtree(self.path)
            if has_stamp(self.path):
                self.path.parent.rmdir()
                self.path.parent.parent.rmdir()


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


def take_lock(path: Path) -> int:
    """Take the lock of a run, write our process id into it for whoever comes second, and return its descriptor.

    Raises:
      RunDirectoryError: another process holds it.
    """
    with files.storage_errors(path / LOCK):
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
