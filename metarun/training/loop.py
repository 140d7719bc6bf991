"""The outer loop of one stage as one compiled program.

What is written here for one learner is vmapped over the leading axes of the stage's keys, [replica, member], if there
are any (see `metarun.stages`): every learner has its own weights, memory and tasks, and all share the data.

A chunk samples the tasks of each step on the device, adapts to them in parallel, takes the outer step and notes the
metrics of every step; nothing returns to the host inside it. How many steps a chunk has is an argument of the program
and not a constant in it: one compilation serves every chunk, and the length of the chunks cannot change a bit of the
result.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Int, Key, PRNGKeyArray

from metarun import base, hardware, trees
from metarun.base import PyTree
from metarun.config import Training
from metarun.stages import STEPS
from metarun.training.optimizer import Optimizer

CAPACITY = 1000  # steps of the longest chunk: the rows of the program's table of metrics


class State(NamedTuple):
    """All that changes from step to step. The random keys are not in it: they follow from the step's number."""

    weights: base.Weights
    memory: PyTree  # of the optimizer


class Chunk(NamedTuple):
    """What some consecutive steps gave."""

    state: State
    metrics: dict[str, np.ndarray]  # {name: [step, replica, member]}, the mean over the tasks of each step
    # [replica, member]: whether the last of these steps was finite; a step that is not ends the chunk
    finite: np.ndarray


class Loop(NamedTuple):
    """What the outer loop of a stage is made of."""

    algorithm: base.Algorithm
    sample: Callable[[PyTree, PRNGKeyArray], base.Episode]  # of the task family
    optimizer: Optimizer
    training: Training
    mesh: Mesh


class Program(NamedTuple):
    """The compiled loop of one stage."""

    # (state, first step, count <= CAPACITY) -> Chunk; takes over the state's memory
    run: Callable[[State, int, int], Chunk]
    compile_seconds: float


def make_task_keys(key: PRNGKeyArray, step: ArrayLike, tasks: Int[Array, "task"]) -> Key[Array, "task"]:
    """Return the keys of some tasks of a step, by their global task index."""
    step_key = jax.random.fold_in(jax.random.fold_in(key, STEPS), step)
    return jax.vmap(lambda task: jax.random.fold_in(step_key, task))(tasks)


def make_gradient(loop: Loop) -> Callable:
    """Make (weights, data, task keys, progress) -> (gradient, metrics), both means over the tasks.

    The task keys are shared out over the mesh; each device takes its own `task_chunk` at a time. With replicas the
    whole loop is laid over the mesh, and the gradient is called on each device, with all task keys of the step.
    """
    differentiate = jax.grad(make_mean_loss(loop), has_aux=True)

    def average(weights: base.Weights, data: PyTree, keys: Key[Array, "task"], progress):
        def differentiate_tasks(task_keys):
            return differentiate(weights.trained, weights.frozen, data, task_keys, progress)

        means = average_in_chunks(differentiate_tasks, keys, loop.training.task_chunk)
        return jax.lax.pmean(means, hardware.TASK)

    def average_own_tasks(weights: base.Weights, data: PyTree, keys: Key[Array, "task"], progress):
        share = keys.shape[0] // loop.mesh.shape[hardware.TASK]
        first = jax.lax.axis_index(hardware.TASK) * share
        return average(weights, data, jax.lax.dynamic_slice_in_dim(keys, first, share), progress)

    if hardware.has_replicas(loop.mesh):
        return average_own_tasks
    everywhere, shared = PartitionSpec(), PartitionSpec(hardware.TASK)
    return jax.shard_map(
        average,
        mesh=loop.mesh,
        in_specs=(everywhere, everywhere, shared, everywhere),
        out_specs=everywhere,
        check_vma=False,
    )


def make_mean_loss(loop: Loop) -> Callable:
    """Make (trained, frozen, data, task keys, progress) -> (mean loss, mean metrics) of freshly sampled tasks."""

    def mean_loss(trained: PyTree, frozen: PyTree, data: PyTree, keys: Key[Array, "task"], progress):
        def measure_task(key):
            sample_key, loss_key = jax.random.split(key)
            episode = loop.sample(data, sample_key)
            return loop.algorithm.loss(base.Weights(trained, frozen), episode, loss_key, progress)

        losses, metrics = jax.vmap(measure_task)(keys)
        return losses.mean(), jax.tree.map(jnp.mean, metrics | {"loss": losses})

    return mean_loss


def average_in_chunks(differentiate: Callable, keys: Key[Array, "task"], task_chunk: int | None) -> PyTree:
    """Return what `differentiate` gives for all keys, a mean over the tasks, from `task_chunk` of them at a time."""
    chunks = keys.shape[0] // (task_chunk or keys.shape[0])
    if chunks <= 1:
        return differentiate(keys)
    shapes = jax.eval_shape(differentiate, keys[: keys.shape[0] // chunks])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total, chunk_keys):
        return jax.tree.map(jnp.add, total, differentiate(chunk_keys)), None

    total, _ = jax.lax.scan(add, zeros, keys.reshape(chunks, -1))
    return jax.tree.map(lambda leaf: leaf / chunks, total)


def make_step(loop: Loop) -> Callable:
    """Make (state, data, key, step) -> (state, metrics, whether all is finite): one outer step."""
    gradient = make_gradient(loop)

    def outer_step(state: State, data: PyTree, key: PRNGKeyArray, step):
        keys = make_task_keys(key, step, jnp.arange(loop.training.tasks_per_step))
        progress = jnp.asarray(step, jnp.float32) / loop.training.steps

        def differentiate_at(trained: PyTree):
            return gradient(state.weights._replace(trained=trained), data, keys, progress)

        stepped = loop.optimizer.step(differentiate_at, state.weights.trained, state.memory)
        finite = jnp.isfinite(stepped.metrics["loss"]) & trees.all_finite(stepped.trained)
        metrics = stepped.metrics | {"gradient_norm": optax.tree.norm(stepped.gradient)}
        return State(state.weights._replace(trained=stepped.trained), stepped.memory), metrics, finite

    return outer_step


def make_chunk(outer_step: Callable) -> Callable:
    """Make (state, data, key, first step, count) -> (state, {name: [CAPACITY]}, steps taken, finite).

    The chunk ends early with the first step that is not finite, for any of the learners of `outer_step`.
    """

    def chunk(state: State, data: PyTree, key: Key[Array, "..."], first_step, count):
        _, shapes, flags = jax.eval_shape(outer_step, state, data, key, first_step)
        table = {name: jnp.zeros((CAPACITY, *leaf.shape), leaf.dtype) for name, leaf in shapes.items()}

        def is_unfinished(carry):
            return (carry[0] < count) & carry[3].all()

        def advance(carry):
            index, state, table, _ = carry
            state, metrics, finite = outer_step(state, data, key, first_step + index)
            table = {name: column.at[index].set(metrics[name]) for name, column in table.items()}
            return index + 1, state, table, finite

        start = (jnp.zeros((), jnp.uint32), state, table, jnp.ones(flags.shape, bool))
        taken, state, table, finite = jax.lax.while_loop(is_unfinished, advance, start)
        return state, table, taken, finite

    return chunk


def make_program(loop: Loop, axes: int) -> Callable:
    """Make what `make_chunk` makes, for all learners of a stage on the mesh; keys are [replica, member].

    With replicas every device takes its own replicas through the steps and waits for no other device; the steps taken
    are then an array, one number for each replica.
    """
    outer_step = make_step(loop)
    for _ in range(axes):
        outer_step = jax.vmap(outer_step, in_axes=(0, None, 0, None))
    chunk = make_chunk(outer_step)
    if not hardware.has_replicas(loop.mesh):
        return chunk

    def run_replicas(state: State, data: PyTree, keys: Key[Array, "replica ..."], first_step, count):
        state, table, taken, finite = chunk(state, data, keys, first_step, count)
        return state, table, jnp.full(keys.shape[:1], taken), finite

    shared, everywhere = PartitionSpec(hardware.REPLICA), PartitionSpec()
    return jax.shard_map(
        run_replicas,
        mesh=loop.mesh,
        in_specs=(shared, everywhere, shared, everywhere, everywhere),
        out_specs=(shared, PartitionSpec(None, hardware.REPLICA), shared, shared),
        check_vma=False,
    )


def compile_program(loop: Loop, data: PyTree, key: Key[Array, "..."], state: State) -> Program:
    """Compile the loop of a stage for its data (the training split) and a state like `state`, on the mesh.

    Args:
      key: of the stage, or one for each of its learners, [replica, member], the leading axes of `state`.
    """
    replicated = NamedSharding(loop.mesh, PartitionSpec())

    def put_number(value: int):
        return jax.device_put(np.uint32(value), replicated)

    started = time.perf_counter()
    shardings = None if hardware.has_replicas(loop.mesh) else replicated  # None: as the program lays them out
    jitted = jax.jit(make_program(loop, key.ndim), donate_argnums=0, out_shardings=shardings)
    compiled = jitted.lower(state, data, key, put_number(0), put_number(0)).compile()
    compile_seconds = time.perf_counter() - started

    def run(state: State, first_step: int, count: int) -> Chunk:
        state, table, taken, finite = compiled(state, data, key, put_number(first_step), put_number(count))
        taken, finite = jax.device_get((taken, finite))
        rows = int(taken.min())  # a device whose replicas stayed finite went on
        metrics = {name: np.asarray(column)[:rows] for name, column in jax.device_get(table).items()}
        ended_here = (taken == rows).reshape(taken.shape + (1,) * (finite.ndim - taken.ndim))
        return Chunk(state, metrics, np.asarray(finite | ~ended_here))

    return Program(run, compile_seconds)
