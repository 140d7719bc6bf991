"""CAVIA: only the context adapts; its steps and its gradient, against closed forms and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, compiled, gradients, trees
from metarun import base, errors, losses
from metarun.algorithms import cavia
from metarun.base import Episode, Examples, Weights

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(0)  # the outer loss uses no random numbers
RATE = 0.07  # α


def gain_model() -> base.Model:
    """f(x) = x·θ·c₁ + c₂."""

    def init(key, inputs, *, condition=None):
        return jnp.asarray(0.3)

    def apply(params, inputs, *, condition=None, reference=None):
        return params * inputs * condition[0] + condition[1]

    return base.Model(init, apply, apply)


def examples(seed: int, spec: base.Spec, count: int = 5) -> Examples:
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((count, *spec.input_shape))
    return Examples(
        jax.device_put(inputs), jax.device_put(generator.standard_normal((count, spec.output_size)))
    )


def network(name: str) -> tuple[base.Model, base.PyTree, Episode]:
    """A small smooth network that takes a condition of two, its parameters, and an episode."""
    spec = base.Spec((4, 4, 1), 2, "numbers") if name == "conv4" else base.Spec((2,), 2, "numbers")
    small = {"hidden": (4,), "activation": "tanh", "depth": 1, "width": 2, "normalisation": "batch"}
    model = builders.build_model(name, spec, **small)
    episode = Episode(examples(0, spec), examples(1, spec))
    shapes = jax.eval_shape(
        lambda inputs: model.init(KEY, inputs, condition=jnp.zeros(2)), episode.support.inputs
    )
    return model, gradients.to_float64(trees.normal_like(shapes, 1)), episode


def build(model: base.Model, **options) -> base.Algorithm:
    config = cavia.Config(**{"context": 2, "inner_lr": RATE, **options})
    return compiled.compile_algorithm(cavia.build(config, model, builders.regression_problem(2, 2)))


@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_one_step_from_zeros_has_its_closed_form(loop):
    support = examples(0, base.Spec((1,), 1, "numbers"))
    learner = build(gain_model(), loop=loop).adapt(Weights(jnp.asarray(0.3)), support)
    inputs, targets = map(np.asarray, support)
    slope = [-2 * np.mean(targets * 0.3 * inputs), -2 * np.mean(targets)]
    np.testing.assert_allclose(learner.condition, -RATE * np.array(slope), rtol=1e-12)


@pytest.mark.parametrize("name", ["mlp", "conv4"])
def test_the_second_order_gradient_is_that_of_differences_of_the_outer_loss(name):
    model, params, episode = network(name)
    algorithm = build(model, inner_steps=2)

    def outer(params):
        return algorithm.loss(Weights(params), episode, KEY, 0.0)[0]

    gradients.assert_gradient_is_that_of_differences(outer, params)


def test_the_first_order_gradient_takes_the_adapted_context_for_a_constant():
    model, params, episode = network("mlp")
    algorithm = build(model, inner_steps=2, order="first")
    learner = algorithm.adapt(Weights(params), episode.support)

    def query_loss(params):
        return losses.mean_squared_error(
            algorithm.predict(learner._replace(params=params), episode.query.inputs), episode.query.targets
        )

    found = jax.jit(jax.grad(lambda params: algorithm.loss(Weights(params), episode, KEY, 0.0)[0]))(params)
    trees.assert_close(found, jax.jit(jax.grad(query_loss))(params), rtol=1e-10, atol=1e-12)


def test_the_shared_network_is_the_same_in_every_task_and_the_context_is_not():
    model, params, episode = network("mlp")
    algorithm = build(model, inner_steps=3)
    learners = [algorithm.adapt(Weights(params), part) for part in (episode.support, episode.query)]
    for learner in learners:
        trees.assert_equal(learner.params, params)
    assert trees.differ(learners[0].condition, learners[1].condition)


def test_in_mlp_a_condition_is_more_inputs():
    model, params, episode = network("mlp")
    inputs, condition = episode.query.inputs, np.array([0.4, -1.1])
    wider = builders.build_model(
        "mlp", base.Spec((4,), 2, "numbers"), hidden=(4,), activation="tanh", normalisation="batch"
    )
    joined = np.concatenate([inputs, np.tile(condition, (len(inputs), 1))], axis=1)
    found = jax.jit(model.apply)(params, inputs, condition=condition)
    np.testing.assert_allclose(found, jax.jit(wider.apply)(params, joined), rtol=1e-12)


def test_in_conv4_a_condition_of_zeros_changes_nothing_and_another_does():
    model, params, episode = network("conv4")
    inputs, apply = episode.query.inputs, jax.jit(model.apply)
    plain = np.asarray(apply(params, inputs))
    np.testing.assert_allclose(apply(params, inputs, condition=np.zeros(2)), plain, rtol=1e-12)
    assert np.abs(apply(params, inputs, condition=np.ones(2)) - plain).max() > 1e-2


def test_parameters_made_for_another_condition_are_refused_by_name():
    model, params, episode = network("mlp")
    with pytest.raises(ValueError, match="another condition"):
        model.apply(params, episode.query.inputs, condition=jnp.zeros(3))


def test_a_model_that_takes_no_condition_is_refused():
    def refuse(key, inputs, *, condition=None):
        raise ValueError("Toy takes no condition")

    toy = base.Model(refuse, refuse, refuse)
    episodes = jax.tree.map(lambda leaf: np.asarray(leaf)[None], network("mlp")[2])
    with pytest.raises(errors.ConfigError, match="Toy takes no condition"):
        build(toy).init(KEY, episodes, {})
