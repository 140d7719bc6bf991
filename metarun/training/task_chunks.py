"""How many tasks a device computes at once, where a config leaves it open (`training.task_chunk: auto`).

On a CPU a step whose arrays do not fit into the cache waits for memory; so as many tasks are computed at once as keep
the largest array within the cache of a core. The cost of more and shorter operations is small beside that. Every
other device computes all tasks at once, if its memory holds them.

The arrays are read from the traced loss: nothing is compiled and nothing is timed, so the same config has the same
answer whenever it is asked for on a machine.
"""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from metarun import base
from metarun.assembly import Tasks
from metarun.stages import Stage, take_learner
from metarun.training import operations
from metarun.training.gradient import Shares, make_mean_loss

# The loss is traced for a prime number of tasks: an array has an entry for each task if this number divides its size.
TRACED_TASKS = 10_007
CACHE_BYTES = 2**20  # of a core, where the system does not say
CACHES = Path("/sys/devices/system/cpu")
UNITS = {"K": 2**10, "M": 2**20}
MEMORY_SHARE = 0.8  # of a device's memory, for the arrays of a step


TaskChunk = int | Literal["auto"] | None  # as in the config


class ArrayBytes(NamedTuple):
    """The arrays that the loss of one task computes."""

    largest: int
    total: int


def settle(
    stages: Sequence[Stage], shapes: Mapping[str, base.Weights], tasks: Tasks, device: jax.Device
) -> list[Stage]:
    """Return the stages with a number, or null for all tasks, wherever `task_chunk` is `auto`.

    Args:
      shapes: of the weights of each stage, by its name.
    """

    memory = MEMORY_SHARE * (device.memory_stats() or {}).get("bytes_limit", math.inf)

    def settle_stage(stage: Stage) -> TaskChunk:
        if stage.training.task_chunk != "auto":
            return stage.training.task_chunk
        arrays = measure(stage, shapes[stage.name], tasks)
        return choose(stage.training.tasks_per_step, arrays, device.platform, memory)

    return replace(stages, [settle_stage(stage) for stage in stages])


def replace(stages: Sequence[Stage], chunks: Sequence[TaskChunk]) -> list[Stage]:
    """Return the stages with these task chunks."""
    return replace_training(stages, [{"task_chunk": chunk} for chunk in chunks])


def replace_training(stages: Sequence[Stage], changes: Sequence[Mapping[str, Any]]) -> list[Stage]:
    """Return the stages with other training settings, {name: value} for each, also where they are earlier stages."""
    replaced: dict[str, Stage] = {}
    for stage, changed in zip(stages, changes, strict=True):
        earlier = tuple(replaced[before.name] for before in stage.earlier)
        training = dataclasses.replace(stage.settings.training, **changed)
        if training == stage.settings.training and earlier == stage.earlier:
            replaced[stage.name] = stage
            continue
        settings = dataclasses.replace(stage.settings, training=training)
        replaced[stage.name] = dataclasses.replace(stage, settings=settings, earlier=earlier)
    return list(replaced.values())


def measure(stage: Stage, weights: base.Weights, tasks: Tasks) -> ArrayBytes:
    """Return the size of the arrays that one task of a stage needs, for all its members.

    Args:
      weights: their shapes, with the leading axes of the stage.
    """
    learner = take_learner(weights, stage.positions[0])
    data = jax.eval_shape(lambda: tasks.data["train"])
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), TRACED_TASKS))
    mean_loss = make_mean_loss(stage.build_algorithm(), tasks.family.sample)
    progress = jax.ShapeDtypeStruct((), jnp.float32)
    traced = jax.make_jaxpr(mean_loss)(learner.trained, learner.frozen, data, Shares(keys, None), progress)
    sizes = list(list_task_bytes(traced.jaxpr))
    members = stage.axes.get("member", 1)
    return ArrayBytes(members * max(sizes, default=0), members * sum(sizes))


def list_task_bytes(jaxpr: Any) -> Iterator[int]:
    """Yield the bytes, for each task, of the arrays that a traced program computes and that have an entry for each."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            share, rest = divmod(variable.aval.size, TRACED_TASKS)
            if rest == 0:
                yield share * variable.aval.dtype.itemsize
        for inner in operations.list_inner_jaxprs(equation):
            yield from list_task_bytes(inner)


def choose(tasks_per_step: int, arrays: ArrayBytes, platform: str, memory: float = math.inf) -> int | None:
    """Return the largest divisor of the tasks of a step that suits a device; None: all, on what is no CPU.

    Args:
      memory: bytes that a device has for the arrays of a step; a CPU is not asked.
    """
    if platform == "cpu":
        return find_divisor(tasks_per_step, read_cache_bytes(), arrays.largest)
    chunk = find_divisor(tasks_per_step, memory, arrays.total)
    return None if chunk == tasks_per_step else chunk


def find_divisor(tasks: int, room: float, size: int) -> int:
    """Return the largest divisor of `tasks` that many tasks of this size fit into the room; at least 1."""
    return max(
        count for count in range(1, tasks + 1) if tasks % count == 0 and (count == 1 or count * size <= room)
    )


def read_cache_bytes() -> int:
    """Return the size of the second-level cache of a core, which no other core uses on most machines."""
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    for folder in sorted((CACHES / f"cpu{core}" / "cache").glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
            if level == "2" and kind in ("Unified", "Data"):
                return int(size.rstrip("KM")) * UNITS.get(size[-1:], 1)
        except (OSError, ValueError):
            continue
    return CACHE_BYTES
