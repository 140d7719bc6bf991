"""Paired tests against scipy, and Holm's correction against its definition."""

import itertools

import numpy as np
import pytest
from scipy import stats

from metarun.finished.pairwise import LEVEL, correct_by_holm, find_p_value


def test_the_p_value_is_that_of_the_paired_test():
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=(2, 40))
    assert find_p_value(left - right) == pytest.approx(stats.ttest_rel(left, right).pvalue, rel=1e-10)


@pytest.mark.parametrize(("difference", "p_value"), [(0.0, 1.0), (0.5, 0.0)])
def test_the_same_difference_in_every_episode_is_certain(difference, p_value):
    assert find_p_value(np.full(9, difference)) == p_value


def test_a_difference_that_is_not_finite_has_no_p_value():
    assert np.isnan(find_p_value(np.array([0.0, 1.0, np.nan])))


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
        p_values = [find_p_value(a - b) for a, b in itertools.combinations(values, 2)]
        false += min(correct_by_holm(p_values)) < LEVEL
        naive += min(p_values) < LEVEL
    assert false / families < 0.08
    assert naive / families > 0.25
