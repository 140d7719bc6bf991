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
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Int, Key, PRNGKeyArray

from metarun import base, meshes, numbers, signals, trees
from metarun.base import PyTree
from metarun.config import Training
from metarun.numbers import Numbers
from metarun.stages import STEPS, Stage
from metarun.training import optimizer
from metarun.training.gradient import make_gradient
from metarun.training.optimizer import Optimizer
from metarun.training.trial_chunk import Trials, make_trial_chunk

CAPACITY = 1000  # steps of the longest chunk: the rows of the program's table of metrics


class State(NamedTuple):
    """All that changes from step to step. The random keys are not in it: they follow from the step's number."""

    weights: base.Weights
    memory: PyTree  # of the optimizer


class Chunk(NamedTuple):
    """What some consecutive steps gave."""

    state: State
    # {name: [step, replica, member]}, the mean over the tasks of each step. Trials have `trial_chunk.ALIVE`, too:
    # whether a learner still trained at the step; if not, its other metrics mean nothing.
    metrics: dict[str, np.ndarray]
    # [replica, member]: whether the last of these steps was finite; a step that is not ends the chunk. For trials:
    # whether all steps were, in this chunk and before it.
    finite: np.ndarray


class Loop(NamedTuple):
    """What the outer loop of a stage is made of."""

    algorithm: base.Algorithm
    sample: Callable[[PyTree, PRNGKeyArray], base.Episode]  # of the task family
    optimizer: Optimizer
    training: Training
    mesh: Mesh
    # The stage whose numbers are arguments of the compiled program; None: all numbers are constants in it.
    stage: Stage | None = None

    @property
    def has_trials(self) -> bool:
        """Whether the replicas are trials."""
        return self.stage is not None and self.stage.has_trials


class Program(NamedTuple):
    """The compiled loop of one stage."""

    # (state, first step, count <= CAPACITY) -> Chunk; takes over the state's memory. Trials also want to know which
    # of them are alive; without that, all are.
    run: Callable[..., Chunk]
    compile_seconds: float
    traced: jax.stages.Traced  # from which `training.cost` counts operations
    compiled: jax.stages.Compiled  # and reads memory
    numbers: Numbers  # that are arguments of the program


def make_task_keys(key: PRNGKeyArray, step: ArrayLike, tasks: Int[Array, "task"]) -> Key[Array, "task"]:
    """Return the keys of some tasks of a step, by their global task index."""
    step_key = jax.random.fold_in(jax.random.fold_in(key, STEPS), step)
    return jax.vmap(lambda task: jax.random.fold_in(step_key, task))(tasks)


def make_step(loop: Loop) -> Callable:
    """Make (state, data, key, step) -> (state, metrics, whether all is finite): one outer step."""
    training = loop.training
    gradient = make_gradient(loop.algorithm, loop.sample, loop.mesh, training.task_chunk)

    def outer_step(state: State, data: PyTree, key: PRNGKeyArray, step):
        keys = make_task_keys(key, step, jnp.arange(training.tasks_per_step))
        progress = jnp.asarray(step, jnp.float32) / training.last_step

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

    # It is called twice, for its shapes and in the loop, and traced once.
    outer_step = jax.jit(outer_step, inline=True)

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


def make_trial_step(loop: Loop) -> Callable:
    """Make what `make_step` makes, for one trial: (state, data, key, step, numbers of the trial) -> …"""

    def outer_step(state: State, data: PyTree, key: PRNGKeyArray, step, values: Numbers):
        return make_step(take_numbers(loop, values))(state, data, key, step)

    return outer_step


def make_learners_chunk(loop: Loop, axes: int) -> Callable:
    """Make what `make_chunk` makes, or for trials `make_trial_chunk`, for all learners that a device has."""
    if not loop.has_trials:
        outer_step = make_step(loop)
        for _ in range(axes):
            outer_step = jax.vmap(outer_step, in_axes=(0, None, 0, None))
        return make_chunk(outer_step)
    trial_step = make_trial_step(loop)
    for axis in reversed(range(axes)):  # the members of a trial share its numbers
        trial_step = jax.vmap(trial_step, in_axes=(0, None, 0, None, None if axis else 0))
    return make_trial_chunk(trial_step, CAPACITY)


def make_program(loop: Loop, axes: int) -> Callable:
    """Make what `make_learners_chunk` makes, for all learners of a stage on the mesh; keys are [replica, member].

    With replicas every device takes its own replicas through the steps and waits for no other device; the steps taken
    are then an array, one number for each replica.
    """
    chunk = make_learners_chunk(loop, axes)
    if not meshes.has_replicas(loop.mesh):
        return chunk

    def run_replicas(state: State, data: PyTree, keys: Key[Array, "replica ..."], first_step, count, *trials):
        state, table, taken, finite = chunk(state, data, keys, first_step, count, *trials)
        return state, table, jnp.full(keys.shape[:1], taken), finite

    shared, everywhere = PartitionSpec(meshes.REPLICA), PartitionSpec()
    run_all = jax.shard_map(
        run_replicas,
        mesh=loop.mesh,
        in_specs=(shared, everywhere, shared, everywhere, everywhere, *[shared] * loop.has_trials),
        out_specs=(shared, PartitionSpec(None, meshes.REPLICA), shared, shared),
        check_vma=False,
    )
    return fill_rows(run_all, loop.mesh.shape[meshes.REPLICA])


def fill_rows(run_all: Callable, rows: int) -> Callable:
    """Make `run_all` work for any number of replicas, where it wants the same number in every row of the mesh.

    The first replicas are computed a second time in the places that are left, and what that gives is dropped.
    """

    def run_uneven(state: State, data: PyTree, keys: Key[Array, "replica ..."], first_step, count, *trials):
        replicas = keys.shape[0]
        order = np.resize(np.arange(replicas), -(-replicas // rows) * rows)
        filled = jax.tree.map(lambda leaf: leaf[order], (state, keys, trials))
        state, table, taken, finite = run_all(filled[0], data, filled[1], first_step, count, *filled[2])
        kept = jax.tree.map(lambda leaf: leaf[:replicas], (state, taken, finite))
        return kept[0], jax.tree.map(lambda column: column[:, :replicas], table), *kept[1:]

    def run(state: State, data: PyTree, keys: Key[Array, "replica ..."], first_step, count, *trials):
        even = keys.shape[0] % rows == 0
        return (run_all if even else run_uneven)(state, data, keys, first_step, count, *trials)

    return run


def take_numbers(loop: Loop, values: Numbers) -> Loop:
    """Return the loop with other numbers, perhaps traced, in the algorithm, the optimizer and the training."""
    if loop.stage is None:
        return loop
    stage = loop.stage.take_numbers(values)
    training = stage.replace_numbers("training", loop.training)
    return loop._replace(
        algorithm=stage.build_algorithm(), optimizer=optimizer.build(training), training=training, stage=stage
    )


def compile_program(loop: Loop, data: PyTree, key: Key[Array, "..."], state: State) -> Program:
    """Compile the loop of a stage for its data (the training split) and a state like `state`, on the mesh.

    Args:
      key: of the stage, or one for each of its learners, [replica, member], the leading axes of `state`.
    """

    def put_number(value: int):
        return meshes.replicate(np.uint32(value), loop.mesh)

    started = time.perf_counter()
    shardings = meshes.lay_out_chunk(loop.mesh, key.shape)

    def chunk(values: Numbers, *arguments):
        return make_program(take_numbers(loop, values), key.ndim)(*arguments)

    listed = loop.stage.list_numbers() if loop.stage else {}
    step_and_count = put_number(0), put_number(0)
    everybody = np.ones(key.shape, bool)
    differing = loop.stage.differing if loop.stage else {}

    def make_trials(alive: np.ndarray) -> tuple[Trials, ...]:
        return (meshes.share_out(Trials(differing, alive), loop.mesh),) if loop.has_trials else ()

    arguments = (state, data, key, *step_and_count, *make_trials(everybody))
    traced, chosen = numbers.trace(chunk, listed, *arguments, donate_argnums=1, out_shardings=shardings)
    compiled = signals.wait_for(traced.lower().compile)
    compile_seconds = time.perf_counter() - started

    def run(state: State, first_step: int, count: int, alive: np.ndarray = everybody) -> Chunk:
        state, table, taken, finite = compiled(
            dict(chosen), state, data, key, put_number(first_step), put_number(count), *make_trials(alive)
        )
        taken, finite = signals.wait_for(lambda: jax.device_get((taken, finite)))
        # A device whose replicas stayed finite went on. For trials that counts, else it does not.
        rows = int(taken.max() if loop.has_trials else taken.min())
        metrics = {name: np.asarray(column)[:rows] for name, column in jax.device_get(table).items()}
        if loop.has_trials:
            return Chunk(state, metrics, np.asarray(finite))
        ended_here = (taken == rows).reshape(taken.shape + (1,) * (finite.ndim - taken.ndim))
        return Chunk(state, metrics, np.asarray(finite | ~ended_here))

    return Program(run, compile_seconds, traced, compiled, chosen)
