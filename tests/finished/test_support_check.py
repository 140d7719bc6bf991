"""How well somebody's own support is told apart, and which inputs lie outside of what was trained on."""

import jax.numpy as jnp
import numpy as np
import pytest

import metarun
from helpers import builders, opened_runs
from metarun import base
from metarun.finished import support_check, training_inputs
from metarun.finished.support_check import SupportCheck

pytestmark = pytest.mark.usefixtures("own_place", "shared_programs")


def open_nearest(smallest: int = 0):
    """Open a learner that gives a query the class of the nearest example, and takes no support below `smallest`."""

    def make(problem: base.Problem) -> base.Algorithm:
        def adapt(weights, support):
            if len(support.targets) < smallest:
                raise ValueError(f"there are fewer than {smallest} examples", "give more")
            return support

        def predict(learner, inputs):
            distances = jnp.square(inputs[:, None] - learner.inputs[None]).sum(axis=-1)
            chosen = learner.targets[distances.argmin(axis=1)]
            return 9.0 * (chosen[:, None] == jnp.arange(problem.spec.output_size)[None])

        return base.Algorithm(lambda *_: base.Weights(()), lambda *_: (0.0, {}), adapt, predict)

    return opened_runs.open_learner("nearest", builders.blobs(), make)


def check(run, positions, labels) -> SupportCheck | None:
    inputs = np.zeros((len(positions), 4), np.float32)
    inputs[:, 0] = positions
    support = base.Examples(inputs, np.array(labels, np.int32))
    return support_check.check_support(run.adapt(support), support)


def test_an_example_is_judged_by_a_learner_that_has_not_seen_it():
    # The third example of class 0 lies among class 1. Left out it is taken for class 1, and so are its two neighbours
    # for class 0, as it is the nearest to both.
    positions, labels = [0, 1, 10.4, 9, 11, 12], [0, 0, 0, 1, 1, 1]
    assert check(open_nearest(), positions, labels) == SupportCheck("leave-one-out", 3, 6)
    assert check(open_nearest(smallest=6), positions, labels) == SupportCheck("seen", 6, 6)


def test_an_example_that_is_alone_in_its_class_is_not_left_out():
    assert check(open_nearest(), [0, 1, 9], [0, 0, 1]) == SupportCheck("leave-one-out", 2, 2)
    assert check(open_nearest(), [0, 9], [0, 1]) == SupportCheck("seen", 2, 2)


def test_a_large_support_is_looked_at_in_parts_from_all_classes():
    labels = np.repeat(np.arange(3), 40)
    places = support_check.choose_left_out(labels, support_check.LEFT_OUT)
    assert len(places) == support_check.LEFT_OUT == len(set(places.tolist()))
    assert np.bincount(labels[places]).tolist() == [8, 8, 8]


def test_nothing_is_told_apart_where_numbers_are_predicted(single):
    x = np.linspace(-2, 2, 5)[:, None]
    learner = metarun.load(single).adapt((x, np.sin(x)))
    assert support_check.check_support(learner, base.Examples(x, np.sin(x))) is None


def test_an_input_outside_of_the_training_is_named_with_both_ranges(single):
    run = metarun.load(single)
    assert training_inputs.find_outside(run, np.array([[-4.9], [0.0], [4.9]])) is None
    outside = training_inputs.find_outside(run, np.array([[0.0], [7.5], [-40.0]]))
    assert outside is not None and (outside.outside, outside.of) == (2, 3)
    assert "-5 to 5 there, and is -40 to 7.5 here" in outside.reason.replace("4.99", "5")


def test_without_the_training_data_nothing_is_claimed_of_pictures(picture_run):
    run = metarun.load(picture_run)
    assert training_inputs.find_outside(run, np.ones((2, 16, 16, 1), np.float32)) is None
