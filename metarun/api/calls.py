"""What makes runs and sets them beside one another: train, sweep, compare, list. Each imports jax only when called.

Overrides are a dict, {"training.steps": 100}, and keywords: `training__steps=100` is the same key. Nothing is printed;
`progress` takes what is told, see `metarun.progress.Progress`. What a user can act on is a `metarun.MetarunError`.
"""

import contextlib
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarun.api.call_options import (
    Overrides,
    Place,
    format_axis,
    interrupting,
    list_overrides,
    quiet,
)

if TYPE_CHECKING:
    from metarun.api.run import Run
    from metarun.api.views import Comparison, Ranking
    from metarun.progress import Progress


def train(
    config: Place | Mapping[str, Any],
    overrides: Overrides = None,
    *,
    run_dir: Place | None = None,
    resume: bool = False,
    progress: "Progress | None" = None,
    **keys: Any,
) -> "Run":
    """Meta-train, evaluate, and return the finished run: `metarun train`.

        run = metarun.train("sinusoid/maml", {"training.steps": 100}, seed=1)

    Args:
      config: a YAML file, the name of a config that comes with metarun, or the values of a file as a dict. With
        `resume`, a run.
      overrides, keys: of the config, see above.
      run_dir: None: runs/<config name>/<time>; a dict is called `notebook`.
      resume: go on with the run.

    Raises:
      MetarunError: what is wrong, and what to do.
      KeyboardInterrupt: after Ctrl-C; the state is saved, and `metarun.train(run, resume=True)` goes on.
    """
    from metarun import config as configs
    from metarun.api.run import Run
    from metarun.runs import directory, new_run, stage_reference

    source, place = find_places(config, run_dir, resume)
    texts = list_overrides(overrides, keys)
    run_config = configs.load(source, texts, stage_reference.find_stage)
    from metarun import experiment
    from metarun.progress import Progress

    with new_run.hold_folder(place) if isinstance(place, str) else contextlib.nullcontext(place) as path:
        # The command that would give the same run: of a dict the run itself has the file.
        file = path / directory.CONFIG if isinstance(source, Mapping) else source
        argv = ["metarun", "train", str(file), *texts]
        with quiet(), interrupting(path):
            experiment.train(run_config, path, resume, argv, progress or Progress())
    return Run(path)


def find_places(
    config: Place | Mapping[str, Any], run_dir: Place | None, resume: bool
) -> tuple[Path | Mapping[str, Any], Path | str]:
    """Return where the config is, and the run directory, or the name of the config if the run is a new one of it.

    Raises:
      UsageError: a thread asks for a training, or the config of a run that is resumed.
    """
    from metarun import config as configs
    from metarun import errors, folders
    from metarun.api.run import Run
    from metarun.runs import directory, seals

    if threading.current_thread() is not threading.main_thread():
        what = "a thread cannot train, because signals come to the main thread"
        raise errors.UsageError(what, "metarun.train", "call it there, or in a process of its own")
    if resume:
        if isinstance(config, Mapping) or run_dir is not None:
            remedy = "give the run alone: metarun.train(run, resume=True)"
            raise errors.UsageError("a run is resumed where it lies", "metarun.train", remedy)
        path = Run(config).path
        seals.check(path)
        return path / directory.CONFIG, path
    if isinstance(config, Mapping):
        return config, Path(run_dir) if run_dir is not None else "notebook"
    file = configs.find_file(Path(config))
    return file, Path(run_dir) if run_dir is not None else folders.name_config(file)


def compare(
    runs: Iterable[Place],
    *,
    mode: str | None = None,
    learner: str = "adapted",
    metric: str | None = None,
) -> "Comparison":
    """Rank finished runs by paired differences on the same frozen episodes: `metarun compare`.

    Args:
      mode: inductive or transductive; None: the first one of the first run.
      learner: adapted, unadapted, or a number of inner steps that was measured.
      metric: None: the first one that is not the loss.

    Raises:
      MetarunError: there is no run, one is not finished, or they cannot be compared.
    """
    from metarun import errors
    from metarun.api.run import Run
    from metarun.api.views import Comparison
    from metarun.finished import comparison

    paths = [Run(run).path for run in runs]
    if not paths:
        raise errors.UsageError("there is no run to compare", "metarun.compare", "give two runs or more")
    return Comparison(comparison.compare(paths, comparison.Choice(mode, str(learner), metric)))


def sweep(
    config: Place,
    settings: Mapping[str, Any],
    *,
    search: str | None = None,
    trials: int | None = None,
    halve: int | None = None,
    jobs: int | None = None,
    sweep_dir: Place | None = None,
) -> "Ranking":
    """Train many settings, rank them on the validation split, and measure the best on the test split: `metarun sweep`.

        metarun.sweep("sinusoid/maml", {"algorithm.inner_lr": [0.01, 0.1], "training.steps": 500})

    Args:
      config: a YAML file, or the name of a config that comes with metarun.
      settings: {key: list of values, or text such as "log(1e-4,1e-2,8)"}; a single value holds for all settings.
      search: grid, random or tpe. trials: how many settings a search tries. halve: successive halving.
      jobs: processes at once; None: one a device.
      sweep_dir: None: sweeps/<config name>-<hash>. The same call again goes on where it was.

    Raises:
      MetarunError: what is wrong, and what to do.
    """
    from metarun import config as configs
    from metarun import folders
    from metarun.api.views import Ranking
    from metarun.sweeps import course, execution, probe, request
    from metarun.sweeps.sweep_directory import SweepDirectory
    from metarun.sweeps.workers import Report

    file = configs.find_file(Path(config))
    asked = request.read(
        file, [format_axis(key, value) for key, value in settings.items()], search, trials, halve
    )
    folder = Path(sweep_dir) if sweep_dir else Path("sweeps") / f"{folders.name_config(file)}-{asked.hash()}"
    questions = course.remember_answers(asked, probe.find_obstacles, probe.count_fitting)
    with quiet(), interrupting(folder):
        directory = SweepDirectory.open(folder, asked)
        ranking = execution.run(directory, asked, execution.Plan(questions, jobs, True, Report()))
    assert ranking is not None  # it has waited for the programs of other processes
    return Ranking({"sweep": str(folder), **ranking})


def list_runs(root: Place = "runs") -> "list[Run]":
    """Return all runs below a folder, the newest last: `metarun runs`."""
    from metarun.api.run import Run
    from metarun.runs import catalogue, directory

    folders = [folder.path for folder in catalogue.list_folders(Path(root)) if folder.problem is None]
    runs = [path for path in folders if (path / directory.CONFIG).is_file()]
    return [Run(path) for path in sorted(runs, key=catalogue.read_time)]
