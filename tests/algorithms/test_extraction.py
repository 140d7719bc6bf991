"""Extraction: before adaptation it is the base model; its steps and its memory against independent computations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, compiled, trees
from metarun import errors
from metarun.algorithms import extraction, maml, pretrain
from metarun.algorithms.extraction import memory_learner
from metarun.base import Weights

KEY = jax.random.key(0)


class Before:
    """A family of tasks, and a pre-trained network."""

    def __init__(self, labelled: bool) -> None:
        self.family = builders.blobs() if labelled else builders.build_task("sinusoid", shots=6, queries=6)
        self.model = compiled.compile_model(builders.build_model("mlp", self.family.problem.spec))
        self.episodes = compiled.sample(self.family, KEY, 3)
        stage = pretrain.build(pretrain.Config(), self.model, self.family.problem)
        self.base = compiled.compile_algorithm(stage)
        self.weights = self.base.init(KEY, self.episodes, {})


make_before = functools.cache(Before)


class Case:
    """The extraction on such a network."""

    def __init__(self, labelled: bool, **options) -> None:
        before = make_before(labelled)
        self.family, self.model, self.base = before.family, before.model, before.base
        self.episodes, self.episode = before.episodes, compiled.select(before.episodes, 0)
        earlier = {"pretrain": before.weights}
        self.pretrained = earlier["pretrain"].trained
        config = extraction.Config(**options)
        algorithm = extraction.build(config, self.model, self.family.problem, {"pretrain": self.base})
        self.algorithm = compiled.compile_algorithm(algorithm)
        self.weights = self.algorithm.init(jax.random.key(1), self.episodes, earlier)

    def answer(self, algorithm=None, weights=None) -> np.ndarray:
        algorithm, weights = algorithm or self.algorithm, weights or self.weights
        support, inputs = self.episode.support, self.episode.query.inputs
        return np.asarray(compiled.answer(algorithm, weights, support, inputs))

    def features(self, inputs) -> np.ndarray:
        return np.asarray(self.model.embed(self.pretrained["body"], inputs), np.float64)


def test_copies_from_one_start_have_its_last_layer_and_a_pooled_one_is_refused():
    """As members of a soup must: two keys give the same weights, which are those of MAML."""
    before = make_before(labelled=True)
    stage = maml.build(maml.Config(), before.model, before.family.problem)
    start = jax.jit(stage.init)(KEY, before.episodes, {})
    config = extraction.Config(pretrained="maml", head="start")
    build = functools.partial(extraction.build, config, before.model, before.family.problem)
    init = jax.jit(build({"maml": stage}).init)
    copies = [init(jax.random.key(seed), before.episodes, {"maml": start}) for seed in (1, 2)]
    trees.assert_equal(*copies)
    trees.assert_equal(copies[0].trained["head"], start.trained["head"])
    with pytest.raises(errors.ConfigError, match="no last layer for the classes") as refused:
        jax.eval_shape(build({"maml": before.base}).init, KEY, before.episodes, {"maml": before.weights})
    assert refused.value.where == "algorithm.head"


@pytest.mark.parametrize("learner", ["gradient", "memory"])
def test_before_adaptation_a_regression_answers_as_the_base_model(learner):
    case = Case(labelled=False, learner=learner, inner_steps=0)
    expected = case.answer(case.base, Weights(case.pretrained))
    np.testing.assert_allclose(case.answer(), expected, rtol=1e-6)


@pytest.mark.parametrize("options", [{"learner": "memory"}, {"free": ("body",)}])
def test_before_adaptation_a_classification_knows_nothing_of_new_classes(options):
    outputs = Case(labelled=True, inner_steps=0, **options).answer()
    np.testing.assert_allclose(outputs, np.broadcast_to(outputs[:, :1], outputs.shape), atol=1e-6)


def test_the_gradient_learner_with_equal_rates_is_maml_from_the_pooled_start():
    case = Case(labelled=False, inner_steps=2, inner_lr=0.05)
    same = maml.build(maml.Config(inner_steps=2, inner_lr=0.05), case.model, case.family.problem)
    params = case.pretrained["body"] | {"head": case.pretrained["head"]}
    np.testing.assert_allclose(case.answer(), case.answer(same, Weights(params)), rtol=1e-5, atol=1e-6)


def test_every_array_moves_by_its_own_rate():
    case = Case(labelled=False, inner_lr=0.05)
    start = case.algorithm.adapt(case.weights, case.episode.support)
    rates = jax.tree.map(np.asarray, case.weights.trained["rates"])
    twice = rates | {"head": {"kernel": 2 * rates["head"]["kernel"], "bias": 0 * rates["head"]["bias"]}}
    other = case.algorithm.adapt(
        Weights(case.weights.trained | {"rates": twice}, case.weights.frozen), case.episode.support
    )
    head, first, second = (
        jax.tree.map(np.asarray, each) for each in (case.pretrained["head"], start.head, other.head)
    )
    np.testing.assert_allclose(
        second["kernel"] - head["kernel"], 2 * (first["kernel"] - head["kernel"]), rtol=1e-3, atol=1e-6
    )
    np.testing.assert_array_equal(second["bias"], head["bias"])
    trees.assert_equal(other.body, start.body)


@pytest.mark.parametrize("free", [("body",), ("head",), ("rates",), ("body", "rates")])
def test_only_what_is_free_is_trained(free):
    weights = Case(labelled=False, free=free).weights
    assert set(weights.trained) == set(free)
    assert set(weights.trained) | set(weights.frozen) == {"body", "head", "rates"}


def test_with_adapts_head_the_body_stays():
    case = Case(labelled=False, adapts="head", inner_steps=3)
    learner = case.algorithm.adapt(case.weights, case.episode.support)
    trees.assert_equal(learner.body, case.pretrained["body"])
    assert trees.differ(learner.head, case.pretrained["head"])
    assert set(case.weights.trained["rates"]) == {"head"}


def attention(case: Case, asked: np.ndarray, keys: np.ndarray) -> np.ndarray:
    scores = np.exp(asked @ keys.T * np.exp(float(case.weights.trained["keys"]["log_sharpness"])))
    return scores / scores.sum(axis=1, keepdims=True)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("reads", [1, 2])
@pytest.mark.parametrize("labelled", [False, True])
def test_the_memory_learner_is_the_formula_of_the_docstring(labelled, reads):
    case = Case(labelled=labelled, learner="memory", inner_steps=reads, width=5)
    projection = np.asarray(case.weights.trained["keys"]["projection"], np.float64)
    assert projection.shape == (8, 5)
    support, query = case.episode.support, case.episode.query
    keys, asked = (unit(case.features(each) @ projection) for each in (support.inputs, query.inputs))
    gate = 1 / (1 + np.exp(-memory_learner.GATE))
    for _ in range(reads - 1):
        asked = unit(asked + attention(case, asked, keys) @ keys)
    weights = attention(case, asked, keys)
    if labelled:
        found = weights @ np.eye(3)[np.asarray(support.targets)]
        expected = np.log((1 - gate) / 3 + gate * found)
    else:
        kernel, bias = (np.asarray(case.pretrained["head"][name]) for name in ("kernel", "bias"))
        base_support, base_query = (case.features(e.inputs) @ kernel + bias for e in (support, query))
        expected = base_query + gate * weights @ (np.asarray(support.targets) - base_support)
    np.testing.assert_allclose(case.answer(), expected, rtol=1e-4, atol=1e-5)


def test_a_memory_of_an_example_with_sharp_keys_says_what_was_wrong_there():
    case = Case(labelled=False, learner="memory")
    trained = case.weights.trained
    sharp = trained | {"gate": jnp.array(20.0), "keys": trained["keys"] | {"log_sharpness": jnp.array(16.0)}}
    learner = case.algorithm.adapt(case.weights._replace(trained=sharp), case.episode.support)
    outputs = case.algorithm.predict(learner, case.episode.support.inputs)
    np.testing.assert_allclose(outputs, case.episode.support.targets, atol=1e-3)


@pytest.mark.parametrize("free", [(), ("body", "body")])
def test_nothing_free_and_repeats_are_refused(free):
    with pytest.raises(ValueError, match="free"):
        extraction.Config(free=free)


def test_a_memory_has_no_last_layer_to_start_with():
    with pytest.raises(ValueError, match="no last layer"):
        extraction.Config(learner="memory", head="start")
