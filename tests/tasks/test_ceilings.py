"""The best possible rule of a task family, against sums over grids and over draws that are made here."""

import jax
import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import norm

from metarun import base
from metarun.tasks import _hyperplanes, _posterior, linear, mixture, sinusoid


def make_curves(kind: _posterior.Kind, noise: float, shots: int = 3, queries: int = 4, episodes: int = 3):
    """Return (support points, query inputs) of curves of a kind."""
    generator = np.random.default_rng(0)
    shape = (episodes, shots + queries)
    inputs = generator.uniform(-4, 4, shape)
    scale, center, offset = (
        generator.uniform(*bounds, (episodes, 1)) for bounds in (kind.scale, kind.center, kind.offset)
    )
    targets = scale * kind.shape(inputs - center) + offset + noise * generator.standard_normal(shape)
    return _posterior.Points(inputs[:, :shots], targets[:, :shots], inputs[:, shots:], noise)


def sum_over_grid(
    kinds: list[_posterior.Kind], points: _posterior.Points, counts: tuple[int, int, int]
) -> np.ndarray:
    """Return the posterior mean by brute force: a sum over the midpoints of boxes in three dimensions."""
    total, weighted = 0.0, 0.0
    for kind in kinds:
        axes = [
            low + (high - low) * (np.arange(count) + 0.5) / count if high > low else np.array([low])
            for (low, high), count in zip((kind.scale, kind.center, kind.offset), counts, strict=True)
        ]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)

        def curve(inputs, kind=kind, grid=grid):
            return grid[:, :1, None] * kind.shape(inputs - grid[:, 1:2, None]) + grid[:, 2:, None]

        errors = ((curve(points.inputs[None]) - points.targets[None]) ** 2).sum(axis=-1)
        likelihood = np.exp(-errors / (2 * points.noise**2)) * kind.weight / len(grid)
        total = total + likelihood.sum(axis=0)
        weighted = weighted + (likelihood[..., None] * curve(points.queries[None])).sum(axis=0)
    return weighted / total[:, None]


SINE = _posterior.Kind(np.sin, (0.1, 5.0), (0.0, np.pi), (0.0, 0.0), 1.0)
TANH = _posterior.Kind(np.tanh, (-3.0, 3.0), (-3.0, 3.0), (-3.0, 3.0), 0.25)
LINE = _posterior.Kind(lambda x: x, (-3.0, 3.0), (0.0, 0.0), (-3.0, 3.0), 0.75)


@pytest.mark.parametrize(
    ("kinds", "noise", "counts"),
    [([SINE], 0.5, (250, 250, 1)), ([TANH, LINE], 0.7, (45, 45, 45))],
    ids=["one shape", "a mixture of shapes"],
)
def test_the_posterior_mean_is_that_of_brute_force(kinds, noise, counts):
    points = make_curves(kinds[0], noise)
    expected = sum_over_grid(kinds, points, counts)
    np.testing.assert_allclose(_posterior.predict_mean(kinds, points), expected, atol=0.02)


def test_without_noise_two_points_fix_the_sinusoid():
    points = make_curves(SINE, 0.0, shots=2, episodes=20)._replace(noise=_posterior.LEAST_NOISE)
    scale, phase = solve_sinusoid(points)
    errors = (_posterior.predict_mean([SINE], points) - scale * np.sin(points.queries - phase)) ** 2
    assert np.median(errors) < 1e-6


def solve_sinusoid(points: _posterior.Points) -> tuple[np.ndarray, np.ndarray]:
    """Return amplitude and phase [episode, 1] of the curve through two points: a · sin x − b · cos x is linear."""
    matrix = np.stack([np.sin(points.inputs), -np.cos(points.inputs)], axis=-1)
    first, second = np.linalg.solve(matrix, points.targets[..., None])[..., 0].T
    return np.hypot(first, second)[:, None], np.arctan2(second, first)[:, None]


def test_hyperplanes_in_the_plane_are_judged_like_all_angles_that_separate_the_support():
    """In two dimensions the posterior is a uniform arc, which a grid of angles shows."""
    generator = np.random.default_rng(0)
    true = generator.uniform(0, 2 * np.pi, 8)
    normals = np.stack([np.cos(true), np.sin(true)], axis=-1)
    points = generator.standard_normal((8, 6, 2))
    sides = np.sign(np.einsum("epf,ef->ep", points, normals))
    queries = generator.standard_normal((8, 5, 2))
    support = _hyperplanes.Separation(points, sides, 0.0, 0.0)
    answers = _hyperplanes.answer(support, (normals, np.zeros(8)), queries)
    angles = np.linspace(0, 2 * np.pi, 4001)[:-1]
    grid = np.stack([np.cos(angles), np.sin(angles)])
    fits = (np.sign(points @ grid) == sides[..., None]).all(axis=1)
    above = ((queries @ grid > 0) & fits[:, None]).sum(axis=-1) / fits.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(answers[..., 1], above, atol=0.04)


def test_offsets_and_margins_are_drawn_from_their_posterior():
    """Against all hyperplanes of a fine grid over angle and offset, weighed by the likelihood of the two classes."""
    from scipy.special import ndtr

    generator = np.random.default_rng(1)
    margin, largest = 0.3, 2.5
    angles, offsets = np.linspace(0, 2 * np.pi, 721)[:-1], np.linspace(-largest, largest, 401)
    points = np.array([[[-2.2, 0.3], [-1.9, -0.5], [2.1, 0.2], [1.8, 1.0]]])
    sides, queries = np.array([[-1.0, -1.0, 1.0, 1.0]]), generator.standard_normal((1, 6, 2))
    support = _hyperplanes.Separation(points, sides, margin, largest)
    answers = _hyperplanes.answer(support, (np.array([[1.0, 0.0]]), np.zeros(1)), queries)[0]
    grid = np.stack([np.cos(angles), np.sin(angles)])
    fits = ((sides[0, :, None, None] * ((points[0] @ grid)[..., None] - offsets)) >= margin).all(axis=0)
    below, above = ndtr(offsets - margin), ndtr(-offsets - margin)
    weights = fits / (below * above) ** 2
    places = (queries[0] @ grid)[..., None] - offsets
    densities = (places <= -margin) / below, (places >= margin) / above
    scores = np.stack([(weights * density).sum(axis=(1, 2)) for density in densities], axis=-1)
    np.testing.assert_allclose(answers, scores / scores.sum(axis=-1, keepdims=True), atol=0.04)


def draw_episodes(family: base.TaskFamily, count: int) -> base.Episode:
    """Return episodes [episode] of the test split, as numpy arrays."""
    keys = jax.random.split(jax.random.key(0), count)
    episodes: base.Episode = jax.device_get(
        jax.jit(jax.vmap(family.sample, in_axes=(None, 0)))(family.data["test"], keys)
    )
    return episodes


@pytest.mark.parametrize(
    ("module", "options", "metrics"),
    [
        (sinusoid, {"noise": 0.3, "test_amplitude": (5.0, 8.0)}, {"loss"}),
        (mixture, {"modes": ("quadratic", "absolute")}, {"loss"}),
        (linear, {"dimensions": 3}, {"loss", "accuracy"}),
    ],
)
def test_a_family_gives_a_ceiling_for_every_episode_and_knows_better_than_to_guess(module, options, metrics):
    family = module.build(module.Config(**options))
    episodes = draw_episodes(family, 40)
    reached = family.ceiling(jax.device_get(family.data["test"]), episodes)
    assert set(reached) == metrics
    assert all(np.isfinite(column).all() and column.shape == (40,) for column in reached.values())
    blind = np.square(episodes.query.targets).mean() if metrics == {"loss"} else np.log(2)
    assert reached["loss"].mean() < blind


def test_the_best_rule_for_blobs_takes_the_nearest_shrunken_mean():
    config = linear.Config(kind="blobs", ways=3, shots=2, spread=0.5)
    episodes = draw_episodes(linear.build(config), 30)
    means = episodes.support.inputs.reshape(30, 3, 2, 10).mean(axis=2) * 0.25 / (0.25 + 0.5)
    nearest = np.linalg.norm(episodes.query.inputs[:, :, None] - means[:, None], axis=-1).argmin(axis=-1)
    reached = linear.build(config).ceiling((), episodes)
    np.testing.assert_array_equal(reached["accuracy"], (nearest == episodes.query.targets).mean(axis=1))
    spread = (1 + 0.25 / (1 + 2 * 0.25)) ** 0.5  # of a point around what is known of its centre
    logs = norm.logpdf(episodes.query.inputs[:, :, None], means[:, None], spread).sum(axis=-1)
    own = np.take_along_axis(log_softmax(logs, axis=-1), episodes.query.targets[..., None], axis=-1)
    np.testing.assert_allclose(reached["loss"], -own[..., 0].mean(axis=1), rtol=1e-4)


@pytest.mark.parametrize(
    ("module", "options"),
    [(sinusoid, {"harmonics": 2}), (mixture, {"noise": 0.0}), (linear, {"label_noise": 0.1})],
)
def test_what_is_not_known_is_not_said(module, options):
    config = module.Config(**options)
    assert not config.has_ceiling
    assert module.build(config).ceiling is None
