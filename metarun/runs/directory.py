"""The directory of one run: where it is, who may write to it, and which files lie in it.

config.yaml   environment.json   status.json   metrics.jsonl   result.json   log.txt   lock
episodes/<stage>-<split>.npz     checkpoints/<stage>/<step>/
"""

import datetime
import fcntl
import io
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarun import errors
from metarun.runs import environment, files
from metarun.runs.metrics import MetricsFile

if TYPE_CHECKING:
    from metarun.runs.checkpoints import Checkpoints

CONFIG, STATUS, METRICS, RESULT = "config.yaml", "status.json", "metrics.jsonl", "result.json"
LOG, LOCK = "log.txt", "lock"

_NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")


def make_path(config_name: str, root: Path = Path("runs")) -> Path:
    """Return the path for a new run of a config: `runs/<config name>/<UTC time>-<4 hex>`. Creates nothing."""
    now = datetime.datetime.now(datetime.UTC)
    return files.child(root, config_name) / f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def find_newest(config_name: str, root: Path = Path("runs")) -> Path | None:
    """Return the last run of a config that got as far as writing its config; None if there is none."""
    folders = files.child(root, config_name).glob("*")
    runs = [path for path in folders if _NAME.fullmatch(path.name) and (path / CONFIG).is_file()]
    return max(runs, key=_age, default=None)


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
        lock = _lock(path)
        try:
            resumed = _refuse_foreign(path)
            if resumed and not resume:
                remedy = "add --resume to go on with it, or choose another --run-dir"
                raise errors.RunDirectoryError("there is a run here already", str(path), remedy)
            _remove_leftovers(path)
            return cls(path, lock, resumed)
        except BaseException:
            os.close(lock)
            raise

    def write_config(self, text: str) -> None:
        """Write the resolved config. This makes the directory a run."""
        files.write_text(self.path / CONFIG, text)

    def read_config(self) -> str:
        """Return the resolved config that the run was started with."""
        return read_config(self.path)

    def write_environment(self, argv: list[str], devices: list[str]) -> None:
        """Write the versions, the machine, the commits, and an allow-list of variables."""
        files.write_json(self.path / "environment.json", environment.describe(argv, devices))

    def write_status(
        self, status: str, stage: str | None = None, step: int | None = None, message: str | None = None
    ) -> None:
        """Write how far the run is: running, done, preempted, diverged or failed."""
        content = {
            "status": status,
            "stage": stage,
            "step": step,
            "updated": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "pid": os.getpid(),
        }
        files.write_json(self.path / STATUS, content | ({"message": message} if message else {}))

    def write_result(self, result: dict[str, Any]) -> None:
        """Write the final evaluation of every stage."""
        files.write_json(self.path / RESULT, result)

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

    def __exit__(self, *error: object) -> None:
        self.close()


def _refuse_foreign(path: Path) -> bool:
    """Return whether there is a run here.

    Raises:
      RunDirectoryError: the folder holds something else. Nothing has been written to it yet.
    """
    with files.storage_errors(path):
        names = {entry.name for entry in path.iterdir() if not entry.name.startswith(files.TEMPORARY)}
    is_new = not names
    was_killed_early = LOCK in names and names <= {LOCK, METRICS, LOG}  # before it had a config
    if is_new or was_killed_early:
        return False
    if CONFIG in names and names & {LOCK, STATUS}:  # many a project folder has a config.yaml
        return True
    remedy = "choose another --run-dir: an empty one, or one that does not exist yet"
    raise errors.RunDirectoryError("the folder is not empty and is no run", str(path), remedy)


def _lock(path: Path) -> int:
    """Take the lock, and write our process id into it for whoever comes second."""
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
