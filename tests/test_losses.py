"""Losses against their formulas in numpy; the objectives that a task family is judged by."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from metarun import losses, trees
from metarun.base import Examples

LOGITS = jax.random.normal(jax.random.key(0), (6, 4))
LABELS = jnp.array([0, 3, 1, 1, 2, 0])


def test_a_wrong_shape_is_seen_by_the_checker_of_the_tests():
    with pytest.raises(jaxtyping.TypeCheckError):
        losses.cross_entropy(jnp.zeros((6, 4)), jnp.zeros(5, jnp.int32))
    with pytest.raises(jaxtyping.TypeCheckError):
        losses.mean_squared_error(jnp.zeros((6, 1)), jnp.zeros(6))
    with pytest.raises(jaxtyping.TypeCheckError):
        # Labels are whole numbers.
        jax.jit(jax.vmap(losses.accuracy))(jnp.zeros((2, 6, 4)), jnp.zeros((2, 6)))


def test_ranks_are_not_promoted_silently():
    with pytest.raises(ValueError, match="rank"):
        jnp.zeros((2, 3)) + jnp.zeros(3)


def test_cross_entropy_is_the_mean_negative_log_of_the_softmax():
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    expected = -np.log(probabilities[np.arange(6), LABELS]).mean()
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, LABELS), expected, rtol=1e-5)


@pytest.mark.parametrize("ways", [2, 5, 20])
def test_indifferent_logits_cost_the_log_of_the_ways(ways):
    loss = losses.cross_entropy(jnp.full((3, ways), 7.0), jnp.arange(3) % ways)
    np.testing.assert_allclose(loss, np.log(ways), rtol=1e-6)


def test_the_gradient_of_cross_entropy_is_softmax_minus_one_hot_over_the_examples():
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    gradient = jax.grad(losses.cross_entropy)(jnp.asarray(LOGITS), LABELS)
    np.testing.assert_allclose(gradient, (probabilities - np.eye(4)[LABELS]) / 6, atol=1e-6)


def test_cross_entropy_of_huge_logits_is_finite_with_a_finite_gradient():
    loss, gradient = jax.value_and_grad(losses.cross_entropy)(jnp.array([[1e30, -1e30]]), jnp.array([0]))
    assert loss == 0
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(losses.cross_entropy(jnp.array([[1e4, 0.0]]), jnp.array([1])), 1e4)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.accuracy])
def test_what_is_measured_is_a_mean_that_repeated_examples_do_not_change(loss):
    twice = loss(jnp.concatenate([LOGITS, LOGITS]), jnp.concatenate([LABELS, LABELS]))
    np.testing.assert_allclose(twice, loss(LOGITS, LABELS), rtol=1e-6)


def test_accuracy_is_the_share_of_largest_logits_at_the_label():
    np.testing.assert_allclose(
        losses.accuracy(LOGITS, LABELS), (LOGITS.argmax(axis=1) == LABELS).mean(), rtol=1e-6
    )
    assert losses.accuracy(jnp.eye(4), jnp.arange(4)) == 1
    assert losses.accuracy(jnp.eye(4), (jnp.arange(4) + 1) % 4) == 0


def test_squared_error_is_the_mean_over_examples_and_dimensions():
    outputs, targets = LOGITS, LOGITS[::-1]
    np.testing.assert_allclose(
        losses.mean_squared_error(outputs, targets), ((outputs - targets) ** 2).mean(), rtol=1e-6
    )


def test_classification_chooses_by_the_highest_accuracy_and_calls_the_predictor_once():
    calls = []
    objective = losses.classification()
    metrics = objective.metrics(lambda inputs: calls.append(inputs) or LOGITS, Examples("inputs", LABELS))
    assert metrics == {
        "loss": losses.cross_entropy(LOGITS, LABELS),
        "accuracy": losses.accuracy(LOGITS, LABELS),
    }
    assert calls == ["inputs"]
    assert objective.selection == "accuracy"
    assert objective.higher_is_better == ("accuracy",)


def test_regression_chooses_by_the_lowest_squared_error():
    objective = losses.regression()
    metrics = objective.metrics(lambda inputs: 2 * inputs, Examples(LOGITS, LOGITS))
    np.testing.assert_allclose(metrics["loss"], (LOGITS**2).mean(), rtol=1e-6)
    assert objective.selection in metrics
    assert objective.higher_is_better == ()


def test_descent_subtracts_the_scaled_gradient_and_keeps_dtypes():
    params = {"a": jnp.array([1.0, 2.0]), "b": (jnp.array(3.0, jnp.bfloat16),)}
    gradient = {"a": jnp.array([10.0, -10.0]), "b": (jnp.array(4.0, jnp.bfloat16),)}
    moved = trees.descend(params, gradient, 0.5)
    np.testing.assert_array_equal(moved["a"], [-4.0, 7.0])
    assert moved["b"][0] == 1
    assert jax.tree.map(lambda leaf: leaf.dtype, moved) == jax.tree.map(lambda leaf: leaf.dtype, params)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_one_number_that_is_not_finite_spoils_a_tree(bad):
    tree = {"a": jnp.zeros(3), "b": jnp.arange(2)}
    assert trees.all_finite(tree)
    assert trees.all_finite(())
    assert not trees.all_finite({**tree, "c": jnp.zeros((2, 2)).at[1, 0].set(bad)})


def test_size_counts_the_numbers_and_first_takes_one_task():
    tree = {"a": jnp.zeros((2, 3)), "b": jnp.arange(2)}
    assert trees.size(tree) == 8
    assert jax.tree.map(jnp.shape, trees.first(tree)) == {"a": (3,), "b": ()}
