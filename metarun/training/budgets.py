"""When a stage ends: with the first of its budgets that is used up, `training.steps`, `seconds` or `flops`.

A budget in FLOPs is turned into steps before the training begins, so it gives the same bits every time. The FLOPs of a
step are counted in the traced program of ONE replica on one device (`operations`), with all its tasks and members. So
they depend on nothing but the config: neither on the device, the task chunk and the number of replicas, nor on how
often the compiler merges what is computed twice.

A budget in seconds is looked at between two chunks. How many steps fit into it differs from run to run, so a schedule
cannot have its length, and a loss that changes with the share of the steps cannot be trained by it alone.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval

from metarun import base, errors, meshes
from metarun.assembly import Tasks
from metarun.config import Training
from metarun.stages import Stage, take_learner
from metarun.training import loop, operations, optimizer, task_chunks
from metarun.training.gradient import Shares, make_mean_loss, share_tasks
from metarun.training.loop import Loop, Program, State

End = Literal["steps", "seconds", "flops"]  # the budget that is used up


def find_end(training: Training, step: int, seconds: float, step_flops: float | None = None) -> End | None:
    """Return the budget with which a training ends; None: it goes on.

    Args:
      step: how many steps are done.
      seconds: that they took.
      step_flops: FLOPs of a step, if they are known.
    """
    if step >= training.last_step:
        ends_by_flops = training.flops is not None and step_flops and (step + 1) * step_flops > training.flops
        return "flops" if ends_by_flops else "steps"
    return "seconds" if training.seconds is not None and seconds >= training.seconds else None


def describe(training: Training, place: str) -> str:
    """Return `600 steps of 32 tasks on 1 cpu device(s)`, with the budgets beside the steps.

    Args:
      place: where the steps are taken, such as `1 cpu device(s)`.
    """
    steps = "" if training.steps is None else f"{training.steps:,} "
    most = "at most " * bool(steps and training.seconds is not None)
    flops = "" if training.flops is None else f", within {training.flops:.4g} FLOPs"
    seconds = "" if training.seconds is None else f", for {training.seconds:g} seconds"
    return f"{most}{steps}steps of {training.tasks_per_step} tasks on {place}{flops}{seconds}"


def count_seconds_left(training: Training, seconds: float) -> float | None:
    """Return the seconds that a budget leaves after some of training; None: there is no such budget."""
    return None if training.seconds is None else training.seconds - seconds


def settle(stages: Sequence[Stage], shapes: Mapping[str, base.Weights], tasks: Tasks) -> list[Stage]:
    """Return the stages with the number of steps wherever there is a budget in FLOPs. Taken stages stay as they are.

    Args:
      shapes: of the weights of each stage, by its name.

    Raises:
      ConfigError: the budget is too small for a step, a step has no FLOPs to count, or the loss needs a length.
    """

    def settle_stage(stage: Stage) -> int | None:
        training = stage.training
        if stage.settings.taken_from is not None:  # it was trained in another run, perhaps on another task
            return training.steps
        if training.flops is not None:
            return min(training.last_step, count_steps(stage, shapes[stage.name], tasks))
        if training.steps is None and reads_progress(stage, shapes[stage.name], tasks):
            raise errors.ConfigError(
                "the loss changes with the share of the steps that are done, and seconds do not tell their number",
                f"stage {stage.name}: training.seconds",
                "add training.steps, the number that the share is of; the training then ends with the first of the two",
            )
        return training.steps

    return replace(stages, [settle_stage(stage) for stage in stages])


def replace(stages: Sequence[Stage], steps: Sequence[int | None]) -> list[Stage]:
    """Return the stages with these numbers of steps.

    Raises:
      ConfigError: the schedule warms up for as many.
    """
    for stage, count in zip(stages, steps, strict=True):
        warmup_steps = getattr(stage.training.optimizer.config.schedule.config, "warmup_steps", 0)
        if count is not None and 0 < count <= warmup_steps:
            raise errors.ConfigError(
                f"the schedule warms up for {warmup_steps} steps, and the budget gives {count}",
                f"stage {stage.name}: training.flops",
                "raise training.flops, or lower the schedule's warmup_steps",
            )
    return task_chunks.replace_training(stages, [{"steps": count} for count in steps])


def count_steps(stage: Stage, weights: base.Weights, tasks: Tasks) -> int:
    """Return how many steps fit into the budget in FLOPs.

    Args:
      weights: their shapes, with the leading axes of the stage.

    Raises:
      ConfigError: none fits, or a step has no FLOPs to count.
    """
    budget = stage.training.flops or 0.0
    step_flops = count_step_flops(stage, weights, tasks)
    if not step_flops or budget < step_flops:
        what = f"one outer step takes {step_flops:.0f} FLOPs, more than the budget of {budget:.0f}"
        remedy = f"give at least {step_flops:.0f}, or training.steps in place of training.flops"
        if not step_flops:
            what = "an outer step has no matrix products or convolutions, so its FLOPs are not counted"
            remedy = "give training.steps or training.seconds in place of training.flops"
        raise errors.ConfigError(what, f"stage {stage.name}: training.flops", remedy)
    return int(budget // step_flops)


def count_step_flops(stage: Stage, weights: base.Weights, tasks: Tasks) -> float:
    """Count the FLOPs of one outer step of one replica, all its members and tasks. Computes nothing.

    Args:
      weights: their shapes, with the leading axes of the stage.
    """
    learner = take_learner(weights, stage.positions[0])
    mesh = meshes.make_mesh(jax.local_devices()[:1], stage.training.tasks_per_step, 1)
    training = dataclasses.replace(stage.training, task_chunk=None)
    built = Loop(stage.build_algorithm(), tasks.family.sample, optimizer.build(training), training, mesh)
    state = State(learner, jax.eval_shape(built.optimizer.init, learner.trained))
    key, data = jax.eval_shape(lambda: (jax.random.key(0), tasks.data["train"]))
    traced = jax.make_jaxpr(loop.make_step(built))(state, data, key, jnp.uint32(0))
    return stage.axes.get("member", 1) * operations.count_flops(traced.jaxpr)


def count_program_flops(program: Program, built: Loop) -> tuple[float, bool]:
    """Count what `count_step_flops` does, in the program that trains the stage: it needs no other trace.

    Replicas and tasks that only fill up the devices are not counted.

    Returns:
      the FLOPs of a step, and whether it may take more: it has a loop of unknown length, which counts once.
    """
    tasks, chunk, mesh = built.training.tasks_per_step, built.training.task_chunk, built.mesh
    replicas = built.stage.axes.get("replica", 1) if built.stage else 1
    rows = mesh.shape[meshes.REPLICA] if meshes.has_replicas(mesh) else 1
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), tasks))
    places = jax.eval_shape(lambda keys: share_tasks(keys, mesh.shape[meshes.TASK], chunk).keys, keys).size
    jaxpr = program.traced.jaxpr.jaxpr
    flops = operations.count_flops(jaxpr) * tasks / (places * rows * -(-replicas // rows))
    return flops, operations.count_open_loops(
        jaxpr
    ) > 1  # the loop over the steps is one, and counts once rightly


def reads_progress(stage: Stage, weights: base.Weights, tasks: Tasks) -> bool:
    """Return whether the loss of a stage, or its gradient, depends on the share of the steps that are done.

    Args:
      weights: their shapes, with the leading axes of the stage.
    """
    learner = take_learner(weights, stage.positions[0])
    keys, data = jax.eval_shape(lambda: (jax.random.split(jax.random.key(0), 1), tasks.data["train"]))
    mean_loss = make_mean_loss(stage.build_algorithm(), tasks.family.sample)
    share = jax.ShapeDtypeStruct((), jnp.float32)
    traced = jax.make_jaxpr(mean_loss)(learner.trained, learner.frozen, data, Shares(keys, None), share)
    _, used = partial_eval.dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars))
    return bool(used[-1])
