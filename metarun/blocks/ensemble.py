"""Earlier stages as the members of one ensemble: their weights side by side, whatever their algorithms are.

The weights of a stage that trained copies have a leading [member] axis on every leaf; those of another stage have none.
Here every stage gets one, so that both are used alike. `algorithms` is {stage: algorithm of ONE member}, and the
members stand in its order.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metarun import base, errors
from metarun.base import PyTree
from metarun.blocks import last_layer
from metarun.blocks.earlier_stages import Algorithms


def stack(
    algorithms: Algorithms, key: PRNGKeyArray, episodes: base.Episode, earlier: Mapping[str, base.Weights]
) -> dict[str, base.Weights]:
    """Return {stage: weights [member, ...]}; a stage without copies has one member."""
    return {
        stage: earlier[stage]
        if has_copies(stage, algorithm, key, episodes, earlier)
        else jax.tree.map(lambda leaf: leaf[None], earlier[stage])
        for stage, algorithm in algorithms.items()
    }


def has_copies(
    stage: str,
    algorithm: base.Algorithm,
    key: PRNGKeyArray,
    episodes: base.Episode,
    earlier: Mapping[str, base.Weights],
) -> bool:
    """Return whether the weights of a stage have one axis more than its algorithm starts with. Computes nothing.

    Raises:
      ConfigError: they are neither those of one member nor of several.
    """
    start_leaves = jax.tree.leaves(jax.eval_shape(algorithm.init, key, episodes, earlier))
    stage_leaves = jax.tree.leaves(earlier[stage])
    shapes = [(start.shape, leaf.shape) for start, leaf in zip(start_leaves, stage_leaves, strict=True)]
    if all(single == shape for single, shape in shapes):
        return False
    if all(single == shape[1:] for single, shape in shapes):
        return True
    raise errors.ConfigError(
        f"the weights of the stage {stage} are neither those of one model nor of copies of one",
        f"stage {stage}",
        "name a stage that stands on no stage with copies",
    )


def line_up(members: Mapping[str, base.Weights], remedy: str) -> base.Weights:
    """Return the weights [member, ...] of all stages, one stage after the other.

    Raises:
      ConfigError: the stages have weights of different shapes.
    """
    kinds = {
        stage: jax.tree.map(lambda leaf: (leaf.shape[1:], leaf.dtype), weights)
        for stage, weights in members.items()
    }
    first, *others = members
    for stage in others:
        if kinds[stage] != kinds[first]:
            raise errors.ConfigError(
                f"the weights of the stages {first} and {stage} have different shapes, and cannot be averaged",
                "algorithm.members",
                remedy,
            )
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *members.values())


def count(members: Mapping[str, base.Weights]) -> int:
    """Return how many members the stages have together."""
    return sum(jax.tree.leaves(weights)[0].shape[0] for weights in members.values())


def adapt(algorithms: Algorithms, members: Mapping[str, base.Weights], support: base.Examples) -> PyTree:
    """Adapt every member by itself: {stage: learner [member, ...]}."""
    return {
        stage: jax.vmap(algorithm.adapt, in_axes=(0, None))(members[stage], support)
        for stage, algorithm in algorithms.items()
    }


def predict(algorithms: Algorithms, learners: PyTree, inputs: PyTree) -> Float[Array, "member ..."]:
    """Return the outputs of every member."""
    outputs = [
        jax.vmap(algorithm.predict, in_axes=(0, None))(learners[stage], inputs)
        for stage, algorithm in algorithms.items()
    ]
    return jnp.concatenate(outputs)


def compute_features(
    algorithms: Algorithms, learners: PyTree, inputs: PyTree
) -> list[Float[Array, "member ..."]]:
    """Return what the last layers of the members see, one array [member, *batch, feature] for each stage.

    Raises:
      ConfigError: a learner has no last layer that gives its outputs.
    """

    def compute_stage(stage: str, algorithm: base.Algorithm):
        return jax.vmap(
            lambda learner: last_layer.compute_features(algorithm.predict, learner, inputs, stage)
        )(learners[stage])

    return [compute_stage(stage, algorithm) for stage, algorithm in algorithms.items()]


def mix(
    outputs: Float[Array, "member *batch output"], log_weights: Float[Array, "member"], probabilities: bool
) -> Float[Array, "*batch output"]:
    """Return Σ w_i f_i; or log Σ w_i softmax(f_i), whose softmax is the mean of the members' probabilities."""
    log_weights = log_weights.reshape(-1, *(1,) * (outputs.ndim - 1))
    if probabilities:
        return jax.nn.logsumexp(jax.nn.log_softmax(outputs) + log_weights, axis=0)
    return (outputs * jnp.exp(log_weights)).sum(axis=0)
