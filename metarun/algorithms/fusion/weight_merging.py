"""The kinds of `fusion` that make one set of weights from those of all members."""

from typing import TYPE_CHECKING

import jax

from metarun import base, errors, trees
from metarun.algorithms.fusion import model_soup, refinement, weight_matching
from metarun.blocks import ensemble, outer_loss
from metarun.blocks.earlier_stages import Algorithms

if TYPE_CHECKING:
    from metarun.algorithms.fusion import Config


def build(config: "Config", algorithms: Algorithms, objective: base.Objective) -> base.Algorithm:
    """Build the four functions: one set of frozen weights, which adapts by the algorithm of the first stage."""
    algorithm = algorithms[config.members[0]]

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        stacked = ensemble.stack(algorithms, key, episodes, earlier)
        members = ensemble.line_up(stacked, "take members of one algorithm and model, or kind: average")
        if config.kind == "greedy_soup":
            criterion = model_soup.make_criterion(algorithm, objective, episodes)
            return base.Weights((), model_soup.choose_greedily(members, criterion))
        return base.Weights((), model_soup.average(align(members) if config.kind == "rebasin" else members))

    def adapt(weights: base.Weights, support: base.Examples):
        learner = algorithm.adapt(weights.frozen, support)
        return refinement.refine(config, algorithm.predict, objective, learner, support)

    loss = outer_loss.make_query_loss(adapt, algorithm.predict, objective)
    return base.Algorithm(init, loss, adapt, algorithm.predict)


def align(members: base.Weights) -> base.Weights:
    """Return the members [member, ...], each with its hidden units in the order of the first's.

    Raises:
      ConfigError: the members have frozen weights, or their weights are no chain of layers.
    """
    if jax.tree.leaves(members.frozen):
        raise errors.ConfigError(
            "rebasin puts trained weights in order, and the members have frozen ones too",
            "algorithm.kind",
            "take members that train all of their weights, or another kind, such as average",
        )
    first = trees.first(members.trained)
    return members._replace(
        trained=jax.lax.map(lambda member: weight_matching.align(first, member), members.trained)
    )
