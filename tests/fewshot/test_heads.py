"""Class means and logistic regression on features: their closed forms, and what they are without an example."""

import numpy as np
import pytest
from scipy import optimize, special

from metarun.fewshot import centroids, heads, scaling, softmax_regression


def make_features(counts: list[int], width: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make noisy features of length 1 around a direction for each class."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    centres = random.normal(size=(len(counts), width))
    rows = centres[labels] + 0.8 * random.normal(size=(len(labels), width))
    return centroids.shorten(rows.astype(np.float32)), labels


def measure_plainly(features: np.ndarray, labels: np.ndarray, query: np.ndarray, ways: int) -> np.ndarray:
    """Return ‖f − c‖² − σ²/n of one query, written down once more; inf for a class without examples."""
    present = [way for way in range(ways) if (labels == way).any()]
    means = {way: features[labels == way].astype(float).mean(axis=0) for way in present}
    rest = sum(np.square(row - means[way]).sum() for row, way in zip(features, labels, strict=True))
    freedom = len(labels) - len(present)
    spread = rest / freedom if freedom else 0.0
    distances = np.full(ways, np.inf)
    for way in present:
        distances[way] = np.square(query - means[way]).sum() - spread / (labels == way).sum()
    return distances


@pytest.mark.parametrize("counts", [[4, 1, 3], [2, 2], [1, 2, 1]])
def test_what_is_left_out_of_the_class_means_equals_a_fit_to_the_others(counts):
    features, labels = make_features(counts)
    fitted, ways = centroids.fit(features, labels), len(counts)
    left = centroids.measure_left_out(fitted, features)
    without = centroids.measure_without_class(fitted, features)
    for place, label in enumerate(labels):
        others, strangers = np.arange(len(labels)) != place, labels != label
        expected = measure_plainly(features[others], labels[others], features[place], ways)
        np.testing.assert_allclose(left[place], expected, atol=1e-6)
        expected = measure_plainly(features[strangers], labels[strangers], features[place], ways)
        assert without[place] == pytest.approx(expected.min(), abs=1e-6)
    whole = np.stack([measure_plainly(features, labels, row, ways) for row in features])
    np.testing.assert_allclose(centroids.measure(fitted, features), whole, atol=1e-6)


def test_a_mean_of_one_picture_has_no_disadvantage_against_a_mean_of_many():
    random = np.random.default_rng(0)
    support = random.normal(size=(101, 2000))
    labels = np.array([0] * 100 + [1], np.int32)  # two classes with the same mean
    fitted = centroids.fit(support.astype(np.float32), labels)
    distances = centroids.measure(fitted, random.normal(size=(200, 2000)).astype(np.float32))
    assert abs((distances[:, 0] - distances[:, 1]).mean()) < 0.05 * distances.mean()
    plain = centroids.measure_squares(fitted.means, support[:5].astype(np.float32))
    assert (plain[:, 1] > 1.5 * plain[:, 0]).all()


def minimise(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, ways: int) -> np.ndarray:
    """Return the kernel at the minimum of the problem in `softmax_regression`, by scipy in double precision."""
    inputs = softmax_regression.extend(features).astype(float)

    def objective(flat):
        kernel = flat.reshape(-1, ways)
        scores = inputs @ kernel
        misfit = special.logsumexp(scores, axis=1) - scores[np.arange(len(labels)), labels]
        gap = special.softmax(scores, axis=1)
        gap[np.arange(len(labels)), labels] -= 1
        gradient = inputs.T @ (weights[:, None] * gap) + kernel
        return weights @ misfit + np.square(kernel).sum() / 2, gradient.ravel()

    start = np.zeros(inputs.shape[1] * ways)
    found = optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-9})
    return found.x.reshape(-1, ways)


@pytest.mark.parametrize("width", [3, 40])  # fewer features than pictures, and more
def test_logistic_regression_and_each_of_its_refits_are_at_their_minimum(width):
    features, labels = make_features([5, 2, 1, 4], width)
    fitted = softmax_regression.fit(features, labels, 1.0)
    everyone = np.ones(12, bool)
    weights = softmax_regression.balance(labels, everyone, 4).astype(float)
    np.testing.assert_allclose(fitted.kernel, minimise(features, labels, weights, 4), atol=5e-4)
    parts = softmax_regression.share_out(labels, fitted.basis.shape[1])
    assert sorted(parts) == [-1, *range(11)]  # the class of one picture is never left out
    scores = softmax_regression.score_left_out(fitted, features, labels, parts, 1.0)
    for place in (0, 5, 6, 11):
        others = np.arange(12) != place
        weights = softmax_regression.balance(labels, others, 4)
        kernel = minimise(features, labels, weights.astype(float), 4)
        expected = softmax_regression.extend(features[place : place + 1]) @ kernel
        np.testing.assert_allclose(scores[place], expected[0], atol=1e-3)


def test_each_class_counts_the_same_whatever_its_number_of_pictures():
    weights = softmax_regression.balance(np.array([0, 0, 0, 1]), np.ones(4, bool), 2)
    assert weights[:3].sum() == pytest.approx(weights[3]) and weights.sum() == pytest.approx(4)


def test_many_examples_are_left_out_in_parts_that_empty_no_class(monkeypatch):
    monkeypatch.setattr(softmax_regression, "OPERATIONS", 1.0)
    labels = np.repeat(np.arange(3), [2, 7, 1])
    parts = softmax_regression.share_out(labels, 4)
    assert set(parts) == {-1, *range(softmax_regression.FEWEST_PARTS)} and parts[-1] == -1
    for part in range(softmax_regression.FEWEST_PARTS):
        assert set(labels[parts != part]) == {0, 1, 2}
    features, _ = make_features([2, 7, 1])
    head = heads.fit_logistic(features, labels.astype(np.int32))
    assert head.left_out.how == "in 5 parts" and len(head.left_out.places) == 9


def test_a_thousand_classes_of_one_picture_are_told_apart_though_none_can_be_left_out():
    features, labels = make_features([1] * 1000, 64)
    head = heads.fit_centroid(features, labels)
    assert (head.score(features).argmax(axis=1) == labels).all()
    assert len(head.left_out.places) == 0 and head.left_out.how == "none: each class has one picture"


def test_features_are_scaled_by_the_support_alone_and_few_pictures_scale_all_features_alike():
    random = np.random.default_rng(0)
    rows = (random.normal(size=(400, 3)) * [1.0, 10.0, 0.1] + [5.0, 0.0, 1.0]).astype(np.float32)
    scaled = scaling.scale(rows, 300)
    np.testing.assert_array_equal(scaled[:350], scaling.scale(rows[:350], 300))
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, rtol=1e-5)
    assert scaled[:300, 0].std() == pytest.approx(scaled[:300, 1].std(), rel=0.3)  # a tenth before
    even = scaling.scale(np.array([[1, 0, 0], [0, 2, 0]], np.float32), 2)
    assert abs(even[0, 1] / even[0, 0]) == pytest.approx(2, rel=0.25)  # nearly as in the features themselves
    assert np.isfinite(scaling.scale(np.ones((3, 4), np.float32), 3)).all()
