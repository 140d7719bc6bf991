"""Reptile's gradient is the way that the inner loop goes; its mini-batches go through the examples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import builders, compiled, trees
from metarun import base, errors
from metarun.algorithms import reptile
from metarun.base import Episode, Examples, Weights
from metarun.config import load

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(0)
RATE = 0.07  # of the inner optimizer


def linear_model() -> base.Model:
    """f(x) = x·θ."""

    def apply(params, inputs, *, condition=None, reference=None):
        return inputs @ params

    return base.Model(lambda key, inputs: jnp.zeros((inputs.shape[1], 1)), apply, apply)


def examples(seed: int, count: int) -> Examples:
    generator = np.random.default_rng(seed)
    shapes = (count, 2), (count, 1)
    return Examples(*(jax.device_put(generator.standard_normal(shape)) for shape in shapes))


def episode() -> Episode:
    return Episode(examples(0, 4), examples(1, 6))


START = np.array([[0.5], [-1.0]])


def build(**options) -> base.Algorithm:
    config = reptile.Config(**{"inner_steps": 3, "inner_lr": RATE, **options})
    algorithm = reptile.build(config, linear_model(), builders.regression_problem(2))
    return compiled.compile_algorithm(algorithm)


def slope(params, inputs, targets):
    """The gradient of the mean squared error, by hand."""
    return 2 * inputs.T @ (inputs @ params - targets) / len(inputs)


def descended(params, batches):
    for inputs, targets in batches:
        params = params - RATE * slope(params, np.asarray(inputs), np.asarray(targets))
    return params


def everything() -> tuple:
    return tuple(map(np.concatenate, zip(episode().support, episode().query, strict=True)))


@pytest.mark.parametrize("loop", ["scan", "unroll"])
@pytest.mark.parametrize("trains_on", ["all", "support"])
def test_the_gradient_is_the_way_back_from_where_the_inner_loop_ends(trains_on, loop):
    algorithm = build(trains_on=trains_on, loop=loop)
    outer = jax.value_and_grad(lambda params: algorithm.loss(Weights(params), episode(), KEY, 0.0)[0])
    loss, gradient = jax.jit(outer)(jax.device_put(START))
    way = START - descended(START, 3 * [everything() if trains_on == "all" else episode().support])
    np.testing.assert_allclose(gradient, way, rtol=1e-12)
    np.testing.assert_allclose(loss, 0.5 * np.sum(way**2), rtol=1e-12)


def test_gradient_descent_with_rate_epsilon_on_the_loss_is_reptiles_outer_step():
    algorithm, start = build(), jax.device_put(START)
    gradient = jax.jit(jax.grad(lambda params: algorithm.loss(Weights(params), episode(), KEY, 0.0)[0]))(
        start
    )
    optimizer = optax.sgd(0.25)
    updates, _ = jax.jit(optimizer.update)(gradient, optimizer.init(start))
    end = descended(START, 3 * [everything()])
    np.testing.assert_allclose(START + np.asarray(updates), START + 0.25 * (end - START), rtol=1e-12)


draw_passes = jax.jit(reptile.draw_passes, static_argnums=(1, 2, 3))


def test_every_pass_of_the_mini_batches_has_every_example_once_in_an_order_of_its_own():
    batches = np.asarray(draw_passes(KEY, 6, 4, 6))
    assert batches.shape == (6, 4)
    passes = batches.reshape(4, 6)
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(np.arange(6), (4, 1)))
    assert len({tuple(row) for row in passes}) > 1


def test_the_inner_loop_descends_the_mini_batches_of_the_key():
    algorithm, (inputs, targets) = build(inner_batch=4), everything()
    batches = np.asarray(draw_passes(KEY, 10, 4, 3))
    way = START - descended(START, [(inputs[rows], targets[rows]) for rows in batches])
    gradient = jax.jit(jax.grad(lambda params, key: algorithm.loss(Weights(params), episode(), key, 0.0)[0]))
    np.testing.assert_allclose(gradient(jax.device_put(START), KEY), way, rtol=1e-12)
    assert trees.differ(
        gradient(jax.device_put(START), jax.random.key(1)), gradient(jax.device_put(START), KEY)
    )


def test_adaptation_sees_the_support_alone_and_a_batch_of_more_examples_than_there_are_is_all_of_them():
    for options in ({}, {"inner_batch": 4}, {"inner_batch": 9}):
        learner = build(**options).adapt(Weights(jax.device_put(START)), episode().support)
        np.testing.assert_allclose(learner.params, descended(START, 3 * [episode().support]), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "transformation"),
    [
        ("momentum", optax.sgd(RATE, momentum=0.9)),
        ("adam", optax.adam(RATE)),
        ("adam_without_momentum", optax.adam(RATE, b1=0.0)),
        ("rmsprop", optax.rmsprop(RATE, decay=0.9, eps=1e-16)),
    ],
)
def test_inner_optimizers_are_optaxs_of_the_same_name(name, transformation):
    learner = build(inner_optimizer=name).adapt(Weights(jax.device_put(START)), episode().support)
    params, memory, update = START, transformation.init(START), jax.jit(transformation.update)
    for _ in range(3):
        updates, memory = update(slope(params, *map(np.asarray, episode().support)), memory)
        params = params + np.asarray(updates)
    np.testing.assert_allclose(learner.params, params, rtol=1e-8)


def test_without_inner_steps_nothing_is_adapted():
    learner = build(inner_steps=0, inner_batch=2).adapt(Weights(jax.device_put(START)), episode().support)
    np.testing.assert_array_equal(learner.params, START)


def carried(seed: int = 7) -> dict:
    """θ with moments that earlier tasks left."""
    second = np.random.default_rng(seed).standard_normal((2, 1)) ** 2
    moments = reptile.Moments(jax.device_put(second), jax.device_put(np.asarray(0.4)))
    return {"params": jax.device_put(START), "moments": moments}


CARRYING = {"inner_optimizer": "adam_without_momentum", "carries_moments": True}


def test_the_loss_with_carried_moments_is_the_way_of_the_weights_alone():
    algorithm, trained = build(**CARRYING), carried()
    outer = jax.jit(
        jax.value_and_grad(lambda trained: algorithm.loss(Weights(trained), episode(), KEY, 0.0)[0])
    )
    loss, gradient = outer(trained)
    np.testing.assert_allclose(loss, 0.5 * np.sum(np.asarray(gradient["params"]) ** 2), rtol=1e-12)
    assert np.abs(np.asarray(gradient["moments"].second)).min() > 0
    np.testing.assert_allclose(gradient["moments"].weight, 0.4 - (0.4 * 0.999**3 + 1 - 0.999**3), rtol=1e-9)


def test_moments_from_zero_are_those_of_adam_and_others_change_the_steps():
    """They start at zero in the first task, so that the bias of Adam is taken out there, too."""
    plain = build(inner_optimizer="adam_without_momentum").adapt(
        Weights(jax.device_put(START)), episode().support
    )
    weights = build(**CARRYING).init(KEY, jax.tree.map(lambda leaf: leaf[None], episode()), {})
    fresh = weights._replace(trained=weights.trained | {"params": jax.device_put(START)})
    found = build(**CARRYING).adapt(jax.tree.map(jnp.float64, fresh), episode().support)
    np.testing.assert_allclose(found.params, plain.params, rtol=1e-9)
    other = build(**CARRYING).adapt(Weights(carried()), episode().support)
    assert np.abs(np.asarray(other.params) - np.asarray(plain.params)).max() > 1e-3


@pytest.mark.parametrize("inner", ["sgd", "momentum", "rmsprop", "adam"])
def test_moments_of_another_optimizer_are_refused_by_name(inner):
    with pytest.raises(ValueError, match=f"moments of {inner}"):
        reptile.Config(inner_optimizer=inner, carries_moments=True)


@pytest.mark.parametrize("stages", ["", "stages: [{name: first, PART}]"])
def test_a_file_with_carried_moments_and_another_optimizer_is_refused(tmp_path, stages):
    """Steps of Adam, or of a momentum, make the moments negative, and their roots are no numbers."""
    part = "algorithm: {name: reptile, inner_optimizer: adam_without_momentum, carries_moments: true}"
    parts = ["model: {name: mlp}", part, "training: {steps: 1}"]
    body = stages.replace("PART", ", ".join(parts)) if stages else "\n".join(parts)
    file = tmp_path / "run.yaml"
    file.write_text(f"task: {{name: sinusoid}}\n{body}\n")
    with pytest.raises(errors.ConfigError, match="outer optimizer adam"):
        load(file)
    file.write_text(file.read_text().replace("steps: 1", "steps: 1, optimizer: {name: sgd, momentum: 0.9}"))
    with pytest.raises(errors.ConfigError, match="outer optimizer sgd with momentum"):
        load(file)
    file.write_text(file.read_text().replace(", momentum: 0.9", ""))
    assert load(file).stages[0].algorithm.config.carries_moments
