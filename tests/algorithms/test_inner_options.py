"""The options of the inner loop that `metarun.options` declares do the same thing in every algorithm that has them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, gradients, trees
from metarun import base, options, plugins

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(0)
SPEC = base.Spec((3,), 2, "numbers")


def select_names(group: type) -> list[str]:
    """Return the algorithms whose options include a group."""
    return [name for name in plugins.list_names("algorithm") if issubclass(config_of(name), group)]


def config_of(name: str) -> type:
    return plugins.read_config_class("algorithm", name)


def examples(seed: int) -> base.Examples:
    generator = np.random.default_rng(seed)
    return base.Examples(*(jnp.asarray(generator.standard_normal((5, size))) for size in (3, 2)))


EPISODES = jax.tree.map(
    lambda *leaves: jnp.stack(leaves),
    *[base.Episode(examples(2 * index), examples(2 * index + 1)) for index in range(3)],
)
EPISODE = jax.tree.map(lambda leaf: leaf[0], EPISODES)
MODEL = builders.build_model("mlp", SPEC, hidden=(4,), activation="tanh")


def build(name: str, **changes) -> base.Algorithm:
    return builders.build_algorithm(
        name, MODEL, builders.make_problem(SPEC), **{"inner_steps": 3, "inner_lr": 0.05, **changes}
    )


@functools.cache
def init(name: str) -> base.Weights:
    earlier = {stage: init(stage) for stage in builders.example(name).earlier}
    return gradients.to_float64(jax.jit(build(name).init)(KEY, EPISODES, earlier))


def answer(name: str, **changes):
    """Return the answers to the queries after adaptation."""
    algorithm = build(name, **changes)

    @jax.jit
    def answer_queries(weights):
        return algorithm.predict(algorithm.adapt(weights, EPISODE.support), EPISODE.query.inputs)

    return answer_queries(init(name))


def gradient(name: str, **changes):
    """Return the outer gradient."""
    algorithm, weights = build(name, **changes), init(name)

    @jax.jit
    def outer_gradient(trained):
        return jax.grad(
            lambda trained: algorithm.loss(base.Weights(trained, weights.frozen), EPISODE, KEY, 0.0)[0]
        )(trained)

    return outer_gradient(weights.trained)


@pytest.mark.parametrize("name", select_names(options.InnerSteps))
def test_a_small_limit_of_the_inner_gradient_changes_the_learner_and_a_large_one_does_not(name):
    unlimited = answer(name)
    np.testing.assert_allclose(answer(name, inner_clip_norm=1e6), unlimited, rtol=1e-9)
    assert np.abs(answer(name, inner_clip_norm=0.01) - unlimited).max() > 1e-6


@pytest.mark.parametrize("name", select_names(options.InnerSteps))
def test_a_scanned_loop_gives_the_learner_of_an_unrolled_one(name):
    scanned, unrolled = (answer(name, loop=loop) for loop in ("scan", "unroll"))
    np.testing.assert_allclose(scanned, unrolled, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", select_names(options.DifferentiableSteps))
def test_scanned_and_rematerialised_steps_have_the_outer_gradient_of_plain_ones(name):
    compiled = gradient(name, loop="scan", rematerialise=True)
    trees.assert_close(compiled, gradient(name), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", select_names(options.InnerLoop))
def test_the_first_order_has_another_outer_gradient_for_the_same_learner(name):
    np.testing.assert_array_equal(answer(name, order="first"), answer(name, order="second"))
    first, second = (gradient(name, order=order) for order in ("first", "second"))
    assert any(
        np.abs(a - b).max() > 1e-6 for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True)
    )
