"""The compiled programs of a trained learner: what adapts to a support, answers, and judges what it has not seen."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metarun import base
from metarun.base import PyTree


class Programs(NamedTuple):
    """What adapts to a number of classes and answers in it; all are jitted."""

    adapt: Any  # (weights, support) -> learner
    predict: Any  # (weights, support) -> outputs for the support's own inputs; only ever traced
    answer: Any  # (learner, inputs) -> answers
    # (weights, support, places [place]) -> answers [place, ...]: to each of these examples, by a learner that has
    # adapted to all others
    leave_out: Any


def make_programs(
    algorithm: base.Algorithm,
    form: base.Pictures | base.Sentences | None,
    ways: int,
    is_transductive: bool,
) -> Programs:
    """Make the programs of an algorithm for `ways` classes, 0 if none are predicted."""

    def predict(weights, support):
        return algorithm.predict(algorithm.adapt(weights, support), support.inputs)

    answer = make_answer(form, algorithm, ways)
    leave_out = make_leave_out(algorithm.adapt, answer, is_transductive)
    return Programs(*map(jax.jit, (algorithm.adapt, predict, answer, leave_out)))


def make_answer(
    form: base.Pictures | base.Sentences | None, algorithm: base.Algorithm, ways: int
) -> Callable:
    """Make (learner, inputs) -> the answers, see `AdaptedLearner.predict`; jittable."""

    def answer(learner: PyTree, inputs: PyTree):
        def predict(inputs):
            return algorithm.predict(learner, inputs)

        if isinstance(form, base.Sentences):
            return form.decode(predict, inputs)
        outputs = predict(inputs)
        return jax.nn.softmax(outputs[:, :ways]) if ways else outputs

    return answer


def make_leave_out(adapt: Callable, answer: Callable, is_transductive: bool) -> Callable:
    """Make (weights, support, places) -> the answers of `TrainedRun.answer_left_out`; jittable, one program for all."""

    def leave_out(weights, support, places):
        rest = jnp.arange(count_examples(support.inputs) - 1)

        def answer_one(place):
            others = rest + (rest >= place)
            learner = adapt(weights, jax.tree.map(lambda leaf: jnp.asarray(leaf)[others], support))
            if is_transductive:
                return answer(learner, support.inputs)[place]
            return answer(learner, jax.tree.map(lambda leaf: jnp.asarray(leaf)[place][None], support.inputs))[
                0
            ]

        return jax.lax.map(answer_one, places)

    return leave_out


def count_examples(inputs: PyTree) -> int:
    """Return how many examples there are."""
    return int(jax.tree.leaves(inputs)[0].shape[0])


def take_batch(inputs: PyTree, start: int, size: int) -> PyTree:
    """Return the next `size` examples; the last batch is filled with the first example, so that all have one shape."""
    chosen = np.arange(start, start + size)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[np.where(chosen < len(leaf), chosen, 0)], inputs)


def trace_shapes(tree: PyTree) -> PyTree:
    """Return the shapes and dtypes of a tree."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
