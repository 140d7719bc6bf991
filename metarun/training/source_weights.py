"""The weights that a run has from other runs: those that a stage starts from, and those of stages that are taken whole.

They are copied into the run's own checkpoints before anything is trained, so that the run needs the other ones no more.
A start is the checkpoint of step 0, and has no memory of the optimizer; a taken stage has its weights at the step
that it reached.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from metarun import assembly, base, config, errors
from metarun.base import PyTree
from metarun.config import differences, foreign_stages
from metarun.runs import checkpoints, code_copies, directory, stage_reference
from metarun.runs.checkpoints import Checkpoint, Checkpoints
from metarun.runs.directory import RunDirectory
from metarun.stages import Stage
from metarun.training import source_leaves, start_costs

logger = logging.getLogger("metarun")


class Source(NamedTuple):
    """A stage of another run, as a stage of this one needs it."""

    key: str  # init_from or taken_from
    checkpoint: Checkpoint
    weights: base.Weights  # arrays of numpy, with the leading axes of this run's stage
    digest: str  # SHA-256 of the weights as the other run has them
    # The step at which its training counts as ended; None: all of it was needed to choose.
    named_step: int | None = None

    def describe(self) -> dict[str, Any]:
        """Return what the run records of the source."""
        run, stage = self.checkpoint.path.parents[2], self.checkpoint.stage
        described = {
            "key": self.key,
            "run": str(run),
            "stage": stage,
            "step": self.checkpoint.step,
            "weights_sha256": self.digest,
            "cost": start_costs.read_total(run, stage, self.named_step),  # null: it is not recorded
        }
        if self.key == foreign_stages.INIT:
            return described | {"parts": start_costs.list_parts(run, stage, self.named_step)}
        before = stage_reference.read_records(run).get("stages", {}).get(stage)
        return described if before is None else described | {"parts": start_costs.find_parts(before)}


def settle(
    run: RunDirectory,
    run_config: config.RunConfig,
    stages: Sequence[Stage],
    shapes: Mapping[str, base.Weights],
) -> None:
    """Copy the weights of other runs into the checkpoints of a run, unless it has them already.

    Args:
      shapes: of the weights of each stage, by its name.

    Raises:
      ConfigError: the weights do not fit the stage.
      MetarunError: the other run is gone or damaged.
    """
    sources = read_all(list_missing(run.path, stages), stages, shapes)
    if not sources:
        return
    warn_of_other_tasks(run_config, sources)
    records = stage_reference.read_records(run.path)
    own = {name: source.describe() for name, source in sources.items()}
    run.write_sources({**records, "stages": {**records.get("stages", {}), **own}})
    for name, source in sources.items():
        is_start = source.key == foreign_stages.INIT
        step = checkpoints.START if is_start else source.checkpoint.step
        facts = (
            {"step": step}
            if is_start
            else {**source.checkpoint.facts, "metrics_bytes": 0, "metrics_sha256": ""}
        )
        with run.checkpoints(name, 1) as saved:
            saved.save(step, source.weights, (), facts, False)
        logger.info("%s has the weights of %s", name, source.checkpoint.path)


def list_missing(run: Path, stages: Sequence[Stage]) -> list[Stage]:
    """Return the stages that have something from another run, and no checkpoint in the run."""
    folder = run / "checkpoints"
    foreign = [stage for stage in stages if name_source(stage) is not None]
    return [stage for stage in foreign if Checkpoints(folder / stage.name).newest_valid() is None]


def read_all_records(
    run: Path | None, stages: Sequence[Stage], shapes: Mapping[str, base.Weights]
) -> dict[str, dict[str, Any]]:
    """Return what sources.json has of the stages, or would have of those that a run has no weights of yet.

    Args:
      run: that has weights already; None: a new run.
      shapes: of the weights of each stage, by its name.
    """
    sources = read_all(list_missing(run, stages) if run else stages, stages, shapes)
    known = stage_reference.read_records(run).get("stages", {}) if run else {}
    return {**known, **{name: source.describe() for name, source in sources.items()}}


def describe(record: Mapping[str, Any] | None, training: str) -> str:
    """Return how a stage is trained, with the record of the source that it has in another run."""
    if record is None:
        return training
    place = f"step {record['step']} of {record['stage']} in {record['run']}"
    if record["key"] == foreign_stages.TAKEN:
        return f"taken from {place}, and not trained"
    return f"{training}, from {place}"


def read_all(
    wanted: Iterable[Stage], stages: Sequence[Stage], shapes: Mapping[str, base.Weights]
) -> dict[str, Source]:
    """Return {stage: what it has from another run} for those of the stages that have something.

    Args:
      stages: all of the run.
      shapes: of the weights of each stage, by its name.
    """
    return {
        stage.name: read(stage, stages, shapes[stage.name])
        for stage in wanted
        if name_source(stage) is not None
    }


def name_source(stage: Stage) -> str | None:
    """Return the name of the stage of another run that a stage starts from, or is."""
    return stage.settings.taken_from or stage.settings.init_from


def read(stage: Stage, stages: Sequence[Stage], shapes: base.Weights) -> Source:
    """Return what a stage has from another run.

    The checkpoint is the one that is named, or the one that the other run is evaluated with: the best or the last.

    Args:
      stages: all of the run.
      shapes: of the weights of the stage.

    Raises:
      ConfigError: the weights do not fit the stage.
      MetarunError: the other run is gone or damaged.
    """
    key = foreign_stages.INIT if stage.settings.taken_from is None else foreign_stages.TAKEN
    where = f"stage {stage.name}: {key}={name_source(stage)}"
    run, name, step = stage_reference.find_stage(str(name_source(stage)))
    directory.read_config(run)
    code_copies.check(run)
    run_config = config.load(run / directory.CONFIG)
    settings = find_settings(run_config, name, where)
    axes = assembly.name_axes(run_config, settings)
    refuse_axes(stage, axes, where)
    checkpoint = open_source(run, run_config, settings.name, step)
    if checkpoint.facts.get("diverged"):
        what, remedy = (
            f"trials of the stage {settings.name} have diverged",
            "name a stage without such trials",
        )
        raise errors.ConfigError(what, where, remedy)
    arrays, digest = source_leaves.read(
        checkpoint, replace_axes(shapes, stage.axes, axes), name_leaves(stage, stages), where
    )
    weights = jax.tree.map(lambda leaf: spread(leaf, axes, stage.axes), arrays)
    return Source(key, checkpoint, weights, digest, step)


def find_settings(run_config: config.RunConfig, name: str | None, where: str) -> config.Stage:
    """Return the config of a stage of another run; without a name, of the last one.

    Raises:
      ConfigError: there is no such stage.
    """
    settings = {stage.name: stage for stage in run_config.stages}
    if name is not None and name not in settings:
        what = f"the other run has no stage {name}"
        raise errors.ConfigError(what, where, f"use one of {', '.join(settings)}")
    return settings[name] if name else run_config.stages[-1]


def open_source(run: Path, run_config: config.RunConfig, stage: str, step: int | None) -> Checkpoint:
    """Return the checkpoint of a stage of another run; without a step, the one that `eval` would open."""
    if step is None:
        return checkpoints.open_evaluated(run, stage, run_config.evaluation.checkpoint)
    return checkpoints.open_checkpoint(run / "checkpoints" / stage / str(step))


def refuse_axes(stage: Stage, axes: Mapping[str, int], where: str) -> None:
    """Refuse other numbers of replicas or members than those of the stage. A source of one may start all.

    Args:
      axes: of the other run's stage, with their sizes.

    Raises:
      ConfigError: says both numbers.
    """
    words = {"replica": "replicas", "member": "copies"}
    for axis, size in axes.items():
        own = stage.axes.get(axis, 1)
        if own != size:
            what = f"the stage there has {size} {words[axis]}, and the stage here has {own}"
            remedy = f"set {words[axis]} to {size}, or name a stage of one, which then starts all"
            raise errors.ConfigError(what, where, remedy)


def replace_axes(shapes: PyTree, own: Mapping[str, int], axes: Mapping[str, int]) -> PyTree:
    """Return the shapes of a stage with other leading axes in place of its own."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((*axes.values(), *leaf.shape[len(own) :]), leaf.dtype), shapes
    )


def spread(array: np.ndarray, axes: Mapping[str, int], own: Mapping[str, int]) -> np.ndarray:
    """Return an array with the leading axes of a stage: along those that it lacks, all have the same.

    Args:
      axes: that the array has, with their sizes; some of `own`, in the same order.
    """
    rest = array.shape[len(axes) :]
    beside = [axes.get(axis, 1) for axis in own]
    return np.broadcast_to(array.reshape(*beside, *rest), (*own.values(), *rest))


def name_leaves(stage: Stage, stages: Sequence[Stage]) -> dict[str, str]:
    """Return {name of a stage here: its name in the other run} of the stages that a taken stage stands on.

    Algorithms keep the weights of earlier stages under the names of these, and those have other names here.
    """
    if stage.settings.taken_from is None:
        return {}
    foundations = foreign_stages.list_foundations([other.settings for other in stages], stage.settings)
    sources = {other.name: stage_reference.find_stage(str(other.taken_from))[1] for other in foundations}
    return {name: str(there) for name, there in sources.items()}


def warn_of_other_tasks(run_config: config.RunConfig, sources: Mapping[str, Source]) -> None:
    """Say which taken stages were trained on another task than that of the run: they are measured on this one."""
    task = config.document(run_config)["task"]
    for name, source in sources.items():
        other = config.document(config.load(source.checkpoint.path.parents[2] / directory.CONFIG))["task"]
        if source.key == foreign_stages.TAKEN and other != task:
            keys = ", ".join(f"task.{key}" for key in differences.list_different_keys(other, task))
            logger.warning("the stage %s was trained on another task; other values of: %s", name, keys)
