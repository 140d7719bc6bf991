"""Earlier stages as the members of one ensemble: their weights side by side, whatever their algorithms are.

A stage that trained copies has weights with a leading [member] axis on every leaf; a stage without has none. Here every
stage has one, so that both are used alike. `algorithms` is {stage: algorithm of ONE member}, in the members' order.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metarun import base, errors
from metarun.base import PyTree

Algorithms = Mapping[str, base.Algorithm]


def choose(option: str, stages: Sequence[str], earlier: Algorithms | None) -> dict[str, base.Algorithm]:
    """{stage: algorithm} of some earlier stages.

    Raises:
      ValueError: one of them is not there, or twice.
    """
    known = dict(earlier or {})
    for place, stage in enumerate(stages):
        if stage in stages[:place]:
            raise ValueError(f"{option} names the stage {stage} twice", "name each stage once")
        if stage not in known:
            raise ValueError(
                f"{option} names the stage {stage}, and there is none of that name before this one",
                f"choose from {', '.join(known)}" if known else "put a stage that trains before this one",
            )
    return {stage: known[stage] for stage in stages}


def stack(
    algorithms: Algorithms, key: PRNGKeyArray, episodes: base.Episode, earlier: Mapping[str, base.Weights]
) -> dict[str, base.Weights]:
    """{stage: weights [member, ...]}, of one member where the stage has no copies."""
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
    """Whether the weights of a stage have one axis more than its algorithm starts with. Computes nothing.

    Raises:
      ConfigError: they are neither those of one member nor of several.
    """
    one = jax.tree.leaves(jax.eval_shape(algorithm.init, key, episodes, earlier))
    found = jax.tree.leaves(earlier[stage])
    shapes = [(wanted.shape, leaf.shape) for wanted, leaf in zip(one, found, strict=True)]
    if all(wanted == shape for wanted, shape in shapes):
        return False
    if all(wanted == shape[1:] for wanted, shape in shapes):
        return True
    raise errors.ConfigError(
        f"the weights of the stage {stage} are neither those of one model nor of copies of one",
        f"stage {stage}",
        "name a stage that stands on no stage with copies",
    )


def line_up(members: Mapping[str, base.Weights], remedy: str) -> base.Weights:
    """The weights [member, ...] of all stages one after the other.

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


def adapt(algorithms: Algorithms, members: Mapping[str, base.Weights], support: base.Examples) -> PyTree:
    """{stage: learner [member, ...]}: every member adapts by itself."""
    return {
        stage: jax.vmap(algorithm.adapt, in_axes=(0, None))(members[stage], support)
        for stage, algorithm in algorithms.items()
    }


def predict(algorithms: Algorithms, learners: PyTree, inputs: PyTree) -> Float[Array, "member ..."]:
    """The outputs of every member."""
    outputs = [
        jax.vmap(algorithm.predict, in_axes=(0, None))(learners[stage], inputs)
        for stage, algorithm in algorithms.items()
    ]
    return jnp.concatenate(outputs)


def count(members: Mapping[str, base.Weights]) -> int:
    """How many members the stages have together."""
    return sum(jax.tree.leaves(weights)[0].shape[0] for weights in members.values())


def mix(
    outputs: Float[Array, "member *batch output"], log_weights: Float[Array, "member"], probabilities: bool
) -> Float[Array, "*batch output"]:
    """Σ w_i f_i, or log Σ w_i softmax(f_i), whose softmax is the mean of the members' probabilities."""
    log_weights = log_weights.reshape(-1, *(1,) * (outputs.ndim - 1))
    if probabilities:
        return jax.nn.logsumexp(jax.nn.log_softmax(outputs) + log_weights, axis=0)
    return (outputs * jnp.exp(log_weights)).sum(axis=0)
