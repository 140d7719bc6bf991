"""Whether the weights of a stage can be held at all. Their shapes are known before anything is allocated."""

import math
from collections.abc import Mapping
from typing import Any

import jax

from metarun import base, errors
from metarun.training import trial_memory

COPIES = 2  # of what is trained, that a step holds at the least: the weights and their gradient


def refuse_too_large(
    shapes: Mapping[str, base.Weights], device: jax.Device, memory: float | None = None
) -> None:
    """Refuse a stage whose weights and their gradient take more memory than all devices have.

    Args:
      shapes: of the weights of each stage, by its name, of all its learners.
      device: one of those that train; devices of its kind share out replicas.
      memory: bytes of all devices of all processes; None: as many for each as the system says of this one.

    Raises:
      ConfigError: says how much memory there is, and how much is needed at the least.
    """
    if memory is None:
        # Replicas are shared out among the devices of all processes.
        sharing = jax.process_count() if device.platform == "cpu" else jax.device_count(device.platform)
        memory = trial_memory.find_memory(device, 1) * sharing
    for stage, weights in shapes.items():
        needed = COPIES * count_bytes(weights.trained) + count_bytes(weights.frozen)
        if needed > memory:
            raise errors.ConfigError(
                f"weights and their gradient take {needed / 1e9:,.1f} GB, and {memory / 1e9:,.1f} GB are free",
                f"stage {stage}",
                "make the model smaller, or train fewer replicas and copies side by side",
            )


def count_bytes(tree: Any) -> int:
    """Return the bytes of all arrays in a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
