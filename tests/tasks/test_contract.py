"""What every task family promises, run over the folder; and the sinusoids against their formula."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from helpers import builders, trees
from metarun import plugins
from metarun.tasks import sinusoid
from metarun.testing import family_checks


@functools.cache
def make_case(name: str) -> family_checks.Case:
    return family_checks.Case(builders.build_task(name))


@pytest.mark.parametrize("check", family_checks.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", plugins.list_own_names("task"))
def test_a_family_keeps_its_promise(name, check):
    check(make_case(name))


def test_a_learner_without_inner_steps_is_drawn_as_adapted_and_not_as_after_0_steps():
    family, figure = sinusoid.build(sinusoid.Config()), Figure()
    family.draw(figure, family.sample((), jax.random.key(0)), {None: jnp.zeros_like})
    named = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert named == ["true curve", "adapted", "support"]


@functools.cache
def sinusoids(count: int = 2000, **options):
    family = sinusoid.build(sinusoid.Config(**options))
    keys = jax.random.split(jax.random.key(0), count)
    return jax.device_get(jax.jit(jax.vmap(family.sample, in_axes=(None, 0)))((), keys))


def assert_uniform(values, lowest: float, highest: float) -> None:
    """Within the bounds, and no tenth of the range is far from holding a tenth of the values."""
    assert lowest <= values.min()
    assert values.max() <= highest
    shares = np.histogram(values, bins=10, range=(lowest, highest))[0] / values.size
    deviation = math.sqrt(0.09 / values.size)
    np.testing.assert_allclose(shares, 0.1, atol=5 * deviation)


def test_amplitude_phase_and_inputs_fill_the_ranges_of_the_maml_paper():
    episodes = sinusoids()
    assert_uniform(episodes.facts["amplitude"], 0.1, 5.0)  # not up to 0.5
    assert_uniform(episodes.facts["phase"], 0.0, math.pi)
    assert_uniform(episodes.support.inputs[:, 0], -5.0, 5.0)
    assert_uniform(episodes.query.inputs[:, -1], -5.0, 5.0)


def test_amplitude_phase_and_inputs_are_independent():
    episodes = sinusoids()
    columns = [episodes.facts["amplitude"], episodes.facts["phase"]]
    columns += [
        episodes.support.inputs[:, 0, 0],
        episodes.support.inputs[:, 1, 0],
        episodes.query.inputs[:, 0, 0],
    ]
    correlation = np.corrcoef(np.stack(columns)) - np.eye(5)
    assert np.abs(correlation).max() < 5 / math.sqrt(2000)


@pytest.mark.parametrize("part", ["support", "query"])
def test_a_phase_shifts_the_curve_and_does_not_stretch_it(part):
    episodes = sinusoids()
    inputs, targets = getattr(episodes, part)
    amplitude, phase = (
        episodes.facts[name].astype(np.float64)[:, None, None] for name in ("amplitude", "phase")
    )
    np.testing.assert_allclose(targets, amplitude * np.sin(inputs - phase), atol=1e-5)


def test_ranges_and_sizes_are_those_of_the_config():
    episodes = sinusoids(100, shots=3, queries=4, amplitude=(2.0, 2.0), phase=(1.0, 1.5), inputs=(0.0, 0.5))
    assert episodes.support.inputs.shape == (100, 3, 1)
    assert episodes.query.targets.shape == (100, 4, 1)
    np.testing.assert_allclose(episodes.facts["amplitude"], 2.0)
    assert (episodes.facts["phase"] >= 1.0).all()
    assert (episodes.facts["phase"] <= 1.5).all()
    assert (episodes.query.inputs >= 0).all()
    assert (episodes.query.inputs <= 0.5).all()


def test_every_key_is_a_new_task():
    episodes = sinusoids()
    assert len(np.unique(episodes.facts["amplitude"])) > 1990  # single precision has few equal draws
    assert len(np.unique(episodes.facts["phase"])) > 1990


def test_noise_is_on_the_support_alone_and_has_the_configured_deviation():
    clean, noisy = sinusoids(), sinusoids(noise=0.3)
    trees.assert_close(noisy.query, clean.query, atol=1e-5)  # two programs may round differently
    trees.assert_close(noisy.support.inputs, clean.support.inputs, atol=1e-5)
    noise = noisy.support.targets - clean.support.targets
    assert abs(noise.mean()) < 5 * 0.3 / math.sqrt(noise.size)
    np.testing.assert_allclose(noise.std(), 0.3, rtol=5 / math.sqrt(2 * noise.size))


@pytest.mark.parametrize("field", ["amplitude", "phase", "inputs"])
def test_a_range_that_ends_before_it_starts_is_refused(field):
    with pytest.raises(ValueError, match=field):
        sinusoid.Config(**{field: (2.0, 1.0)})
