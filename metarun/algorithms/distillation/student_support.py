"""The part of a support that a student sees."""

import jax
import jax.numpy as jnp

from metarun import base, errors


def take_shots(support: base.Examples, shots: int | None, ways: int | None) -> base.Examples:
    """Return the first `shots` examples of each class, in the order of the support.

    Without classes these are the first of all examples. With `shots` None nothing is left out. Where a class has fewer
    examples, because classes are drawn by chance, further examples of other classes take its places: how many examples
    the student sees is the same in every task.

    Raises:
      ConfigError: the support is smaller than that.
    """
    if shots is None:
        return support
    available = jax.tree.leaves(support.inputs)[0].shape[0]
    needed = shots * (ways or 1)
    if needed > available:
        raise errors.ConfigError(
            f"the student sees {needed} support examples, and the task has {available}",
            "algorithm.student_shots",
            "lower it, or raise task.shots",
        )
    order = jnp.arange(available)
    if ways is not None:
        members = jax.nn.one_hot(support.targets, ways, dtype=jnp.int32)
        number = (jnp.cumsum(members, axis=0) * members).sum(axis=1)  # of an example in its class, from 1
        order = jnp.argsort(number > shots, stable=True)
    return jax.tree.map(lambda leaf: leaf[order[:needed]], support)
