"""From a Flax Linen module to the `Model` triple of pure functions."""

import flax.linen as nn
import jax.numpy as jnp

from metarun import base


def from_module(module: nn.Module, uses_batch_statistics: bool) -> base.Model:
    """Wrap a module that has `__call__(inputs, reference_count)` and `embed(inputs, reference_count)`.

    The reference examples travel through the network in front of the inputs, so that every layer can take its
    statistics from them, and are cut off at the end. A module without batch statistics never sees them.
    """

    def init(key, inputs):
        return module.init(key, inputs, 0)["params"]

    def run(method: str):
        def call(params, inputs, *, condition=None, reference=None):
            if condition is not None:
                raise ValueError(f"{type(module).__name__} takes no condition")
            if reference is None or not uses_batch_statistics:
                return module.apply({"params": params}, inputs, 0, method=method)
            count = reference.shape[0]
            joint = jnp.concatenate([reference, inputs])
            return module.apply({"params": params}, joint, count, method=method)[count:]

        return call

    return base.Model(init, run("__call__"), run("embed"))
