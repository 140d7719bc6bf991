"""Independent normal distributions: of the latent vector of a task, and of predictions."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# The smallest deviation of a prediction, in the units of the targets: Kim et al. 2019, appendix A.
LEAST_DEVIATION = 0.1


class Gaussian(NamedTuple):
    """Independent normal distributions."""

    mean: Float[Array, "*batch feature"]
    deviation: Float[Array, "*batch feature"]


def read_latent(numbers: Float[Array, "twice"]) -> Gaussian:
    """Return the distribution of z: means, then deviations between 0.1 and 1, as Kim et al. 2019 bound them."""
    mean, raw = jnp.split(numbers, 2)
    return Gaussian(mean, 0.1 + 0.9 * jax.nn.sigmoid(raw))


def read_prediction(numbers: Float[Array, "example twice"]) -> Gaussian:
    """Return the distribution of the targets: means, then deviations above LEAST_DEVIATION."""
    mean, raw = jnp.split(numbers, 2, axis=-1)
    return Gaussian(mean, LEAST_DEVIATION + (1 - LEAST_DEVIATION) * jax.nn.softplus(raw))


def draw(gaussian: Gaussian, key) -> Float[Array, "*batch feature"]:
    """Draw one sample; its derivative by mean and deviation is that of the reparametrisation."""
    noise = jax.random.normal(key, gaussian.mean.shape)
    return gaussian.mean + gaussian.deviation * noise


def divergence(left: Gaussian, right: Gaussian) -> Float[Array, ""]:
    """Return KL(left ‖ right), in nats, summed over the dimensions."""
    ratio = left.deviation / right.deviation
    distance = (left.mean - right.mean) / right.deviation
    return jnp.sum(0.5 * (ratio**2 + distance**2 - 1) - jnp.log(ratio))


def negative_log_likelihood(gaussian: Gaussian, targets: Float[Array, "example feature"]) -> Float[Array, ""]:
    """Return −log p(targets), in nats, the mean over examples and dimensions."""
    distance = (targets - gaussian.mean) / gaussian.deviation
    return jnp.mean(0.5 * distance**2 + jnp.log(gaussian.deviation) + 0.5 * math.log(2 * math.pi))
