"""The outer loop of one stage as one compiled program, and the pace at which the host calls it.

What is written here for one learner is vmapped over the leading axes of the stage's keys, [replica, member], if there
are any (see `metarun.population`): every learner has its own weights, memory and tasks, and all share the data.

A chunk samples the tasks of each step on the device, adapts to them in parallel, takes the outer step and
notes the metrics of every step; nothing returns to the host inside it. How many steps a chunk has is an
argument of the program and not a constant in it: one compilation serves every chunk, and the length of the
chunks cannot change a bit of the result.
"""

import functools
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

from metarun import base, parallel, trees
from metarun.base import PyTree
from metarun.config import Training
from metarun.optimizer import Optimizer

CAPACITY = 1000  # steps of the longest chunk: the rows of the program's table of metrics
CHUNK_SECONDS = 1.0  # what a chunk should last: long beside a call, short beside a wait for Ctrl-C


class State(NamedTuple):
    """All that changes from step to step. The random keys are not in it: they follow from the step's number."""

    weights: base.Weights
    optimizer: PyTree


class Chunk(NamedTuple):
    """What some consecutive steps gave."""

    state: State
    metrics: dict[str, np.ndarray]  # {name: [step, replica, member]}, the mean over the tasks of each step
    finite: np.ndarray  # [replica, member], whether the last of these steps was; else it ended the chunk


class Loop(NamedTuple):
    """What the outer loop of a stage is made of."""

    algorithm: base.Algorithm
    sample: Callable[[PyTree, PRNGKeyArray], base.Episode]  # of the task family
    optimizer: Optimizer
    training: Training
    mesh: Mesh


class Program(NamedTuple):
    """The compiled loop of one stage."""

    run: Callable[
        [State, int, int], Chunk
    ]  # (state, first step, count <= CAPACITY); takes over the state's memory
    compile_seconds: float


def stage_key(seed: int, stage: int) -> PRNGKeyArray:
    """The root of all random numbers of a stage: the run's seed and the stage's place in the run."""
    return jax.random.fold_in(jax.random.key(seed), stage)


def sampling_keys(key: PRNGKeyArray, step: ArrayLike, tasks: Int[Array, "task"]) -> Key[Array, "task"]:
    """The keys of some tasks of a step, by their global task index."""
    step_key = jax.random.fold_in(jax.random.fold_in(key, 1), step)
    return jax.vmap(lambda task: jax.random.fold_in(step_key, task))(tasks)


def initial_state(loop: Loop, data: PyTree, key: PRNGKeyArray, earlier: dict[str, base.Weights]) -> State:
    """The state before the first step. `data` is the training split."""
    init_key, episodes_key = jax.random.split(jax.random.fold_in(key, 0))
    keys = jax.random.split(episodes_key, loop.training.tasks_per_step)
    episodes = jax.vmap(loop.sample, in_axes=(None, 0))(data, keys)
    weights = loop.algorithm.init(init_key, episodes, earlier)
    return State(weights, loop.optimizer.init(weights.trained))


def initial_states(
    loop: Loop, data: PyTree, keys: Key[Array, "..."], earlier: dict[str, base.Weights]
) -> State:
    """The states of all learners before the first step, [replica, member] as `keys`.

    Args:
      earlier: the weights of the stages before this one. They have the replica axis, too; a member axis among their
        leading axes is their own: every member of this stage sees all members of those.
    """
    start = functools.partial(initial_state, loop)
    over_replicas = parallel.has_replicas(loop.mesh)
    if keys.ndim > over_replicas:
        start = jax.vmap(start, in_axes=(None, 0, None))
    if over_replicas:
        start = jax.vmap(start, in_axes=(None, 0, 0))
    state: State = start(data, keys, earlier)
    return state


def make_gradient(loop: Loop) -> Callable:
    """(weights, data, task keys, share of the steps done) -> (gradient, metrics), both means over the tasks.

    The task keys are shared out over the mesh; each device takes its own `task_chunk` at a time. With replicas the
    whole loop is laid over the mesh, and the gradient is called on each device, with all task keys of the step.
    """
    task_chunk = loop.training.task_chunk

    def mean_loss(trained: PyTree, frozen: PyTree, data: PyTree, keys: Key[Array, "task"], done):
        def one_task(key):
            sample_key, loss_key = jax.random.split(key)
            episode = loop.sample(data, sample_key)
            annealed = (done,) if loop.algorithm.annealed else ()
            return loop.algorithm.loss(base.Weights(trained, frozen), episode, loss_key, *annealed)

        losses, metrics = jax.vmap(one_task)(keys)
        return losses.mean(), jax.tree.map(jnp.mean, metrics | {"loss": losses})

    def on_device(weights: base.Weights, data: PyTree, keys: Key[Array, "task"], done):
        def of_chunk(chunk_keys):
            slope = jax.grad(mean_loss, has_aux=True)
            return slope(weights.trained, weights.frozen, data, chunk_keys, done)

        chunks = keys.shape[0] // (task_chunk or keys.shape[0])
        if chunks <= 1:
            means = of_chunk(keys)
        else:
            shapes = jax.eval_shape(of_chunk, keys[: keys.shape[0] // chunks])
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

            def add(total, chunk_keys):
                return jax.tree.map(jnp.add, total, of_chunk(chunk_keys)), None

            total, _ = jax.lax.scan(add, zeros, keys.reshape(chunks, -1))
            means = jax.tree.map(lambda leaf: leaf / chunks, total)
        return jax.lax.pmean(means, parallel.TASK)

    def on_own_tasks(weights: base.Weights, data: PyTree, keys: Key[Array, "task"], done):
        share = keys.shape[0] // loop.mesh.shape[parallel.TASK]
        first = jax.lax.axis_index(parallel.TASK) * share
        return on_device(weights, data, jax.lax.dynamic_slice_in_dim(keys, first, share), done)

    if parallel.has_replicas(loop.mesh):
        return on_own_tasks
    everywhere, shared = PartitionSpec(), PartitionSpec(parallel.TASK)
    return jax.shard_map(
        on_device,
        mesh=loop.mesh,
        in_specs=(everywhere, everywhere, shared, everywhere),
        out_specs=everywhere,
        check_vma=False,
    )


def make_step(loop: Loop) -> Callable:
    """(state, data, key, step) -> (state, metrics, whether all is finite): one outer step."""
    gradient = make_gradient(loop)

    def outer_step(state: State, data: PyTree, key: PRNGKeyArray, step):
        keys = sampling_keys(key, step, jnp.arange(loop.training.tasks_per_step))
        done = jnp.asarray(step, jnp.float32) / loop.training.steps

        def gradient_at(trained: PyTree):
            return gradient(state.weights._replace(trained=trained), data, keys, done)

        stepped = loop.optimizer.step(gradient_at, state.weights.trained, state.optimizer)
        finite = jnp.isfinite(stepped.metrics["loss"]) & trees.all_finite(stepped.trained)
        metrics = stepped.metrics | {"gradient_norm": optax.tree.norm(stepped.gradient)}
        return State(state.weights._replace(trained=stepped.trained), stepped.memory), metrics, finite

    return outer_step


def make_chunk(outer_step: Callable) -> Callable:
    """(state, data, key, first step, count) -> (state, {name: [CAPACITY]}, steps taken, finite).

    Ends early with the first step that is not finite, for any of the learners of `outer_step`.
    """

    def chunk(state: State, data: PyTree, key: Key[Array, "..."], first_step, count):
        _, shapes, flags = jax.eval_shape(outer_step, state, data, key, first_step)
        table = {name: jnp.zeros((CAPACITY, *leaf.shape), leaf.dtype) for name, leaf in shapes.items()}

        def unfinished(carry):
            return (carry[0] < count) & carry[3].all()

        def advance(carry):
            index, state, table, _ = carry
            state, metrics, finite = outer_step(state, data, key, first_step + index)
            table = {name: column.at[index].set(metrics[name]) for name, column in table.items()}
            return index + 1, state, table, finite

        start = (jnp.zeros((), jnp.uint32), state, table, jnp.ones(flags.shape, bool))
        taken, state, table, finite = jax.lax.while_loop(unfinished, advance, start)
        return state, table, taken, finite

    return chunk


def make_program(loop: Loop, axes: int) -> Callable:
    """As `make_chunk`, for the learners of the stage, on the mesh: (state, data, keys [replica, member], ...).

    With replicas every device takes its own ones through the steps and waits for no other device; the steps taken
    are then an array, one number a replica.
    """
    outer_step = make_step(loop)
    for _ in range(axes):
        outer_step = jax.vmap(outer_step, in_axes=(0, None, 0, None))
    chunk = make_chunk(outer_step)
    if not parallel.has_replicas(loop.mesh):
        return chunk

    def on_device(state: State, data: PyTree, keys: Key[Array, "replica ..."], first_step, count):
        state, table, taken, finite = chunk(state, data, keys, first_step, count)
        return state, table, jnp.full(keys.shape[:1], taken), finite

    shared, everywhere = PartitionSpec(parallel.REPLICA), PartitionSpec()
    return jax.shard_map(
        on_device,
        mesh=loop.mesh,
        in_specs=(shared, everywhere, shared, everywhere, everywhere),
        out_specs=(shared, PartitionSpec(None, parallel.REPLICA), shared, shared),
        check_vma=False,
    )


def compile_program(loop: Loop, data: PyTree, key: Key[Array, "..."], state: State) -> Program:
    """Compile the loop of a stage for its data (the training split) and a state like `state`, on the mesh.

    Args:
      key: of the stage, or of each of its learners, [replica, member], as the leading axes of `state`.
    """
    replicated = NamedSharding(loop.mesh, PartitionSpec())

    def number(value: int):
        return jax.device_put(np.uint32(value), replicated)

    started = time.perf_counter()
    shardings = None if parallel.has_replicas(loop.mesh) else replicated  # None: as the program lays them out
    jitted = jax.jit(make_program(loop, key.ndim), donate_argnums=0, out_shardings=shardings)
    compiled = jitted.lower(state, data, key, number(0), number(0)).compile()
    compile_seconds = time.perf_counter() - started

    def run(state: State, first_step: int, count: int) -> Chunk:
        state, table, taken, finite = compiled(state, data, key, number(first_step), number(count))
        taken, finite = jax.device_get((taken, finite))
        rows = int(taken.min())  # a device whose replicas stayed finite went on
        metrics = {name: np.asarray(column)[:rows] for name, column in jax.device_get(table).items()}
        ended = (taken == rows).reshape(taken.shape + (1,) * (finite.ndim - taken.ndim))
        return Chunk(state, metrics, np.asarray(finite | ~ended))

    return Program(run, compile_seconds)


class Pace:
    """How many steps the next chunk has: as many as last about CHUNK_SECONDS, or a fixed number."""

    def __init__(self, fixed: int | None) -> None:
        self.fixed = fixed
        self.steps = fixed or 1

    def next(self, step: int, ends: list[int]) -> int:
        """The steps from `step` to the end of the chunk, which reaches beyond none of `ends`."""
        nearest = min(end for end in ends if end > step)
        return min(self.steps, nearest - step, CAPACITY)

    def learn(self, count: int, seconds: float) -> None:
        """Take note of how long a chunk took."""
        if not self.fixed:
            affordable = CHUNK_SECONDS * count / max(seconds, 1e-9)
            self.steps = max(1, min(int(affordable), 10 * self.steps, CAPACITY))
