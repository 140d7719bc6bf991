"""Means and their intervals, against Student's distribution computed here."""

import numpy as np
import pytest

from metarun.evaluation import statistics


def density(t: np.ndarray, freedom: int) -> np.ndarray:
    """Return Student's density, up to its constant."""
    return (1 + t**2 / freedom) ** (-(freedom + 1) / 2)


@pytest.mark.parametrize("count", [4, 10, 600])
def test_the_interval_covers_95_percent_of_students_distribution(count):
    """The half-width in standard errors, against the integral of the density, computed here."""
    values = np.random.default_rng(count).normal(3.0, 2.0, count).astype(np.float32)
    mean, half = statistics.estimate_mean(values)
    exact = values.astype(np.float64)
    assert mean == pytest.approx(exact.mean(), rel=1e-12)
    bound = half / (exact.std(ddof=1) / count**0.5)
    angles = np.linspace(-np.pi / 2, np.pi / 2, 2_000_001)[1:-1]  # t = tan(angle) reaches both infinities
    mass = density(np.tan(angles), count - 1) / np.cos(angles) ** 2
    inside = mass[np.abs(np.tan(angles)) <= bound].sum() / mass.sum()
    assert inside == pytest.approx(0.95, abs=2e-6)


def test_equal_values_have_no_interval():
    assert statistics.estimate_mean(np.full(5, 0.25, np.float32)) == (0.25, 0.0)


def test_two_values_are_measured_with_the_12_706_of_one_degree_of_freedom():
    interval = statistics.estimate_mean(np.array([0.0, 2.0], np.float32))
    assert interval.ci95 == pytest.approx(12.706, abs=1e-3)


def test_the_seeds_of_values_that_do_not_differ_have_no_interval_but_the_episodes_have():
    column = np.tile(np.array([1.0, 2.0, 6.0]), (4, 1))
    summary = statistics.summarise_column(column)
    assert summary["seeds"] == {"ci95": 0.0, "values": [3.0] * 4}
    alone = statistics.summarise_column(column[0])
    assert summary["episodes"] == {"ci95": alone["ci95"]}
    assert (summary["mean"], summary["ci95"]) == pytest.approx((alone["mean"], alone["ci95"]), rel=1e-12)


def test_seeds_that_differ_by_constants_add_students_interval_over_the_seeds():
    """Cochran's half-width, from variances that are known here in closed form."""
    episodes, seeds = np.array([1.0, 2.0, 6.0, 7.0]), np.array([[0.0], [1.0], [5.0]])
    interval = statistics.estimate(episodes[None] + seeds).interval
    by_seed, by_episode = np.var(seeds, ddof=1) / 3, np.var(episodes, ddof=1) / 4
    quantiles = 4.302653, 3.182446  # of Student's t at 97.5 %, 2 and 3 degrees of freedom
    expected = (by_seed * quantiles[0] + by_episode * quantiles[1]) / (by_seed + by_episode) ** 0.5
    assert interval == pytest.approx((episodes.mean() + seeds.mean(), expected), rel=1e-6)


def test_where_seeds_alone_differ_the_interval_is_students_over_their_means():
    means = np.array([0.7, 2.0, 0.7])
    values = np.repeat(means[:, None], 600, axis=1)
    assert statistics.estimate(values).interval == pytest.approx(statistics.estimate_mean(means), rel=1e-12)


def test_trials_are_no_seeds():
    column = np.random.default_rng(0).normal(size=(3, 20)) + np.array([[0.0], [10.0], [20.0]])
    summary = statistics.summarise_column(column, crossed=False)
    over_episodes = statistics.estimate_mean(column.mean(axis=0))
    assert (summary["mean"], summary["ci95"]) == over_episodes
    assert "episodes" not in summary


def test_a_value_that_is_not_finite_has_no_interval():
    column = np.ones((3, 4))
    column[1, 2] = np.nan
    summary = statistics.summarise_column(column)
    assert np.isnan(summary["ci95"]) and summary["not_finite"] == 1
