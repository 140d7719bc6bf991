"""A run that goes on with a finished one for more steps: what must hold, and what it takes over.

What the config says is checked in `metarun.config.extension`; here is what the checkpoints and the built stage say.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from metarun import base, config, errors, plugins
from metarun.assembly import Tasks
from metarun.config import Selection
from metarun.runs import checkpoints, code_copies, directory, files, manifest, seals, stage_reference
from metarun.runs.checkpoints import Checkpoint, Checkpoints
from metarun.runs.directory import RunDirectory
from metarun.runs.seals import Sealed
from metarun.stages import Stage
from metarun.training import budgets
from metarun.training.facts import read_facts

REMEDY = "begin a new run with init_from: RUN"


def find_end(source: Path) -> Checkpoint:
    """Return the last checkpoint of a finished run, with the memory of its optimizer.

    Raises:
      CheckpointError: the run is not finished, or the memory is gone.
    """
    seals.check(source)
    code_copies.check(source)
    last = config.load(source / directory.CONFIG).stages[-1]
    newest = checkpoints.open_checkpoint(source, last.name, allow_older=False)
    if newest.step != last.training.steps:
        what = f"the run has taken {newest.step} of {last.training.steps} steps of the stage {last.name}"
        remedy = f"end it first with metarun train --resume {source}"
        raise errors.CheckpointError(what, str(source), remedy)
    if not (newest.path / manifest.MEMORY).is_dir():
        what = "the checkpoint has no memory of the optimizer, which a longer training begins with"
        raise errors.CheckpointError(what, str(newest.path), f"restore memory/, or {REMEDY}")
    return newest


def refuse_progress(stage: Stage, shapes: base.Weights, tasks: Tasks) -> None:
    """Refuse a stage whose loss depends on how much of the training is done, and so on its length.

    Args:
      shapes: of the weights of the stage.

    Raises:
      ConfigError: names the option, if one alone is the reason.
    """
    if not budgets.reads_progress(stage, shapes, tasks):
        return
    option = name_option(stage, shapes, tasks) or f"the algorithm {stage.settings.algorithm.label}"
    what = f"the loss depends on the share of the steps that are done: {option}"
    raise errors.ConfigError(what, f"stage {stage.name}", REMEDY)


def name_option(stage: Stage, shapes: base.Weights, tasks: Tasks) -> str | None:
    """Return the option of the algorithm without which the loss would not depend on the length; None: there is none."""
    selection = stage.settings.algorithm
    for field in dataclasses.fields(selection.config):
        value, default = getattr(selection.config, field.name), plugins.get_default(field)
        if default is dataclasses.MISSING or value == default:
            continue
        with contextlib.suppress(Exception):  # whatever an algorithm says to a combination of options
            options = dataclasses.replace(selection.config, **{field.name: default})
            algorithm = Selection(selection.name, options)
            settings = dataclasses.replace(stage.settings, algorithm=algorithm)
            if not budgets.reads_progress(dataclasses.replace(stage, settings=settings), shapes, tasks):
                return f"algorithm.{field.name} is {value}"
    return None


def carry_over(source: Path, run: RunDirectory, stages: Sequence[Stage]) -> None:
    """Copy the metrics and the checkpoints of a finished run into the directory of one that goes on with it.

    The checkpoints of a stage are the newest, the best, and its start in another run. Whenever this ends, the new run
    can be resumed: without the checkpoints it trains from the start, to the same bits.
    """
    end = find_end(source)
    run.metrics.begin_with(source / directory.METRICS, read_facts(end).metrics_bytes)
    extended = {"run": str(source.resolve()), "stage": end.stage, "step": end.step}
    run.write_sources({**stage_reference.read_records(source), "extended": extended})
    for stage in stages:
        saved = Checkpoints(source / "checkpoints" / stage.name)
        chosen = {found.path for found in (saved.newest_valid(), saved.best_valid()) if found}
        chosen |= {path for path in [saved.folder / str(checkpoints.START)] if path.exists()}
        for path in sorted(chosen):
            copy(path, run.path / "checkpoints" / stage.name / path.name, run.sealed)


def copy(checkpoint: Path, target: Path, sealed: Sealed) -> None:
    """Copy a checkpoint, which appears complete by one rename.

    Args:
      sealed: what it holds of the run that it is copied into.
    """
    with files.storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = files.temporary_beside(target)
        shutil.copytree(checkpoint, aside)
        manifest.write_seal(aside, sealed)
        aside.rename(target)
