"""ALFA: gradient descent where the generator is silent, its equation where it is not, and its meta-gradient."""

import functools

import jax
import numpy as np
import pytest

from helpers import builders, gradients, trees
from metarun import base, errors, losses
from metarun.algorithms import alfa, maml

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(0)
POINTS = base.Points((1, 3), lambda learner: learner.params)
PROBLEM = builders.regression_problem(2, 2)


class Case:
    """ALFA on a small smooth network, in float64."""

    def __init__(self, normalisation: str = "none", **options) -> None:
        self.model = builders.build_model(
            "mlp", PROBLEM.spec, hidden=(3,), activation="tanh", normalisation=normalisation
        )
        config = alfa.Config(**{"inner_steps": 2, "inner_lr": 0.05, **options})
        self.algorithm = alfa.build(config, self.model, PROBLEM)
        inputs, targets = (trees.normal_like(np.zeros((4, 2)), seed) for seed in (1, 2))
        self.episode = base.Episode(
            base.Examples(inputs, targets), base.Examples(np.asarray(inputs) + 1, targets)
        )
        self.weights = gradients.to_float64(
            jax.jit(self.algorithm.init)(
                KEY, jax.tree.map(lambda leaf: np.asarray(leaf)[None], self.episode), {}
            )
        )

    def support_loss(self, params):
        return losses.mean_squared_error(
            self.model.apply(params, self.episode.support.inputs), self.episode.support.targets
        )


def test_with_a_generator_of_zeros_it_is_maml():
    case = Case(inner_steps=3)
    silent = case.weights.trained | {
        "generator": jax.tree.map(np.zeros_like, case.weights.trained["generator"])
    }
    other = maml.build(maml.Config(inner_steps=3, inner_lr=0.05), case.model, PROBLEM)
    found = jax.jit(case.algorithm.adapt)(base.Weights(silent), case.episode.support).params
    expected = jax.jit(other.adapt)(base.Weights(silent["params"]), case.episode.support).params
    trees.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_a_step_is_the_paper_s_with_generated_rates_and_decays():
    case = Case(inner_steps=1)
    trained = case.weights.trained
    params, slope = trained["params"], jax.jit(jax.grad(case.support_loss))(trained["params"])
    leaves, slopes = (list(map(np.asarray, jax.tree.leaves(tree))) for tree in (params, slope))
    state = np.array([leaf.mean() for leaf in slopes] + [leaf.mean() for leaf in leaves])
    first, last = (jax.tree.map(np.asarray, layer) for layer in trained["generator"])
    hidden = np.maximum(state @ first["kernel"] + first["bias"], 0)
    factors = 1 + hidden @ last["kernel"] + last["bias"]
    rates, decays = 0.05 * factors[: len(leaves)], factors[len(leaves) :]
    expected = [b * leaf - a * g for a, b, leaf, g in zip(rates, decays, leaves, slopes, strict=True)]
    found = jax.tree.leaves(jax.jit(case.algorithm.adapt)(case.weights, case.episode.support).params)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-9)
    assert np.ptp(factors) > 1e-3  # the generator does say something


def test_the_meta_gradient_is_that_of_differences_of_the_outer_loss():
    case = Case()

    def outer(trained):
        return case.algorithm.loss(base.Weights(trained), case.episode, KEY, 0.0)[0]

    gradients.assert_gradient_is_that_of_differences(outer, case.weights.trained)


def test_a_random_start_is_not_trained():
    case = Case(initial="random")
    assert set(case.weights.trained) == {"generator", "rates", "decays"}
    learned = Case().weights.trained["params"]
    trees.assert_equal(case.weights.frozen, learned)  # the same key draws the same start


def test_scanned_and_unrolled_inner_loops_are_the_same_function():
    scanned, unrolled = Case(loop="scan"), Case(loop="unroll")
    trees.assert_close(
        jax.jit(scanned.algorithm.adapt)(unrolled.weights, unrolled.episode.support),
        jax.jit(unrolled.algorithm.adapt)(unrolled.weights, unrolled.episode.support),
        rtol=1e-11,
        atol=1e-13,
    )


def test_a_subtracted_decay_starts_next_to_none_and_the_factor_does_not():
    case = Case(decay="subtracted")
    np.testing.assert_allclose(case.weights.trained["decays"], 5e-4 * 0.05, rtol=1e-6)

    @functools.partial(jax.jit, static_argnums=0)
    def generate(config, trained, params):
        return alfa.generate_rates(config, trained, params, params)[1]

    params = case.weights.trained["params"]
    decays = generate(alfa.Config(decay="subtracted"), case.weights.trained, params)
    assert 0 < np.abs(np.asarray(decays) - 1).max() < 1e-5
    other = Case().weights.trained
    assert np.abs(np.asarray(generate(alfa.Config(), other, params)) - 1).max() > 1e-3


def test_each_inner_step_has_its_own_rates_and_later_steps_have_the_last_ones():
    case, options = Case(per_step=True, loop="scan"), {"per_step": True, "inner_steps": 3}
    arrays = len(jax.tree.leaves(case.weights.trained["params"]))
    assert case.weights.trained["rates"].shape == case.weights.trained["decays"].shape == (2, arrays)
    rates = np.stack([np.full(arrays, 0.05), np.full(arrays, 0.2)])
    weights = case.weights._replace(trained=case.weights.trained | {"rates": jax.device_put(rates)})
    longer = Case(**options)
    by_hand = weights._replace(
        trained=weights.trained
        | {name: jax.device_put(np.asarray(weights.trained[name])[[0, 1, 1]]) for name in ("rates", "decays")}
    )
    found = jax.jit(lambda weights: case.algorithm.watch(weights, case.episode.support, POINTS))(weights)
    expected = jax.jit(longer.algorithm.adapt)(by_hand, case.episode.support).params
    trees.assert_close(jax.tree.map(lambda leaf: leaf[-1], found), expected, rtol=1e-10, atol=1e-12)


def test_a_normalisation_that_does_not_adapt_is_learned_and_has_no_rate():
    case = Case("layer", adapts_normalisation=False)
    params = case.weights.trained["params"]
    learner = jax.jit(case.algorithm.adapt)(case.weights, case.episode.support)
    trees.assert_equal(learner.params["norms_0"], params["norms_0"])
    assert trees.differ(learner.params["hidden_0"], params["hidden_0"])
    assert case.weights.trained["rates"].shape == (4,)  # kernels and biases of two layers

    def outer(params):
        weights = base.Weights(case.weights.trained | {"params": params})
        return case.algorithm.loss(weights, case.episode, KEY, 0.0)[0]

    slope = jax.jit(jax.grad(outer))(params)["norms_0"]
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(slope))


def test_a_model_without_a_normalisation_cannot_keep_it_from_adapting():
    with pytest.raises(errors.ConfigError, match="no normalisation"):
        Case(adapts_normalisation=False)
