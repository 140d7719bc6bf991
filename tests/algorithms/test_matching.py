"""Matching networks against numpy: attention over the support, and the full context as the paper writes it."""

import jax
import numpy as np
import pytest

from helpers.metric_case import SUPPORT_LABELS, Case, softmax
from metarun.algorithms import matching

pytestmark = pytest.mark.usefixtures("in_float64")


def class_probabilities(queries: np.ndarray, support: np.ndarray, labels, scale: float) -> np.ndarray:
    rows = []
    for query in queries:
        cosines = [query @ x / np.linalg.norm(query) / np.linalg.norm(x) for x in support]
        attention = softmax(scale * np.array(cosines))
        rows.append(
            [sum(a for a, label in zip(attention, labels, strict=True) if label == way) for way in range(3)]
        )
    return np.array(rows)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_probabilities_are_the_attention_that_falls_on_each_class(scale):
    case = Case("matching", scale=scale)
    support, queries = (case.features(part.inputs) for part in case.episode[:2])
    expected = class_probabilities(queries, support, SUPPORT_LABELS, scale)
    np.testing.assert_allclose(np.exp(case.outputs()), expected, rtol=1e-10)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(cell, inputs, recurrent, memory):
    """One step, gate by gate."""
    gates = np.concatenate([inputs, recurrent]) @ np.asarray(cell["kernel"]) + np.asarray(cell["bias"])
    size = len(memory)
    enter, forget, candidate, leave = (gates[index * size : (index + 1) * size] for index in range(4))
    memory = sigmoid(forget) * memory + sigmoid(enter) * np.tanh(candidate)
    return sigmoid(leave) * np.tanh(memory), memory


def run_along(cell, features):
    hidden = memory = np.zeros(features.shape[1])
    states = []
    for feature in features:
        hidden, memory = lstm(cell, feature, hidden, memory)
        states.append(hidden)
    return np.array(states)


def full_context(case: Case, reads: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """(f of the queries, g of the support, the labels of the support), as in section 2.1.2 and appendix A."""
    params = case.weights.trained
    order = sorted(range(len(SUPPORT_LABELS)), key=lambda index: SUPPORT_LABELS[index])
    plain = case.features(case.episode.support.inputs)[order]
    forward = run_along(params["forward"], plain)
    backward = run_along(params["backward"], plain[::-1])[::-1]
    support = forward + backward + plain
    queries = []
    for feature in case.features(case.episode.query.inputs):
        hidden = memory = np.zeros_like(feature)
        for _ in range(reads):
            read = softmax(support @ hidden) @ support
            state, memory = lstm(params["reading"], feature, np.concatenate([hidden, read]), memory)
            hidden = state + feature
        queries.append(hidden)
    return np.array(queries), support, [SUPPORT_LABELS[index] for index in order]


@pytest.mark.parametrize("reads", [1, 3])
def test_full_context_embeddings_are_those_of_the_paper(reads):
    case = Case("matching", context="full", reads=reads)
    queries, support, labels = full_context(case, reads)
    learner = case.algorithm.adapt(case.weights, case.episode.support)
    np.testing.assert_allclose(learner.embeddings, support, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(learner.labels, labels)
    expected = class_probabilities(queries, support, labels, 10.0)
    np.testing.assert_allclose(np.exp(case.outputs()), expected, rtol=1e-9)


def test_in_full_context_the_embedding_of_an_example_depends_on_the_others():
    case = Case("matching", context="full")
    features, embed = case.features(case.episode.support.inputs), jax.jit(matching.embed_support)
    whole, without = (np.asarray(embed(case.weights.trained, part)) for part in (features, features[:-1]))
    assert np.abs(whole[:-1] - without).max() > 1e-3


def test_a_class_without_examples_has_no_probability():
    compute = jax.jit(matching.class_log_probabilities, static_argnums=2)
    outputs = compute(np.zeros((1, 2)), np.asarray([0, 2]), 3)
    np.testing.assert_allclose(np.exp(outputs), [[0.5, 0.0, 0.5]], rtol=1e-12)
