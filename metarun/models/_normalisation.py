"""Normalisation layers without running averages, so that models stay pure functions of their parameters."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun import base

Kind = Literal["batch", "layer", "none"]

EPSILON = 1e-3  # added to the variance; the default of the layer that the MAML authors' code uses


class Normalisation(nn.Module):
    """Normalises features, then applies a learned scale, if it has one, and a learned offset to each channel.

    `batch` takes the statistics of each channel over examples and positions: over the first `reference_count` examples
    if there are any (inductive), otherwise over all examples (transductive). `layer` takes the statistics of each
    example over positions and channels. `none` passes the inputs on.
    """

    kind: Kind
    has_scale: bool = True

    @nn.compact
    def __call__(self, inputs: Float[Array, "example *position channel"], reference_count: int):
        if self.kind == "none":
            return inputs
        channels = inputs.shape[-1]
        everywhere = (1,) * (inputs.ndim - 1) + (channels,)
        scale = None
        if self.has_scale:
            scale = self.param(base.SCALE, nn.initializers.ones, (channels,)).reshape(everywhere)
        offset = self.param(base.OFFSET, nn.initializers.zeros, (channels,)).reshape(everywhere)
        if self.kind == "batch":
            source, axes = inputs[: reference_count or None], tuple(range(inputs.ndim - 1))
        else:
            source, axes = inputs, tuple(range(1, inputs.ndim))
        mean = jnp.mean(source, axis=axes, keepdims=True)
        variance = jnp.mean(jnp.square(source - mean), axis=axes, keepdims=True)
        factor = jax.lax.rsqrt(variance + EPSILON)
        return (inputs - mean) * (factor if scale is None else factor * scale) + offset


class Modulation(nn.Module):
    """Scales and moves every channel by linear maps of one condition: FiLM (Perez et al. 2018, arXiv 1709.07871).

    features · (1 + A·condition) + B·condition, so that a condition of zeros changes nothing. A and B start uniform in
    ±1/√(size of the condition).
    """

    @nn.compact
    def __call__(self, inputs: Float[Array, "example *position channel"], condition: Float[Array, "feature"]):
        channels, bound = inputs.shape[-1], condition.shape[0] ** -0.5
        everywhere = (1,) * (inputs.ndim - 1) + (channels,)

        def initial(key, shape, dtype=jnp.float32):
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        scale, offset = (
            (condition @ self.param(name, initial, (condition.shape[0], channels))).reshape(everywhere)
            for name in base.MODULATION
        )
        return inputs * (1 + scale) + offset
