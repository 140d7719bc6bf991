"""The PyTorch side of bench/bench_features.py: networks of the published sizes, as torchvision and timm compute them.

It reads lines from standard input, each the number of a batch, and answers with the seconds that the batch took. It
runs in an environment of its own, with torch and without metarun.
"""

import argparse
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class VitBlock(nn.Module):
    """Attention by torch's fused operation, then two dense layers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts.unbind(0))
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Vit(nn.Module):
    """A Vision Transformer that gives its class token."""

    def __init__(self, width: int, heads: int, patch: int, side: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.first = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, (side // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.Sequential(*(VitBlock(width, heads) for _ in range(12)))
        self.norm = nn.LayerNorm(width, 1e-6)

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.patches(pictures).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(pictures), -1, -1), patches], 1) + self.positions
        return self.norm(self.blocks(x))[:, 0]


class ResnetBlock(nn.Module):
    """Two 3×3 convolutions, or three of which the outer ones are 1×1."""

    def __init__(self, inputs: int, width: int, stride: int, is_bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if is_bottleneck else width
        sizes = [(inputs, width, 3, stride), (width, width, 3, 1)]
        if is_bottleneck:
            sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        layers: list[nn.Module] = []
        for before, after, side, step in sizes:
            layers += [nn.Conv2d(before, after, side, step, side // 2, bias=False), nn.BatchNorm2d(after)]
            layers += [nn.ReLU(inplace=True)]
        self.inside = nn.Sequential(*layers[:-1])
        changes = stride > 1 or inputs != outputs
        around = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.around = nn.Sequential(*around) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.inside(x) + self.around(x), inplace=True)


def make_resnet(counts: tuple[int, ...], is_bottleneck: bool) -> nn.Module:
    """Return a residual network that gives the mean of its positions."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
    ]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inputs = 64
    for stage, count in enumerate(counts):
        for index in range(count):
            stride = 2 if stage and not index else 1
            layers.append(ResnetBlock(inputs, 64 * 2**stage, stride, is_bottleneck))
            inputs = 64 * 2**stage * (4 if is_bottleneck else 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


NETWORKS = {
    "vit_s14": lambda side: Vit(384, 6, 14, side),
    "vit_s16": lambda side: Vit(384, 6, 16, side),
    "vit_b14": lambda side: Vit(768, 12, 14, side),
    "vit_b16": lambda side: Vit(768, 12, 16, side),
    "resnet18": lambda side: make_resnet((2, 2, 2, 2), False),
    "resnet34": lambda side: make_resnet((3, 4, 6, 3), False),
    "resnet50": lambda side: make_resnet((3, 4, 6, 3), True),
}


def main() -> None:
    """Answer each line with the seconds of one batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("batch", type=int)
    parser.add_argument("side", type=int)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    network = NETWORKS[arguments.network](arguments.side).eval()
    pictures = torch.randn(arguments.batch, 3, arguments.side, arguments.side)
    if arguments.network.startswith("resnet"):  # the layout that torch recommends on a CPU
        network, pictures = (part.to(memory_format=torch.channels_last) for part in (network, pictures))
    for _ in sys.stdin:
        with torch.inference_mode():
            began = time.perf_counter()
            network(pictures)
            print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
