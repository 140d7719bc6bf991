"""Which finished run is meant, with which stage, checkpoint and settings, and what it left. Imports no jax."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from metarun import config, errors
from metarun.config import Stage, differences
from metarun.finished import episode_arrays, result_layout
from metarun.runs import catalogue, code_copies, directory, files, regular_files, seals

REMEDY = "restore the file, or train again"


class FinishedRun(NamedTuple):
    """A run, or one checkpoint of it, as somebody means it."""

    path: Path  # the run directory
    checkpoint: Path | None  # RUN/checkpoints/<stage>/<step>, if one was named
    config: config.RunConfig  # with the settings of this evaluation
    stage: str | None  # the stage that was named, by itself or by its checkpoint; None: none was
    allow_older: bool = False  # whether an older checkpoint may stand in for one that is damaged or gone
    # {stage: the step that the run's own result was measured at}; empty: there is no result, or another kind of
    # checkpoint is asked for.
    measured_steps: Mapping[str, int] = MappingProxyType({})

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
    allow_older: bool = False,
) -> FinishedRun:
    """Find the run that a path means.

    Args:
      path: a run directory, RUN/checkpoints/<stage>/<step>, or another name of a run; see `catalogue.resolve`.
      overrides: `key=value` of the evaluation and accelerator sections.
      stage: None: the one of the checkpoint, if the path is one.
      split: None: the one that the run evaluates.
      mode: "inductive" or "transductive"; None: the modes that the run evaluates.
      allow_older: whether an older checkpoint may stand in for one that is damaged or gone.

    Raises:
      CheckpointError: there is no run, or its config is not the one that it was trained with.
      ConfigError: an override changes what was trained.
      UsageError: there is no such stage, the checkpoint is of another one, or several runs have the name.
    """
    root, checkpoint = split_path(catalogue.resolve(path))
    directory.read_config(root)
    seals.check(root)
    code_copies.check(root)
    file = root / directory.CONFIG
    choices = [*overrides, *([f"evaluation.split={split}"] if split else [])]
    choices += [f"evaluation.modes=[{mode}]"] if mode else []
    run_config = config.load(file, choices)
    own = config.load(file)
    differences.check_evaluation(own, run_config)
    same_kind = own.evaluation.checkpoint == run_config.evaluation.checkpoint
    measured = list_measured_steps(root) if same_kind else {}
    stage = stage or (checkpoint.parent.name if checkpoint else None)
    run = FinishedRun(root, checkpoint, run_config, stage, allow_older, measured)
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


def list_measured_steps(run: Path) -> dict[str, int]:
    """Return {stage: the step that its result was measured at}; {} if there is no result that can be read."""
    try:
        return {name: layout["step"] for name, layout in load_result(run)["stages"].items()}
    except errors.MetarunError:
        return {}


def read_result(path: Path) -> dict[str, Any]:
    """Read result.json of a finished run.

    Raises:
      CheckpointError: there is no run, it is not finished, or its config is not the one that it was trained with.
      DataError: the file is damaged, edited, or of an older version of metarun.
      StorageError: the file may not be read.
    """
    directory.read_config(path)
    seals.check(path)
    return load_result(path)


def load_result(path: Path) -> dict[str, Any]:
    """Return what result.json says, without a look at the config; see `read_result`."""
    file = path / directory.RESULT
    with files.storage_errors(file):
        try:
            result = regular_files.read_sealed(file)
            seals.parse(result.pop(seals.KEY, {}))
            result_layout.check(result)
        except FileNotFoundError:
            raise errors.CheckpointError(
                "the run is not finished: it has no result yet",
                str(path),
                f"go on with `metarun train --resume {path}`",
            ) from None
        except ValueError as error:
            raise errors.DataError(f"the result cannot be read: {error}", str(file), REMEDY) from error
    if "higher_is_better" not in result:
        remedy = "use the version in the run's environment.json, or train again"
        raise errors.DataError("the result was written by an older version of metarun", str(file), remedy)
    return result


def read_values(
    path: Path, result: Mapping[str, Any], stage: str, mode: str, learner: str
) -> dict[str, np.ndarray]:
    """Read {metric: [episode]} of one learner of a stage; with replicas and members [replica, member, episode].

    Args:
      result: of the run, from `read_result`.
      learner: adapted, unadapted, or a number of inner steps.

    Raises:
      DataError: the file is missing or damaged, or an array is not what the result was computed from.
      UsageError: the variant was not measured.
    """
    variant, place = f"{mode}/{learner}", f"episodes/{stage}-{result['split']}.npz"
    file = path / place
    shapes = episode_arrays.list_shapes(result, stage)
    columns = episode_arrays.read(file, shapes, seals.read_result_seal(path).get(place, ()))
    start = f"{variant}/"
    values = {name.removeprefix(start): columns[name] for name in columns if name.startswith(start)}
    section = get_section(result["stages"][stage], mode, learner)
    if section is not None:
        episode_arrays.refuse_missing(file, start, values, section)
        episode_arrays.refuse_not_finite(file, values, section)
    if not values:
        known = sorted({name.rpartition("/")[0] for name in columns if "/" in name})
        raise errors.UsageError(
            f"{variant} was not measured in stage {stage}",
            str(path),
            f"choose --mode and --learner from {', '.join(known)}",
        )
    return values


def get_section(layout: Mapping[str, Any], mode: str, learner: str) -> dict[str, Any] | None:
    """Return the means of one learner in one mode, in the family's order of metrics; None: it was not measured."""
    section = layout.get(mode, {})
    return (section.get("inner_steps", {}) if learner.isdecimal() else section).get(learner)
