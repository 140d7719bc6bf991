"""A bank of parameters for every array of a model, of which a vector of the task picks by attention."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metarun.algorithms import _network
from metarun.base import PyTree

WIDTH = 16  # of queries and keys


def init(key: PRNGKeyArray, size: int, like: PyTree, experts: int) -> PyTree:
    """Queries of a vector of `size` numbers, keys of the experts, and their parameters, leaves [expert, ...].

    An expert's parameters begin uniform, as large as those of the array are on average: the experts differ at once.
    """
    leaves, structure = jax.tree.flatten(like)
    drawn = [
        init_array(each, size, leaf, experts) for each, leaf in zip(split(key, leaves), leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


def split(key: PRNGKeyArray, leaves: list[Any]) -> Any:
    """A key for each array."""
    return jax.random.split(key, len(leaves))


def init_array(key: PRNGKeyArray, size: int, leaf, experts: int) -> dict[str, Array]:
    """The bank of one array."""
    query_key, keys_key, value_key = jax.random.split(key, 3)
    bound = jnp.abs(leaf).mean()
    return {
        "query": _network.init_dense(query_key, size, WIDTH)["kernel"],
        "keys": jax.random.normal(keys_key, (experts, WIDTH)),
        "values": bound * jax.random.uniform(value_key, (experts, *leaf.shape), leaf.dtype, -1, 1),
    }


def attend(bank: PyTree, vector: Float[Array, "embed"]) -> PyTree:
    """Σ_m softmax_m(W e · k_m / √d) V_m for every array."""

    def mix(array):
        scores = array["keys"] @ (vector @ array["query"]) * WIDTH**-0.5
        return jnp.tensordot(jax.nn.softmax(scores), array["values"], axes=1)

    return jax.tree.map(mix, bank, is_leaf=lambda node: isinstance(node, dict) and "values" in node)
