"""Hyperplanes and blobs against what is known of them in closed form: margins, angles, and the best accuracy."""

import functools
import math

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.special import ndtr
from scipy.stats import kstest

from helpers import trees
from metarun import base, plugins
from metarun.tasks import linear

COUNT = 400  # episodes
CENTRAL = {"shots": 5, "queries": 50}  # hyperplanes through the origin
APART = {"margin": 0.5, "offset": 1.5}
BLOBS = {"kind": "blobs", "spread": 0.5, "shots": 2, "queries": 50}


@functools.cache
def episodes_of(**options) -> base.Episode:
    """COUNT episodes; every set of options compiles a program, so that tests share them."""
    family = linear.build(linear.Config(**options))
    keys = jax.random.split(jax.random.key(0), COUNT)
    return jax.device_get(jax.jit(jax.vmap(family.sample, in_axes=(None, 0)))((), keys))


def distances(episodes: base.Episode, part: str) -> np.ndarray:
    """Return how far every point is from the hyperplane, positive on its upper side: [task, example]."""
    inputs = getattr(episodes, part).inputs.astype(np.float64)
    return np.einsum("tef,tf->te", inputs, episodes.facts["normal"]) - episodes.facts["offset"][:, None]


def accuracy(labels: np.ndarray, episodes: base.Episode) -> np.ndarray:
    """Return the accuracy of the labels [task, example], by task."""
    return (labels == episodes.query.targets).mean(axis=1)


def nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the nearest of the centres [task, way, feature] for points [task, example, feature]: [task, example]."""
    return np.linalg.norm(points[:, :, None] - centres[:, None], axis=-1).argmin(axis=-1)


def class_means(episodes: base.Episode, ways: int) -> np.ndarray:
    """Return the class means of the support, which is ordered by way: [task, way, feature]."""
    inputs = episodes.support.inputs.astype(np.float64)
    return inputs.reshape(len(inputs), ways, -1, inputs.shape[-1]).mean(axis=2)


def assert_mean(values: np.ndarray, expected: np.ndarray | float) -> None:
    """The mean over tasks of (value - expected) is zero within five standard errors."""
    difference = values - expected
    assert abs(difference.mean()) <= 5 * difference.std(ddof=1) / math.sqrt(len(difference)) + 1e-12


@pytest.mark.parametrize("options", [CENTRAL, BLOBS], ids=["hyperplane", "blobs"])
def test_points_have_the_configured_number_of_dimensions(options):
    family = linear.build(linear.Config(**options | {"dimensions": 7}))
    episode = family.sample((), jax.random.key(0))
    assert family.problem.spec.input_shape == episode.query.inputs.shape[1:] == (7,)
    assert {leaf.shape[-1] for leaf in jax.tree.leaves(episode.facts) if leaf.ndim} == {7}


@pytest.mark.parametrize("options", [CENTRAL, BLOBS], ids=["hyperplane", "blobs"])
def test_every_class_has_the_configured_number_of_examples_ordered_by_class(options):
    episodes = episodes_of(**options)
    for part, count in (("support", options["shots"]), ("query", options["queries"])):
        assert getattr(episodes, part).inputs.shape == (COUNT, 2 * count, 10)
        expected = np.tile(np.repeat([0, 1], count), (COUNT, 1))
        np.testing.assert_array_equal(getattr(episodes, part).targets, expected)


@pytest.mark.parametrize("options", [CENTRAL, APART], ids=["central", "apart"])
def test_the_hyperplane_of_the_facts_tells_every_point_right_and_keeps_the_margin(options):
    episodes, largest = episodes_of(**options), options.get("offset", 0.0)
    for part in ("support", "query"):
        sides = np.where(getattr(episodes, part).targets == 1, 1, -1)
        assert (sides * distances(episodes, part)).min() >= options.get("margin", 0.0) - 1e-5
    assert 0.9 * largest <= np.abs(episodes.facts["offset"]).max() <= largest


def test_points_are_standard_normal_where_the_hyperplane_goes_through_the_origin():
    inputs = episodes_of(**CENTRAL).query.inputs
    assert kstest(inputs.ravel()[:20000], "norm").pvalue > 1e-4
    correlation = np.corrcoef(inputs.reshape(-1, 10).T) - np.eye(10)
    assert np.abs(correlation).max() < 5 / math.sqrt(inputs.size / 10)


def test_along_the_normal_a_point_is_normal_cut_off_at_the_margin():
    """Its distribution function is (Φ(t) − Φ(cut)) / (1 − Φ(cut)), where the cut depends on offset and margin."""
    episodes = episodes_of(**APART)
    offsets = episodes.facts["offset"][:, None]
    side = np.where(episodes.query.targets == 1, 1, -1)
    place, cut = side * (distances(episodes, "query") + offsets), side * offsets + 0.5
    shares = (ndtr(place) - ndtr(cut)) / ndtr(-cut)
    assert kstest(shares.ravel(), "uniform").pvalue > 1e-4


def test_normals_have_length_one_and_no_preferred_direction():
    normals = episodes_of(**CENTRAL).facts["normal"].astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, rtol=1e-5)
    assert np.abs(normals.mean(axis=0)).max() < 5 / math.sqrt(10 * COUNT)
    moments = normals.T @ normals / COUNT
    np.testing.assert_allclose(moments, np.eye(10) / 10, atol=5 * math.sqrt(2) / 10 / math.sqrt(COUNT))


def test_a_hyperplane_at_an_angle_to_the_true_one_is_wrong_in_that_share_of_a_half_turn():
    """With standard normal points a classifier with the normal v is right with probability 1 − angle(v, w)/π."""
    episodes = episodes_of(**CENTRAL)
    signs = np.where(episodes.support.targets == 1, 1.0, -1.0)
    average = np.einsum("te,tef->tf", signs, episodes.support.inputs)
    cosine = np.einsum("tf,tf->t", average, episodes.facts["normal"]) / np.linalg.norm(average, axis=1)
    right = accuracy(np.einsum("tef,tf->te", episodes.query.inputs, average) > 0, episodes)
    assert_mean(right, 1 - np.arccos(cosine) / math.pi)
    assert 0.6 < right.mean() < 0.9  # neither chance nor trivial


@pytest.mark.parametrize("query_noise", [False, True])
def test_the_best_accuracy_on_noisy_labels_is_one_minus_the_noise(query_noise):
    episodes = episodes_of(label_noise=0.2, query_noise=query_noise, **CENTRAL)
    right = accuracy(distances(episodes, "query") > 0, episodes)
    assert_mean(right, 0.8 if query_noise else 1.0)
    replaced = (distances(episodes, "support") > 0) != episodes.support.targets
    assert_mean(replaced.mean(axis=1), 0.2)


def test_a_replaced_label_of_several_is_any_of_the_others_equally_often():
    episodes = episodes_of(kind="blobs", ways=4, label_noise=0.3)
    true = np.repeat(np.arange(4), 10)
    steps = (episodes.support.targets - true) % 4
    shares = np.bincount(steps.ravel(), minlength=4) / steps.size
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.1, 0.1], atol=5 * math.sqrt(0.21 / steps.size))
    np.testing.assert_array_equal(episodes.query.targets, np.tile(true, (COUNT, 1)))


def test_noise_moves_no_point():
    noisy, clean = episodes_of(label_noise=0.2, query_noise=False, **CENTRAL), episodes_of(**CENTRAL)
    trees.assert_equal(noisy.support.inputs, clean.support.inputs)
    trees.assert_equal(noisy.query, clean.query)


def test_the_nearest_centre_is_right_as_often_as_the_distance_of_two_centres_says():
    """Two unit normal distributions at the distance d are told apart with probability Φ(d/2)."""
    episodes = episodes_of(**BLOBS)
    centres = episodes.facts["centres"]
    right = accuracy(nearest(episodes.query.inputs, centres), episodes)
    assert_mean(right, ndtr(np.linalg.norm(centres[:, 0] - centres[:, 1], axis=1) / 2))
    assert 0.7 < right.mean() < 0.95


def test_shrunk_class_means_are_right_as_often_as_their_bisector_says():
    """The best rule given K points a class, s²/(s² + 1/K) times their mean: its accuracy follows from where the
    true centres lie on the two sides of the bisecting plane."""
    episodes = episodes_of(**BLOBS)
    means = class_means(episodes, 2) * 0.25 / (0.25 + 1 / 2)
    axis = means[:, 1] - means[:, 0]
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    beyond = np.einsum("twf,tf->tw", episodes.facts["centres"] - means.mean(axis=1, keepdims=True), axis)
    expected = (ndtr(-beyond[:, 0]) + ndtr(beyond[:, 1])) / 2
    right = accuracy(nearest(episodes.query.inputs, means), episodes)
    assert_mean(right, expected)
    known = accuracy(nearest(episodes.query.inputs, episodes.facts["centres"]), episodes)
    assert right.mean() < known.mean()  # of the centres one knows less than all


def test_centres_and_points_have_the_configured_spread():
    episodes = episodes_of(**BLOBS)
    centres = episodes.facts["centres"]
    np.testing.assert_allclose(centres.std(), 0.5, rtol=5 / math.sqrt(2 * centres.size))
    around = episodes.support.inputs - np.repeat(centres, 2, axis=1)
    np.testing.assert_allclose(around.std(), 1.0, rtol=5 / math.sqrt(2 * around.size))


def test_a_hyperplane_of_three_ways_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match="two sides") as refusal:
        plugins.read_config_class("task", "linear")(ways=3)
    assert refusal.value.args[1] == "take ways: 2 or kind: blobs"


@pytest.mark.parametrize("options", [CENTRAL, BLOBS], ids=["hyperplane", "blobs"])
def test_the_picture_rings_exactly_the_wrong_points(options):
    episode = jax.tree.map(lambda leaf: leaf[0], episodes_of(**options))
    figure = Figure()
    linear.draw(figure, episode, {0: None, 5: lambda inputs: np.eye(2)[np.zeros(len(inputs), int)]})
    rings = next(line for line in figure.axes[0].lines if line.get_label().startswith("wrong"))
    assert rings.get_label() == "wrong: 50%"  # all are said to be of class 0
    assert len(rings.get_xdata()) == 50
