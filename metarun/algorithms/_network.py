"""Small networks that an algorithm needs beside the model: plain functions on plain trees."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from metarun.base import PyTree


def init_dense(key: PRNGKeyArray, inputs: int, units: int) -> PyTree:
    """A matrix and a bias, both uniform in ±1/√inputs, as in metarun/models/_dense.py."""
    kernel_key, bias_key = jax.random.split(key)
    bound = max(inputs, 1) ** -0.5

    def uniform(key, shape):
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    return {"kernel": uniform(kernel_key, (inputs, units)), "bias": uniform(bias_key, (units,))}


def dense(layer: PyTree, inputs: Float[Array, "*batch feature"]) -> Float[Array, "*batch unit"]:
    """inputs · kernel + bias; a layer without a bias adds none."""
    outputs = inputs @ layer["kernel"]
    return outputs + jnp.broadcast_to(layer["bias"], outputs.shape) if "bias" in layer else outputs


def init_perceptron(key: PRNGKeyArray, sizes: Sequence[int]) -> PyTree:
    """Dense layers from each of the sizes to the next."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [init_dense(*each) for each in zip(keys, sizes[:-1], sizes[1:], strict=True)]


def perceptron(layers: PyTree, inputs: Float[Array, "*batch feature"]) -> Float[Array, "*batch unit"]:
    """The layers with a ReLU between them, and none after the last."""
    for layer in layers[:-1]:
        inputs = jax.nn.relu(dense(layer, inputs))
    return dense(layers[-1], inputs)


def init_attention(
    key: PRNGKeyArray, queries: int, keys: int, values: int, width: int, alike: bool = False
) -> PyTree:
    """The projections of queries, keys and values of these sizes to `width`, and that of the result.

    The first three have no bias: one of the keys would change nothing, because softmax ignores what all share.

    Args:
      alike: queries and keys, of one size, begin with the same projection: what is alike attends to each other.
    """
    names = {"queries": queries, "keys": keys, "values": values}
    drawn = jax.random.split(key, 4)
    layers = {
        name: {"kernel": init_dense(each, size, width)["kernel"]}
        for (name, size), each in zip(names.items(), drawn[:3], strict=True)
    }
    if alike:
        layers["keys"] = layers["queries"]
    return layers | {"result": init_dense(drawn[3], width, width)}


def attend(
    layers: PyTree,
    heads: int,
    queries: Float[Array, "query feature"],
    keys: Float[Array, "example key"],
    values: Float[Array, "example value"],
    allowed: Bool[Array, "query example"] | None = None,
) -> Float[Array, "query unit"]:
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762, section 3.2.2).

    Args:
      heads: divides the width of the projections.
      allowed: which examples a query may look at, at least one each; None: all.
    """

    def split(name, inputs):  # -> [head, example, feature of the head]
        projected = dense(layers[name], inputs)
        return projected.reshape(inputs.shape[0], heads, -1).swapaxes(0, 1)

    query, key, value = split("queries", queries), split("keys", keys), split("values", values)
    scores = query @ key.swapaxes(1, 2) * query.shape[-1] ** -0.5
    if allowed is not None:
        scores = jnp.where(allowed, scores, -jnp.inf)
    mixed = jax.nn.softmax(scores, axis=-1) @ value
    return dense(layers["result"], mixed.swapaxes(0, 1).reshape(queries.shape[0], -1))
