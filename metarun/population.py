"""The learners that are trained side by side: the replicas of a run, and the members of a stage with copies.

Replica r is the single run with the seed `seed + r`. Member m of a stage differs from the others in its random keys
alone. A stage's state, metrics and values have a leading axis for each of the two that the config asks for, in the
order [replica, member], and no axis for what it does not ask for.
"""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from metarun import training
from metarun.base import PyTree
from metarun.config import RunConfig

Position = dict[str, int]  # {"replica": 1, "member": 0}: where a learner stands on the axes that there are

MEMBERS = 2  # what is folded into a stage's key for those of its members; training folds in 0 and 1


def sizes(config: RunConfig, index: int) -> dict[str, int]:
    """The leading axes of stage `index`, in their order, each with its size."""
    replicas, copies = config.replicas, config.stages[index].copies
    return ({"replica": replicas} if replicas > 1 else {}) | ({} if copies is None else {"member": copies})


def positions(config: RunConfig, index: int) -> list[Position]:
    """Where the learners of stage `index` stand, in the order of its axes; one nowhere without axes."""
    axes = sizes(config, index)
    return [dict(zip(axes, place, strict=True)) for place in itertools.product(*map(range, axes.values()))]


def keys(config: RunConfig, index: int) -> Key[Array, "..."]:
    """The root of all random numbers of each learner of stage `index`, [replica, member]."""
    copies, place = config.stages[index].copies, drawing(config, index)

    def of_replica(replica: int) -> Key[Array, "..."]:
        key = training.stage_key(config.seed + replica, place)
        if copies is None:
            return key
        root = jax.random.fold_in(key, MEMBERS)
        return jax.vmap(lambda member: jax.random.fold_in(root, member))(jnp.arange(copies))

    if config.replicas == 1:
        return of_replica(0)
    return jnp.stack([of_replica(replica) for replica in range(config.replicas)])


def drawing(config: RunConfig, index: int) -> int:
    """The place of the stage whose random numbers stage `index` draws: its own, or that of an earlier one."""
    name = config.stages[index].draws_as
    if name is None:
        return index
    return drawing(config, [stage.name for stage in config.stages].index(name))


def take(tree: PyTree, position: Position) -> PyTree:
    """The part of one learner, of arrays or of their shapes."""
    place = tuple(position.values())

    def part(leaf):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape[len(place) :], leaf.dtype)
        return leaf[place]

    return jax.tree.map(part, tree) if place else tree
