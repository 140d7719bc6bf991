"""Which run directories there are below a folder, and which of them somebody means by a name."""

import contextlib
import datetime
import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from metarun import errors
from metarun.runs import directory, files

ROOT = Path("runs")
LATEST = "latest"
DEEPEST = 5  # folders below the root: runs/<config name>/<run> has 2
SHOWN = 8  # candidates in an error


class Folder(NamedTuple):
    """A run directory, or a folder with other files that lies among run directories."""

    path: Path
    problem: str | None = None  # why it is no run; None: it is one


def list_folders(root: Path = ROOT) -> list[Folder]:
    """Return all run directories at and below a folder, and the folders that hold something else.

    Nothing inside a run is looked at. A link is listed if it leads to a run, and is not followed otherwise.

    Raises:
      StorageError: the folder itself cannot be read.
    """
    if not root.is_dir():
        return []
    with files.storage_errors(root):
        next(root.iterdir(), None)
    return list(visit(root, 0))


def visit(folder: Path, depth: int) -> Iterator[Folder]:
    """Yield what is at a folder and below it."""
    try:
        names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(files.TEMPORARY)}
    except OSError as error:
        yield Folder(folder, f"it cannot be read: {error.strerror}")
        return
    if directory.is_run(names):
        yield Folder(folder)
    elif depth == 0 or not folder.is_symlink():
        children = [folder / name for name in sorted(names) if not name.startswith(".")]
        below = [child for child in children if depth < DEEPEST and child.is_dir()]
        yielded = [item for child in below for item in visit(child, depth + 1)]
        yield from yielded
        if depth and not yielded:
            yield Folder(folder, "there is no run here" if names else "it is empty")


def read_time(run: Path) -> datetime.datetime:
    """Return when a run was begun: the time in its name, which copying keeps, else that of its config."""
    if directory.has_stamp(run):
        stamp = run.name.rpartition("-")[0]
        with contextlib.suppress(ValueError):  # such as a month 13
            return datetime.datetime.strptime(f"{stamp}+0000", "%Y%m%d-%H%M%S%z")
    seconds = next((file.stat().st_mtime for file in (run / directory.CONFIG, run) if file.exists()), 0.0)
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def choose_newest(runs: list[Path]) -> Path:
    """Return the run that was begun last; the config's time decides between runs of the same second."""
    return max(runs, key=lambda run: (read_time(run), (run / directory.CONFIG).stat().st_mtime_ns))


def resolve(path: Path | str, root: Path = ROOT, *, newest: bool = True) -> Path:
    """Return the run, or the RUN/checkpoints/<stage>/<step>, that somebody means.

    Besides a path, RUN may be `latest`, a folder of runs below the root, with or without `runs/` before it, the name
    of a run, or the beginning of either; also the digits at the end of a run's name.

    Args:
      newest: whether a folder with several runs, such as runs/<config name>, means the newest of them.

    Raises:
      CheckpointError: there is no such run.
      UsageError: there are several.
    """
    path = Path(path)
    with files.storage_errors(path):
        whole = follow_links(path)
        if (path / directory.CONFIG).exists() or (
            whole.exists() and whole.parent.parent.name == "checkpoints"
        ):
            return path
    if path.parent.parent.name == "checkpoints":
        return resolve(path.parents[2], root, newest=newest) / path.relative_to(path.parents[2])
    runs = [folder.path for folder in list_folders(root) if folder.problem is None]
    runs = [run for run in runs if (run / directory.CONFIG).is_file()]
    return choose(path, name_below(path, root), runs, root, newest)


def follow_links(path: Path) -> Path:
    """Return the place that a path means, which need not exist.

    Raises:
      CheckpointError: its links lead back to themselves.
    """
    try:
        return path.resolve()
    except RuntimeError as error:
        what, remedy = "there is no run here: the links lead back to themselves", "check the links"
        raise errors.CheckpointError(what, str(path), remedy) from error


def name_below(path: Path, root: Path) -> str:
    """Return a path as it is seen from the root, or as it stands if it lies elsewhere."""
    whole = Path(os.path.normpath(path.absolute()))
    below = whole.is_relative_to(root.absolute())
    return (whole.relative_to(root.absolute()) if below else path).as_posix()


def choose(path: Path, name: str, runs: list[Path], root: Path, newest: bool) -> Path:
    """Return the run of a name among all runs below the root; see `resolve`."""
    group, _, last = name.rpartition("/")
    if last == LATEST:
        runs, name, newest = [run for run in runs if group in ("", name_group(run, root))], group, True
    members = runs if last == LATEST else [run for run in runs if name == name_group(run, root)]
    exact = [run for run in runs if name in list_names(run, root)]
    begun = [run for run in runs if any(text.startswith(name) for text in list_names(run, root))]
    candidates = [] if name == "." else members or exact or begun
    if candidates and candidates == members and newest:
        return choose_newest(candidates)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise refuse_ambiguous(path, candidates)
    raise refuse_missing(path, name, runs, root)


def name_group(run: Path, root: Path) -> str:
    """Return the folder of a run below the root."""
    return run.parent.relative_to(root).as_posix()


def list_names(run: Path, root: Path) -> list[str]:
    """Return what a run is called: its path below the root, its folder, and the digits that end its stamp."""
    tag = [run.name.rpartition("-")[2]] if directory.has_stamp(run) else []
    return [run.relative_to(root).as_posix(), run.name, *tag]


def refuse_ambiguous(path: Path, candidates: list[Path]) -> errors.UsageError:
    """Return what to say of a name that several runs have."""
    shown = sorted(map(str, candidates))
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    what = f"{path} may be any of {len(shown)} runs"
    return errors.UsageError(
        what, f"{', '.join(shown[:SHOWN])}{more}", "write more of the name of one of them"
    )


def refuse_missing(path: Path, name: str, runs: list[Path], root: Path) -> errors.CheckpointError:
    """Return what to say of a name that no run has."""
    names = {text: run for run in runs for text in [*list_names(run, root), name_group(run, root)]}
    near = difflib.get_close_matches(name, names, n=1)
    remedy = "give the directory that `metarun train` printed last; `metarun runs` lists those below runs/"
    if near:
        remedy = f"did you mean {near[0]}? `metarun runs` lists the runs"
    return errors.CheckpointError("there is no run here", str(path), remedy)
