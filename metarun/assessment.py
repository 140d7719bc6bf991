"""Measuring the stages of a run, at its end or afterwards from its checkpoints. Writes nothing."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from metarun import (
    base,
    building,
    config,
    differences,
    errors,
    evaluation,
    measuring,
    optimizer,
    parallel,
    population,
    training,
)
from metarun.base import PyTree
from metarun.progress import Progress
from metarun.runs import checkpoints, directory
from metarun.runs.checkpoints import Checkpoint


class Outcome(NamedTuple):
    """What a run, or an evaluation of one, gave."""

    path: Path
    result: dict[str, Any]


class Trained(NamedTuple):
    """A stage as it is measured."""

    step: int
    weights: base.Weights


class Problem(NamedTuple):
    """A task family on a device: as in training, and as it is evaluated."""

    family: base.TaskFamily
    data: dict[str, PyTree]  # {split: arrays}
    judge: measuring.Judge


def prepare(run_config: config.RunConfig, device: jax.Device) -> Problem:
    """Build the task family and put its data on the device, once for training and evaluation."""
    family = building.task_family(run_config.task)
    data = {split: jax.device_put(part, device) for split, part in family.data.items()}
    return Problem(family, data, measuring.make_judge(run_config, family, data))


def evaluate(
    path: Path, overrides: list[str], split: str | None, progress: Progress, stage: str | None = None
) -> Outcome:
    """Measure a run, one stage or one checkpoint of it, on the frozen episodes. Writes nothing.

    Args:
      path: a run directory, or RUN/checkpoints/<stage>/<step>.
      overrides: `key=value` of the evaluation and accelerator sections.
      split: in place of the one that the config evaluates.
      stage: None: that of the checkpoint, or all of the run.
    """
    root, asked = split_path(path)
    directory.read_config(root)
    run_config = config.load(
        root / directory.CONFIG, [*overrides, *([f"evaluation.split={split}"] if split else [])]
    )
    differences.refuse_other_changes(config.load(root / directory.CONFIG), run_config)
    index = stage_index(run_config, root, asked, stage)
    device = parallel.select(run_config.accelerator)[0]
    problem = prepare(run_config, device)
    trained = restore_stages(run_config, root, asked, problem, device, index + 1)
    if asked is not None or stage is not None:
        name = run_config.stages[index].name
        trained = {name: trained[name]}
    result, _ = measure(run_config, problem, trained, progress)
    return Outcome(path, {"run": str(root)} | result)


def split_path(path: Path) -> tuple[Path, Path | None]:
    """(run, None) of a run directory; (run, checkpoint) of RUN/checkpoints/<stage>/<step>."""
    whole = path.resolve()
    return (whole.parents[2], whole) if whole.parent.parent.name == "checkpoints" else (path, None)


def stage_index(run_config: config.RunConfig, root: Path, asked: Path | None, stage: str | None) -> int:
    """Which stage is meant.

    Raises:
      UsageError: there is no such stage, or the checkpoint is of another one.
    """
    names = [each.name for each in run_config.stages]
    wanted = stage or (asked.parent.name if asked else names[-1])
    if wanted not in names:
        raise errors.UsageError(f"the run has no stage {wanted}", str(root), f"use one of {', '.join(names)}")
    if asked is not None and asked.parent.name != wanted:
        remedy = f"leave the stage out, or give RUN/checkpoints/{wanted}/<step>"
        raise errors.UsageError(f"the checkpoint is not of stage {wanted}", str(asked), remedy)
    return names.index(wanted)


def choose_checkpoint(root: Path, stage: str, asked: Path | None, wanted: str) -> Checkpoint | None:
    """The checkpoint of a stage that an evaluation means; None where one of another stage was asked for alone."""
    if asked is not None and asked.parent.name == stage:
        return checkpoints.open_checkpoint(asked)
    saved = checkpoints.Checkpoints(root / "checkpoints" / stage)
    if asked is not None:
        return saved.newest_valid()
    return (saved.best_valid() if wanted == "best" else None) or checkpoints.open_checkpoint(root, stage)


def restore_stages(
    run_config: config.RunConfig,
    root: Path,
    asked: Path | None,
    problem: Problem,
    device: jax.Device,
    count: int,
) -> dict[str, Trained]:
    """The weights of the first `count` stages that have a checkpoint; `asked` is in the place of its stage's own."""
    trained: dict[str, Trained] = {}
    for index, stage in enumerate(run_config.stages[:count]):
        found = choose_checkpoint(root, stage.name, asked, run_config.evaluation.checkpoint)
        if found is not None:
            earlier = {name: part.weights for name, part in trained.items()}
            trained[stage.name] = restore(run_config, index, problem, earlier, found, device)
    return trained


def restore(
    run_config: config.RunConfig,
    index: int,
    problem: Problem,
    earlier: dict[str, base.Weights],
    checkpoint: Checkpoint,
    device: jax.Device,
) -> Trained:
    """The weights of a checkpoint, on the device."""
    template = state_template(run_config, index, problem, earlier)
    weights = checkpoints.load(checkpoint, template).weights
    return Trained(checkpoint.step, jax.device_put(weights, device))


def state_template(
    run_config: config.RunConfig, index: int, problem: Problem, earlier: dict[str, base.Weights]
) -> training.State:
    """Shapes and dtypes of a stage's state; computes nothing."""
    stage_training = run_config.stages[index].training
    algorithm = building.algorithm(run_config, index, problem.family)
    mesh = parallel.make_mesh(jax.local_devices()[:1], stage_training.tasks_per_step, run_config.replicas)
    chain = optimizer.build(stage_training)
    loop = training.Loop(algorithm, problem.family.sample, chain, stage_training, mesh)
    initial = functools.partial(training.initial_states, loop)
    return jax.eval_shape(initial, problem.data["train"], population.keys(run_config, index), earlier)


def measure(
    run_config: config.RunConfig,
    problem: Problem,
    trained: dict[str, Trained],
    progress: Progress,
    before_stage: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The result, and {stage: {variant/metric: [episode]}}, of the frozen episodes of the configured split.

    Args:
      before_stage: is called before each stage is measured; what it raises ends the evaluation.

    Raises:
      ConfigError: the split is empty, or the learner cannot tell as many classes apart.
    """
    wanted, judge = run_config.evaluation, problem.judge
    measuring.check_split(judge, wanted.split)
    keys = evaluation.episode_keys(wanted.seed, wanted.split, wanted.episodes)
    data = judge.data[wanted.split]
    groups = evaluation.episode_groups(judge.family, data, keys)
    names = judge.family.groups.names if judge.family.groups else ()
    results, values = {}, {}
    for index, stage in enumerate(run_config.stages):
        if stage.name not in trained:
            continue
        before_stage()
        progress.measuring(stage.name, wanted.split, wanted.episodes)
        measured = measure_stage(run_config, index, problem, trained[stage.name].weights, wanted.split)
        result = {"step": trained[stage.name].step}
        if stage.copies is None:
            result |= measuring.layout(measured, names, groups)
        else:
            best = best_members(run_config, index, problem, trained[stage.name].weights, measured)
            result |= measuring.layout_members(measured, best, names, groups)
        results[stage.name] = result
        values[stage.name] = measuring.columns(measured) | ({} if groups is None else {"group": groups})
    episodes = {
        "count": wanted.episodes,
        "hash": evaluation.episodes_hash(judge.family, data, keys, judge.recipe),
    }
    head: dict[str, Any] = {
        "step": trained[list(trained)[-1]].step,
        "split": wanted.split,
        "modes": list(wanted.modes),
    }
    if run_config.replicas > 1:
        head["seeds"] = [run_config.seed + replica for replica in range(run_config.replicas)]
    return head | {"episodes": episodes, "stages": results}, values


def measure_stage(
    run_config: config.RunConfig, index: int, problem: Problem, weights: base.Weights, split: str
) -> evaluation.Values:
    """Every variant of a stage, [replica, member, episode], on the frozen episodes of a split.

    Raises:
      ConfigError: the learner cannot tell as many classes apart.
    """
    wanted, judge, stage = run_config.evaluation, problem.judge, run_config.stages[index]
    chosen = measuring.variants(
        run_config, index, problem.family, wanted.modes, wanted.inner_steps, judge.family.objective
    )
    place = population.positions(run_config, index)[0]
    shapes = jax.eval_shape(lambda: population.take(weights, place))
    measuring.check_ways(judge, problem.family, next(iter(chosen.values())), shapes)
    at_once = stage.training.task_chunk or stage.training.tasks_per_step
    axes = len(population.sizes(run_config, index))
    keys = evaluation.episode_keys(wanted.seed, split, wanted.episodes)
    measured: evaluation.Values = evaluation.make_measure(chosen, judge.family, at_once, axes)(
        weights, judge.data[split], keys
    )
    return measured


def best_members(
    run_config: config.RunConfig,
    index: int,
    problem: Problem,
    weights: base.Weights,
    measured: evaluation.Values,
) -> np.ndarray | None:
    """Which member is the best of the validation split, [] or [replica]; None where there is no such split.

    Args:
      measured: on the configured split, and not measured again where that is the one.
    """
    if "validation" not in problem.judge.data:
        return None
    if run_config.evaluation.split != "validation":
        measured = measure_stage(run_config, index, problem, weights, "validation")
    objective = problem.judge.family.objective
    column = measured[f"{run_config.evaluation.modes[0]}/adapted"][objective.selection]
    means = column.mean(axis=-1, dtype=np.float64)
    badness = np.where(np.isnan(means), np.inf, -means if objective.higher_is_better else means)
    return np.asarray(np.argmin(badness, axis=-1))
