"""A line of the list of runs: how a run stands, what came out, and what its config says.

Nothing is opened or computed, and whatever is damaged or foreign is said in the line and is no error.
"""

import datetime
from pathlib import Path
from typing import Any, NamedTuple

from metarun import errors
from metarun.evaluation.statistics import choose_shown_metric
from metarun.finished import result_layout, run_names
from metarun.finished.run_names import Flat
from metarun.runs import catalogue, directory, regular_files, run_status, seals
from metarun.runs.run_status import RunStatus

FOREIGN = "no run"  # the state of a folder that is none


class ListedRun(NamedTuple):
    """A line of the list."""

    path: Path
    name: str  # the path below the folder that is listed
    status: RunStatus
    config: Flat  # empty if it cannot be read
    steps: int | None  # of the stage that it is in
    # {metric: {"mean", "ci95"}} of the last stage, adapted, in the first mode; empty: not measured.
    result: dict[str, dict[str, Any]]
    higher_is_better: tuple[str, ...]
    age: float  # seconds since status.json was written, or the folder was made
    problem: str | None  # what is wrong with it
    differences: Flat = {}  # noqa: RUF012, the keys in which it differs from runs of the same kind


def read_line(folder: catalogue.Folder, root: Path, now: datetime.datetime) -> ListedRun:
    """Read what a folder says of itself."""
    path = folder.path
    name = path.relative_to(root).as_posix() if path != root else path.name
    if folder.problem is not None:
        return ListedRun(path, name, RunStatus(FOREIGN), {}, None, {}, (), 0.0, folder.problem)
    status, problems = run_status.read_status(path), []
    flat: Flat = {}
    headline = Headline({}, ())
    try:
        seals.check(path)
        flat = run_names.read_flat_config(path)
    except errors.CheckpointError as error:
        problems.append(error.what)
    except errors.StorageError as error:
        problems.append(f"{Path(error.where).name}: {error.what}")
    except errors.ConfigError as error:
        is_missing = not (path / directory.CONFIG).exists()
        problems.append("it has no config yet" if is_missing else f"config.yaml: {error.what}")
    try:
        # A result that was made with another config is not that of this run.
        headline = headline if problems else read_headline(path)
    except (OSError, ValueError, LookupError) as error:
        problems.append(f"result.json is damaged: {error}")
    if status.state == "damaged":
        problems.append("status.json is damaged")
    if status.state == "done" and not (path / directory.RESULT).exists():
        problems.append("result.json is gone")
    steps = find_steps(flat, status.stage)
    age = (now - read_update(path, status)).total_seconds()
    problem = "; ".join(problems) or None
    return ListedRun(path, name, status, flat, steps, *headline, max(age, 0.0), problem)


class Headline(NamedTuple):
    """What came out of a run."""

    result: dict[str, dict[str, Any]]
    higher_is_better: tuple[str, ...]


def read_headline(run: Path) -> Headline:
    """Read what came out of a run: the last stage, adapted, in the first mode; {} if it has no result yet."""
    file = run / directory.RESULT
    if not file.exists():
        return Headline({}, ())
    result = regular_files.read_sealed(file)
    result_layout.check(result)
    section = list(result["stages"].values())[-1][result["modes"][0]]["adapted"]
    values = {
        metric: {name: float(interval[name]) for name in ("mean", "ci95")}
        | ({"seeds": interval["seeds"]} if "seeds" in interval else {})
        for metric, interval in section.items()
    }
    return Headline(values, tuple(result.get("higher_is_better", ())))


def read_update(run: Path, status: RunStatus) -> datetime.datetime:
    """Return when a run was last heard of."""
    try:
        updated = datetime.datetime.fromisoformat(status.updated or "")
        return updated if updated.tzinfo else updated.replace(tzinfo=datetime.UTC)
    except ValueError:
        return datetime.datetime.fromtimestamp(run.stat().st_mtime, datetime.UTC)


def find_steps(config: Flat, stage: str | None) -> int | None:
    """Return how many steps the stage has."""
    steps = config.get(f"stages.{stage}.training.steps", config.get("training.steps"))
    return steps if isinstance(steps, int) else None


def choose_headline(run: ListedRun) -> str | None:
    """Return the metric that a run is known by; None: it has no result."""
    return choose_shown_metric(run.result) if run.result else None


def describe(run: ListedRun) -> dict[str, Any]:
    """Return a line of the list, ready for JSON."""
    metric = choose_headline(run)
    return {
        "name": run.name,
        "path": str(run.path),
        **run.status._asdict(),
        "steps": run.steps,
        "metric": metric,
        "result": run.result,
        "age_seconds": round(run.age),
        "differences": run.differences,
        "problem": run.problem,
    }
