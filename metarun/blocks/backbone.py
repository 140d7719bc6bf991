"""A model as a source of features: its body without the last layer, and how many features it gives."""

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from metarun import base
from metarun.base import PyTree


def init_body(model: base.Model, key: PRNGKeyArray, inputs: PyTree) -> PyTree:
    """Return the parameters that `model.embed` uses: all but the last layer's, which would have no gradient."""
    params = model.init(key, inputs)
    if base.HEAD not in params:
        return params
    return {name: layer for name, layer in params.items() if name != base.HEAD}


def embed_support(model: base.Model, body: PyTree, support: base.Examples) -> Float[Array, "example feature"]:
    """Return the features of the support, whose batch statistics normalise it."""
    return model.embed(body, support.inputs, reference=support.inputs)


def count_features(model: base.Model, body: PyTree, inputs: PyTree) -> int:
    """Return how many features the body gives for each example. Computes nothing."""
    return jax.eval_shape(model.embed, body, inputs).shape[-1]
