"""The door to a finished run: its tasks and stages built, and the weights of its checkpoints restored.

Opening needs no mesh, no optimizer and no training loop: a checkpoint stores the weights apart from the rest.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from metarun import assembly, base, config, errors, hardware
from metarun.assembly import Tasks
from metarun.evaluation import episodes
from metarun.evaluation.episodes import FrozenEpisodes
from metarun.finished.finished_run import FinishedRun
from metarun.runs import checkpoints, manifest, task_file
from metarun.runs.checkpoints import Checkpoint, Checkpoints
from metarun.runs.manifest import Skipped
from metarun.stages import Divergence, Position, Stage, Trained, take_learner

# For a run of an older version.
OLDER = "%s keeps nothing of its data (task.json): what it says follows the data as they are now"

logger = logging.getLogger("metarun")


class OpenedRun(NamedTuple):
    """A finished run, ready to be measured or to adapt."""

    run: FinishedRun
    tasks: Tasks
    stages: list[Stage]  # all of them
    trained: dict[str, Trained]  # the stages up to the one that was named, if they have a checkpoint
    device: jax.Device  # that holds all of it
    skipped: tuple[Skipped, ...] = ()  # checkpoints that older ones stand in for

    @property
    def stage(self) -> Stage:
        """The stage that was named, or the last one."""
        return next(stage for stage in self.stages if stage.name == self.run.chosen_stage)


class OpenedLearner(NamedTuple):
    """One learner of one stage, as it is evaluated."""

    path: Path  # the run directory
    stage: str
    step: int
    weights: base.Weights  # of replica 0 and member 0
    algorithm: base.Algorithm
    mode: str
    evaluation: config.Evaluation
    tasks: Tasks
    skipped: tuple[Skipped, ...] = ()  # as of `OpenedRun`


def open_run(run: FinishedRun, *, outline: bool = False) -> OpenedRun:
    """Open a run: the one function that restores weights.

    Args:
      outline: build the task family without its files, if it can.

    Raises:
      MetarunError: what is wrong with the run, and what to do.
    """
    device = hardware.select(run.config.accelerator)[0]
    kept = task_file.read(run.path)
    tasks = (
        assembly.outline_tasks(run.config, kept)
        if outline
        else assembly.build_tasks(run.config, device, kept)
    )
    if kept is None and tasks.family.kept is not None:
        logger.warning(OLDER, run.path)
    stages = assembly.build_stages(run.config, tasks.family.problem)
    needed = stages[: run.stage_names.index(run.chosen_stage) + 1]
    chosen = {stage.name: choose_checkpoint(run, stage.name) for stage in needed}
    skipped = tuple(entry for checkpoint in chosen.values() if checkpoint for entry in checkpoint.skipped)
    return OpenedRun(run, tasks, stages, restore(chosen, tasks, needed, device), device, skipped)


def describe_skipped(skipped: Iterable[Skipped]) -> dict[str, Any]:
    """Return {"skipped": [{"checkpoint", "why"}]}, ready for JSON; {} if no older checkpoint stands in for another."""
    described = [{"checkpoint": str(path), "why": why} for path, why in skipped]
    return {"skipped": described} if described else {}


def open_learner(run: FinishedRun) -> OpenedLearner:
    """Open the stage that was named, or the last one: its first learner, in the first mode.

    Raises:
      UsageError: the task family does not have the split.
      MetarunError: what is wrong with the run, and what to do.
    """
    return take_first_learner(open_run(run))


def take_first_learner(opened: OpenedRun, place: int = 0) -> OpenedLearner:
    """Return the first learner of the stage that was named, or of the last one, in the first mode.

    Args:
      place: of another learner among `Stage.positions`.

    Raises:
      UsageError: the task family does not have the split.
    """
    settings, stage, tasks = opened.run.config.evaluation, opened.stage, opened.tasks
    if settings.split not in tasks.data:
        what = f"the task family has no {settings.split} split"
        raise errors.UsageError(what, "the split", f"use one of {', '.join(tasks.data)}")
    algorithm = stage.build_algorithm(settings.modes[0], stage.adapted_steps, tasks.evaluated.problem)
    trained, mode = take_trained(opened, stage.positions[place]), settings.modes[0]
    head = (opened.run.path, stage.name, trained.step, trained.weights)
    return OpenedLearner(*head, algorithm, mode, settings, tasks, opened.skipped)


def freeze_episodes(opened: OpenedLearner, count: int | None = None) -> FrozenEpisodes:
    """Return the frozen episodes that the learner is looked at on; `count` None: as many as are evaluated."""
    return episodes.freeze(opened.tasks, opened.evaluation, count=count)


def take_trained(opened: OpenedRun, position: Position) -> Trained:
    """Return the weights of one learner of the stage that was named."""
    trained = opened.trained[opened.stage.name]
    return trained._replace(weights=take_learner(trained.weights, position))


def restore(
    chosen: Mapping[str, Checkpoint | None], tasks: Tasks, stages: Iterable[Stage], device: jax.Device
) -> dict[str, Trained]:
    """Restore the weights of the stages that have a checkpoint.

    Args:
      chosen: {stage: its checkpoint}.
    """
    trained: dict[str, Trained] = {}
    diverged: dict[int, Divergence] = {}
    for stage in stages:
        checkpoint = chosen[stage.name]
        if checkpoint is None:
            continue
        earlier = {name: before.weights for name, before in trained.items()}
        shapes = stage.trace_weights(tasks.family.sample, tasks.data["train"], earlier)
        weights = checkpoints.load_weights(checkpoint, shapes)
        own = {replica: Divergence(stage.name, step) for replica, step in list_diverged(checkpoint)}
        diverged = {**diverged, **own}  # trials, here or in an earlier stage
        trained[stage.name] = Trained(checkpoint.step, jax.device_put(weights, device), diverged)
    return trained


def list_diverged(checkpoint: Checkpoint) -> tuple[tuple[int, int], ...]:
    """Return the (replica, step) of trials that have diverged.

    Raises:
      CheckpointError: the checkpoint says something else there.
    """
    try:
        return manifest.parse_diverged(checkpoint.facts)
    except (TypeError, ValueError) as error:
        what, remedy = f"its manifest does not say which trials have diverged: {error}", "use another step"
        raise errors.CheckpointError(what, str(checkpoint.path), remedy) from error


def choose_checkpoint(run: FinishedRun, stage: str) -> Checkpoint | None:
    """Return the checkpoint of a stage that is meant; None: one of another stage was named, and this one has none.

    Raises:
      CheckpointError: there is none, or the one that would be it is damaged or gone, and no older one may stand in.
    """
    if run.checkpoint is not None and run.checkpoint.parent.name == stage:
        return checkpoints.open_checkpoint(run.checkpoint)
    if run.checkpoint is not None:
        return Checkpoints(run.path / "checkpoints" / stage).newest_valid(run.allow_older)
    chosen = checkpoints.open_evaluated(run.path, stage, run.config.evaluation.checkpoint, run.allow_older)
    return refuse_other_step(run, chosen)


def refuse_other_step(run: FinishedRun, chosen: Checkpoint) -> Checkpoint:
    """Return the checkpoint if it is the one that the run's own result was measured with, or the run has none.

    If it is another, the one that was measured is gone, and counts as skipped.

    Raises:
      CheckpointError: no other one may stand in for it.
    """
    measured = run.measured_steps.get(chosen.stage, chosen.step)
    place = (run.path / "checkpoints" / chosen.stage / str(measured)).absolute()
    if measured == chosen.step or place in (path for path, _ in chosen.skipped):
        return chosen
    what = f"the checkpoint that the result of the run was measured with, step {measured}, is gone"
    if not run.allow_older:
        raise errors.CheckpointError(what, str(place), checkpoints.ASK)
    logger.warning("%s: step %d stands in for it", what, chosen.step)
    return chosen._replace(skipped=(*chosen.skipped, Skipped(place, what)))
