"""Measuring on the frozen episodes: intervals, lists, hashes, variants, and what is refused."""

import contracts
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_experiment import SINGLE, load

from metarun import assessment, base, building, errors, evaluation, losses, measuring, training
from metarun.progress import Progress
from metarun.tasks import sinusoid

WAYS = 3


def labelled(ways: int = WAYS, queries: int = 4) -> base.TaskFamily:
    """Classification of points that show their own label one-hot, so that the identity is a perfect predictor."""

    def sample(data, key) -> base.Episode:
        labels = jnp.tile(jnp.arange(ways, dtype=jnp.int32), queries)
        examples = base.Examples(10.0 * jax.nn.one_hot(labels, ways), labels)
        return base.Episode(examples, examples, jax.random.uniform(key))

    return base.TaskFamily({"test": ()}, sample, losses.classification(ways), base.Spec((ways,), ways))


def predictor(predict) -> base.Algorithm:
    """An algorithm that learns nothing."""
    return base.Algorithm(
        lambda *_: base.Weights(()), lambda *_: None, lambda *_: (), lambda _, x: predict(x)
    )


def measure(algorithms, family, count: int = 6, at_once: int = 4, weights=()):
    keys = evaluation.episode_keys(0, "test", count)
    return evaluation.make_measure(algorithms, family, at_once)(base.Weights(weights), (), keys)


def density(t: np.ndarray, freedom: int) -> np.ndarray:
    """Student's, up to its constant."""
    return (1 + t**2 / freedom) ** (-(freedom + 1) / 2)


@pytest.mark.parametrize("count", [4, 10, 600])
def test_the_interval_covers_95_percent_of_students_distribution(count):
    """The half-width in standard errors, against the integral of the density, computed here."""
    values = np.random.default_rng(count).normal(3.0, 2.0, count).astype(np.float32)
    mean, half = evaluation.interval(values)
    exact = values.astype(np.float64)
    assert mean == pytest.approx(exact.mean(), rel=1e-12)
    bound = half / (exact.std(ddof=1) / count**0.5)
    angles = np.linspace(-np.pi / 2, np.pi / 2, 2_000_001)[1:-1]  # t = tan(angle) reaches both infinities
    mass = density(np.tan(angles), count - 1) / np.cos(angles) ** 2
    inside = mass[np.abs(np.tan(angles)) <= bound].sum() / mass.sum()
    assert inside == pytest.approx(0.95, abs=2e-6)


def test_equal_values_have_no_interval():
    assert evaluation.interval(np.full(5, 0.25, np.float32)) == (0.25, 0.0)


def test_two_values_are_measured_with_the_12_706_of_one_degree_of_freedom():
    assert evaluation.interval(np.array([0.0, 2.0], np.float32)).ci95 == pytest.approx(12.706, abs=1e-3)


def test_a_longer_list_begins_with_the_shorter_one():
    short, long = (jax.random.key_data(evaluation.episode_keys(5, "test", count)) for count in (3, 8))
    np.testing.assert_array_equal(long[:3], short)


def test_every_split_and_seed_has_its_own_list():
    lists = [
        jax.random.key_data(evaluation.episode_keys(seed, split, 4))
        for seed in (0, 1)
        for split in evaluation.SPLITS
    ]
    assert len({tuple(key) for keys in lists for key in np.asarray(keys).tolist()}) == 4 * len(lists)


def test_a_perfect_predictor_has_accuracy_one_and_a_constant_one_that_of_chance():
    algorithms = {
        "perfect": predictor(lambda inputs: inputs),
        "constant": predictor(lambda inputs: jnp.zeros_like(inputs).at[:, 1].set(1.0)),
    }
    values = measure(algorithms, labelled())
    np.testing.assert_array_equal(values["perfect"]["accuracy"], np.ones(6))
    np.testing.assert_allclose(values["constant"]["accuracy"], np.full(6, 1 / WAYS), rtol=1e-6)
    assert evaluation.summarise(values)["perfect"]["accuracy"] == {"mean": 1.0, "ci95": 0.0}


def test_variants_and_metrics_keep_their_order():
    names = ["z", "a", "m"]
    assert list(measure({name: predictor(lambda x: x) for name in names}, labelled())) == names


@pytest.mark.parametrize("at_once", [1, 4, 7, 16])
def test_how_many_episodes_are_computed_at_once_changes_no_value(at_once):
    """Also where they do not fill the last batch."""
    family = sinusoid.build(sinusoid.Config())
    algorithm = predictor(jnp.sin)
    keys = evaluation.episode_keys(0, "test", 7)
    expected = [
        np.mean((np.sin(episode.query.inputs) - episode.query.targets) ** 2)
        for episode in (family.sample((), key) for key in keys)
    ]
    values = measure({"sine": algorithm}, family, count=7, at_once=at_once)["sine"]["loss"]
    assert values.shape == (7,)
    np.testing.assert_allclose(values, expected, rtol=1e-4)


def variants_of(tmp_path, *overrides: str, modes=("inductive",), curve=()):
    """The values of every variant of a stage that was not trained."""
    run_config = load(tmp_path, SINGLE, *overrides)
    family = building.task_family(run_config.task)
    key = training.stage_key(0, 0)
    episodes = jax.vmap(lambda key: family.sample((), key))(jax.random.split(key, 2))
    weights = building.algorithm(run_config, 0, family).init(key, episodes, {})
    chosen = measuring.variants(run_config, 0, family, modes, curve)
    keys = evaluation.episode_keys(0, "test", 5)
    return evaluation.make_measure(chosen, family, 5)(weights, (), keys)


def test_unadapted_is_no_inner_step_and_adapted_is_as_many_as_configured(tmp_path):
    values = variants_of(tmp_path, "algorithm.inner_steps=2", curve=(0, 2, 3))
    assert list(values) == [f"inductive/{name}" for name in ("unadapted", "adapted", "0", "2", "3")]
    contracts.assert_equal(values["inductive/unadapted"], values["inductive/0"])
    contracts.assert_equal(values["inductive/adapted"], values["inductive/2"])
    assert contracts.differ(values["inductive/unadapted"], values["inductive/adapted"])
    assert contracts.differ(values["inductive/2"], values["inductive/3"])


@pytest.mark.parametrize(("normalisation", "differ"), [("batch", True), ("none", False)])
def test_the_modes_differ_with_batch_statistics_and_only_then(tmp_path, normalisation, differ):
    both = ("inductive", "transductive")
    values = variants_of(tmp_path, f"model.normalisation={normalisation}", modes=both)
    assert contracts.differ(values["inductive/adapted"], values["transductive/adapted"]) == differ


def test_the_layout_has_modes_then_learners_then_the_curve(tmp_path):
    values = variants_of(tmp_path, modes=("transductive", "inductive"), curve=(3,))
    layout = measuring.layout(values)
    assert list(layout) == ["transductive", "inductive"]
    assert list(layout["inductive"]) == ["unadapted", "adapted", "inner_steps"]
    assert list(layout["inductive"]["inner_steps"]) == ["3"]


@pytest.mark.parametrize("ways", [4, 7])
def test_more_ways_than_the_learner_has_outputs_are_refused(ways):
    family = contracts.blobs(ways=3)
    model = contracts.build_model("mlp", family.spec)
    algorithm = contracts.build_algorithm("maml", model, family.objective)
    episodes = jax.vmap(lambda key: family.sample((), key))(jax.random.split(jax.random.key(0), 2))
    weights = algorithm.init(jax.random.key(0), episodes, {})
    wide = contracts.blobs(ways)
    with pytest.raises(errors.ConfigError) as raised:
        measuring.check_ways(measuring.Judge(wide, {"test": ()}, {}), family, algorithm, weights)
    assert raised.value.where == "evaluation.ways"
    assert f"3 outputs and cannot tell {ways} classes" in raised.value.what
    same = measuring.Judge(contracts.blobs(ways=3), {"test": ()}, {})
    assert measuring.check_ways(same, family, algorithm, weights) is None


def test_a_curve_of_an_algorithm_without_inner_steps_is_refused(tmp_path, monkeypatch):
    run_config = load(tmp_path)
    monkeypatch.setattr(building, "has_inner_steps", lambda selection: False)
    family = building.task_family(run_config.task)
    assert list(measuring.variants(run_config, 0, family, ("inductive",))) == ["inductive/adapted"]
    with pytest.raises(errors.ConfigError, match="no inner steps"):
        measuring.variants(run_config, 0, family, ("inductive",), (1,))


def test_a_split_that_the_family_does_not_have_is_refused(tmp_path):
    run_config = load(tmp_path, SINGLE, "evaluation.split=validation")
    judge = measuring.Judge(labelled(), {"train": (), "test": ()}, {})
    with pytest.raises(errors.ConfigError, match="no validation split") as raised:
        assessment.measure(run_config, assessment.Problem(labelled(), {}, judge), {}, Progress())
    assert "train, test" in raised.value.remedy


def hash_of(tmp_path, *overrides: str) -> str:
    """As a result records it."""
    run_config = load(tmp_path, SINGLE, *overrides)
    family = building.task_family(run_config.task)
    wanted = run_config.evaluation
    judge = measuring.make_judge(run_config, family, dict(family.data))
    keys = evaluation.episode_keys(wanted.seed, wanted.split, wanted.episodes)
    return evaluation.episodes_hash(judge.family, judge.data[wanted.split], keys, judge.recipe)


def test_the_hash_depends_on_the_episodes_and_on_nothing_else(tmp_path):
    same = ("seed=3", "algorithm.inner_lr=0.5", "model.hidden=[4]", "training.steps=9", "evaluation.every=3")
    other = ("seed=1", "split=validation", "shots=3", "queries=7", "episodes=7")
    assert {hash_of(tmp_path, override) for override in same} == {hash_of(tmp_path)}
    hashes = {hash_of(tmp_path, f"evaluation.{override}") for override in other}
    hashes |= {hash_of(tmp_path, "task.noise=0.5"), hash_of(tmp_path)}
    assert len(hashes) == len(other) + 2


def test_shots_of_the_evaluation_and_of_the_task_give_the_same_list(tmp_path):
    assert hash_of(tmp_path, "evaluation.shots=7") == hash_of(tmp_path, "task.shots=7")


def test_the_hash_knows_which_examples_were_drawn():
    """Two families with one recipe that draw other classes have other hashes."""
    keys = evaluation.episode_keys(0, "test", 4)

    def sample(offset):
        def draw(data, key):
            classes = offset + jax.random.randint(key, (3,), 0, 100)
            examples = base.Examples(jnp.zeros((3, 1)), classes)
            return base.Episode(examples, examples, classes)

        return labelled()._replace(sample=draw)

    hashes = [evaluation.episodes_hash(sample(offset), (), keys, {"task": "same"}) for offset in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_hash_is_the_same_in_every_process(tmp_path):
    hash_of(tmp_path)
    code = f"""
import sys
sys.path[:0] = {[str(p) for p in __import__("sys").path]!r}
from pathlib import Path
import test_evaluation
print(test_evaluation.hash_of(Path({str(tmp_path)!r})))
"""
    assert contracts.in_subprocess(code).strip() == hash_of(tmp_path)
