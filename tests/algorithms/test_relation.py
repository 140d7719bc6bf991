"""Relation networks against numpy, pair by pair."""

import numpy as np
import pytest

from helpers.metric_case import QUERY_LABELS, Case, prototypes

pytestmark = pytest.mark.usefixtures("in_float64")


def scores(case: Case) -> np.ndarray:
    """g of every query with every class."""
    first, second = jax_free(case.weights.trained["relation"])

    def relate(query, prototype):
        hidden = np.concatenate([prototype, query]) @ first["kernel"] + first["bias"]
        return (np.maximum(hidden, 0) @ second["kernel"] + second["bias"])[0]

    queries = case.features(case.episode.query.inputs)
    return np.array([[relate(query, prototype) for prototype in prototypes(case)] for query in queries])


def jax_free(layers) -> list[dict[str, np.ndarray]]:
    return [{name: np.asarray(leaf) for name, leaf in layer.items()} for layer in layers]


def test_the_loss_is_the_squared_error_of_every_relation_with_whether_it_is_the_class():
    case = Case("relation", hidden=(4,))
    relations = 1 / (1 + np.exp(-scores(case)))
    wanted = np.array([[float(label == way) for way in range(3)] for label in QUERY_LABELS])
    np.testing.assert_allclose(case.loss()[0], ((relations - wanted) ** 2).mean(), rtol=1e-10)


def test_probabilities_are_the_relations_divided_by_their_sum():
    case = Case("relation", hidden=(4,))
    relations = 1 / (1 + np.exp(-scores(case)))
    powers = np.exp(case.outputs())
    np.testing.assert_allclose(
        powers / powers.sum(axis=1, keepdims=True),
        relations / relations.sum(axis=1, keepdims=True),
        rtol=1e-10,
    )


def test_trained_by_cross_entropy_the_scores_are_logits():
    case = Case("relation", hidden=(4,), training_loss="cross_entropy")
    expected = scores(case)
    np.testing.assert_allclose(case.outputs(), expected, rtol=1e-10, atol=1e-12)
    log_sums = np.log(np.exp(expected).sum(axis=1))
    right = expected[np.arange(len(QUERY_LABELS)), list(QUERY_LABELS)]
    assert case.loss()[0] == pytest.approx(np.mean(log_sums - right), rel=1e-10)
