"""What the answers are worth: temperature, intervals, the threshold of unknown pictures, and what to label next."""

import numpy as np
import pytest
from scipy import special, stats

from metarun.fewshot import centroids, left_out, novelty, suggestions, temperature
from metarun.fewshot.left_out import Share


@pytest.mark.parametrize("wrong", [0, 3])
def test_two_classes_with_one_margin_are_as_sure_as_the_rule_of_succession(wrong):
    count, margin = 10, 0.3
    scores = np.tile([margin, 0.0], (count, 1))
    labels = np.repeat([1, 0], [wrong, count - wrong])
    share = (count + 1) / (count + 2)
    expected = ((count - wrong) * share + wrong * (1 - share)) / count
    fitted = temperature.fit(scores, labels)
    assert fitted == pytest.approx(margin / special.logit(expected), rel=1e-6)
    assert temperature.make_probabilities(scores, fitted)[0, 0] == pytest.approx(expected)


def test_scores_of_calibrated_probabilities_keep_their_scale():
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=(4000, 5))
    chances = special.softmax(logits, axis=1)
    labels = np.array([random.choice(5, p=row) for row in chances])
    assert temperature.fit(7 * logits, labels) == pytest.approx(7, rel=0.1)


def test_useless_scores_give_even_probabilities():
    scores = np.tile([1.0, 0.0], (20, 1))
    fitted = temperature.fit(scores, np.array([0, 1] * 10))
    assert temperature.make_probabilities(scores, fitted)[0].tolist() == pytest.approx([0.5, 0.5], abs=1e-4)


@pytest.mark.parametrize(("right", "asked"), [(0, 5), (5, 5), (13, 20)])
def test_the_interval_is_that_of_wilson(right, asked):
    low, high = Share(right, asked).interval
    expected = stats.binomtest(right, asked).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_confusions_are_counted_for_each_pair():
    entries = left_out.count_confusions(np.array([0, 1, 1, 1]), np.array([0, 0, 0, 1]), ("a", "b"))
    assert entries == [
        {"class": "a", "answered": "a", "count": 1},
        {"class": "a", "answered": "b", "count": 2},
        {"class": "b", "answered": "b", "count": 1},
    ]
    assert left_out.list_mistakes(entries) == entries[1:2]


def test_the_threshold_lies_in_the_middle_of_the_gap_and_its_error_is_counted():
    assert novelty.choose(np.array([0.1, 0.2]), np.array([0.8, 0.9])) == pytest.approx(0.5)
    threshold = novelty.choose(np.array([0.1, 0.2, 0.85]), np.array([0.8, 0.9, 1.0]))
    assert threshold == pytest.approx(0.5)
    refused, taken = novelty.measure_errors(threshold, np.array([0.1, 0.2, 0.85]), np.array([0.8, 0.9]))
    assert (refused, taken) == pytest.approx((1 / 3, 0))


def test_classes_far_apart_have_a_threshold_without_error_and_equal_ones_one_of_a_half():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(5, dtype=np.int32), 8)
    apart = centroids.shorten((np.eye(20)[labels] + 0.02 * random.normal(size=(40, 20))).astype(np.float32))
    found = novelty.find_threshold(apart, labels)
    assert found.expected_error == found.known_refused == found.unknown_taken == 0
    assert 0.1 < found.distance < 1.9 and (found.known, found.unknown) == (40, 40)
    equal = centroids.shorten(random.normal(size=(40, 20)).astype(np.float32))
    found = novelty.find_threshold(equal, labels)
    assert 0.3 < found.expected_error < 0.7 and not found.is_useful
    assert found.expected_error >= (found.known_refused + found.unknown_taken) / 2 - 0.05


def test_classes_of_one_picture_have_no_threshold():
    features = centroids.shorten(np.eye(3, dtype=np.float32))
    labels = np.arange(3, dtype=np.int32)
    assert novelty.find_threshold(features, labels) is None


def test_a_single_class_with_several_pictures_has_no_threshold_that_another_one_could_judge():
    features = np.eye(4, 8, dtype=np.float32)
    assert novelty.find_threshold(features, np.array([0, 0, 0, 1])) is None


def test_the_unsure_ones_are_suggested_first_and_no_two_that_are_alike():
    features = centroids.shorten(np.array([[1, 0, 0], [1, -0.01, 0], [0, 1, 0], [0, 0, 1]], np.float32))
    labelled = centroids.shorten(np.array([[-1, -1, -1]], np.float32))
    doubt = suggestions.measure_doubt(
        np.array([[0.5, 0.5], [0.5, 0.5], [0.6, 0.4], [0.99, 0.01]]), np.array([False] * 4)
    )
    assert doubt == pytest.approx([1, 1, 0.8, 0.02])
    assert suggestions.choose(doubt, features, labelled, 2) == [0, 2]
    assert suggestions.choose(doubt, features, labelled, 9) == [0, 2, 3, 1]


def test_a_copy_of_a_labelled_picture_is_never_suggested_and_an_unknown_one_is_wholly_unsure():
    features = centroids.shorten(np.array([[1, 0], [0, 1]], np.float32))
    shares = np.array([[0.5, 0.5], [1.0, 0.0]])
    doubt = suggestions.measure_doubt(shares, np.array([False, True]))
    assert suggestions.choose(doubt, features, features[:1], 5) == [1]


def test_without_any_label_the_first_pictures_are_spread_over_all():
    features = centroids.shorten(np.repeat(np.eye(3), [5, 3, 2], axis=0).astype(np.float32))
    chosen = suggestions.choose(np.ones(10), features, features[:0], 3)
    assert {int(features[place].argmax()) for place in chosen} == {0, 1, 2}
