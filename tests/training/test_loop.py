"""The outer loop: what changes a run and what must not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.loops import FAMILY, TRAINING, make_key, make_loop, start_state
from metarun import hardware, losses
from metarun.config import Selection, Training, optimizers
from metarun.training import loop as outer_loop
from metarun.training.loop import Loop


def start(loop: Loop, data=()):
    """A compiled program and the state it begins with, on the loop's mesh."""
    key = make_key()
    data = hardware.replicate(data, loop.mesh)
    state = hardware.replicate(start_state(loop, data, key), loop.mesh)
    return outer_loop.compile_program(loop, data, key, state), state


def train(loop: Loop, chunks: list[int], data=()):
    """State and metrics after chunks of the given lengths."""
    program, state = start(loop, data)
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
    assert_same_bits(train(make_loop(), [40]), train(make_loop(), chunks))


def test_every_step_has_its_metrics():
    _, metrics = train(make_loop(), [5, 6])
    assert set(metrics) == {"loss", "gradient_norm"}
    assert all(column.shape == (11,) for column in metrics.values())
    assert len(set(metrics["loss"].tolist())) == 11


def test_task_chunks_change_only_the_order_of_sums():
    whole, _ = train(make_loop(), [20])
    chunked, _ = train(make_loop(dataclasses.replace(TRAINING, task_chunk=1)), [20])
    assert_close(whole.weights, chunked.weights, 1e-5)


def test_the_gradient_is_the_mean_over_the_tasks_of_the_step():
    loop = make_loop()
    key = make_key()
    state = start_state(loop, (), key)
    keys = outer_loop.make_task_keys(key, 5, jnp.arange(4))
    gradient, metrics = jax.jit(outer_loop.make_gradient(loop))(state.weights, (), keys, 0.0)

    def loss_of_task(trained, task_key):
        sample_key, loss_key = jax.random.split(task_key)
        weights = state.weights._replace(trained=trained)
        return loop.algorithm.loss(weights, FAMILY.sample((), sample_key), loss_key, 0.0)[0]

    differentiate = jax.jit(jax.value_and_grad(loss_of_task))
    alone = [differentiate(state.weights.trained, task_key) for task_key in keys]
    expected = jax.tree.map(lambda *leaves: sum(leaves) / 4, *[slope for _, slope in alone])
    assert_close(gradient, expected, 1e-6)
    np.testing.assert_allclose(metrics["loss"], np.mean([value for value, _ in alone]), rtol=1e-6)


def test_a_step_is_the_optax_update_of_that_gradient():
    config = Training(
        steps=9, tasks_per_step=4, optimizer=Selection("sgd", optimizers.SGD(learning_rate=0.1))
    )
    loop = make_loop(config)
    key = make_key()
    state = start_state(loop, (), key)
    keys = outer_loop.make_task_keys(key, 0, jnp.arange(4))
    gradient, _ = jax.jit(outer_loop.make_gradient(loop))(state.weights, (), keys, 0.0)
    after, _ = train(loop, [1])
    expected = jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, state.weights.trained, gradient)
    assert_close(after.weights.trained, expected, 1e-6)


def test_every_step_sees_new_tasks_and_no_two_tasks_share_a_key():
    key = make_key(0)
    seen = {
        tuple(jax.random.key_data(task_key).tolist())
        for stage in range(2)
        for step in range(10)
        for task_key in outer_loop.make_task_keys(make_key(0, stage), step, jnp.arange(8))
    }
    assert len(seen) == 2 * 10 * 8
    more = outer_loop.make_task_keys(key, 3, jnp.arange(16))
    fewer = outer_loop.make_task_keys(key, 3, jnp.arange(8))
    assert_same_bits(jax.random.key_data(more[:8]), jax.random.key_data(fewer))


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
    program, state = start(make_loop())
    with jax.transfer_guard("disallow"):
        chunk = program.run(state, 0, 10)
    assert chunk.metrics["loss"].shape == (10,)


def test_the_memory_of_the_state_is_taken_over():
    program, state = start(make_loop())
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
    loop = make_loop()
    key = make_key()
    weights = start_state(loop, (), key).weights
    sample_key, _ = jax.random.split(outer_loop.make_task_keys(key, 0, jnp.arange(1))[0])
    episode = FAMILY.sample((), sample_key)
    learner = loop.algorithm.adapt(weights, episode.support)
    expected = losses.mean_squared_error(
        loop.algorithm.predict(learner, episode.query.inputs), episode.query.targets
    )
    one = make_loop(dataclasses.replace(TRAINING, tasks_per_step=1))
    program, state = start(one)
    state = state._replace(weights=hardware.replicate(weights, one.mesh))
    np.testing.assert_allclose(program.run(state, 0, 1).metrics["loss"][0], expected, rtol=1e-5)


def test_a_loss_sees_the_share_of_the_steps_that_are_done():
    loop = make_loop()

    def loss(weights, episode, key, progress):
        outer, metrics = loop.algorithm.loss(weights, episode, key, progress)
        return outer, metrics | {"progress": progress}

    watched = loop.algorithm._replace(loss=loss)
    _, metrics = train(make_loop(algorithm=watched), [7, 33])
    np.testing.assert_allclose(metrics["progress"], np.arange(40) / 40, rtol=1e-6)
