"""Dense layers and the attention of pictures' tokens: what `vit` and the pool of `resnet` share."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun import base

DEVIATION = 0.02  # of the first kernels, which are normal and cut off at twice the deviation


class Dense(nn.Module):
    """inputs · kernel + bias."""

    units: int
    has_bias: bool = True

    @nn.compact
    def __call__(self, inputs: Float[Array, "*batch feature"]) -> Float[Array, "*batch unit"]:
        initial = nn.initializers.truncated_normal(DEVIATION)
        outputs = inputs @ self.param(base.KERNEL, initial, (inputs.shape[-1], self.units))
        if not self.has_bias:
            return outputs
        bias = self.param(base.BIAS, nn.initializers.zeros, (self.units,))
        return outputs + bias.reshape((1,) * (inputs.ndim - 1) + (self.units,))


class Attention(nn.Module):
    """Scaled dot-product attention of tokens to all tokens, in several heads."""

    heads: int
    outputs: int
    only_first: bool = False  # only the first token looks at the others, and the result has one token

    @nn.compact
    def __call__(self, inputs: Float[Array, "example token feature"]) -> Float[Array, "example _ unit"]:
        count, tokens, width = inputs.shape
        joint = Dense(3 * width, name="projection")(inputs)
        queries, keys, values = jnp.split(joint.reshape(count, tokens, 3 * self.heads, -1), 3, axis=2)
        if self.only_first:
            queries = queries[:, :1]
        scores = jnp.einsum("ethf,eohf->ehto", queries * (width // self.heads) ** -0.5, keys)
        shares = jax.nn.softmax(scores.astype(jnp.promote_types(scores.dtype, jnp.float32)))
        mixed = jnp.einsum("ehto,eohf->ethf", shares.astype(inputs.dtype), values)
        return Dense(self.outputs, name="mix")(mixed.reshape(count, -1, width))
