"""The mixture of curves against the formulas and ranges of the paper, mode by mode; and the sinusoid's variants."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import trees
from metarun import base, plugins
from metarun.evaluation import episodes as frozen_episodes
from metarun.tasks import mixture, sinusoid

COUNT = 4000
FORMULAS = {  # (x, scale, center, offset) -> y, in numpy and not in the program's words
    "sinusoid": lambda x, amplitude, phase, offset: amplitude * np.sin(x - phase),
    "line": lambda x, slope, center, offset: slope * x + offset,
    "quadratic": lambda x, curvature, center, offset: curvature * (x - center) ** 2 + offset,
    "absolute": lambda x, slope, center, offset: (
        slope * np.where(x < center, center - x, x - center) + offset
    ),
    "tanh": lambda x, slope, center, offset: slope * (1 - 2 / (np.exp(2 * (x - center)) + 1)) + offset,
}
RANGES = {  # of scale, center and offset
    "sinusoid": ((0.1, 5.0), (0.0, math.pi), (0.0, 0.0)),
    "line": ((-3.0, 3.0), (0.0, 0.0), (-3.0, 3.0)),
    "quadratic": ((-0.15, 0.15), (-3.0, 3.0), (-3.0, 3.0)),
    "absolute": ((-3.0, 3.0), (-3.0, 3.0), (-3.0, 3.0)),
    "tanh": ((-3.0, 3.0), (-3.0, 3.0), (-3.0, 3.0)),
}
MODES = tuple(FORMULAS)
TWO = {"modes": ("tanh", "line"), "noise": 0.0}
every_mode = pytest.mark.parametrize("mode", MODES)


@functools.cache
def sampler(module, **options):
    """(family, compiled sampling of many tasks)."""
    family = module.build(module.Config(**options))
    return family, jax.jit(jax.vmap(family.sample, in_axes=(None, 0)))


def episodes_of(module, split: str = "train", **options) -> base.Episode:
    family, sample = sampler(module, **options)
    keys = jax.random.split(jax.random.key(0), COUNT)
    return jax.device_get(sample(family.data[split], keys))


def mixtures(**options) -> base.Episode:
    return episodes_of(mixture, **options)


def of_mode(episodes: base.Episode, mode: str) -> base.Episode:
    chosen = episodes.facts["mode"] == MODES.index(mode)
    return jax.tree.map(lambda leaf: leaf[chosen], episodes)


@every_mode
def test_every_mode_is_the_curve_of_its_formula(mode):
    episodes = of_mode(mixtures(noise=0.0), mode)
    facts = [episodes.facts[name].astype(np.float64)[:, None, None] for name in ("scale", "center", "offset")]
    for part in (episodes.support, episodes.query):
        np.testing.assert_allclose(part.targets, FORMULAS[mode](part.inputs, *facts), atol=1e-4)


def test_the_curvature_of_a_quadratic_lies_in_its_range_with_either_sign():
    scales = of_mode(mixtures(curvature=(0.5, 0.6)), "quadratic").facts["scale"]
    assert np.abs(scales).min() >= 0.5 and np.abs(scales).max() <= 0.6
    assert scales.min() < 0 < scales.max()


@every_mode
def test_the_parameters_of_every_mode_fill_the_ranges_of_the_authors_code(mode):
    facts = of_mode(mixtures(), mode).facts
    for name, (lowest, highest) in zip(("scale", "center", "offset"), RANGES[mode], strict=True):
        values = facts[name]
        assert lowest <= values.min() and values.max() <= highest
        if lowest < highest:  # of 800 uniform numbers the outermost are within a hundredth of the ends
            assert values.min() < lowest + 0.02 * (highest - lowest)
            assert values.max() > highest - 0.02 * (highest - lowest)


def test_a_quadratic_is_never_flat_and_opens_either_way_equally_often():
    scale = of_mode(mixtures(), "quadratic").facts["scale"]
    assert np.abs(scale).min() >= 0.02
    assert abs(np.mean(scale > 0) - 0.5) < 5 * 0.5 / math.sqrt(scale.size)


def test_scale_center_and_offset_of_a_task_are_independent():
    facts = of_mode(mixtures(), "tanh").facts
    columns = np.stack([facts[name] for name in ("scale", "center", "offset")])
    assert np.abs(np.corrcoef(columns) - np.eye(3)).max() < 5 / math.sqrt(columns.shape[1])


@pytest.mark.parametrize("options", [{}, TWO], ids=["five", "two"])
def test_the_modes_of_the_config_are_equally_likely(options):
    episodes, modes = mixtures(**options), options.get("modes", MODES)
    shares = np.bincount(episodes.facts["mode"], minlength=len(modes)) / COUNT
    deviation = math.sqrt((1 - 1 / len(modes)) / len(modes) / COUNT)
    np.testing.assert_allclose(shares, 1 / len(modes), atol=5 * deviation)


def test_a_mode_keeps_its_formula_in_another_mixture():
    episodes = mixtures(**TWO)
    chosen = episodes.facts["mode"] == 1
    facts = [episodes.facts[name][chosen][:, None, None] for name in ("scale", "center", "offset")]
    expected = FORMULAS["line"](episodes.query.inputs[chosen], *facts)
    np.testing.assert_allclose(episodes.query.targets[chosen], expected, atol=1e-4)


def test_every_task_is_reported_under_its_own_mode():
    family, sample = sampler(mixture, **TWO)
    keys = frozen_episodes.make_keys(0, "test", COUNT)
    frozen = frozen_episodes.FrozenEpisodes(family, "test", family.data["test"], keys)
    indices = frozen_episodes.group_episodes(frozen)
    named = np.array(family.groups.names)[indices]
    facts = sample(family.data["test"], keys).facts
    np.testing.assert_array_equal(named == "line", facts["center"] == 0)  # only a line has no center


@pytest.mark.parametrize("query_noise", [True, False])
def test_noise_has_the_configured_deviation_and_is_on_the_query_as_configured(query_noise):
    clean = mixtures(noise=0.0)
    noisy = mixtures() if query_noise else mixtures(query_noise=False)
    trees.assert_equal(noisy.facts, clean.facts)
    trees.assert_equal(noisy.support.inputs, clean.support.inputs)
    support = noisy.support.targets - clean.support.targets
    query = noisy.query.targets - clean.query.targets
    np.testing.assert_allclose(support.std(), 0.3, rtol=5 / math.sqrt(2 * support.size))
    if query_noise:
        np.testing.assert_allclose(query.std(), 0.3, rtol=5 / math.sqrt(2 * query.size))
        correlation = np.corrcoef(support.ravel(), query.ravel())[0, 1]
        assert abs(correlation) < 5 / math.sqrt(query.size)
    else:
        trees.assert_equal(noisy.query, clean.query)


def test_the_defaults_are_the_published_protocol():
    episodes = mixtures()
    assert episodes.support.inputs.shape == episodes.query.inputs.shape == (COUNT, 5, 1)
    assert np.abs(episodes.support.inputs).max() <= 5
    assert np.abs(episodes.support.inputs).max() > 4.99
    assert np.bincount(episodes.facts["mode"]).size == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": ()}, "modes is empty"),
        ({"modes": ("line", "line")}, "twice"),
        ({"slope": (1.0, -1.0)}, "slope starts at 1.0, above its end -1.0"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plugins.read_config_class("task", "mixture")(**options)


def published_sinusoid(key):
    """The sampler before it had any variant, word for word."""
    amplitude_key, phase_key, inputs_key, _ = jax.random.split(key, 4)
    amplitude = jax.random.uniform(amplitude_key, (), minval=0.1, maxval=5.0)
    phase = jax.random.uniform(phase_key, (), minval=0.0, maxval=math.pi)
    inputs = jax.random.uniform(inputs_key, (20, 1), minval=-5.0, maxval=5.0)
    targets = amplitude * jnp.sin(inputs - phase)
    facts = {"amplitude": amplitude, "phase": phase}
    return base.Episode(
        base.Examples(inputs[:10], targets[:10]), base.Examples(inputs[10:], targets[10:]), facts
    )


def test_a_sinusoid_without_options_is_bit_for_bit_what_it_was_before_it_had_them():
    keys = frozen_episodes.make_keys(0, "test", 600)
    family, sample = sampler(sinusoid)
    trees.assert_equal(sample(family.data["test"], keys), jax.jit(jax.vmap(published_sinusoid))(keys))


def test_harmonics_are_a_sum_of_sine_curves_whose_amplitudes_fall_with_their_order():
    episodes = episodes_of(sinusoid, harmonics=3)
    amplitude, phase = episodes.facts["amplitude"], episodes.facts["phase"]
    assert amplitude.shape == phase.shape == (COUNT, 3)
    for order in (1, 2, 3):
        assert 0.1 / order <= amplitude[:, order - 1].min()
        assert 4.9 / order < amplitude[:, order - 1].max() <= 5.0 / order
    expected = sum(
        amplitude[:, k - 1, None, None] * np.sin(k * episodes.query.inputs - phase[:, k - 1, None, None])
        for k in (1, 2, 3)
    )
    np.testing.assert_allclose(episodes.query.targets, expected, atol=2e-5)


def test_noise_comes_to_the_query_of_a_sinusoid_where_asked_for():
    episodes = episodes_of(sinusoid, noise=0.3, query_noise=True)
    amplitude, phase = (episodes.facts[name][:, None, None] for name in ("amplitude", "phase"))
    for part in (episodes.support, episodes.query):
        noise = part.targets - amplitude * np.sin(part.inputs - phase)
        np.testing.assert_allclose(noise.std(), 0.3, rtol=5 / math.sqrt(2 * noise.size))


WIDER = {"test_amplitude": (6.0, 9.0), "test_inputs": (-8.0, -6.0)}  # the phase as in training


def bounds_of(episodes: base.Episode) -> list[tuple[float, float]]:
    inputs = np.concatenate([episodes.support.inputs, episodes.query.inputs], axis=1)
    return [
        (values.min(), values.max())
        for values in (episodes.facts["amplitude"], episodes.facts["phase"], inputs)
    ]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_only_the_test_split_has_the_ranges_of_the_test(split):
    trained, tested = (0.1, 5.0), (6.0, 9.0)
    wanted = [tested if split == "test" else trained, (0.0, math.pi)]
    wanted += [(-8.0, -6.0) if split == "test" else (-5.0, 5.0)]
    for (lowest, highest), (smallest, largest) in zip(
        wanted, bounds_of(episodes_of(sinusoid, split, **WIDER)), strict=True
    ):
        assert lowest - 1e-6 <= smallest < lowest + 0.02 * (highest - lowest)
        assert highest - 0.02 * (highest - lowest) < largest <= highest + 1e-6


def test_training_episodes_are_the_same_whatever_the_test_ranges_are():
    trees.assert_close(episodes_of(sinusoid, **WIDER), episodes_of(sinusoid), atol=1e-5)  # of up to 5


def test_a_test_range_that_ends_before_it_starts_is_refused():
    with pytest.raises(ValueError, match="test_phase"):
        sinusoid.Config(test_phase=(2.0, 1.0))
