"""A bank of parameters for every array of a model, from which a vector of the task picks by attention."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metarun import base
from metarun.base import PyTree
from metarun.blocks import networks

WIDTH = 16  # features of queries and keys


def init(key: PRNGKeyArray, size: int, like: PyTree, experts: int) -> PyTree:
    """Return the query map of a vector of `size` numbers, the experts' keys and their parameters, for every array.

    An expert's parameters begin uniform, as large as those of the array are on average, so that experts differ at once.

    Args:
      like: the model's parameters; the experts' have leaves [expert, ...] of the same shapes.
    """
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    arrays = [init_array(leaf_key, size, leaf, experts) for leaf_key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, arrays)


def init_array(key: PRNGKeyArray, size: int, array: Array, experts: int) -> dict[str, Array]:
    """Return the bank of one array."""
    query_key, keys_key, value_key = jax.random.split(key, 3)
    bound = jnp.abs(array).mean()
    return {
        "query": networks.init_dense(query_key, size, WIDTH)[base.KERNEL],
        "keys": jax.random.normal(keys_key, (experts, WIDTH)),
        "values": bound * jax.random.uniform(value_key, (experts, *array.shape), array.dtype, -1, 1),
    }


def attend(bank: PyTree, vector: Float[Array, "embed"]) -> PyTree:
    """Return Σ_m softmax_m(W e · k_m / √d) V_m for every array."""

    def mix(array_bank):
        scores = array_bank["keys"] @ (vector @ array_bank["query"]) * WIDTH**-0.5
        return jnp.tensordot(jax.nn.softmax(scores), array_bank["values"], axes=1)

    return jax.tree.map(mix, bank, is_leaf=lambda node: isinstance(node, dict) and "values" in node)
