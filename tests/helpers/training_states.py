"""A state of the training, as a checkpoint stores it."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax


class Training(NamedTuple):
    """The two trees of a checkpoint."""

    weights: dict
    memory: tuple[optax.OptState, int]


def training(step: int) -> Training:
    """Return a state whose every number depends on the step."""
    weights = {
        "conv/kernel é": jnp.full((3, 4), step, jnp.float32),
        "half": jnp.full((2,), step, jnp.bfloat16),
        "ids": [np.arange(step, step + 3), np.array(step % 2 == 0)],
        "empty": jnp.zeros((0, 5), jnp.float16),
    }
    trained = {name: weights[name] for name in ("conv/kernel é", "half")}
    return Training(weights, (optax.adam(1e-3).init(trained), step))
