"""Task mapping against numpy, class by class; its joint objective; and what the mapping depends on."""

import jax
import numpy as np
import pytest

from helpers import trees
from helpers.metric_case import KEY, QUERY_LABELS, SUPPORT_LABELS, Case, prototypes, softmax
from metarun.algorithms import mapping

pytestmark = pytest.mark.usefixtures("in_float64")


def mapped(case: Case, normalised: bool) -> np.ndarray:
    """ĉ, one class after the other."""
    points = prototypes(case)
    layers = jax.tree.map(np.asarray, case.weights.trained["attention"])
    rows = []
    for point in points:
        query = point @ layers["queries"]["kernel"]
        scores = [query @ (other @ layers["keys"]["kernel"]) / np.sqrt(len(query)) for other in points]
        values = [other @ layers["values"]["kernel"] for other in points]
        mixed = sum(a * value for a, value in zip(softmax(np.array(scores)), values, strict=True))
        row = point + mixed @ layers["result"]["kernel"] + layers["result"]["bias"]
        if normalised:
            norm = jax.tree.map(np.asarray, case.weights.trained["norm"])
            row = (row - row.mean()) / np.sqrt(row.var() + 1e-5) * norm["scale"] + norm["offset"]
        rows.append(row)
    return np.array(rows)


def cross_entropy(features: np.ndarray, points: np.ndarray, labels) -> float:
    terms = []
    for feature, label in zip(features, labels, strict=True):
        terms.append(-np.log(softmax(np.array([-((feature - point) ** 2).sum() for point in points]))[label]))
    return float(np.mean(terms))


@pytest.mark.parametrize("normalised", [False, True])
def test_classes_are_mapped_by_attention_to_all_classes(normalised):
    case = Case("mapping", normalised=normalised)
    learner = case.algorithm.adapt(case.weights, case.episode.support)
    np.testing.assert_allclose(learner.prototypes, mapped(case, normalised), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_the_objective_is_the_supports_loss_and_alpha_times_the_querys(alpha):
    case = Case("mapping", query_weight=alpha)
    points = mapped(case, normalised=False)
    support, query = (
        cross_entropy(case.features(part.inputs), points, labels)
        for part, labels in zip(case.episode[:2], (SUPPORT_LABELS, QUERY_LABELS), strict=True)
    )
    loss, metrics = case.loss()
    np.testing.assert_allclose(loss, support + alpha * query, rtol=1e-10)
    np.testing.assert_allclose(metrics["support_loss"], support, rtol=1e-10)
    np.testing.assert_allclose(metrics["loss"], query, rtol=1e-10)


def test_without_a_mapping_it_is_a_prototypical_network():
    case, plain = Case("mapping"), Case("protonet")
    still = jax.tree.map(np.zeros_like, case.weights.trained["attention"])
    case.weights = case.weights._replace(trained=case.weights.trained | {"attention": still})
    plain.weights = plain.weights._replace(trained=case.body)
    np.testing.assert_allclose(case.outputs(), plain.outputs(), rtol=1e-12, atol=1e-13)


def test_where_a_class_is_mapped_depends_on_the_other_classes_of_the_task():
    case = Case("mapping")
    features = case.features(case.episode.support.inputs)
    others = np.asarray(case.episode.support.targets) != 0

    @jax.jit
    def of_class_0(features):
        model = case.model._replace(embed=lambda params, inputs, **_: features)
        algorithm = mapping.build(mapping.Config(), model, case.problem)
        return algorithm.adapt(case.weights, case.episode.support).prototypes[0]

    moved = features + 0.5 * others[:, None]
    assert np.abs(of_class_0(moved) - of_class_0(features)).max() > 1e-3


def test_with_the_identity_as_first_mapping_it_begins_as_a_prototypical_network():
    case, plain = Case("mapping", first_mapping="identity"), Case("protonet")
    batch = jax.tree.map(lambda leaf: np.asarray(leaf)[None], case.episode)
    case.weights = case.algorithm.init(KEY, batch, {})
    plain.weights = plain.weights._replace(trained=case.body)
    np.testing.assert_allclose(case.outputs(), plain.outputs(), rtol=1e-6)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(case.weights.trained["attention"]["queries"]))


def test_a_pretrained_body_is_where_the_features_begin():
    case = Case("protonet")
    config = mapping.Config(pretrained="before")
    algorithm = mapping.build(config, case.model, case.problem, {"before": case.algorithm})
    batch = jax.tree.map(lambda leaf: np.asarray(leaf)[None], case.episode)
    found = jax.jit(algorithm.init)(KEY, batch, {"before": case.weights})
    trees.assert_equal(found.trained["features"], case.weights.trained)
    with pytest.raises(ValueError, match="names the stage before"):
        mapping.build(config, case.model, case.problem, {})
