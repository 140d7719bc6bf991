"""The compiled measurement: the values of every episode, whatever is computed at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.families import labelled
from metarun import base, signals
from metarun.evaluation import episodes, statistics
from metarun.evaluation.episodes import FrozenEpisodes
from metarun.evaluation.measurement import make_measurement, score_columns
from metarun.evaluation.variants import Variant
from metarun.tasks import sinusoid

WAYS = 3


def make_predictor(predict) -> base.Algorithm:
    """Make an algorithm that learns nothing."""
    return base.Algorithm(
        lambda *_: base.Weights(()), lambda *_: None, lambda *_: (), lambda _, x: predict(x)
    )


def measure(algorithms, family: base.TaskFamily, count: int = 6, at_once: int = 4):
    """Measure algorithms without weights on frozen episodes."""
    frozen = FrozenEpisodes(family, "test", (), episodes.make_keys(0, "test", count))
    variants = {name: Variant(algorithm) for name, algorithm in algorithms.items()}
    return make_measurement(variants, frozen, at_once)(base.Weights(()))


def test_a_perfect_predictor_has_accuracy_one_and_a_constant_one_that_of_chance():
    algorithms = {
        "perfect": make_predictor(lambda inputs: inputs),
        "constant": make_predictor(lambda inputs: jnp.zeros_like(inputs).at[:, 1].set(1.0)),
    }
    values = measure(algorithms, labelled(WAYS))
    np.testing.assert_array_equal(values["perfect"]["accuracy"], np.ones(6))
    np.testing.assert_allclose(values["constant"]["accuracy"], np.full(6, 1 / WAYS), rtol=1e-6)
    assert statistics.summarise(values)["perfect"]["accuracy"] == {"mean": 1.0, "ci95": 0.0}


def test_variants_and_metrics_keep_their_order():
    names = ["z", "a", "m"]
    assert list(measure({name: make_predictor(lambda x: x) for name in names}, labelled())) == names


@pytest.mark.parametrize("at_once", [1, 4, 7, 16])
def test_how_many_episodes_are_computed_at_once_changes_no_value(at_once):
    """This holds, too, if they do not fill the last batch."""
    family = sinusoid.build(sinusoid.Config())
    query = jax.jit(jax.vmap(lambda key: family.sample((), key).query))(episodes.make_keys(0, "test", 7))
    expected = np.mean((np.sin(query.inputs) - np.asarray(query.targets)) ** 2, axis=(1, 2))
    values = measure({"sine": make_predictor(jnp.sin)}, family, count=7, at_once=at_once)["sine"]["loss"]
    assert values.shape == (7,)
    np.testing.assert_allclose(values, expected, rtol=1e-4)


def test_what_the_check_raises_ends_a_measurement_and_otherwise_changes_nothing():
    family = labelled(WAYS)
    frozen = FrozenEpisodes(family, "test", (), episodes.make_keys(0, "test", 6))
    calls = []
    measure_checked = make_measurement(
        {"perfect": Variant(make_predictor(lambda inputs: inputs))}, frozen, 4, check=lambda: calls.append(0)
    )
    values = measure_checked(base.Weights(()))
    assert calls
    np.testing.assert_array_equal(values["perfect"]["accuracy"], np.ones(6))

    def stop() -> None:
        raise signals.Stopped(15)

    with pytest.raises(signals.Stopped):
        make_measurement({"perfect": Variant(make_predictor(lambda inputs: inputs))}, frozen, 4, check=stop)(
            base.Weights(())
        )


def test_scores_of_the_host_are_interrupted_between_episodes():
    objective = labelled(WAYS).problem.objective._replace(score=lambda metrics: {"mean": metrics["loss"]})
    column, checks = np.arange(3.0), iter([None, None, signals.Stopped(15)])

    def check() -> None:
        if error := next(checks):
            raise error

    with pytest.raises(signals.Stopped):
        score_columns(objective, {"loss": column}, 0, check)
    np.testing.assert_array_equal(score_columns(objective, {"loss": column}, 0)["mean"], column)
