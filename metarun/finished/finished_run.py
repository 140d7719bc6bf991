"""Which finished run is meant, with which stage, checkpoint and settings, and what it left. Imports no jax."""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarun import config, errors
from metarun.config import Stage, differences
from metarun.runs import catalogue, code_copies, directory, files

REMEDY = "restore the file, or train again"


class FinishedRun(NamedTuple):
    """A run, or one checkpoint of it, as somebody means it."""

    path: Path  # the run directory
    checkpoint: Path | None  # RUN/checkpoints/<stage>/<step>, if one was named
    config: config.RunConfig  # with the settings of this evaluation
    stage: str | None  # the stage that was named, by itself or by its checkpoint; None: none was

    @property
    def stage_names(self) -> list[str]:
        return [stage.name for stage in self.config.stages]

    @property
    def chosen_stage(self) -> str:
        """The stage that was named, or the last one."""
        return self.stage or self.stage_names[-1]

    @property
    def stage_settings(self) -> Stage:
        """The config of the stage that was named, or of the last one."""
        return next(stage for stage in self.config.stages if stage.name == self.chosen_stage)


def find_run(
    path: Path | str,
    overrides: Iterable[str] = (),
    *,
    stage: str | None = None,
    split: str | None = None,
    mode: str | None = None,
) -> FinishedRun:
    """Find the run that a path means.

    Args:
      path: a run directory, RUN/checkpoints/<stage>/<step>, or another name of a run; see `catalogue.resolve`.
      overrides: `key=value` of the evaluation and accelerator sections.
      stage: None: the one of the checkpoint, if the path is one.
      split: None: the one that the run evaluates.
      mode: "inductive" or "transductive"; None: the modes that the run evaluates.

    Raises:
      CheckpointError: there is no run.
      ConfigError: an override changes what was trained.
      UsageError: there is no such stage, the checkpoint is of another one, or several runs have the name.
    """
    root, checkpoint = split_path(catalogue.resolve(path))
    directory.read_config(root)
    code_copies.check(root)
    file = root / directory.CONFIG
    choices = [*overrides, *([f"evaluation.split={split}"] if split else [])]
    choices += [f"evaluation.modes=[{mode}]"] if mode else []
    run_config = config.load(file, choices)
    differences.check_evaluation(config.load(file), run_config)
    run = FinishedRun(root, checkpoint, run_config, stage or (checkpoint.parent.name if checkpoint else None))
    refuse_other_stage(run)
    return run


def split_path(path: Path) -> tuple[Path, Path | None]:
    """Return (run, None) for a run directory, and (run, checkpoint) for RUN/checkpoints/<stage>/<step>."""
    whole = path.resolve()
    return (whole.parents[2], whole) if whole.parent.parent.name == "checkpoints" else (path, None)


def refuse_other_stage(run: FinishedRun) -> None:
    """Raise UsageError if the run has no such stage, or the checkpoint is of another one."""
    names = run.stage_names
    if run.stage is not None and run.stage not in names:
        what = f"the run has no stage {run.stage}"
        raise errors.UsageError(what, str(run.path), f"use one of {', '.join(names)}")
    if run.checkpoint is not None and run.checkpoint.parent.name != run.stage:
        remedy = f"leave the stage out, or give RUN/checkpoints/{run.stage}/<step>"
        raise errors.UsageError(f"the checkpoint is not of stage {run.stage}", str(run.checkpoint), remedy)


def read_result(path: Path) -> dict[str, Any]:
    """Read result.json of a finished run.

    Raises:
      CheckpointError: there is no run, or it is not finished.
      DataError: the file is damaged, or of an older version of metarun.
      StorageError: the file may not be read.
    """
    directory.read_config(path)
    file = path / directory.RESULT
    with files.storage_errors(file):
        try:
            result = json.loads(file.read_text("utf-8"))
            if not {"stages", "modes", "split", "episodes"} <= result.keys():
                raise ValueError("it is no result of metarun")
        except FileNotFoundError:
            raise errors.CheckpointError(
                "the run is not finished: it has no result yet",
                str(path),
                f"go on with `metarun train --resume {path}`",
            ) from None
        except (ValueError, RecursionError, AttributeError) as error:
            raise errors.DataError(f"the result cannot be read: {error}", str(file), REMEDY) from error
    if "higher_is_better" not in result:
        remedy = "use the version in the run's environment.json, or train again"
        raise errors.DataError("the result was written by an older version of metarun", str(file), remedy)
    return result


def read_values(path: Path, stage: str, split: str, variant: str) -> dict[str, np.ndarray]:
    """Read {metric: [episode]} of one variant of a stage.

    Raises:
      DataError: the file is missing or damaged.
      UsageError: the variant was not measured.
    """
    file = path / "episodes" / f"{stage}-{split}.npz"
    try:
        with np.load(file, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        what = "the values of the episodes are missing or damaged"
        raise errors.DataError(what, str(file), REMEDY) from error
    start = f"{variant}/"
    values = {name.removeprefix(start): columns[name] for name in columns if name.startswith(start)}
    if not values:
        known = sorted({name.rpartition("/")[0] for name in columns if "/" in name})
        raise errors.UsageError(
            f"{variant} was not measured in stage {stage}",
            str(path),
            f"choose --mode and --learner from {', '.join(known)}",
        )
    return values
