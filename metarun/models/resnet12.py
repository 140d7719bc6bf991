"""The residual network of twelve convolutions that most few-shot methods on natural pictures use.

It has four blocks of three 3×3 convolutions, with a 1×1 convolution around them, and 2×2 max-pooling after each block
(Oreshkin, Rodríguez López, Lacoste 2018, TADAM, arXiv 1805.10123; Lee et al. 2019, MetaOptNet, 1904.03758). The
channels are MetaOptNet's 64, 160, 320, 640 by default; TADAM has 64, 128, 256, 512. MetaOptNet drops blocks of
activations (DropBlock) in training; we do not. There are no running averages; see `reference` in base.Model.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import flax.linen as nn
import jax

from metarun import base
from metarun.models import _convolution, _flax, _normalisation
from metarun.ranges import Above, AtLeast

SLOPE = 0.1  # slope of the leaky rectifier below zero, as in MetaOptNet


@dataclass(frozen=True)
class Config:
    """The width of the blocks, and the way in which features become one vector."""

    width: Annotated[int, AtLeast(1)] = 64  # channels of the first block
    # Channels of each block divided by width; as many blocks as numbers.
    multiples: tuple[Annotated[float, Above(0)], ...] = (1.0, 2.5, 5.0, 10.0)
    normalisation: Literal["batch", "layer", "none"] = "batch"  # after each convolution
    head: Literal["mean", "flatten"] = "mean"  # average the positions before the last layer, or keep them all
    # How a convolution is computed: as matrix products, by the device's own operation, or whichever of the two was
    # measured to be faster on the device. They differ by rounding alone.
    convolution: Literal["auto", "products", "native"] = "auto"

    def __post_init__(self):
        if not self.multiples or min(self.channels) < 1:
            raise ValueError("every block needs a channel", "give larger multiples, one for each block")

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels of each block."""
        return tuple(round(self.width * multiple) for multiple in self.multiples)


class Convolution(nn.Module):
    """A convolution without stride, then normalisation, then modulation by a condition if there is one."""

    channels: int
    window: int
    normalisation: _normalisation.Kind
    form: _convolution.Form

    @nn.compact
    def __call__(self, inputs, reference_count: int, condition=None):
        # He et al. 2015 (1502.01852) with the outgoing connections, as in MetaOptNet.
        initial = nn.initializers.variance_scaling(2 / (1 + SLOPE**2), "fan_out", "normal")
        shape = (self.window, self.window, inputs.shape[-1], self.channels)
        features = _convolution.convolve(inputs, self.param(base.KERNEL, initial, shape), form=self.form)
        if self.normalisation != "batch":  # batch normalisation would subtract a bias again
            bias = self.param(base.BIAS, nn.initializers.zeros, (self.channels,))
            features = features + bias.reshape(1, 1, 1, -1)
        features = _normalisation.Normalisation(self.normalisation)(features, reference_count)
        return features if condition is None else _normalisation.Modulation()(features, condition)


class Block(nn.Module):
    """Three convolutions beside one of 1×1; their sum is rectified and pooled to half the height and width."""

    channels: int
    config: Config

    def setup(self):
        options = (self.config.normalisation, self.config.convolution)
        self.convolutions = [Convolution(self.channels, 3, *options) for _ in range(3)]
        self.around = Convolution(self.channels, 1, *options)

    def __call__(self, inputs, reference_count: int, condition=None):
        *first, last = self.convolutions
        features = inputs
        for convolution in first:
            features = jax.nn.leaky_relu(convolution(features, reference_count, condition), SLOPE)
        features = last(features, reference_count, condition) + self.around(inputs, reference_count)
        return _convolution.max_pool(jax.nn.leaky_relu(features, SLOPE))


class ResidualNetwork(nn.Module):
    """The blocks, then one dense layer."""

    config: Config
    output_size: int

    def setup(self):
        self.blocks = [Block(channels, self.config) for channels in self.config.channels]
        self.head = nn.Dense(self.output_size)

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
      ValueError: the inputs are no pictures, or too small to be halved in each block.
    """
    if len(spec.input_shape) != 3:
        raise ValueError(
            f"resnet12 needs pictures [height, width, channel], not inputs of shape {spec.input_shape}"
        )
    smallest = 2 ** len(config.multiples)
    if min(spec.input_shape[:2]) < smallest:
        raise ValueError(
            f"{len(config.multiples)} blocks need pictures of at least {smallest} pixels a side, "
            f"not {spec.input_shape[:2]}",
            "take larger pictures, or fewer multiples",
        )
    module = ResidualNetwork(config, spec.output_size)
    return _flax.from_module(module, config.normalisation == "batch", takes_condition=True)
