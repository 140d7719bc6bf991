"""The gradient steps that a fused model takes on the support, after its members have adapted."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from metarun import base, trees
from metarun.base import PyTree
from metarun.blocks import inner_loop
from metarun.options import InnerLoop

if TYPE_CHECKING:
    from metarun.algorithms.fusion import Config


class Learner(NamedTuple):
    """The members adapted to one task, and what fuses them."""

    members: PyTree  # {stage: learner [member, ...]}
    fusion: PyTree  # log w [member], not yet normalised; or the head on all features


def refine(
    config: "Config",
    predict: Callable,
    objective: base.Objective,
    learner: PyTree,
    support: base.Examples,
    rate=None,
) -> PyTree:
    """Return the learner after `fused_steps` steps on the support.

    With `adapts: fusion` the steps change `fusion` alone, with `adapts: all` every real number of the learner except
    those of a `reference`.

    Args:
      rate: step size; None: `fused_lr`.
    """
    if config.fused_steps == 0:
        return learner
    leaves = jax.tree_util.tree_leaves_with_path(learner)
    numbers = {trees.path_names(path) for path, leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}

    def moves(path: tuple[str, ...]) -> bool:
        adapts = config.adapts == "all" or path[0] == "fusion"
        return adapts and path in numbers and "reference" not in path

    fast, slow = trees.partition(learner, moves)

    def support_loss(fast):
        return objective.loss(predict(trees.merge(fast, slow), support.inputs), support.targets)

    rate = config.fused_lr if rate is None else rate
    steps = InnerLoop(config.fused_steps, loop="scan")
    fast = inner_loop.descend(steps, jax.grad(support_loss), fast, rate)
    return trees.merge(fast, slow)
