"""A fully connected layer whose units start at different places."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Dense(nn.Module):
    """inputs · kernel + bias, both uniform in ±1/√(number of inputs) at first.

    On the sinusoid (10,000 steps, inner learning rate 0.1, outer clamp 10) validation error was 0.97 with it and 1.35
    with Gaussian kernels and zero biases. Which of the two changes did it is not known: docs/findings.md.
    """

    units: int

    @nn.compact
    def __call__(self, inputs: Float[Array, "*batch feature"]) -> Float[Array, "*batch unit"]:
        bound = inputs.shape[-1] ** -0.5

        def initial(key, shape, dtype=jnp.float32):
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        kernel = self.param("kernel", initial, (inputs.shape[-1], self.units))
        bias = self.param("bias", initial, (self.units,))
        return inputs @ kernel + bias.reshape((1,) * (inputs.ndim - 1) + (self.units,))
