"""What every task family promises, run over the folder; and the sinusoids against their formula."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from helpers import builders, tracing, trees
from metarun import plugins
from metarun.tasks import sinusoid

COUNT = 64  # episodes
every_family = pytest.mark.parametrize("name", plugins.list_names("task"))


class Case:
    """A family as configured by default, and some of its training episodes."""

    def __init__(self, name: str) -> None:
        self.family = builders.build_task(name)
        self.traced = tracing.Counted(self.family.sample)
        self.sample = jax.jit(jax.vmap(self.traced, in_axes=(None, 0)))
        self.data = {split: jax.device_put(arrays) for split, arrays in self.family.data.items()}
        self.episodes = self.episodes_of("train", 0)

    def episodes_of(self, split: str, seed: int):
        return jax.device_get(self.sample(self.data[split], jax.random.split(jax.random.key(seed), COUNT)))


make_case = functools.cache(Case)


def inputs_of(part):
    """The inputs, or the source sentences of a translation."""
    return part.inputs["source"] if isinstance(part.inputs, dict) else part.inputs


@pytest.fixture
def case(name: str) -> Case:
    return make_case(name)


@every_family
def test_there_is_training_and_test_data(case):
    assert {"train", "test"} <= set(case.family.data) <= {"train", "validation", "test"}


@every_family
def test_every_split_gives_episodes_of_the_same_shapes_and_dtypes(case):
    key = jax.random.key(0)
    kinds = [trees.kind_of(jax.eval_shape(case.family.sample, data, key)) for data in case.data.values()]
    assert all(kind == kinds[0] for kind in kinds)
    batched = jax.tree.map(lambda leaf: (COUNT, *leaf.shape), kinds[0])
    assert jax.tree.map(np.shape, case.episodes) == batched


@every_family
def test_many_keys_need_one_trace(case):
    before = case.traced.traces
    for seed in range(1, 4):
        case.episodes_of("train", seed)
    assert case.traced.traces == before


@every_family
def test_an_episode_is_a_function_of_its_key(case):
    trees.assert_equal(case.episodes_of("train", 0), case.episodes)
    for part in ("support", "query"):
        inputs = getattr(case.episodes, part).inputs
        for leaf in jax.tree.leaves(inputs):
            assert len(np.unique(leaf.reshape(COUNT, -1), axis=0)) == COUNT


@every_family
def test_an_episode_alone_is_that_of_the_batch(case):
    keys = jax.random.split(jax.random.key(0), COUNT)
    alone = jax.jit(case.family.sample)(case.data["train"], keys[5])
    trees.assert_close(alone, jax.tree.map(lambda leaf: leaf[5], case.episodes), rtol=1e-5, atol=1e-6)


@every_family
def test_support_and_query_share_no_example(case):
    support, query = (
        inputs_of(part).reshape(COUNT, part.targets.shape[1], -1)
        for part in (case.episodes.support, case.episodes.query)
    )
    same = (support[:, :, None] == query[:, None]).all(axis=-1)
    assert not same.any()


@every_family
def test_episodes_are_as_the_spec_tells_the_model(case):
    spec = case.family.problem.spec
    for part in (case.episodes.support, case.episodes.query):
        assert inputs_of(part).shape[2:] == spec.input_shape
        if spec.vocabulary is not None:
            tokens = jax.tree.leaves((part.inputs, part.targets))
            assert all(leaf.dtype == np.int32 and leaf.min() >= 0 for leaf in tokens)
            assert part.inputs["source"].max() < spec.vocabulary
            assert max(part.targets.max(), part.inputs["prefix"].max()) < spec.output_size
            assert part.inputs["prefix"].shape == part.targets.shape
            continue
        assert part.inputs.dtype == np.float32
        if np.issubdtype(part.targets.dtype, np.integer):
            assert part.targets.dtype == np.int32
            assert set(np.unique(part.targets)) == set(range(spec.output_size))
        else:
            assert part.targets.dtype == np.float32
            assert part.targets.shape[2:] == (spec.output_size,)


@every_family
def test_facts_say_something_different_of_different_tasks(case):
    facts = jax.tree.leaves(case.episodes.facts)
    assert facts
    assert all(len(leaf) == COUNT and np.isfinite(leaf).all() for leaf in facts)
    assert (
        len(np.unique(np.concatenate([leaf.reshape(COUNT, -1) for leaf in facts], axis=1), axis=0))
        > COUNT / 2
    )


@every_family
def test_the_objective_measures_outputs_of_the_size_of_the_spec(case):
    query = jax.tree.map(lambda leaf: leaf[0], case.episodes.query)
    objective = case.family.problem.objective

    @jax.jit
    def measure(query):
        outputs = silence(case.family)(query.inputs)
        return objective.metrics(lambda inputs: outputs, query), objective.loss(outputs, query.targets)

    metrics, loss = jax.device_get(measure(query))
    if objective.score is not None:
        metrics = {name: np.asarray(value) for name, value in objective.score(metrics).items()}
    assert objective.selection in metrics
    assert all(value.shape == () and np.isfinite(value) for value in metrics.values())
    assert loss == metrics["loss"]


def silence(family):
    """A predictor that answers zeros, in the shape of the family's outputs."""

    def predict(inputs):
        if family.problem.spec.vocabulary is not None:
            return jnp.zeros((*inputs["prefix"].shape, family.problem.spec.output_size))
        return jnp.zeros((inputs.shape[0], family.problem.spec.output_size))

    return predict


@every_family
@pytest.mark.parametrize("steps", [(0, 1), (None,)])
def test_an_episode_can_be_drawn(case, steps):
    figure, episode = Figure(), jax.tree.map(lambda leaf: leaf[0], case.episodes)
    case.family.draw(figure, episode, dict.fromkeys(steps, silence(case.family)))
    assert figure.axes


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
