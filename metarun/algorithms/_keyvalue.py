"""A key-value memory of one task: examples are kept as they are, and a query mixes the values whose keys are near.

    k_i = P·φ(x_i) / ‖P·φ(x_i)‖,    a(q) = softmax_i(β q·k_i),    r(q) = Σ_i a_i(q) v_i.

A second read asks with what the first has found, q ← (q + Σ_i a_i k_i) at length 1 (Sukhbaatar, Szlam, Weston, Fergus
2015, arXiv 1503.08895, whose hops these are), and so on. Learned: P and log β.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metarun.algorithms import _network, _prototypes
from metarun.base import PyTree


class Memory(NamedTuple):
    """What was written."""

    keys: Float[Array, "example feature"]  # of length 1
    values: Float[Array, "example output"]


def init(key: PRNGKeyArray, features: int, width: int) -> PyTree:
    """The projection to keys of `width`, and the sharpness of cosines at which other learners begin."""
    projection = _network.init_dense(key, features, width)["kernel"]
    return {"projection": projection, "log_sharpness": jnp.log(_prototypes.COSINE_SCALE)}


def write(layers: PyTree, features: Float[Array, "example feature"], values: Float[Array, "example output"]):
    """The memory of some examples."""
    return Memory(_prototypes.unit(features @ layers["projection"]), values)


def read(
    layers: PyTree, memory: Memory, features: Float[Array, "query feature"], reads: int
) -> Float[Array, "query output"]:
    """r of the last of `reads` reads, at least one."""
    asked = _prototypes.unit(features @ layers["projection"])
    for _ in range(reads - 1):
        asked = _prototypes.unit(asked + attention(layers, memory, asked) @ memory.keys)
    return attention(layers, memory, asked) @ memory.values


def attention(layers: PyTree, memory: Memory, asked: Float[Array, "query feature"]):
    """a [query, example]."""
    return jax.nn.softmax(jnp.exp(layers["log_sharpness"]) * asked @ memory.keys.T, axis=-1)
