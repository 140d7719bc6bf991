"""What the algorithms share that compare queries with the support: no last layer, any ways and shots, any order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from helpers import builders, compiled, gradients, trees
from helpers.metric_case import KEY, QUERY_LABELS, SUPPORT_LABELS, Case
from metarun import base, plugins
from metarun.base import Episode, Examples

pytestmark = pytest.mark.usefixtures("in_float64")
VARIANTS = [
    ("protonet", {}),
    ("protonet", {"distance": "cosine"}),
    ("matching", {}),
    ("matching", {"context": "full", "reads": 2}),
    ("relation", {"hidden": (4,)}),
    ("relation", {"hidden": (4,), "training_loss": "cross_entropy"}),
    ("mapping", {}),
    ("mapping", {"normalised": True, "distance": "cosine"}),
]
every_variant = pytest.mark.parametrize(
    ("name", "options"), VARIANTS, ids=[f"{name} {options}" for name, options in VARIANTS]
)


@every_variant
def test_the_models_last_layer_is_not_among_the_weights(name, options):
    case = Case(name, **options)
    whole = jax.eval_shape(case.model.init, KEY, case.episode.support.inputs)
    assert set(case.body) == set(whole) - {"head"}
    shapes = {part: jax.tree.map(jnp.shape, whole[part]) for part in case.body}
    assert jax.tree.map(jnp.shape, case.body) == shapes


@every_variant
def test_the_gradient_is_that_of_differences_of_the_loss(name, options):
    case = Case(name, **options)
    gradients.assert_gradient_is_that_of_differences(
        lambda trained: case.loss(trained)[0], case.weights.trained
    )


@every_variant
def test_the_metrics_are_those_of_what_adapt_and_predict_give(name, options):
    case = Case(name, **options)
    outputs, labels = case.outputs(), np.asarray(case.episode.query.targets)
    noted = case.loss()[1]
    expected = (special.logsumexp(outputs, axis=1) - outputs[np.arange(len(labels)), labels]).mean()
    assert noted["loss"] == pytest.approx(expected, rel=1e-12)
    assert noted["accuracy"] == (outputs.argmax(axis=1) == labels).mean()


@every_variant
def test_the_order_of_the_support_does_not_matter_where_labels_order_it(name, options):
    """The full context reads the examples of one class in the order in which they come: that one is kept."""
    case = Case(name, **options)
    order = np.argsort(SUPPORT_LABELS, kind="stable")
    ordered = compiled.select(case.episode.support, order)
    np.testing.assert_allclose(case.outputs(ordered), case.outputs(), rtol=1e-10, atol=1e-12)


@every_variant
def test_the_same_weights_tell_other_ways_apart_than_they_were_trained_in(name, options):
    """Weights made for three ways, in two: the third class is gone from support and outputs."""
    case, fewer = Case(name, **options), Case(name, ways=2, **options)
    assert trees.kind_of(fewer.weights) == trees.kind_of(case.weights)
    kept = np.flatnonzero(np.asarray(SUPPORT_LABELS) < 2)
    support = compiled.select(case.episode.support, kept)
    assert case.outputs().shape == (len(QUERY_LABELS), 3)
    outputs = fewer.outputs(support)
    assert outputs.shape == (len(QUERY_LABELS), 2)
    swapped = fewer.outputs(Examples(support.inputs, 1 - np.asarray(support.targets)))
    if options.get("context") != "full":  # there the classes are read in the order of their labels
        np.testing.assert_allclose(swapped[:, ::-1], outputs, rtol=1e-10, atol=1e-12)


@every_variant
def test_adaptation_sees_neither_the_query_nor_the_facts(name, options):
    case = Case(name, **options)
    objective = case.problem.objective._replace(training_metrics=lambda outputs, _: {"outputs": outputs})
    watched = case.problem._replace(objective=objective)
    module = plugins.load("algorithm", name)
    algorithm = module.build(module.Config(**options), case.model, watched)
    query, facts = case.episode.query, {"character": np.full(3, 7)}

    @jax.jit
    def outputs(query, facts):
        return algorithm.loss(case.weights, Episode(case.episode.support, query, facts), KEY, 0.0)[1][
            "outputs"
        ]

    other = Examples(query.inputs, (np.asarray(query.targets) + 1) % 3)
    trees.assert_equal(outputs(other, {"character": np.arange(3)}), outputs(query, facts))
    alone = outputs(compiled.select(query, slice(1)), facts)
    np.testing.assert_allclose(alone, outputs(query, facts)[:1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("distance", "scale", "factor"),
    [("euclidean", None, 1), ("euclidean", 0.5, 0.5), ("cosine", None, 10), ("cosine", 3.0, 3)],
)
@pytest.mark.parametrize(
    ("name", "options"), [("protonet", {}), ("mapping", {}), ("knowledge_graph", {"graph": "none"})]
)
def test_logits_are_similarities_to_the_prototypes(name, options, distance, scale, factor):
    case = Case(name, distance=distance, scale=scale, **options)
    learner = case.algorithm.adapt(case.weights, case.episode.support)
    points = np.asarray(learner.prototypes)
    queries = case.features(case.episode.query.inputs)
    if distance == "euclidean":
        expected = -((queries[:, None] - points[None]) ** 2).sum(axis=-1)
    else:
        lengths = [np.linalg.norm(vectors, axis=1) for vectors in (queries, points)]
        expected = queries @ points.T / np.outer(*lengths)
    found = case.algorithm.predict(learner, case.episode.query.inputs)
    np.testing.assert_allclose(found, factor * expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["protonet", "matching", "relation", "mapping"])
def test_a_family_without_classes_is_refused(name):
    problem = builders.make_problem(base.Spec((8, 8, 3), 6, "numbers"))
    with pytest.raises(ValueError, match="this task family has none"):
        builders.build_algorithm(name, builders.build_model("conv4", problem.spec), problem)
