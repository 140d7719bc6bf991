"""ALFA: gradient descent where the generator is silent, its equation where it is not, and its meta-gradient."""

import jax
import numpy as np
import pytest

from helpers import builders, gradients, trees
from metarun import base, losses
from metarun.algorithms import alfa, maml

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(0)
PROBLEM = builders.regression_problem(2, 2)


class Case:
    """ALFA on a small smooth network, in float64."""

    def __init__(self, **options) -> None:
        self.model = builders.build_model("mlp", PROBLEM.spec, hidden=(3,), activation="tanh")
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
