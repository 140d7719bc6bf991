"""Neural processes: their densities against scipy, what they may depend on, and what cannot be built."""

import functools

import jax
import numpy as np
import pytest
from scipy import integrate, stats

from helpers import builders, compiled, trees
from metarun import base
from metarun.algorithms import neural_process
from metarun.algorithms.neural_process import gaussian
from metarun.algorithms.neural_process.gaussian import Gaussian

KEY = jax.random.key(0)
KINDS = {
    "conditional": {},
    "attention": {"summary": "attention"},
    "latent": {"path": "latent"},
    "attentive": {"path": "both", "summary": "attention", "likelihood": "gaussian"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@functools.cache
def draw() -> tuple[base.TaskFamily, base.Episode]:
    """Return the family and a batch of one task."""
    family = builders.build_task("sinusoid", shots=6, queries=5)
    return family, compiled.sample(family, KEY, 1)


class Case:
    """A small neural process on one sinusoid."""

    def __init__(self, kind: str, **options) -> None:
        self.family, episodes = draw()
        self.episode = compiled.select(episodes, 0)
        algorithm = builders.build_algorithm(
            "neural_process",
            builders.build_model("mlp", self.family.problem.spec),
            self.family.problem,
            **{**KINDS[kind], **options},
        )
        self.algorithm = compiled.compile_algorithm(algorithm)
        self.weights = self.algorithm.init(KEY, episodes, {})

    def predict(self, support, inputs) -> np.ndarray:
        return np.asarray(compiled.answer(self.algorithm, self.weights, support, inputs))


make_case = functools.cache(Case)


def test_the_divergence_is_the_integral_that_defines_it():
    left, right = stats.norm(0.3, 0.5), stats.norm(-0.4, 0.9)
    integral = integrate.quad(lambda x: left.pdf(x) * (left.logpdf(x) - right.logpdf(x)), -5, 5)[0]
    sides = [
        Gaussian(np.full(3, mean), np.full(3, deviation)) for mean, deviation in ((0.3, 0.5), (-0.4, 0.9))
    ]
    divergence = jax.jit(gaussian.divergence)(*sides)
    np.testing.assert_allclose(divergence, 3 * integral, rtol=1e-5)


def test_the_likelihood_is_that_of_scipy():
    mean, deviation, targets = (np.random.default_rng(seed).uniform(0.5, 2, (4, 2)) for seed in range(3))
    value = jax.jit(gaussian.negative_log_likelihood)(Gaussian(mean, deviation), targets)
    np.testing.assert_allclose(value, -stats.norm(mean, deviation).logpdf(targets).mean(), rtol=1e-6)


@every_kind
def test_the_order_of_the_support_changes_nothing(kind):
    case = make_case(kind)
    reversed_ = compiled.select(case.episode.support, slice(None, None, -1))
    inputs = case.episode.query.inputs
    trees.assert_close(
        case.predict(reversed_, inputs), case.predict(case.episode.support, inputs), rtol=1e-4, atol=1e-5
    )


@every_kind
def test_a_query_is_answered_by_itself(kind):
    case = make_case(kind)
    inputs = case.episode.query.inputs
    together = case.predict(case.episode.support, inputs)
    alone = np.concatenate([case.predict(case.episode.support, row[None]) for row in np.asarray(inputs)])
    trees.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@every_kind
def test_a_support_of_another_size_is_read_too(kind):
    case = make_case(kind)
    few = compiled.select(case.episode.support, slice(2))
    inputs = case.episode.query.inputs
    assert case.predict(few, inputs).shape == (5, 1)
    assert trees.differ(case.predict(few, inputs), case.predict(case.episode.support, inputs))


def test_the_conditional_outer_loss_is_the_query_loss_of_what_adapt_and_predict_give():
    case = make_case("conditional")
    support, query = case.episode.support, case.episode.query
    expected = np.square(case.predict(support, query.inputs) - query.targets).mean()
    np.testing.assert_allclose(
        case.algorithm.loss(case.weights, case.episode, KEY, 0.0)[0], expected, rtol=1e-6
    )


@pytest.mark.parametrize("kind", ["latent", "attentive"])
def test_a_query_that_tells_nothing_new_costs_no_divergence(kind):
    """With the query equal to the support, the mean over both is that over the support."""
    case = make_case(kind)
    same = base.Episode(case.episode.support, case.episode.support)
    repeated = case.algorithm.loss(case.weights, same, KEY, 0.0)[1]["divergence"]
    new = case.algorithm.loss(case.weights, case.episode, KEY, 0.0)[1]["divergence"]
    assert abs(float(repeated)) < 1e-5 < float(new)


def test_queries_and_keys_begin_alike_and_train_apart():
    """What is alike attends to each other at once; else classes stay at chance for thousands of steps."""
    case = make_case("attention")
    start = case.weights.trained["attention"]
    np.testing.assert_array_equal(start["queries"]["kernel"], start["keys"]["kernel"])

    def loss(trained):
        return case.algorithm.loss(base.Weights(trained), case.episode, KEY, 0.0)[0]

    slope = jax.jit(jax.grad(loss))(case.weights.trained)["attention"]
    assert np.abs(slope["queries"]["kernel"] - slope["keys"]["kernel"]).max() > 0


def test_width_and_depth_are_the_size_of_encoder_and_decoder():
    trained = Case("latent", width=6, depth=3).weights.trained
    encoder = [layer["bias"].shape for layer in trained["latent"]["encoder"]]
    decoder = [layer["bias"].shape for layer in trained["decoder"]]
    assert (encoder, decoder) == ([(6,), (6,), (6,)], [(6,), (6,), (1,)])


def test_the_heads_are_those_of_the_attention():
    one, two = (Case("attention", heads=heads) for heads in (1, 2))
    trees.assert_equal(one.weights, two.weights)
    inputs = one.episode.query.inputs
    assert trees.differ(*(case.predict(case.episode.support, inputs) for case in (one, two)))


def test_attention_without_a_deterministic_path_is_refused():
    with pytest.raises(ValueError, match="deterministic path"):
        neural_process.Config(path="latent", summary="attention")


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="3 heads"):
        neural_process.Config(summary="attention", width=8, heads=3)


def test_a_gaussian_of_class_labels_is_refused():
    family = builders.blobs()
    model = builders.build_model("mlp", family.problem.spec)
    with pytest.raises(ValueError, match="targets are classes"):
        builders.build_algorithm("neural_process", model, family.problem, likelihood="gaussian")
