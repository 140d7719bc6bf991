"""A key-value memory of one task: examples are kept as they are, and a query mixes the values whose keys are near.

    k_i = P·φ(x_i) / ‖P·φ(x_i)‖,    a(q) = softmax_i(β q·k_i),    r(q) = Σ_i a_i(q) v_i.

A second read asks with what the first one read, q ← (q + Σ_i a_i k_i) at length 1, and so on: these are the hops of
Sukhbaatar, Szlam, Weston, Fergus 2015, arXiv 1503.08895. P and log β are learned.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metarun import base
from metarun.base import PyTree
from metarun.blocks import metric_space, networks


class Memory(NamedTuple):
    """What was written."""

    keys: Float[Array, "example feature"]  # of length 1
    values: Float[Array, "example output"]


def init(key: PRNGKeyArray, features: int, width: int) -> PyTree:
    """Draw the projection to keys of `width`; the sharpness begins where learned scales of cosines do elsewhere."""
    projection = networks.init_dense(key, features, width)[base.KERNEL]
    return {"projection": projection, "log_sharpness": jnp.log(metric_space.COSINE_SCALE)}


def write(
    layers: PyTree, features: Float[Array, "example feature"], values: Float[Array, "example output"]
) -> Memory:
    """Return the memory of some examples."""
    return Memory(metric_space.unit(features @ layers["projection"]), values)


def read(
    layers: PyTree, memory: Memory, features: Float[Array, "query feature"], reads: int
) -> Float[Array, "query output"]:
    """Return r after `reads` reads, at least one."""
    queries = metric_space.unit(features @ layers["projection"])
    for _ in range(reads - 1):
        queries = metric_space.unit(queries + attend(layers, memory, queries) @ memory.keys)
    return attend(layers, memory, queries) @ memory.values


def attend(
    layers: PyTree, memory: Memory, queries: Float[Array, "query feature"]
) -> Float[Array, "query example"]:
    """Return the attention a of each query to each example."""
    return jax.nn.softmax(jnp.exp(layers["log_sharpness"]) * queries @ memory.keys.T, axis=-1)
