"""The outer loop: what changes a run and what must not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metarun import errors, losses, optimizer, parallel, training
from metarun.algorithms import maml
from metarun.config import Selection, Training, optimizers, schedules
from metarun.config.schema import PartRate
from metarun.models import mlp
from metarun.tasks import sinusoid

FAMILY = sinusoid.build(sinusoid.Config(shots=4, queries=3))
TRAINING = Training(steps=40, tasks_per_step=4)
KEY_SEED = 3


def make_loop(config: Training = TRAINING, algorithm=None, sample=FAMILY.sample) -> training.Loop:
    model = mlp.build(mlp.Config(hidden=(8, 8)), FAMILY.spec)
    algorithm = algorithm or maml.build(maml.Config(), model, FAMILY.objective)
    mesh = parallel.task_mesh(jax.local_devices()[:1], config.tasks_per_step)
    return training.Loop(algorithm, sample, optimizer.build(config), config, mesh)


def start(loop: training.Loop, data=()):
    """A compiled program and the state it begins with, on the loop's mesh."""
    key = training.stage_key(KEY_SEED, 0)
    data = parallel.replicate(data, loop.mesh)
    state = parallel.replicate(training.initial_state(loop, data, key, {}), loop.mesh)
    return training.compile_program(loop, data, key, state), state


def train(loop: training.Loop, chunks: list[int], data=()):
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
    key = training.stage_key(KEY_SEED, 0)
    state = training.initial_state(loop, (), key, {})
    keys = training.sampling_keys(key, 5, jnp.arange(4))
    gradient, metrics = training.make_gradient(loop)(state.weights, (), keys, 0.0)

    def loss_of_task(trained, task_key):
        sample_key, loss_key = jax.random.split(task_key)
        weights = state.weights._replace(trained=trained)
        return loop.algorithm.loss(weights, FAMILY.sample((), sample_key), loss_key)[0]

    alone = [jax.value_and_grad(loss_of_task)(state.weights.trained, task_key) for task_key in keys]
    expected = jax.tree.map(lambda *leaves: sum(leaves) / 4, *[slope for _, slope in alone])
    assert_close(gradient, expected, 1e-6)
    np.testing.assert_allclose(metrics["loss"], np.mean([value for value, _ in alone]), rtol=1e-6)


def test_a_step_is_the_optax_update_of_that_gradient():
    config = Training(
        steps=9, tasks_per_step=4, optimizer=Selection("sgd", optimizers.SGD(learning_rate=0.1))
    )
    loop = make_loop(config)
    key = training.stage_key(KEY_SEED, 0)
    state = training.initial_state(loop, (), key, {})
    keys = training.sampling_keys(key, 0, jnp.arange(4))
    gradient, _ = training.make_gradient(loop)(state.weights, (), keys, 0.0)
    after, _ = train(loop, [1])
    expected = jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, state.weights.trained, gradient)
    assert_close(after.weights.trained, expected, 1e-6)


def test_every_step_sees_new_tasks_and_no_two_tasks_share_a_key():
    key = training.stage_key(0, 0)
    seen = {
        tuple(jax.random.key_data(task_key).tolist())
        for stage in range(2)
        for step in range(10)
        for task_key in training.sampling_keys(training.stage_key(0, stage), step, jnp.arange(8))
    }
    assert len(seen) == 2 * 10 * 8
    more = training.sampling_keys(key, 3, jnp.arange(16))
    fewer = training.sampling_keys(key, 3, jnp.arange(8))
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
    key = training.stage_key(0, 0)
    state = training.initial_state(loop, table, key, {})
    text = jax.jit(training.make_chunk(training.make_step(loop))).lower(state, table, key, 0, 1).as_text()
    assert "tensor<5000xf32>" in text.split("func.func public @main", 1)[1].split("{", 1)[0]


def test_a_chunk_ends_with_the_first_step_that_is_not_finite():
    config = dataclasses.replace(TRAINING, optimizer=Selection("sgd", optimizers.SGD(learning_rate=1e25)))
    program, state = start(make_loop(config))
    chunk = program.run(state, 0, 40)
    assert not chunk.finite
    assert 1 <= len(chunk.metrics["loss"]) < 40
    assert np.isfinite(chunk.metrics["loss"][:-1]).all()


def test_the_pace_reaches_beyond_no_end_and_stays_within_the_capacity():
    pace = training.Pace(None)
    assert pace.next(0, [100, 30]) == 1
    for _ in range(10):
        pace.learn(pace.steps, 1e-6 * pace.steps)
    assert pace.next(0, [100_000]) == training.CAPACITY
    assert pace.next(95, [100, 130]) == 5
    pace.learn(10, 20.0)
    assert pace.next(0, [100]) == 1
    assert training.Pace(17).next(0, [100]) == 17


def test_a_fixed_pace_learns_nothing():
    pace = training.Pace(17)
    pace.learn(17, 100.0)
    assert pace.next(0, [100]) == 17


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection("constant", schedules.Constant()), lambda t: 1.0),
        (Selection("linear", schedules.Linear(final=0.1)), lambda t: 1 - 0.9 * t / 100),
        (
            Selection("cosine", schedules.Cosine(final=0.1)),
            lambda t: 0.1 + 0.45 * (1 + np.cos(np.pi * t / 100)),
        ),
        (Selection("exponential", schedules.Exponential(0.5, 10)), lambda t: 0.5 ** (t / 10)),
        (Selection("step", schedules.Step(0.5, 10)), lambda t: 0.5 ** (t // 10)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_schedules_scale_the_learning_rate_by_their_equation(selection, expected):
    rate = optimizer.schedule(selection, 2.0, 100)
    for step in (0, 7, 10, 55, 99):
        value = rate(step) if callable(rate) else rate
        np.testing.assert_allclose(value, 2.0 * expected(step), rtol=1e-5)


def test_warm_up_rises_from_zero_to_the_peak():
    rate = optimizer.schedule(Selection("cosine", schedules.Cosine(warmup_steps=20)), 2.0, 100)
    np.testing.assert_allclose([rate(0), rate(10), rate(20), rate(100)], [0.0, 1.0, 2.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_every_optimizer_descends(name):
    config = Training(steps=200, optimizer=Selection(name, optimizers.OPTIMIZERS[name](learning_rate=0.05)))
    transformation = optimizer.transformation(config)
    params = {"x": jnp.array([1.0, -2.0])}
    memory = transformation.init(params)

    @jax.jit
    def descend(params, memory):
        gradient = jax.grad(lambda p: jnp.sum(p["x"] ** 2))(params)
        updates, memory = transformation.update(gradient, memory, params)
        return optax.apply_updates(params, updates), memory

    for _ in range(100):
        params, memory = descend(params, memory)
    assert float(jnp.sum(params["x"] ** 2)) < 4.0


def test_clipping_bounds_every_entry_and_the_norm():
    config = Training(
        steps=9, clip_value=1.0, clip_norm=0.5, optimizer=Selection("sgd", optimizers.SGD(learning_rate=1.0))
    )
    transformation = optimizer.transformation(config)
    gradient = {"x": jnp.array([100.0, -100.0, 0.0])}
    updates, _ = transformation.update(gradient, transformation.init(gradient), gradient)
    np.testing.assert_allclose(updates["x"], np.array([-1.0, 1.0, 0.0]) * 0.5 / np.sqrt(2), rtol=1e-6)


def coupled(trained) -> jax.Array:
    """A loss in which the slope of each number depends on the other."""
    return trained["x"] ** 2 * trained["y"] + trained["y"] ** 2


def descent(turns=(), **options) -> optimizer.Step:
    """One step of plain descent from (2, 3) on that loss."""
    sgd = Selection("sgd", optimizers.SGD(learning_rate=0.1))
    chain = optimizer.build(Training(steps=9, optimizer=sgd, turns=turns, **options))
    trained = {"x": jnp.array(2.0), "y": jnp.array(3.0)}

    def gradient_at(trained):
        loss, slope = jax.value_and_grad(coupled)(trained)
        return slope, {"loss": loss}

    return chain.step(gradient_at, trained, chain.init(trained))


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ((), (2 - 1.2, 3 - 1.0)),  # ∂x = 2xy = 12, ∂y = x² + 2y = 10
        ((("x", "y"),), (2 - 1.2, 3 - 1.0)),
        ((("x",), ("y",)), (0.8, 3 - 0.1 * (0.8**2 + 6))),
        ((("y",), ("x",)), (2 - 0.1 * (2 * 2 * 2), 2.0)),
    ],
)
def test_in_turns_each_group_steps_from_what_those_before_it_have_become(turns, expected):
    step = descent(turns)
    np.testing.assert_allclose([step.trained["x"], step.trained["y"]], expected, rtol=1e-6)
    np.testing.assert_allclose(step.metrics["loss"], 21.0)  # before the step
    assert step.gradient.keys() == step.trained.keys()


def test_in_turns_a_norm_is_clipped_and_a_rate_is_scaled_for_each_group_alone():
    step = descent((("x",), ("y",)), clip_norm=1.0, part_rates=(PartRate("y", 0.5),))
    np.testing.assert_allclose([step.trained["x"], step.trained["y"]], [2 - 0.1, 3 - 0.05], rtol=1e-6)


@pytest.mark.parametrize(
    ("turns", "what"), [((("x",), ("z",)), "no part z"), ((("x",),), "the part y has no turn")]
)
def test_turns_that_do_not_name_each_part_are_refused(turns, what):
    with pytest.raises(errors.ConfigError, match=what) as refused:
        descent(turns)
    assert refused.value.remedy == "name each of x, y once"


def test_the_loss_in_the_metrics_is_the_outer_objective():
    loop = make_loop()
    key = training.stage_key(KEY_SEED, 0)
    weights = training.initial_state(loop, (), key, {}).weights
    sample_key, _ = jax.random.split(training.sampling_keys(key, 0, jnp.arange(1))[0])
    episode = FAMILY.sample((), sample_key)
    learner = loop.algorithm.adapt(weights, episode.support)
    expected = losses.mean_squared_error(
        loop.algorithm.predict(learner, episode.query.inputs), episode.query.targets
    )
    one = make_loop(dataclasses.replace(TRAINING, tasks_per_step=1))
    program, state = start(one)
    state = state._replace(weights=parallel.replicate(weights, one.mesh))
    np.testing.assert_allclose(program.run(state, 0, 1).metrics["loss"][0], expected, rtol=1e-5)


def test_an_annealed_loss_sees_the_share_of_the_steps_that_are_done():
    loop = make_loop()

    def loss(weights, episode, key, done):
        outer, metrics = loop.algorithm.loss(weights, episode, key)
        return outer, metrics | {"done": done}

    annealed = loop.algorithm._replace(loss=loss, annealed=True)
    _, metrics = train(make_loop(algorithm=annealed), [7, 33])
    np.testing.assert_allclose(metrics["done"], np.arange(40) / 40, rtol=1e-6)
