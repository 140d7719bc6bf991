"""From a Flax Linen module to the `Model` triple of pure functions."""

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from metarun import base


def from_module(module: nn.Module, uses_batch_statistics: bool, takes_condition: bool = False) -> base.Model:
    """Wrap a module that has `__call__(inputs, reference_count)` and `embed(inputs, reference_count)`.

    The reference examples travel through the network in front of the inputs, so that every layer can take its
    statistics from them, and are cut off at the end. A module without batch statistics never sees them.

    Where `takes_condition`, both methods have a third argument, one vector [feature] for all examples, or None. Only
    parameters that `init(key, inputs, condition=...)` made for a condition of that size can be applied with one.
    """

    def init(key, inputs, *, condition=None):
        return module.init(key, inputs, 0, **given(condition))["params"]

    def given(condition) -> dict:
        if condition is None:
            return {}
        if not takes_condition:
            raise ValueError(f"{type(module).__name__} takes no condition")
        return {"condition": condition}

    def checked(params, inputs, count, condition, method):
        inputs = jax.tree.map(jnp.asarray, inputs)  # of numpy, outside jit
        try:
            return module.apply({"params": params}, inputs, count, method=method, **given(condition))
        except (flax.errors.ScopeParamShapeError, flax.errors.ScopeParamNotFoundError) as error:
            raise ValueError(
                f"these parameters of {type(module).__name__} were made for another condition, or for none: {error}"
            ) from error

    def run(method: str):
        def call(params, inputs, *, condition=None, reference=None):
            if reference is None or not uses_batch_statistics:
                return checked(params, inputs, 0, condition, method)
            count = reference.shape[0]
            joint = jnp.concatenate([reference, inputs])
            return checked(params, joint, count, condition, method)[count:]

        return call

    return base.Model(init, run("__call__"), run("embed"))
