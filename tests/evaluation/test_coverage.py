"""Intervals over seeds and episodes hold the truth as often as they say, in simulated experiments."""

import numpy as np
import pytest

from metarun.evaluation.statistics import estimate, estimate_mean, estimate_unpaired

DRAWS, EPISODES = 2000, 40
# Standard deviations of what a seed adds, what an episode adds, and the rest; the first is in units of √(seeds /
# episodes), so that at 1 seeds and episodes add equal variance to the mean if an episode adds 1.
NOISE = {"episodes decide": (0.0, 1.0, 0.3), "seeds decide": (8.0, 0.5, 0.5), "both count": (1.0, 1.0, 0.5)}


def simulate(seeds: int, noise: tuple[float, float, float], generator) -> np.ndarray:
    """Return values [draw, seed, episode] whose true mean is zero."""
    own = noise[0] * (seeds / EPISODES) ** 0.5 * generator.standard_normal((DRAWS, seeds, 1))
    shared = noise[1] * generator.standard_normal((DRAWS, 1, EPISODES))
    return own + shared + noise[2] * generator.standard_normal((DRAWS, seeds, EPISODES))


def holds_zero(intervals) -> float:
    """Return the share of the intervals that hold the true mean."""
    return float(np.mean([abs(interval.mean) <= interval.ci95 for interval in intervals]))


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("kind", NOISE)
def test_95_of_100_intervals_hold_the_truth(seeds, kind):
    """Where both sources count alike the interval is known to be a little too wide, and never too narrow."""
    values = simulate(seeds, NOISE[kind], np.random.default_rng(seeds))
    covered = holds_zero(estimate(draw).interval for draw in values)
    assert 0.935 <= covered <= (0.98 if kind == "both count" else 0.965)


def test_episodes_alone_say_too_little_where_seeds_matter():
    """What a comparison said before: the mean over seeds, with the interval over episodes."""
    values = simulate(3, NOISE["both count"], np.random.default_rng(0))
    assert holds_zero(estimate_mean(draw.mean(axis=0)) for draw in values) < 0.88


def test_other_seeds_on_both_sides_are_paired_by_episode():
    generator = np.random.default_rng(1)
    left, right = simulate(3, NOISE["both count"], generator), simulate(5, (1.0, 0.0, 0.5), generator)
    shared = 3 * generator.standard_normal((DRAWS, 1, EPISODES))  # an episode is hard for both
    covered = holds_zero(
        estimate_unpaired(mine + hard, other + hard).interval
        for mine, other, hard in zip(left, right, shared, strict=True)
    )
    assert 0.935 <= covered <= 0.985
