"""A model that a vector, the condition, modulates: its parameters, and which of them the inner loop changes."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, PRNGKeyArray

from metarun import base, errors, trees
from metarun.base import PyTree
from metarun.blocks import inner_loop
from metarun.options import InnerLoop


def init_params(model: base.Model, key: PRNGKeyArray, inputs: PyTree, condition: Array | None) -> PyTree:
    """Return the model's parameters for a condition of this size; None: for a model without a condition.

    Raises:
      ConfigError: the model takes no condition.
    """
    try:
        return model.init(key, inputs, condition=condition)
    except ValueError as refusal:
        raise errors.ConfigError(
            f"this algorithm needs a model that takes a condition: {refusal}",
            "model",
            "take model.name=conv4, or mlp; with model.modulation=features mlp is modulated layer by layer",
        ) from refusal


def is_modulation(path: tuple[str, ...]) -> bool:
    """Return whether the parameters at a path map a condition to a modulation."""
    return bool(path) and path[-1] in base.MODULATION


def select_adapting(params: PyTree) -> PyTree:
    """Return what the inner loop changes, with None in place of the maps of the modulation."""
    return trees.partition(params, is_modulation)[1]


def repeat_rate(params: PyTree, rate: Any) -> PyTree:
    """Return the same step size for every array that adapts."""
    return jax.tree.map(lambda leaf: rate, select_adapting(params))


def descend(
    config: InnerLoop,
    gradient: Callable,
    params: PyTree,
    rates: PyTree,
    finish: Callable,
    points: base.Points | None,
) -> PyTree:
    """Return the learner after all inner steps, θ − rates ∘ ∇L_S(θ) each; the maps of the modulation stay.

    Args:
      gradient: params -> the gradient of the support loss at them.
      rates: for every array that adapts one number, or as many as it has.
      finish: params -> the learner.
      points: None, or where something is noted of the learner, which is then returned; see `inner_loop.run`.
    """
    maps, adapting = trees.partition(params, is_modulation)

    def select_gradient(adapting):
        return select_adapting(gradient(trees.merge(adapting, maps)))

    def join(adapting):
        return finish(trees.merge(adapting, maps))

    return inner_loop.descend(config, select_gradient, adapting, rates, finish=join, points=points)
