"""The memory of the optimizer before the first step, from the weights that a stage starts with."""

import jax

from metarun import base, numbers
from metarun.base import PyTree
from metarun.stages import Stage
from metarun.training import optimizer
from metarun.training.optimizer import Optimizer


def make_memory(chain: Optimizer, axes: int):
    """Make weights -> the optimizer's memory before the first step, for all learners of a stage."""

    def remember(weights: base.Weights):
        return chain.init(weights.trained)

    for _ in range(axes):
        remember = jax.vmap(remember)
    return remember


def remember(stage: Stage, differing: numbers.Numbers, weights: base.Weights) -> PyTree:
    """Return the memory for all learners of a stage; jittable.

    Args:
      differing: the numbers in which the trials differ, [replica].
    """

    def remember_replica(own: numbers.Numbers, weights: base.Weights):
        chain = optimizer.build(stage.take_numbers(own).training)
        return make_memory(chain, len(stage.axes) - bool(differing))(weights)

    return (jax.vmap(remember_replica) if differing else remember_replica)(differing, weights)


def compute(stage: Stage, weights: base.Weights) -> PyTree:
    """Return the memory for all learners of a stage, from one program."""

    def start(values: numbers.Numbers, differing: numbers.Numbers, weights: base.Weights):
        return remember(stage.take_numbers(values), differing, weights)

    return numbers.jit(start, stage.list_numbers())(dict(stage.differing), weights)
