"""The Vision Transformer, also with the weights of a file: DINOv2, DINO, CLIP, DeiT, MAE, timm, torchvision.

Patches of the picture become tokens, a class token stands before them, blocks of self-attention and dense layers follow
(Dosovitskiy et al. 2021, arXiv 2010.11929), and the features are the normalised class token. DINOv2 (Oquab et al. 2023,
2304.07193) adds a gain to each residual branch, its register tokens are those of Darcet et al. 2023 (2309.16588). CLIP
(Radford et al. 2021, 2103.00020) normalises before the first block, activates by x·σ(1.702 x), and projects the
features. With `weights`, all options of the shape come from the file, the parameters begin as its own, and only the
head is new. Dropout and SwiGLU, which DINOv2's largest network has, are left out. See docs/backbones.md.
"""

from dataclasses import dataclass, fields
from typing import Annotated, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun import base
from metarun.backbones.contents import fill
from metarun.models import _attention, _flax, _normalisation, _weight_file
from metarun.ranges import Above, AtLeast

DEFAULTS = {
    "layout": "timm",
    "width": 384,
    "depth": 12,
    "heads": 6,
    "patch": 14,
    "feedforward": 1536,
    "registers": 0,
    "layer_scale": False,
    "norm_before": False,
    "patch_bias": True,
    "class_position": True,
    "projection": 0,
    "activation": "gelu",
    "epsilon": 1e-6,
}

Layout = Literal[
    "timm", "dino", "dinov2", "torchvision", "torchvision_old", "hf_vit", "hf_dinov2", "hf_clip", "clip"
]


@dataclass(frozen=True)
class Config:
    """The file of weights, and the shape of the network: null is what the file has, or without a file a ViT-S/14."""

    weights: str | None = None  # a local .safetensors file to begin from; null: random weights
    # How the names of the file are understood; null: as they look. dino is never guessed.
    layout: Layout | None = None
    # Features of a token, a multiple of heads; without a file 384.
    width: Annotated[int, AtLeast(1)] | None = None
    depth: Annotated[int, AtLeast(1)] | None = None  # blocks; without a file 12
    # Heads of every attention; null: those of the published network of this width, without a file 6.
    heads: Annotated[int, AtLeast(1)] | None = None
    patch: Annotated[int, AtLeast(1)] | None = None  # pixels a side of a patch; without a file 14
    # Hidden units of the dense layers; without a file 1536.
    feedforward: Annotated[int, AtLeast(1)] | None = None
    registers: Annotated[int, AtLeast(0)] | None = None  # tokens that stand for no patch; without a file 0
    # Each channel of what a block adds has a learned gain; without a file false.
    layer_scale: bool | None = None
    norm_before: bool | None = None  # a normalisation before the first block; without a file false
    patch_bias: bool | None = None  # the first layer has a bias; without a file true
    class_position: bool | None = None  # the class token has a position vector; without a file true
    projection: Annotated[int, AtLeast(0)] | None = None  # features after a last projection; 0: there is none
    activation: Literal["gelu", "quick_gelu"] | None = None  # of the dense layers; without a file gelu
    # Added to the variance of a normalisation; without a file 1e-6.
    epsilon: Annotated[float, Above(0)] | None = None

    def __post_init__(self):
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in fill("vit", given, DEFAULTS).items():
            object.__setattr__(self, name, value)
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the width {self.width}")


class Shape(NamedTuple):
    """The shape of the network: as in `Config`, with nothing left open."""

    weights: str | None
    width: int
    depth: int
    heads: int
    patch: int
    feedforward: int
    registers: int
    layer_scale: bool
    norm_before: bool
    patch_bias: bool
    class_position: bool
    projection: int
    activation: str
    epsilon: float


class Norm(nn.Module):
    """Layer normalisation over the features, in float32 at least."""

    epsilon: float

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "example token feature"]
    ) -> Float[Array, "example token feature"]:
        size = inputs.shape[-1:]
        scale = self.param(base.SCALE, nn.initializers.ones, size)
        offset = self.param(base.OFFSET, nn.initializers.zeros, size)
        values = inputs.astype(jnp.promote_types(inputs.dtype, jnp.float32))
        centred = values - values.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        normal = (centred * jax.lax.rsqrt(variance + self.epsilon)).astype(inputs.dtype)
        return normal * scale[None, None] + offset[None, None]


class Block(nn.Module):
    """Attention, then two dense layers, each after a normalisation and added to what came in."""

    shape: Shape

    @nn.compact
    def __call__(self, features: Float[Array, "example token feature"], condition=None):
        shape, width = self.shape, features.shape[-1]
        inputs = Norm(shape.epsilon, name="norm_attention")(features)
        features = features + self.scale(
            _attention.Attention(shape.heads, width, name="attention")(inputs), "gain_attention"
        )
        inputs = Norm(shape.epsilon, name="norm_dense")(features)
        if condition is not None:
            inputs = _normalisation.Modulation(name="modulation")(inputs, condition)
        hidden = activate(_attention.Dense(shape.feedforward, name="dense_in")(inputs), shape.activation)
        return features + self.scale(_attention.Dense(width, name="dense_out")(hidden), "gain_dense")

    def scale(self, update: Float[Array, "example token feature"], name: str):
        """Multiply each channel with its gain, if the network has gains."""
        if not self.shape.layer_scale:
            return update
        return update * self.param(name, nn.initializers.ones, update.shape[-1:])[None, None]


def activate(values: Float[Array, "*batch unit"], kind: str) -> Float[Array, "*batch unit"]:
    """Return x·Φ(x) for gelu, and x·σ(1.702 x) for quick_gelu."""
    if kind == "quick_gelu":
        return values * jax.nn.sigmoid(1.702 * values)
    return jax.nn.gelu(values, approximate=False)


class VisionTransformer(nn.Module):
    """Tokens of patches, the blocks, and a dense layer on the class token."""

    shape: Shape
    grid: tuple[int, int]  # rows and columns of patches
    output_size: int

    def setup(self):
        shape = self.shape
        self.patches = _attention.Dense(shape.width, shape.patch_bias)
        places, initial = self.grid[0] * self.grid[1], nn.initializers.truncated_normal(0.02)
        self.positions = self.param("positions", initial, (places + shape.class_position, shape.width))
        self.class_token = self.param("class_token", initial, (shape.width,))
        if shape.registers:
            self.registers = self.param("registers", initial, (shape.registers, shape.width))
        if shape.norm_before:
            self.norm_before = Norm(shape.epsilon)
        self.blocks = [Block(shape) for _ in range(shape.depth)]
        self.norm = Norm(shape.epsilon)
        if shape.projection:
            self.projection = _attention.Dense(shape.projection, has_bias=False)
        self.head = _attention.Dense(self.output_size)

    def make_tokens(self, pictures: Float[Array, "example height width channel"]):
        """Return the class token, the registers and the patches, [example, token, feature]."""
        shape, (rows, columns) = self.shape, self.grid
        count, side = pictures.shape[0], shape.patch
        channels = pictures.shape[-1]
        blocks = pictures.reshape(count, rows, side, columns, side, channels).swapaxes(2, 3)
        patches = self.patches(blocks.reshape(count, rows * columns, side * side * channels))
        extra, first = int(shape.class_position), self.class_token
        if extra:
            first = first + self.positions[0]
        leading = jnp.concatenate([first[None], *([self.registers] if shape.registers else [])])
        leading = jnp.broadcast_to(leading[None], (count, *leading.shape))
        return jnp.concatenate([leading, patches + self.positions[None, extra:]], axis=1)

    def embed(self, inputs, reference_count: int, condition=None):
        pictures = _weight_file.repeat_grey(inputs, 3) if self.shape.weights else inputs
        features = self.make_tokens(pictures)
        if self.shape.norm_before:
            features = self.norm_before(features)
        for block in self.blocks:
            features = block(features, condition)
        features = self.norm(features[:, :1])[:, 0]
        return self.projection(features) if self.shape.projection else features

    def __call__(self, inputs, reference_count: int, condition=None):
        return self.head(self.embed(inputs, reference_count, condition))


def build(config: Config, spec: base.Spec) -> base.Model:
    """Build the model for pictures [height, width, channel] and `spec.output_size` outputs.

    Raises:
      ValueError: the inputs are no pictures, are no whole number of patches, or have channels that the file has not.
    """
    if len(spec.input_shape) != 3:
        raise ValueError(
            f"vit needs pictures [height, width, channel], not inputs of shape {spec.input_shape}"
        )
    height, width, channels = spec.input_shape
    shape = Shape(*(getattr(config, name) for name in Shape._fields))
    side = shape.patch
    if height % side or width % side:
        nearest = max(side, height // side * side)
        raise ValueError(
            f"pictures of {height} × {width} pixels are no whole number of patches of {side} pixels",
            f"give pictures of a multiple of {side} pixels a side, such as task.size={nearest}",
        )
    if shape.weights and channels not in (1, 3):
        raise ValueError(f"a file of weights takes pictures of 1 or 3 channels, not {channels}")
    grid = (height // side, width // side)
    model = _flax.from_module(
        VisionTransformer(shape, grid, spec.output_size), uses_batch_statistics=False, takes_condition=True
    )
    if shape.weights is None:
        return model
    options = {field.name: getattr(config, field.name) for field in fields(config)}
    return _weight_file.start_from(model, "vit", options, grid)
