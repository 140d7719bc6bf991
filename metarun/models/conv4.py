"""The few-shot convolutional network: blocks of 3×3 convolution, normalisation and activation.

With `downsample: stride` and `head: mean` it is MAML's network for Omniglot (Finn et al. 2017, arXiv 1703.03400, C.1);
the authors' code also has `scale: false`, `head_deviation: 1.0`, and an offset that does not adapt
(`algorithm.adapts_normalisation: false`). With `downsample: stride` and `head: flatten` it is the network of the public
code of Reptile (1803.02999) and of iMAML (1909.04630). With `downsample: max_pool` and `head: flatten` it is the
network of matching networks (1606.04080), prototypical networks (1703.05175) and MAML++ (1810.09502), whose code
has `activation: leaky_relu`, of slope 0.01. It has no running averages; see `reference` in base.Model.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import flax.linen as nn
import jax

from metarun import base
from metarun.models import _convolution, _flax, _normalisation
from metarun.ranges import Above, AtLeast, AtMost

ACTIVATIONS = {"relu": jax.nn.relu, "leaky_relu": jax.nn.leaky_relu, "tanh": jax.nn.tanh}


@dataclass(frozen=True)
class Config:
    """The blocks of the network."""

    width: Annotated[int, AtLeast(1)] = 64  # channels of every block
    depth: Annotated[int, AtLeast(1), AtMost(100)] = 4  # blocks
    downsample: Literal["stride", "max_pool"] = "stride"  # what halves height and width in each block
    # What each block applies behind its normalisation; leaky_relu has the slope 0.01 below zero.
    activation: Literal["relu", "leaky_relu", "tanh"] = "relu"
    normalisation: Literal["batch", "layer", "none"] = "batch"  # before each activation
    scale: bool = True  # each normalisation has a learned scale beside its learned offset
    # What normalises a query in inductive mode: the support, or the support and this one query, as in Reptile's code.
    inductive: Literal["support", "support_and_query"] = "support"
    head: Literal["mean", "flatten"] = "mean"  # average the positions before the last layer, or keep them all
    # Standard deviation of the last layer's first kernel; null: 1/√(its inputs).
    head_deviation: Annotated[float, Above(0)] | None = None
    # How a convolution is computed: as matrix products, by the device's own operation, or whichever of the two was
    # measured to be faster on the device. They differ by rounding alone.
    convolution: Literal["auto", "products", "native"] = "auto"

    def __post_init__(self):
        if self.inductive == "support_and_query" and self.normalisation != "batch":
            raise ValueError(
                f"no query joins its support where normalisation is {self.normalisation}",
                "set normalisation: batch, or inductive: support",
            )


class Block(nn.Module):
    """Convolution, normalisation, modulation by a condition, activation, and half the height and width."""

    config: Config

    @nn.compact
    def __call__(self, inputs, reference_count: int, condition=None):
        config, channels = self.config, inputs.shape[-1]
        initial = nn.initializers.glorot_uniform()
        kernel = self.param(base.KERNEL, initial, (3, 3, channels, config.width))
        strided = config.downsample == "stride"
        features = _convolution.convolve(inputs, kernel, 2 if strided else 1, config.convolution)
        if config.normalisation != "batch":  # batch normalisation would subtract a bias again
            bias = self.param(base.BIAS, nn.initializers.zeros, (config.width,))
            features = features + bias.reshape(1, 1, 1, -1)
        normalise = _normalisation.Normalisation(config.normalisation, config.scale)
        features = normalise(features, reference_count)
        if condition is not None:
            features = _normalisation.Modulation()(features, condition)
        features = ACTIVATIONS[config.activation](features)
        return features if strided else _convolution.max_pool(features)


class ConvolutionalNetwork(nn.Module):
    """The blocks, then one dense layer."""

    config: Config
    output_size: int

    def setup(self):
        self.blocks = [Block(self.config) for _ in range(self.config.depth)]
        deviation = self.config.head_deviation
        initial = nn.initializers.lecun_normal() if deviation is None else nn.initializers.normal(deviation)
        self.head = nn.Dense(self.output_size, kernel_init=initial)

    def embed(self, inputs, reference_count: int, condition=None):
        features = inputs
        for block in self.blocks:
            features = block(features, reference_count, condition)
        if self.config.head == "mean":
            return features.mean(axis=(1, 2))
        return features.reshape(features.shape[0], -1)

    def __call__(self, inputs, reference_count: int, condition=None):
        return self.head(self.embed(inputs, reference_count, condition))


def build(config: Config, spec: base.Spec) -> base.Model:
    """Build the model for pictures [height, width, channel] and `spec.output_size` outputs.

    Raises:
      ValueError: the inputs are no pictures, or too small to be halved `depth` times by max-pooling.
    """
    if len(spec.input_shape) != 3:
        raise ValueError(
            f"conv4 needs pictures [height, width, channel], not inputs of shape {spec.input_shape}"
        )
    if config.downsample == "max_pool" and min(spec.input_shape[:2]) < 2**config.depth:
        raise ValueError(
            f"{config.depth} max-pooling blocks need pictures of at least {2**config.depth} pixels a side, "
            f"not {spec.input_shape[:2]}"
        )
    module = ConvolutionalNetwork(config, spec.output_size)
    return _flax.from_module(
        module,
        config.normalisation == "batch",
        takes_condition=True,
        query_joins_reference=config.inductive == "support_and_query",
    )
