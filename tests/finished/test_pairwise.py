"""Paired tests against scipy, and Holm's correction against its definition."""

import itertools

import numpy as np
import pytest
from scipy import stats

from metarun.evaluation.statistics import estimate, find_half_width
from metarun.finished.pairwise import (
    LEVEL,
    Measured,
    correct_by_holm,
    find_p_value,
    find_possible_best,
    subtract,
)


def test_the_p_value_is_that_of_the_paired_test():
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=(2, 40))
    expected = stats.ttest_rel(left, right).pvalue
    assert find_p_value(estimate((left - right)[None])) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("difference", "p_value"), [(0.0, 1.0), (0.5, 0.0)])
def test_the_same_difference_in_every_episode_is_certain(difference, p_value):
    assert find_p_value(estimate(np.full((1, 9), difference))) == p_value


def test_a_difference_that_is_not_finite_has_no_p_value():
    assert np.isnan(find_p_value(estimate(np.array([[0.0, 1.0, np.nan]]))))


@pytest.mark.parametrize("scale", [0.02, 0.3, 30.0])
def test_the_p_value_of_a_crossed_difference_is_where_its_interval_ends_at_zero(scale):
    generator = np.random.default_rng(2)
    values = scale + generator.normal(size=(3, 1)) / 4 + generator.normal(size=(1, 25)) / 3
    difference = estimate(values + generator.normal(size=(3, 25)) / 10)
    half = find_half_width(difference.parts, find_p_value(difference))
    assert half == pytest.approx(abs(difference.mean), rel=1e-9)


def test_learners_are_paired_by_the_seeds_that_both_have():
    """What a seed and an episode add to both learners does not count."""
    generator = np.random.default_rng(3)
    hard = generator.normal(size=(4, 30)) * 5
    left = Measured(hard[[0, 1, 2]] + 0.5, (7, 8, 9))
    right = Measured(hard[[2, 3, 1]], (9, 10, 8))
    pair = subtract(left, right)
    assert pair.seeds == (8, 9)
    assert pair.estimate.interval == pytest.approx((0.5, 0.0), abs=1e-12)


def test_learners_without_a_seed_in_common_are_paired_by_episode_and_both_trainings_count():
    generator = np.random.default_rng(4)
    hard = generator.normal(size=(1, 30)) * 5
    left, right = hard + np.array([[0.0], [2.0], [4.0]]), hard + np.array([[1.0], [3.0]])
    pair = subtract(Measured(left, (0, 1, 2)), Measured(right, (5, 6)))
    assert pair.seeds == ()
    variances = [np.var([0.0, 2.0, 4.0], ddof=1) / 3, np.var([1.0, 3.0], ddof=1) / 2]
    assert [part.variance for part in pair.estimate.parts[:2]] == pytest.approx(variances)
    assert pair.estimate.parts[2].variance == pytest.approx(0.0, abs=1e-12)


def test_one_seed_on_each_side_is_the_paired_test_over_episodes():
    left, right = np.random.default_rng(5).normal(size=(2, 1, 30))
    for seeds in ((0,), (1,)), ((0,), (0,)), ((), ()):
        pair = subtract(*(Measured(side, own) for side, own in zip((left, right), seeds, strict=True)))
        assert find_p_value(pair.estimate) == pytest.approx(stats.ttest_rel(left[0], right[0]).pvalue)


def test_the_correction_is_that_of_a_worked_example():
    corrected = correct_by_holm([0.01, 0.04, float("nan"), 0.03, 0.005])
    np.testing.assert_allclose(corrected, [0.03, 0.06, np.nan, 0.06, 0.02])
    assert correct_by_holm([0.9, 0.8]) == [1.0, 1.0]
    assert correct_by_holm([]) == []


def test_among_equals_one_family_in_twenty_has_a_difference_at_all():
    """Without the correction it is most families: the chance of a false difference in 15 pairs adds up."""
    generator = np.random.default_rng(1)
    false, naive, families = 0, 0, 300
    for values in generator.normal(size=(families, 6, 30)):
        p_values = [find_p_value(estimate((a - b)[None])) for a, b in itertools.combinations(values, 2)]
        false += min(correct_by_holm(p_values)) < LEVEL
        naive += min(p_values) < LEVEL
    assert false / families < 0.08
    assert naive / families > 0.25


def test_a_learner_may_be_the_best_unless_one_sided_tests_exclude_it_together():
    assert find_possible_best([0.001, 0.049, 0.051, 0.9]) == [False, True, True, True]
    assert find_possible_best([0.024, 0.026, float("nan")]) == [False, False, False]
    assert find_possible_best([0.051, 0.2]) == [True, True]
    assert find_possible_best([]) == []


def test_the_truly_best_learner_is_seldom_excluded_whichever_is_measured_as_the_best():
    """Without the correction the best of six equals is excluded in more than one family of ten."""
    generator = np.random.default_rng(2)
    excluded, naive, families = 0, 0, 600
    for values in generator.normal(size=(families, 6, 20)):
        best = int(values.mean(axis=1).argmax())
        if best == 0:  # the first one is the truly best, and all others are as good
            continue
        others = [place for place in range(6) if place != best]
        p_values = [find_p_value(estimate((values[best] - values[place])[None])) for place in others]
        excluded += not find_possible_best(p_values)[others.index(0)]
        naive += p_values[others.index(0)] / 2 < LEVEL
    assert excluded / families < 0.05
    assert naive / families > 0.1
