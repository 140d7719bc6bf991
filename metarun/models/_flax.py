"""Flax Linen modules as the three pure functions of `base.Model`."""

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from metarun import base


def from_module(
    module: nn.Module,
    uses_batch_statistics: bool,
    takes_condition: bool = False,
    query_joins_reference: bool = False,
) -> base.Model:
    """Wrap a module that has `__call__(inputs, reference_count)` and `embed(inputs, reference_count)`.

    The reference examples pass through the network in front of the inputs, so that every layer can take its statistics
    from them, and are cut off at the end. A module without batch statistics never sees them.

    With `takes_condition`, both methods have a third argument: one vector [feature] for all examples, or None. A
    condition needs parameters that `init(key, inputs, condition=...)` made for a condition of the same size.

    With `query_joins_reference` the batch that normalises an input is the reference and that input. An array that is
    given as its own reference, as the inner loop gives the support, is one batch by itself.
    """

    def init(key, inputs, *, condition=None):
        return module.init(key, inputs, 0, **check_condition(condition))["params"]

    def check_condition(condition) -> dict:
        if condition is None:
            return {}
        if not takes_condition:
            raise ValueError(f"{type(module).__name__} takes no condition")
        return {"condition": condition}

    def apply(params, inputs, count, condition, method):
        inputs = jax.tree.map(jnp.asarray, inputs)  # outside jit they may be numpy arrays
        keywords = check_condition(condition)
        try:
            return module.apply({"params": params}, inputs, count, method=method, **keywords)
        except (flax.errors.ScopeParamShapeError, flax.errors.ScopeParamNotFoundError) as error:
            what = f"these parameters of {type(module).__name__} were made for another condition, or for none"
            raise ValueError(f"{what}: {error}") from error

    def make_call(method: str):
        def call(params, inputs, *, condition=None, reference=None):
            if reference is None or not uses_batch_statistics:
                return apply(params, inputs, 0, condition, method)
            if query_joins_reference and reference is inputs:
                return apply(params, inputs, 0, condition, method)
            if query_joins_reference:

                def call_alone(example):
                    joint = jnp.concatenate([reference, example[None]])
                    return apply(params, joint, 0, condition, method)[-1]

                return jax.vmap(call_alone)(jnp.asarray(inputs))
            count = reference.shape[0]
            joint = jnp.concatenate([reference, inputs])
            return apply(params, joint, count, condition, method)[count:]

        return call

    return base.Model(init, make_call("__call__"), make_call("embed"))
