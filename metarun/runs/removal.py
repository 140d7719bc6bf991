"""Removing run directories. Nothing that is written to, is a link, or is no run is ever removed."""

import contextlib
import os
import shutil
from pathlib import Path

from metarun import errors
from metarun.runs import catalogue, directory, files, run_status


def refuse_removal(run: Path, root: Path = catalogue.ROOT) -> None:
    """Check that a run may be removed.

    Raises:
      RunDirectoryError: it is a link or lies behind one, is no run directory, or is being written.
    """
    if link := find_link(run, root):
        what, remedy = "this is a link, and links are not followed", "give the folder that it leads to"
        raise errors.RunDirectoryError(what, str(link), remedy)
    with files.storage_errors(run):
        names = {entry.name for entry in run.iterdir()} if run.is_dir() else set()
    if not directory.is_run(names):
        raise errors.RunDirectoryError("this is no run directory", str(run), "`metarun runs` lists the runs")
    status = run_status.read_status(run)
    if status.state == "running":
        what = f"process {status.pid} is writing to this run"
        raise errors.RunDirectoryError(what, str(run), "wait until it ends, or stop it")


def find_link(run: Path, root: Path) -> Path | None:
    """Return the link that a run is, or that stands between it and the folder of the runs; None: there is none."""
    inside = [parent for parent in run.parents if lies_below(parent, root)]
    return next((folder for folder in [run, *inside] if folder.is_symlink()), None)


def lies_below(folder: Path, root: Path) -> bool:
    """Return whether a folder lies below the folder of the runs, by its name."""
    return root.absolute() in folder.absolute().parents


def remove(run: Path, root: Path = catalogue.ROOT) -> None:
    """Remove a run directory, and the folder that it leaves empty below the root.

    Raises:
      RunDirectoryError: see `refuse_removal`.
      StorageError: the disk refuses; what is left has a temporary name and is no run any more.
    """
    refuse_removal(run, root)
    # It is held until all is gone, so that nobody goes on with the run meanwhile.
    lock = directory.take_lock(run, write=False)
    try:
        with files.storage_errors(run):
            aside = run.rename(files.temporary_beside(run))
            shutil.rmtree(aside)
    finally:
        os.close(lock)
    if lies_below(run.parent, root):
        with contextlib.suppress(OSError):  # other runs are there
            run.parent.rmdir()
