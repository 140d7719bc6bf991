"""Record what published networks for pictures give, in PyTorch, with small random weights under their published names.

    .venv-torch/bin/python scripts/record_backbones.py [--check]

It writes a CASE.safetensors for each layout and references.npz into tests/backbones/, against which
tests/backbones/test_references.py holds metarun's networks. It needs torch and no metarun; `python bench/bench.py
--install-torch` makes the environment. With `--check` it writes nothing, and fails where a number differs from the
stored one by more than 1e-6.

The modules were written from the papers and from what the public codes compute; no code was copied. Their names are
those of the published files: timm, torchvision, facebookresearch/dino and dinov2, Hugging Face transformers, and
openai/CLIP. In references.npz are the pictures vit/inputs and vit/other_inputs, those of another size, the same of
resnet, and for each case CASE/features, CASE/slope (of the pictures), CASE/grad/NAME (of the module's array of that
name, along random directions), CASE/other_features, and CASE/other_positions: the positions for the other pictures.
"""

import argparse
import json
import math
import struct
import sys
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FOLDER = Path(__file__).parents[1] / "tests" / "backbones"
TOLERANCE = 1e-6  # of --check
WIDTH, HEADS, WIDE, PATCH, SIDE = 16, 2, 24, 4, 4  # of the Vision Transformers; the last in patches
OTHER = (5, 6)  # rows and columns of patches of the other pictures
INTERPOLATED: list[Tensor] = []  # the tables of positions that `interpolate` has given
DIRECTIONS = 4  # along which each gradient is recorded, in place of all its numbers

Dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class QuickGELU(nn.Module):
    """The activation of OpenAI's networks."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


def interpolate(table: Tensor, grid: tuple[int, int], how: str) -> Tensor:
    """Return positions [place, feature] at another grid, by torch's interpolation as a code calls it."""
    side = math.isqrt(len(table))
    if grid == (side, side):
        return table
    square = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if how == "scale":  # DINO and DINOv2 without registers
        factors = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
        result = F.interpolate(square, scale_factor=factors, mode="bicubic")
    else:
        result = F.interpolate(
            square, size=grid, mode="bicubic", antialias=how == "antialias", align_corners=how == "corners"
        )
    assert result.shape[2:] == grid
    INTERPOLATED.append(result.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1))
    return INTERPOLATED[-1]


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Return multi-head attention of [example, token, feature]."""
    queries, keys, values = (
        part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (queries, keys, values)
    )
    scores = queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])
    return (scores.softmax(-1) @ values).transpose(1, 2).flatten(2)


class Named(nn.Module):
    """Modules and parameters by names; what they compute is said where they are used."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part if isinstance(part, nn.Module) else nn.Parameter(part))


class TimmVit(nn.Module):
    """VisionTransformer of timm, DINO and DINOv2."""

    def __init__(
        self, kind: str, how: str, registers: int = 0, gains: bool = False, before: bool = False
    ) -> None:
        super().__init__()
        self.kind, self.how = kind, how
        alone = kind == "timm" and registers > 0  # neither class token nor registers have positions there
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, SIDE**2 + (not alone), WIDTH))
        if registers:
            name = "register_tokens" if kind == "dinov2" else "reg_token"
            self.register_parameter(name, nn.Parameter(torch.zeros(1, registers, WIDTH)))
        if kind == "dinov2":
            self.mask_token = nn.Parameter(torch.zeros(1, WIDTH))
        self.patch_embed = Named(proj=nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=not before))
        epsilon = 1e-5 if before else 1e-6
        if before:
            self.norm_pre = nn.LayerNorm(WIDTH, epsilon)
        self.blocks = nn.ModuleList(
            self.make_block(gains, epsilon) for _ in range(1 if gains or before else 2)
        )
        self.norm = nn.LayerNorm(WIDTH, epsilon)
        if kind == "timm":
            self.head = nn.Linear(WIDTH, 5)

    def make_block(self, gains: bool, epsilon: float) -> nn.Module:
        """Return the modules of one block."""
        block = Named(
            norm1=nn.LayerNorm(WIDTH, epsilon),
            attn=Named(qkv=nn.Linear(WIDTH, 3 * WIDTH), proj=nn.Linear(WIDTH, WIDTH)),
            norm2=nn.LayerNorm(WIDTH, epsilon),
            mlp=Named(fc1=nn.Linear(WIDTH, WIDE), fc2=nn.Linear(WIDE, WIDTH)),
        )
        if gains:
            block.ls1, block.ls2 = Named(gamma=torch.ones(WIDTH)), Named(gamma=torch.ones(WIDTH))
        return block

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.patch_embed.proj(pictures)
        grid, count = tuple(patches.shape[2:]), len(pictures)
        patches = patches.flatten(2).transpose(1, 2)
        extra = self.pos_embed.shape[1] - SIDE**2
        table = interpolate(self.pos_embed[0, extra:], grid, self.how)
        first = self.cls_token + (self.pos_embed[:, :1] if extra else 0)
        leading = [first] + [
            getattr(self, name) for name in ("reg_token", "register_tokens") if hasattr(self, name)
        ]
        x = torch.cat([*(part.expand(count, -1, -1) for part in leading), patches + table], dim=1)
        x = self.norm_pre(x) if hasattr(self, "norm_pre") else x
        for block in self.blocks:
            queries, keys, values = block.attn.qkv(block.norm1(x)).chunk(3, dim=2)
            update = block.attn.proj(attend(queries, keys, values, HEADS))
            x = x + (update * block.ls1.gamma if hasattr(block, "ls1") else update)
            update = block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
            x = x + (update * block.ls2.gamma if hasattr(block, "ls2") else update)
        return self.norm(x)[:, 0]


class TorchvisionVit(nn.Module):
    """vision_transformer of torchvision, on torch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.conv_proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        layers = OrderedDict((f"encoder_layer_{index}", self.make_layer()) for index in range(2))
        self.encoder = Named(
            pos_embedding=torch.zeros(1, SIDE**2 + 1, WIDTH),
            layers=nn.Sequential(layers),
            ln=nn.LayerNorm(WIDTH, 1e-6),
        )
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(WIDTH, 5)))

    def make_layer(self) -> nn.Module:
        """Return the modules of one layer."""
        drop = nn.Dropout(0.0)
        return Named(
            ln_1=nn.LayerNorm(WIDTH, 1e-6),
            self_attention=nn.MultiheadAttention(WIDTH, HEADS, batch_first=True),
            ln_2=nn.LayerNorm(WIDTH, 1e-6),
            mlp=nn.Sequential(nn.Linear(WIDTH, WIDE), nn.GELU(), drop, nn.Linear(WIDE, WIDTH), drop),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.conv_proj(pictures)
        table = interpolate(self.encoder.pos_embedding[0, 1:], tuple(patches.shape[2:]), "corners")
        table = torch.cat([self.encoder.pos_embedding[0, :1], table])
        first = self.class_token.expand(len(pictures), -1, -1)
        x = torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1) + table
        for layer in self.encoder.layers:
            inputs = layer.ln_1(x)
            x = x + layer.self_attention(inputs, inputs, inputs, need_weights=False)[0]
            x = x + layer.mlp(layer.ln_2(x))
        return self.encoder.ln(x)[:, 0]


class HfVit(nn.Module):
    """ViTModel, or Dinov2Model with or without registers, of Hugging Face transformers."""

    def __init__(self, is_dinov2: bool, registers: int = 0) -> None:
        super().__init__()
        self.is_dinov2, epsilon = is_dinov2, 1e-6 if is_dinov2 else 1e-12
        self.embeddings = Named(
            cls_token=torch.zeros(1, 1, WIDTH),
            position_embeddings=torch.zeros(1, SIDE**2 + 1, WIDTH),
            patch_embeddings=Named(projection=nn.Conv2d(3, WIDTH, PATCH, PATCH)),
        )
        if is_dinov2:
            self.embeddings.mask_token = nn.Parameter(torch.zeros(1, WIDTH))
        if registers:
            self.embeddings.register_tokens = nn.Parameter(torch.zeros(1, registers, WIDTH))
        self.encoder = Named(
            layer=nn.ModuleList(self.make_layer(epsilon) for _ in range(1 if is_dinov2 else 2))
        )
        self.layernorm = nn.LayerNorm(WIDTH, epsilon)
        if not is_dinov2:
            self.pooler = Named(dense=nn.Linear(WIDTH, WIDTH))

    def make_layer(self, epsilon: float) -> nn.Module:
        """Return the modules of one layer."""
        parts = {name: nn.Linear(WIDTH, WIDTH) for name in ("query", "key", "value")}
        attention = Named(attention=Named(**parts), output=Named(dense=nn.Linear(WIDTH, WIDTH)))
        if not self.is_dinov2:
            return Named(
                attention=attention,
                intermediate=Named(dense=nn.Linear(WIDTH, WIDE)),
                output=Named(dense=nn.Linear(WIDE, WIDTH)),
                layernorm_before=nn.LayerNorm(WIDTH, epsilon),
                layernorm_after=nn.LayerNorm(WIDTH, epsilon),
            )
        return Named(
            norm1=nn.LayerNorm(WIDTH, epsilon),
            attention=attention,
            layer_scale1=Named(lambda1=torch.ones(WIDTH)),
            norm2=nn.LayerNorm(WIDTH, epsilon),
            mlp=Named(fc1=nn.Linear(WIDTH, WIDE), fc2=nn.Linear(WIDE, WIDTH)),
            layer_scale2=Named(lambda1=torch.ones(WIDTH)),
        )

    def run_layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return what one layer gives."""
        first, second = ("norm1", "norm2") if self.is_dinov2 else ("layernorm_before", "layernorm_after")
        inputs, attention = getattr(layer, first)(x), layer.attention.attention
        parts = attention.query(inputs), attention.key(inputs), attention.value(inputs)
        update = layer.attention.output.dense(attend(*parts, HEADS))
        x = x + (layer.layer_scale1.lambda1 * update if self.is_dinov2 else update)
        inputs = getattr(layer, second)(x)
        if self.is_dinov2:
            return x + layer.layer_scale2.lambda1 * layer.mlp.fc2(F.gelu(layer.mlp.fc1(inputs)))
        return x + layer.output.dense(F.gelu(layer.intermediate.dense(inputs)))

    def forward(self, pictures: Tensor) -> Tensor:
        embeddings, count = self.embeddings, len(pictures)
        patches = embeddings.patch_embeddings.projection(pictures)
        registers = getattr(embeddings, "register_tokens", None)
        how = "size" if registers is None else "antialias"
        table = interpolate(embeddings.position_embeddings[0, 1:], tuple(patches.shape[2:]), how)
        first = (embeddings.cls_token + embeddings.position_embeddings[:, :1]).expand(count, -1, -1)
        middle = [] if registers is None else [registers.expand(count, -1, -1)]
        x = torch.cat([first, *middle, patches.flatten(2).transpose(1, 2) + table], dim=1)
        for layer in self.encoder.layer:
            x = self.run_layer(layer, x)
        return self.layernorm(x)[:, 0]


class ClipVit(nn.Module):
    """The picture tower of openai/CLIP, on torch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(WIDTH))
        self.positional_embedding = nn.Parameter(torch.zeros(SIDE**2 + 1, WIDTH))
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = Named(resblocks=nn.ModuleList([self.make_block()]))
        self.proj = nn.Parameter(torch.zeros(WIDTH, 10))

    def make_block(self) -> nn.Module:
        """Return the modules of one block."""
        steps = OrderedDict(c_fc=nn.Linear(WIDTH, WIDE), gelu=QuickGELU(), c_proj=nn.Linear(WIDE, WIDTH))
        return Named(
            attn=nn.MultiheadAttention(WIDTH, HEADS, batch_first=True),
            ln_1=nn.LayerNorm(WIDTH),
            mlp=nn.Sequential(steps),
            ln_2=nn.LayerNorm(WIDTH),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.conv1(pictures)
        table = interpolate(self.positional_embedding[1:], tuple(patches.shape[2:]), "antialias")
        first = self.class_embedding.expand(len(pictures), 1, -1)
        x = torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1)
        x = self.ln_pre(x + torch.cat([self.positional_embedding[:1], table]))
        for block in self.transformer.resblocks:
            inputs = block.ln_1(x)
            x = x + block.attn(inputs, inputs, inputs, need_weights=False)[0]
            x = x + block.mlp(block.ln_2(x))
        return self.ln_post(x[:, 0]) @ self.proj


class WholeClip(nn.Module):
    """A picture tower beside things of the text tower, which nobody reads here."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual, self.logit_scale = visual, nn.Parameter(torch.zeros(()))
        self.token_embedding = nn.Embedding(3, 2)
        self.positional_embedding = nn.Parameter(torch.zeros(3, 2))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.visual(pictures)


class HfClip(nn.Module):
    """CLIPModel of Hugging Face transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.vision_model = Named(
            embeddings=Named(
                class_embedding=torch.zeros(WIDTH),
                patch_embedding=nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False),
                position_embedding=nn.Embedding(SIDE**2 + 1, WIDTH),
            ),
            pre_layrnorm=nn.LayerNorm(WIDTH),
            encoder=Named(layers=nn.ModuleList([self.make_layer()])),
            post_layernorm=nn.LayerNorm(WIDTH),
        )
        self.visual_projection = nn.Linear(WIDTH, 10, bias=False)
        self.text_model = Named(final_layer_norm=nn.LayerNorm(2))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def make_layer(self) -> nn.Module:
        """Return the modules of one layer."""
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        return Named(
            self_attn=Named(**{name: nn.Linear(WIDTH, WIDTH) for name in names}),
            layer_norm1=nn.LayerNorm(WIDTH),
            mlp=Named(fc1=nn.Linear(WIDTH, WIDE), fc2=nn.Linear(WIDE, WIDTH)),
            layer_norm2=nn.LayerNorm(WIDTH),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        tower, activate = self.vision_model, QuickGELU()
        patches = tower.embeddings.patch_embedding(pictures)
        positions = tower.embeddings.position_embedding.weight
        table = interpolate(positions[1:], tuple(patches.shape[2:]), "size")
        first = tower.embeddings.class_embedding.expand(len(pictures), 1, -1)
        x = torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1) + torch.cat([positions[:1], table])
        x = tower.pre_layrnorm(x)
        for layer in tower.encoder.layers:
            inputs, own = layer.layer_norm1(x), layer.self_attn
            update = attend(own.q_proj(inputs), own.k_proj(inputs), own.v_proj(inputs), HEADS)
            x = x + own.out_proj(update)
            x = x + layer.mlp.fc2(activate(layer.mlp.fc1(layer.layer_norm2(x))))
        return self.visual_projection(tower.post_layernorm(x[:, 0]))


class TorchvisionBlock(nn.Module):
    """BasicBlock or Bottleneck of torchvision."""

    def __init__(self, inputs: int, width: int, stride: int, is_bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if is_bottleneck else width
        sizes = [(inputs, width, 3, stride), (width, width, 3, 1)]
        if is_bottleneck:
            sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        self.count = len(sizes)
        for index, (before, after, side, step) in enumerate(sizes, 1):
            setattr(self, f"conv{index}", nn.Conv2d(before, after, side, step, side // 2, bias=False))
            setattr(self, f"bn{index}", nn.BatchNorm2d(after))
        self.downsample = None
        if stride > 1 or inputs != outputs:
            around = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(around, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        features = x
        for index in range(1, self.count + 1):
            features = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(features))
            features = F.relu(features) if index < self.count else features
        return F.relu(features + (x if self.downsample is None else self.downsample(x)))


class TorchvisionResnet(nn.Module):
    """resnet of torchvision."""

    def __init__(self, width: int, blocks: tuple[int, ...], is_bottleneck: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.stages, inputs = len(blocks), width
        for stage, count in enumerate(blocks):
            layers = []
            for index in range(count):
                stride = 2 if stage and not index else 1
                layers.append(TorchvisionBlock(inputs, width * 2**stage, stride, is_bottleneck))
                inputs = width * 2**stage * (4 if is_bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(inputs, 5)

    def forward(self, pictures: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(pictures))), 3, 2, 1)
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean((2, 3))


def make_convolution(inputs: int, outputs: int, side: int, stride: int) -> nn.Module:
    """Return a convolution with its normalisation, as Hugging Face names them."""
    convolution = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False)
    return Named(convolution=convolution, normalization=nn.BatchNorm2d(outputs))


def convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """Return what a convolution and its normalisation give."""
    return layer.normalization(layer.convolution(x))


class HfResnet(nn.Module):
    """ResNetModel of Hugging Face transformers, with bottlenecks, under the name `resnet` of a classifier."""

    def __init__(self, width: int, blocks: tuple[int, ...]) -> None:
        super().__init__()
        stages, inputs = [], width
        for stage, count in enumerate(blocks):
            layers = []
            for index in range(count):
                own, stride = width * 2**stage, 2 if stage and not index else 1
                sizes = [(inputs, own, 1, 1), (own, own, 3, stride), (own, 4 * own, 1, 1)]
                layer = Named(layer=nn.Sequential(*(make_convolution(*size) for size in sizes)))
                if not index:
                    layer.shortcut = make_convolution(inputs, 4 * own, 1, stride)
                layers.append(layer)
                inputs = 4 * own
            stages.append(Named(layers=nn.Sequential(*layers)))
        self.resnet = Named(
            embedder=Named(embedder=make_convolution(3, width, 7, 2)),
            encoder=Named(stages=nn.ModuleList(stages)),
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 5))

    def forward(self, pictures: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(convolve(self.resnet.embedder.embedder, pictures)), 3, 2, 1)
        for stage in self.resnet.encoder.stages:
            for block in stage.layers:
                first, second, third = block.layer
                features = F.relu(convolve(second, F.relu(convolve(first, x))))
                around = convolve(block.shortcut, x) if hasattr(block, "shortcut") else x
                x = F.relu(convolve(third, features) + around)
        return x.mean((2, 3))


class ClipBlock(nn.Module):
    """Bottleneck of CLIP's modified ResNet: a mean in place of a stride."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.downsample = None
        if stride > 1 or inputs != 4 * width:
            parts = [("-1", nn.AvgPool2d(stride)), ("0", nn.Conv2d(inputs, 4 * width, 1, bias=False))]
            self.downsample = nn.Sequential(OrderedDict([*parts, ("1", nn.BatchNorm2d(4 * width))]))

    def forward(self, x: Tensor) -> Tensor:
        features = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        features = self.bn3(self.conv3(self.pool(features)))
        return F.relu(features + (x if self.downsample is None else self.downsample(x)))


class ClipResnet(nn.Module):
    """ModifiedResNet of CLIP."""

    def __init__(self, width: int, blocks: tuple[int, ...], side: int, outputs: int) -> None:
        super().__init__()
        half = width // 2
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, 2, 1, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(half, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.stages, inputs = len(blocks), width
        for stage, count in enumerate(blocks):
            layers = []
            for index in range(count):
                own = width * 2**stage
                layers.append(ClipBlock(inputs, own, 2 if stage and not index else 1))
                inputs = 4 * own
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        projections = {f"{name}_proj": nn.Linear(inputs, inputs) for name in "qkv"}
        self.attnpool = Named(
            positional_embedding=torch.zeros(side**2 + 1, inputs),
            c_proj=nn.Linear(inputs, outputs),
            **projections,
        )

    def forward(self, pictures: Tensor) -> Tensor:
        x = pictures
        for number in (1, 2, 3):
            x = F.relu(getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x)))
        x = F.avg_pool2d(x, 2)
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        pool, grid = self.attnpool, tuple(x.shape[2:])
        x = x.flatten(2).transpose(1, 2)
        table = interpolate(pool.positional_embedding[1:], grid, "antialias")
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1) + torch.cat([pool.positional_embedding[:1], table])
        result = F.multi_head_attention_forward(
            query=x[:, :1].transpose(0, 1),
            key=x.transpose(0, 1),
            value=x.transpose(0, 1),
            embed_dim_to_check=x.shape[-1],
            num_heads=x.shape[-1] // 64,
            q_proj_weight=pool.q_proj.weight,
            k_proj_weight=pool.k_proj.weight,
            v_proj_weight=pool.v_proj.weight,
            in_proj_weight=None,
            in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=pool.c_proj.weight,
            out_proj_bias=pool.c_proj.bias,
            use_separate_proj_weight=True,
            training=False,
            need_weights=False,
        )[0]
        return result[0]


# Examples, height and width of the pictures of both sizes.
PICTURES = {
    "vit": ((2, SIDE * PATCH, SIDE * PATCH), (2, OTHER[0] * PATCH, OTHER[1] * PATCH)),
    "resnet": ((1, 32, 32), (1, 44, 36)),
}
# name: (module, type of the numbers in the file, what stands before the names)
CASES: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "timm": (lambda: TimmVit("timm", "antialias"), "F32", ""),
    "timm_registers": (lambda: TimmVit("timm", "antialias", 2, True), "F32", ""),
    "timm_clip": (lambda: TimmVit("timm", "antialias", before=True), "F32", ""),
    "dino": (lambda: TimmVit("dino", "scale"), "F32", "teacher.backbone."),
    "dinov2": (lambda: TimmVit("dinov2", "scale", 0, True), "F32", ""),
    "dinov2_registers": (lambda: TimmVit("dinov2", "antialias", 2, True), "F32", ""),
    "torchvision": (TorchvisionVit, "BF16", ""),
    "hf_vit": (lambda: HfVit(False), "F32", "vit."),
    "hf_dinov2": (lambda: HfVit(True), "F32", ""),
    "hf_dinov2_registers": (lambda: HfVit(True, 2), "F32", "dinov2_with_registers."),
    "hf_clip": (HfClip, "F32", ""),
    "clip": (lambda: WholeClip(ClipVit()), "F16", ""),
    "resnet": (lambda: TorchvisionResnet(4, (1, 2), False), "F32", ""),
    "resnet_bottleneck": (
        lambda: TorchvisionResnet(4, (2, 1), True),
        "F32",
        "module.backbone.",
    ),
    "hf_resnet": (lambda: HfResnet(4, (2, 1)), "F32", ""),
    "clip_resnet": (lambda: WholeClip(ClipResnet(16, (1, 1), 4, 12)), "F16", ""),
}


def fill(module: nn.Module, generator: np.random.Generator, dtype: torch.dtype) -> None:
    """Give all parameters and statistics random numbers that the type holds exactly."""
    with torch.no_grad():
        for name, tensor in module.state_dict(keep_vars=True).items():
            if not tensor.is_floating_point():
                continue
            fan = max(int(np.prod(tensor.shape[1:])), 1) if tensor.ndim > 1 else 4
            values = np.asarray(generator.standard_normal(tuple(tensor.shape))) * (1.5 / math.sqrt(fan))
            if name.endswith(("running_var",)):
                values = np.abs(values) + 0.5
            elif tensor.ndim == 1 and name.endswith(("weight", "gamma", "lambda1")):
                values = values * 0.3 + 1
            tensor.copy_(torch.from_numpy(np.asarray(values)).to(dtype))


def measure(module: nn.Module, pictures: Tensor) -> dict[str, np.ndarray]:
    """Return features, and the slopes of their sum with weights that alternate, in float64."""
    module.zero_grad()
    pictures = pictures.clone().requires_grad_()
    features = module(pictures)
    (features * torch.cos(torch.arange(features.numel())).reshape(features.shape)).sum().backward()
    assert pictures.grad is not None
    arrays = {"features": features.detach(), "slope": pictures.grad.permute(0, 2, 3, 1)}
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            slopes = [
                (parameter.grad * torch.from_numpy(part)).sum() for part in draw_directions(name, parameter)
            ]
            arrays[f"grad/{name}"] = torch.stack(slopes)
    return {name: tensor.numpy().astype(np.float32) for name, tensor in arrays.items()}


def draw_directions(name: str, array: Tensor) -> np.ndarray:
    """Return the directions of an array, as the test draws them."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    return generator.standard_normal((DIRECTIONS, *array.shape))


def write_safetensors(tensors: dict[str, Tensor], dtype: str, metadata: dict[str, str]) -> bytes:
    """Return tensors in the format; whole numbers stay such."""
    header: dict[str, Any] = {"__metadata__": metadata}
    body = b""
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            kind, tensor = dtype, tensor.to(Dtype[dtype])
            raw = tensor.contiguous().view(torch.int16 if dtype != "F32" else torch.int32).numpy().tobytes()
        else:
            kind, raw = "I64", tensor.numpy().tobytes()
        header[name] = {
            "dtype": kind,
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + len(raw)],
        }
        body += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def record() -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """Return the files of weights, and the arrays of all cases."""
    generator, files, arrays = np.random.default_rng(0), {}, {}
    for kind, shapes in PICTURES.items():
        for prefix, shape in zip(("", "other_"), shapes, strict=True):
            arrays[f"{kind}/{prefix}inputs"] = generator.standard_normal((*shape, 3)).astype(np.float32)
    for index, (name, (make, dtype, prefix)) in enumerate(CASES.items()):
        kind, module = "resnet" if "resnet" in name else "vit", make().double().eval()
        fill(module, np.random.default_rng(index), Dtype[dtype])
        named = {prefix + key: tensor for key, tensor in module.state_dict().items()}
        files[f"{name}.safetensors"] = write_safetensors(
            named, dtype, {} if kind == "resnet" else {"heads": str(HEADS)}
        )
        own, other = (
            torch.from_numpy(arrays[f"{kind}/{part}inputs"]).double().permute(0, 3, 1, 2)
            for part in ("", "other_")
        )
        arrays |= {f"{name}/{key}": array for key, array in measure(module, own).items()}
        INTERPOLATED.clear()
        with torch.no_grad():
            arrays[f"{name}/other_features"] = module(other).numpy().astype(np.float32)
        for table in INTERPOLATED:
            arrays[f"{name}/other_positions"] = table.numpy().astype(np.float32)
    return files, arrays


def main() -> None:
    """Record, or compare with what is recorded."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, compare with what is stored")
    check = parser.parse_args().check
    files, arrays = record()
    if not check:
        for name, content in files.items():
            (FOLDER / name).write_bytes(content)
        np.savez_compressed(FOLDER / "references.npz", allow_pickle=False, **arrays)
        return
    stored = np.load(FOLDER / "references.npz")
    same = all((FOLDER / name).read_bytes() == content for name, content in files.items())
    close = stored.keys() == arrays.keys() and all(
        np.allclose(stored[name], array, rtol=TOLERANCE, atol=TOLERANCE) for name, array in arrays.items()
    )
    sys.exit(0 if same and close else f"the files are the same: {same}; the numbers are: {close}")


if __name__ == "__main__":
    main()
