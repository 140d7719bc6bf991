"""Prototypical networks against numpy, example by example."""

import numpy as np
import pytest

from helpers.metric_case import QUERY_LABELS, Case, prototypes

pytestmark = pytest.mark.usefixtures("in_float64")


def euclidean(feature, prototype):
    return -((feature - prototype) ** 2).sum()


def cosine(feature, prototype):
    return feature @ prototype / np.linalg.norm(feature) / np.linalg.norm(prototype)


def logits(case: Case, similarity) -> np.ndarray:
    queries = case.features(case.episode.query.inputs)
    return np.array([[similarity(query, point) for point in prototypes(case)] for query in queries])


@pytest.mark.parametrize(
    ("distance", "similarity", "scale", "factor"),
    [
        ("euclidean", euclidean, None, 1),
        ("euclidean", euclidean, 0.5, 0.5),
        ("cosine", cosine, None, 10),
        ("cosine", cosine, 3.0, 3),
    ],
)
def test_logits_are_the_similarities_to_the_means_of_the_classes(distance, similarity, scale, factor):
    case = Case("protonet", distance=distance, scale=scale)
    np.testing.assert_allclose(case.outputs(), factor * logits(case, similarity), rtol=1e-10, atol=1e-12)


def test_the_loss_is_the_negative_log_probability_of_the_querys_classes():
    case = Case("protonet")
    powers = np.exp(logits(case, euclidean))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    expected = -np.mean([np.log(probabilities[index, label]) for index, label in enumerate(QUERY_LABELS)])
    np.testing.assert_allclose(case.loss()[0], expected, rtol=1e-12)
