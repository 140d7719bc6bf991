"""Small networks that algorithms use beside the model: plain functions on plain trees."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from metarun.base import BIAS, KERNEL, PyTree


def init_dense(key: PRNGKeyArray, inputs: int, units: int) -> PyTree:
    """Return a matrix and a bias, both uniform in ±1/√inputs, as in metarun/models/_dense.py."""
    kernel_key, bias_key = jax.random.split(key)
    bound = max(inputs, 1) ** -0.5

    def draw(key, shape):
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    return {KERNEL: draw(kernel_key, (inputs, units)), BIAS: draw(bias_key, (units,))}


def dense(layer: PyTree, inputs: Float[Array, "*batch feature"]) -> Float[Array, "*batch unit"]:
    """Return inputs · kernel + bias; a layer without a bias adds none."""
    outputs = inputs @ layer[KERNEL]
    return outputs + jnp.broadcast_to(layer[BIAS], outputs.shape) if BIAS in layer else outputs


def init_perceptron(key: PRNGKeyArray, sizes: Sequence[int]) -> PyTree:
    """Return dense layers, from each of the sizes to the next."""
    layer_keys = jax.random.split(key, len(sizes) - 1)
    return [
        init_dense(layer_key, inputs, units)
        for layer_key, inputs, units in zip(layer_keys, sizes[:-1], sizes[1:], strict=True)
    ]


def perceptron(layers: PyTree, inputs: Float[Array, "*batch feature"]) -> Float[Array, "*batch unit"]:
    """Apply the layers with a ReLU between them, and none after the last."""
    for layer in layers[:-1]:
        inputs = jax.nn.relu(dense(layer, inputs))
    return dense(layers[-1], inputs)


def init_attention(
    key: PRNGKeyArray, queries: int, keys: int, values: int, width: int, alike: bool = False
) -> PyTree:
    """Return the projections from these sizes to `width`, and the dense layer after the attention.

    The projections have no bias: one of the keys would change nothing, because softmax ignores what all scores share.

    Args:
      alike: queries and keys have the same size and begin with the same projection, so that an example first attends
        to the examples that resemble it.
    """
    sizes = {"queries": queries, "keys": keys, "values": values}
    layer_keys = jax.random.split(key, 4)
    layers = {
        name: {KERNEL: init_dense(layer_key, size, width)[KERNEL]}
        for (name, size), layer_key in zip(sizes.items(), layer_keys[:3], strict=True)
    }
    if alike:
        layers["keys"] = layers["queries"]
    return layers | {"result": init_dense(layer_keys[3], width, width)}


def attend(
    layers: PyTree,
    heads: int,
    queries: Float[Array, "query feature"],
    keys: Float[Array, "example key"],
    values: Float[Array, "example value"],
    allowed: Bool[Array, "query example"] | None = None,
) -> Float[Array, "query unit"]:
    """Apply multi-head scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762, section 3.2.2).

    Args:
      layers: as `init_attention` gives them; without "result" no dense layer follows.
      heads: a divisor of the width of the projections.
      allowed: which examples a query may look at, at least one for each query; None: all.
    """

    def project(name, inputs):  # -> [head, example, feature of the head]
        projected = dense(layers[name], inputs)
        return projected.reshape(inputs.shape[0], heads, -1).swapaxes(0, 1)

    query, key, value = project("queries", queries), project("keys", keys), project("values", values)
    scores = query @ key.swapaxes(1, 2) * query.shape[-1] ** -0.5
    if allowed is not None:
        scores = jnp.where(allowed, scores, -jnp.inf)
    attended = (jax.nn.softmax(scores, axis=-1) @ value).swapaxes(0, 1).reshape(queries.shape[0], -1)
    return dense(layers["result"], attended) if "result" in layers else attended
