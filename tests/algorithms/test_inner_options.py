"""The options of the inner loop that `metarun.options` declares do the same thing in every algorithm that has them."""

import functools

import jax
import numpy as np
import pytest

from helpers import builders, compiled, gradients, trees
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
    return base.Examples(*(jax.device_put(generator.standard_normal((5, size))) for size in (3, 2)))


@functools.cache
def episodes() -> base.Episode:
    tasks = [base.Episode(examples(2 * index), examples(2 * index + 1)) for index in range(3)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *tasks)


@functools.cache
def episode() -> base.Episode:
    return compiled.select(episodes(), 0)


MODEL = builders.build_model("mlp", SPEC, hidden=(4,), activation="tanh")


def build(name: str, **changes) -> base.Algorithm:
    return builders.build_algorithm(
        name, MODEL, builders.make_problem(SPEC), **{"inner_steps": 2, "inner_lr": 0.05, **changes}
    )


@functools.cache
def init(name: str) -> base.Weights:
    earlier = {stage: init(stage) for stage in builders.example(name).earlier}
    return gradients.to_float64(jax.jit(build(name).init)(KEY, episodes(), earlier))


@functools.cache
def answer(name: str, **changes) -> np.ndarray:
    """Return the answers to the queries after adaptation."""
    support, inputs = episode().support, episode().query.inputs
    return np.asarray(compiled.answer(build(name, **changes), init(name), support, inputs))


@functools.cache
def gradient(name: str, **changes):
    """Return the outer gradient."""
    algorithm, weights, task = build(name, **changes), init(name), episode()

    @jax.jit
    def outer_gradient(trained):
        return jax.grad(
            lambda trained: algorithm.loss(base.Weights(trained, weights.frozen), task, KEY, 0.0)[0]
        )(trained)

    return outer_gradient(weights.trained)


@pytest.mark.parametrize("name", select_names(options.InnerSteps))
def test_a_small_limit_of_the_inner_gradient_changes_the_learner_and_a_large_one_does_not(name):
    unlimited = answer(name)
    np.testing.assert_allclose(answer(name, inner_clip_norm=1e6), unlimited, rtol=1e-9)
    assert np.abs(answer(name, inner_clip_norm=0.01) - unlimited).max() > 1e-6


@pytest.mark.parametrize("name", select_names(options.InnerSteps))
def test_a_scanned_loop_gives_the_learner_of_an_unrolled_one(name):
    other = {"scan": "unroll", "unroll": "scan"}[config_of(name)().loop]
    np.testing.assert_allclose(answer(name, loop=other), answer(name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", select_names(options.DifferentiableSteps))
def test_scanned_and_rematerialised_steps_have_the_outer_gradient_of_plain_ones(name):
    scanned = gradient(name, loop="scan", rematerialise=True)
    trees.assert_close(scanned, gradient(name), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", select_names(options.InnerLoop))
def test_the_first_order_has_another_outer_gradient_for_the_same_learner(name):
    assert config_of(name)().order == "second"
    np.testing.assert_array_equal(answer(name, order="first"), answer(name))
    first, second = gradient(name, order="first"), gradient(name)
    assert any(
        np.abs(a - b).max() > 1e-6 for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True)
    )
