"""The residual network, also with the weights of a file: torchvision, timm, DINO, Hugging Face, CLIP.

He et al. 2016, arXiv 1512.03385, with the stride of a bottleneck in its 3×3 convolution, as torchvision has it. The
layout `clip` is the modified network of CLIP (Radford et al. 2021, 2103.00020): three convolutions before the blocks,
means of 2×2 in place of strides, and an attention that pools the positions. With `weights`, all options of the shape
come from the file, the parameters begin as its own, and only the head is new. Without a file the last scale of each
block begins as 1/√(number of blocks), because no statistics hold the sums back. See docs/backbones.md.
"""

from dataclasses import dataclass, fields
from typing import Annotated, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun import base
from metarun.backbones.contents import fill
from metarun.models import _attention, _convolution, _flax, _normalisation, _weight_file
from metarun.ranges import AtLeast

DEFAULTS = {
    "layout": "torchvision",
    "width": 64,
    "blocks": (2, 2, 2, 2),
    "bottleneck": False,
    "projection": 0,
}
HEAD_FEATURES = 64  # of each head of the attention that pools


@dataclass(frozen=True)
class Config:
    """The file of weights, and the shape of the network: null is what the file has, or without a file a ResNet-18."""

    weights: str | None = None  # a local .safetensors file to begin from; null: random weights
    # How the names of the file are understood, and which network it is; null: as they look, without a file torchvision.
    layout: Literal["torchvision", "hf_resnet", "clip"] | None = None
    # Channels before the first block; without a file 64.
    width: Annotated[int, AtLeast(2)] | None = None
    # Blocks of each stage; a stage after the first halves the sides. Without a file 2, 2, 2, 2.
    blocks: tuple[Annotated[int, AtLeast(1)], ...] | None = None
    # Blocks of three convolutions, four times as wide outside; without a file false.
    bottleneck: bool | None = None
    projection: Annotated[int, AtLeast(0)] | None = None  # features of the layout clip; 0: its channels
    # What normalises: fixed, a scale and an offset of each channel, into which the statistics of the file are folded;
    # batch, the statistics of the support.
    statistics: Literal["fixed", "batch"] = "fixed"
    # How a convolution is computed: as matrix products, by the device's own operation, or whichever of the two was
    # measured to be faster on the device. They differ by rounding alone.
    convolution: Literal["auto", "products", "native"] = "auto"

    def __post_init__(self):
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in fill("resnet", given, DEFAULTS).items():
            object.__setattr__(self, name, value)
        if not self.blocks:
            raise ValueError("the network needs a stage of blocks", "give blocks, one number for each stage")
        if self.layout == "clip" and not self.bottleneck:
            raise ValueError("the layout clip has bottlenecks alone", "set bottleneck: true")


class Shape(NamedTuple):
    """The shape of the network: as in `Config`, with nothing left open."""

    weights: str | None
    layout: str
    width: int
    blocks: tuple[int, ...]
    bottleneck: bool
    projection: int
    statistics: str
    convolution: _convolution.Form

    @property
    def is_modified(self) -> bool:
        """Whether it is the network of CLIP."""
        return self.layout == "clip"


class Affine(nn.Module):
    """inputs · scale + offset, for each channel."""

    first: float  # the first scale

    @nn.compact
    def __call__(self, inputs: Float[Array, "example height width channel"], reference_count: int):
        size = inputs.shape[-1:]
        scale = self.param(base.SCALE, nn.initializers.constant(self.first), size)
        offset = self.param(base.OFFSET, nn.initializers.zeros, size)
        return inputs * scale.reshape(1, 1, 1, -1) + offset.reshape(1, 1, 1, -1)


class Convolution(nn.Module):
    """A convolution without bias, then a normalisation, then modulation by a condition if there is one."""

    shape: Shape
    channels: int
    window: int
    stride: int = 1
    first: float = 1.0  # the first scale of a fixed normalisation

    @nn.compact
    def __call__(self, inputs, reference_count: int, condition=None):
        initial = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        kernel = self.param(base.KERNEL, initial, (self.window, self.window, inputs.shape[-1], self.channels))
        form, padding = self.shape.convolution, self.window // 2
        features = _convolution.convolve(inputs, kernel, self.stride, form, padding)
        if self.shape.statistics == "batch":
            features = _normalisation.Normalisation("batch", name="norm")(features, reference_count)
        else:
            features = Affine(self.first, name="norm")(features, reference_count)
        if condition is None:
            return features
        return _normalisation.Modulation(name="modulation")(features, condition)


class Block(nn.Module):
    """Two convolutions, or three of which the outer ones are 1×1, beside what came in; their sum is rectified."""

    shape: Shape
    width: int
    stride: int
    has_around: bool  # what came in passes a 1×1 convolution, because its shape changes

    def setup(self):
        shape, first = self.shape, sum(self.shape.blocks) ** -0.5
        stride = 1 if shape.is_modified else self.stride
        outputs = 4 * self.width if shape.bottleneck else self.width
        if shape.bottleneck:
            sizes = [(self.width, 1, 1), (self.width, 3, stride), (outputs, 1, 1)]
        else:
            sizes = [(self.width, 3, stride), (outputs, 3, 1)]
        *before, last = sizes
        self.convolutions = [Convolution(shape, *size) for size in before] + [
            Convolution(shape, *last, first)
        ]
        if self.has_around:
            self.around = Convolution(shape, outputs, 1, stride)

    def __call__(self, inputs, reference_count: int, condition=None):
        *before, last = self.convolutions
        shrinks, features = self.shape.is_modified and self.stride > 1, inputs
        for convolution in before:
            features = jax.nn.relu(convolution(features, reference_count, condition))
        if shrinks:
            features, inputs = mean_pool(features), mean_pool(inputs)
        features = last(features, reference_count, condition)
        return jax.nn.relu(features + (self.around(inputs, reference_count) if self.has_around else inputs))


class AttentionPool(nn.Module):
    """Attention of the mean of all positions to the mean and the positions: how CLIP makes one vector of a picture."""

    outputs: int

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "example height width channel"]
    ) -> Float[Array, "example feature"]:
        count, *_, width = inputs.shape
        places = inputs.reshape(count, -1, width)
        tokens = jnp.concatenate([places.mean(axis=1, keepdims=True), places], axis=1)
        table = self.param("positions", nn.initializers.normal(width**-0.5), tokens.shape[1:])
        attend = _attention.Attention(
            max(width // HEAD_FEATURES, 1), self.outputs, only_first=True, name="attention"
        )
        return attend(tokens + table[None])[:, 0]


def mean_pool(inputs: Float[Array, "example height width channel"]) -> Float[Array, "example _ _ channel"]:
    """Return the mean of each 2×2 block. An odd last row or column is dropped."""
    count, height, width, channels = inputs.shape
    even = inputs[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(count, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def max_pool(inputs: Float[Array, "example height width channel"]) -> Float[Array, "example _ _ channel"]:
    """Return the largest of each 3×3 window with stride 2. Inputs are at least zero, so zeros may surround them.

    It compares two values at a time, which has a second derivative (see `_convolution.max_pool`), and on a CPU takes
    less than half the time of XLA's own reduction of windows.
    """
    _, height, width, _ = inputs.shape
    padded = jnp.pad(inputs, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))
    return pool_line(pool_line(padded, 1), 2)


def pool_line(inputs: Float[Array, "example height width channel"], axis: int):
    """Return the largest of three neighbours along an axis of even length, with stride 2."""
    pairs = inputs.shape[axis] // 2
    blocks = inputs.reshape(*inputs.shape[:axis], pairs, 2, *inputs.shape[axis + 1 :])
    even, odd = (part.squeeze(axis + 1) for part in jnp.split(blocks, 2, axis + 1))
    first, third = (jax.lax.slice_in_dim(even, start, start + pairs - 1, axis=axis) for start in (0, 1))
    second = jax.lax.slice_in_dim(odd, 0, pairs - 1, axis=axis)
    return _convolution.choose_larger(_convolution.choose_larger(first, second), third)


class ResidualNetwork(nn.Module):
    """The first convolutions, the blocks, and one dense layer."""

    shape: Shape
    output_size: int

    def setup(self):
        shape = self.shape
        half, width = shape.width // 2, shape.width
        sizes = [(half, 3, 2), (half, 3), (width, 3)] if shape.is_modified else [(width, 7, 2)]
        self.stem = [Convolution(shape, *size) for size in sizes]
        blocks, channels = {}, shape.width
        for stage, count in enumerate(shape.blocks):
            stage_width = shape.width * 2**stage
            outputs = stage_width * (4 if shape.bottleneck else 1)
            for index in range(count):
                stride = 2 if stage and not index else 1
                has_around = not index and (stage > 0 or outputs != channels)
                blocks[f"{stage}_{index}"] = Block(shape, stage_width, stride, has_around)
            channels = outputs
        self.blocks = blocks
        if shape.is_modified:
            self.pool = AttentionPool(shape.projection or channels)
        self.head = nn.Dense(self.output_size)

    def embed(self, inputs, reference_count: int, condition=None):
        shape = self.shape
        features = _weight_file.repeat_grey(inputs, 3) if shape.weights else inputs
        for convolution in self.stem:
            features = jax.nn.relu(convolution(features, reference_count, condition))
        features = (mean_pool if shape.is_modified else max_pool)(features)
        for block in self.blocks.values():
            features = block(features, reference_count, condition)
        return self.pool(features) if shape.is_modified else features.mean(axis=(1, 2))

    def __call__(self, inputs, reference_count: int, condition=None):
        return self.head(self.embed(inputs, reference_count, condition))


def build(config: Config, spec: base.Spec) -> base.Model:
    """Build the model for pictures [height, width, channel] and `spec.output_size` outputs.

    Raises:
      ValueError: the inputs are no pictures, are too small, or have channels that the file has not.
    """
    if len(spec.input_shape) != 3:
        raise ValueError(
            f"resnet needs pictures [height, width, channel], not inputs of shape {spec.input_shape}"
        )
    height, width, channels = spec.input_shape
    shape = Shape(*(getattr(config, name) for name in Shape._fields))
    rows, columns = (-(-side // 2) // 2 ** len(shape.blocks) for side in (height, width))
    if shape.is_modified and not min(rows, columns):
        smallest = 2 ** (len(shape.blocks) + 1)
        what = f"the layout clip needs pictures of at least {smallest} pixels a side, not {height} × {width}"
        raise ValueError(what, f"give larger pictures, such as task.size={smallest}")
    if shape.weights and channels not in (1, 3):
        raise ValueError(f"a file of weights takes pictures of 1 or 3 channels, not {channels}")
    module = ResidualNetwork(shape, spec.output_size)
    model = _flax.from_module(module, shape.statistics == "batch", takes_condition=True)
    if shape.weights is None:
        return model
    options = {field.name: getattr(config, field.name) for field in fields(config)}
    return _weight_file.start_from(model, "resnet", options, (rows, columns))
