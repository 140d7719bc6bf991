"""The outer loop: what changes a run and what must not."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import compiled
from helpers.loops import FAMILY, TRAINING, make_key, make_loop, make_stage, start_state
from metarun import losses, meshes
from metarun.config import Selection, Training, optimizers, schedules
from metarun.training import loop as outer_loop
from metarun.training.gradient import make_gradient
from metarun.training.loop import Loop, Program, State

SGD = dataclasses.replace(TRAINING, optimizer=Selection("sgd", optimizers.SGD(learning_rate=0.1)))


def start(loop: Loop, data=()):
    """A compiled program and the state it begins with, on the loop's mesh."""
    key = make_key()
    data = meshes.replicate(data, loop.mesh)
    state = meshes.replicate(start_state(loop, data, key), loop.mesh)
    return outer_loop.compile_program(loop, data, key, state), state


@functools.cache
def prepare(training: Training) -> tuple[Program, State]:
    """What `start` returns for a loop with these settings, for all tests that run it; the state on the host."""
    program, state = start(make_loop(training))
    return program, jax.device_get(state)


def start_prepared(training: Training = TRAINING) -> tuple[Program, State]:
    """What `start` returns, without another compilation."""
    program, state = prepare(training)
    return program, meshes.replicate(state, make_loop(training).mesh)


@functools.cache
def find_step_gradient(step: int):
    """The weights before the first step, the keys of the tasks of a step, and its gradient with its metrics."""
    loop, key = make_loop(), make_key()
    weights = start_prepared()[1].weights
    keys = make_keys(key, step, np.arange(4))
    gradient = jax.jit(make_gradient(loop.algorithm, loop.sample, loop.mesh, loop.training.task_chunk))
    return weights, keys, *jax.device_get(gradient(weights, (), keys, 0.0))


make_keys = jax.jit(outer_loop.make_task_keys)


def train(training: Training, chunks: list[int]):
    """State and metrics after chunks of the given lengths."""
    return run(*start_prepared(training), chunks)


def run(program: Program, state: State, chunks: list[int]):
    """State and metrics after chunks of the given lengths."""
    step, rows = 0, []
    for count in chunks:
        state, metrics, finite = program.run(state, step, count)
        assert finite
        step, rows = step + count, [*rows, metrics]
    return state, {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def assert_same_bits(left, right) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), left, right)


def assert_close(left, right, tolerance: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance), left, right)


@pytest.mark.parametrize("chunks", [[1] * 40, [7, 13, 20], [39, 1]])
def test_the_length_of_chunks_changes_no_bit(chunks):
    assert_same_bits(train(TRAINING, [40]), train(TRAINING, chunks))


def test_every_step_has_its_metrics():
    _, metrics = train(TRAINING, [5, 6])
    assert set(metrics) == {"loss", "gradient_norm"}
    assert all(column.shape == (11,) for column in metrics.values())
    assert len(set(metrics["loss"].tolist())) == 11


def test_task_chunks_change_only_the_order_of_sums():
    whole, _ = train(TRAINING, [20])
    chunked, _ = train(dataclasses.replace(TRAINING, task_chunk=1), [20])
    assert_close(whole.weights, chunked.weights, 1e-5)


def test_the_gradient_is_the_mean_over_the_tasks_of_the_step():
    algorithm = make_loop().algorithm
    weights, keys, gradient, metrics = find_step_gradient(5)

    def loss_of_task(trained, task_key):
        sample_key, loss_key = jax.random.split(task_key)
        episode = FAMILY.sample((), sample_key)
        return algorithm.loss(weights._replace(trained=trained), episode, loss_key, 0.0)[0]

    differentiate = jax.jit(jax.vmap(jax.value_and_grad(loss_of_task), in_axes=(None, 0)))
    values, slopes = jax.device_get(differentiate(weights.trained, keys))
    assert_close(gradient, jax.tree.map(lambda leaf: leaf.mean(axis=0), slopes), 1e-6)
    np.testing.assert_allclose(metrics["loss"], values.mean(), rtol=1e-6)


def test_a_step_is_the_optax_update_of_that_gradient():
    weights, _, gradient, _ = find_step_gradient(0)
    after, _ = train(SGD, [1])
    expected = jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, jax.device_get(weights.trained), gradient)
    assert_close(after.weights.trained, expected, 1e-6)


def test_every_step_sees_new_tasks_and_no_two_tasks_share_a_key():
    key = make_key(0)
    seen = {
        tuple(numbers)
        for stage in range(2)
        for step in range(10)
        for numbers in jax.random.key_data(make_keys(make_key(0, stage), step, np.arange(8))).tolist()
    }
    assert len(seen) == 2 * 10 * 8
    more, fewer = (jax.random.key_data(make_keys(key, 3, np.arange(count))) for count in (16, 8))
    assert_same_bits(np.asarray(more)[:8], fewer)


def test_one_compilation_serves_chunks_of_every_length():
    traces = []

    def counted(data, key):
        traces.append(1)
        return FAMILY.sample(data, key)

    program, state = start(make_loop(sample=counted))
    compiled = len(traces)
    for step, count in [(0, 3), (3, 1), (4, 9)]:
        state = program.run(state, step, count).state
    assert len(traces) == compiled


def test_nothing_moves_between_host_and_device_inside_a_chunk():
    program, state = start_prepared()
    with jax.transfer_guard("disallow"):
        chunk = program.run(state, 0, 10)
    assert chunk.metrics["loss"].shape == (10,)


def test_the_memory_of_the_state_is_taken_over():
    program, state = start_prepared()
    program.run(state, 0, 1)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.weights))


def test_data_is_an_argument_and_no_constant_of_the_program():
    table = jnp.arange(5000.0)

    def sample(data, key):
        episode = FAMILY.sample((), key)
        return episode._replace(query=episode.query._replace(targets=episode.query.targets + data.sum()))

    loop = make_loop(sample=sample)
    key = make_key(0)
    state = start_state(loop, table, key)
    text = jax.jit(outer_loop.make_chunk(outer_loop.make_step(loop))).lower(state, table, key, 0, 1).as_text()
    assert "tensor<5000xf32>" in text.split("func.func public @main", 1)[1].split("{", 1)[0]


def test_a_chunk_ends_with_the_first_step_that_is_not_finite():
    config = dataclasses.replace(TRAINING, optimizer=Selection("sgd", optimizers.SGD(learning_rate=1e25)))
    program, state = start(make_loop(config))
    chunk = program.run(state, 0, 40)
    assert not chunk.finite
    assert 1 <= len(chunk.metrics["loss"]) < 40
    assert np.isfinite(chunk.metrics["loss"][:-1]).all()


def test_the_loss_in_the_metrics_is_the_outer_objective():
    @jax.jit
    def measure(weights, key):
        sample_key, _ = jax.random.split(outer_loop.make_task_keys(key, 0, jnp.arange(1))[0])
        episode = FAMILY.sample((), sample_key)
        outputs = compiled.answer(make_loop().algorithm, weights, episode.support, episode.query.inputs)
        return losses.mean_squared_error(outputs, episode.query.targets)

    program, state = start_prepared(dataclasses.replace(TRAINING, tasks_per_step=1))
    expected = measure(state.weights, make_key())
    np.testing.assert_allclose(program.run(state, 0, 1).metrics["loss"][0], expected, rtol=1e-5)


def test_a_loss_sees_the_share_of_the_steps_that_are_done():
    loop = make_loop()

    def loss(weights, episode, key, progress):
        outer, metrics = loop.algorithm.loss(weights, episode, key, progress)
        return outer, metrics | {"progress": progress}

    watched = loop.algorithm._replace(loss=loss)
    _, metrics = run(*start(make_loop(algorithm=watched)), [7, 33])
    np.testing.assert_allclose(metrics["progress"], np.arange(40) / 40, rtol=1e-6)


def test_numbers_as_arguments_give_what_they_give_as_constants():
    schedule = Selection("cosine", schedules.Cosine(0.1, 5))
    training = dataclasses.replace(
        TRAINING, clip_norm=3.0, optimizer=Selection("adam", optimizers.Adam(3e-3, schedule))
    )
    loop = make_loop(training)
    named = loop._replace(stage=make_stage(training))
    program, state = start(named)
    listed = {
        "maml/algorithm.inner_lr",
        "maml/training.steps",
        "maml/training.optimizer.schedule.warmup_steps",
    }
    assert listed < set(program.numbers) == set(named.stage.list_numbers())
    for constant, argument in zip(run(*start(loop), [12]), run(program, state, [12]), strict=True):
        assert_close(constant, argument, 1e-6)
