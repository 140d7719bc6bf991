"""The names that published residual networks have in their files, and the network that the shapes tell of.

    torchvision  torchvision.models.resnet*; also timm, and facebookresearch/dino's ResNet-50
    hf_resnet    ResNetModel of Hugging Face transformers
    clip         the modified ResNet of openai/CLIP and open_clip: three convolutions before the blocks, means in place
                 of strides, and an attention that pools the positions

The running statistics of a batch normalisation are folded into one scale and one offset of each channel.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from metarun.backbones import key_map, position_grid
from metarun.backbones.key_map import Path, Piece
from metarun.backbones.safetensors_file import WeightFile
from metarun.errors import DataError

EPSILON = 1e-5  # added to the running variance by all of them
CHANNELS = 3
MOST_STAGES = 8  # the published networks have four
REMEDY = "take a file of a network that docs/backbones.md lists"
STATISTICS = ("weight", "bias", "running_mean", "running_var")


class Names(NamedTuple):
    """The names of one layout; {} stands for numbers from 0, or for weight, bias and the running statistics."""

    stem: tuple[tuple[str, str], ...]  # each convolution before the blocks, and its normalisation
    block: str
    first: int  # number of the first stage
    convolution: str
    normalisation: str
    count_from: int  # number of the first convolution of a block
    around: tuple[str, str]
    ignored: str


LAYOUTS: dict[str, Names] = {
    "torchvision": Names(
        (("conv1", "bn1"),),
        "layer{}.{}.",
        1,
        "conv{}",
        "bn{}",
        1,
        ("downsample.0", "downsample.1"),
        r"fc\..*|head\..*",
    ),
    "hf_resnet": Names(
        (("embedder.embedder.convolution", "embedder.embedder.normalization"),),
        "encoder.stages.{}.layers.{}.",
        0,
        "layer.{}.convolution",
        "layer.{}.normalization",
        0,
        ("shortcut.convolution", "shortcut.normalization"),
        r"classifier\..*",
    ),
    "clip": Names(
        (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
        "layer{}.{}.",
        1,
        "conv{}",
        "bn{}",
        1,
        ("downsample.0", "downsample.1"),
        r"(?!)",
    ),
}
ATTENTION = ("attnpool.q_proj", "attnpool.k_proj", "attnpool.v_proj")


def find_layout(file: WeightFile, layout: str | None = None) -> tuple[str, str] | None:
    """Return the layout of a file, and what stands before its names; None: it is none of these."""
    shapes = file.shapes
    for name in [layout] if layout else ["clip", "torchvision", "hf_resnet"]:
        names = LAYOUTS[name]
        first, block = names.stem[-1][0] + ".weight", names.block.format(names.first, 0)
        marks = [f"{block}{names.convolution.format(names.count_from)}.weight"]
        marks += ["attnpool.positional_embedding"] if name == "clip" else []
        prefixes = [found.removesuffix(first) for found in shapes if found.endswith(first)]
        for prefix in sorted(prefixes, key=lambda prefix: ("teacher" not in prefix, len(prefix))):
            if all(prefix + mark in shapes for mark in marks):
                return name, prefix
    return None


def describe(file: WeightFile, layout: str, prefix: str) -> dict[str, Any]:
    """Return the options of `models/resnet.py` that the file tells.

    Raises:
      DataError: the first arrays have no shapes that a residual network has.
    """
    names, shapes = LAYOUTS[layout], file.shapes
    stem = shapes[prefix + names.stem[-1][0] + ".weight"]
    blocks: list[int] = []
    while (count := _count_blocks(shapes, prefix, names, names.first + len(blocks))) > 0:
        blocks.append(count)
        if len(blocks) > MOST_STAGES:
            what = f"the file has more than {MOST_STAGES} stages, each twice as wide as the one before"
            raise DataError(what, str(file.path), REMEDY)
    last = f"{names.block.format(names.first, 0)}{names.convolution.format(names.count_from + 2)}.weight"
    pooled = shapes.get(f"{prefix}attnpool.c_proj.weight", ())
    if len(stem) != 4 or not all(stem) or (layout == "clip" and len(pooled) != 2):
        what = (
            f"the first or the last layer of the layout {layout} has the shape {list(stem)} or {list(pooled)}"
        )
        raise DataError(what, str(file.path), REMEDY)
    return {
        "layout": layout,
        "width": stem[0],
        "blocks": tuple(blocks),
        "bottleneck": prefix + last in shapes,
        "projection": pooled[0] if layout == "clip" else 0,
    }


def _count_blocks(shapes: dict[str, key_map.Shape], prefix: str, names: Names, stage: int) -> int:
    count, convolution = 0, names.convolution.format(names.count_from)
    while f"{prefix}{names.block.format(stage, count)}{convolution}.weight" in shapes:
        count += 1
    return count


class Convolution(NamedTuple):
    """One convolution of the network."""

    path: Path  # in the parameter tree
    source: str  # in the file, and of its normalisation
    normalisation: str
    shape: key_map.Shape  # [out, in, height, width]


def list_convolutions(names: Names, options: dict[str, Any]) -> Iterator[Convolution]:
    """Yield every convolution, in the order of the network."""
    inputs = CHANNELS
    for index, (source, normalisation) in enumerate(names.stem):
        is_deep = len(names.stem) > 1
        outputs = options["width"] // 2 if is_deep and index < 2 else options["width"]
        side = 3 if is_deep else 7
        yield Convolution((f"stem_{index}",), source, normalisation, (outputs, inputs, side, side))
        inputs = outputs
    for stage, count in enumerate(options["blocks"]):
        width = options["width"] * 2**stage
        for index in range(count):
            block, path = names.block.format(names.first + stage, index), f"blocks_{stage}_{index}"
            outputs = 4 * width if options["bottleneck"] else width
            shapes = [(width, inputs, 3, 3), (width, width, 3, 3)]
            if options["bottleneck"]:
                shapes = [(width, inputs, 1, 1), (width, width, 3, 3), (outputs, width, 1, 1)]
            for place, shape in enumerate(shapes):
                number = names.count_from + place
                pair = names.convolution.format(number), names.normalisation.format(number)
                yield Convolution((path, f"convolutions_{place}"), block + pair[0], block + pair[1], shape)
            if index == 0 and (stage > 0 or outputs != inputs):
                shape = (outputs, inputs, 1, 1)
                yield Convolution((path, "around"), block + names.around[0], block + names.around[1], shape)
            inputs = outputs


def fold_scale(weight, bias, mean, variance) -> np.ndarray:
    """Return the factor of a normalisation by running statistics."""
    return weight / np.sqrt(variance + np.float32(EPSILON))


def fold_offset(weight, bias, mean, variance) -> np.ndarray:
    """Return what a normalisation by running statistics adds after its factor."""
    return bias - mean * fold_scale(weight, bias, mean, variance)


def make_pieces(
    file: WeightFile, prefix: str, options: dict[str, Any], grid: tuple[int, int] | None
) -> dict[Path, Piece]:
    """Return where each array of the network lies in the file.

    Args:
      options: as `describe` returns them; with `statistics`: batch, scale and offset are those of the file.
      grid: the rows and columns of positions that an attention pools; None: those of the file.

    Raises:
      DataError: the file has no square grid of positions.
    """
    names, pieces = LAYOUTS[options["layout"]], {}
    is_fixed = options.get("statistics", "fixed") == "fixed"
    for convolution in list_convolutions(names, options):
        source = f"{prefix}{convolution.source}.weight"
        pieces[*convolution.path, "kernel"] = Piece({source: convolution.shape}, key_map.take_convolution)
        sources = {
            f"{prefix}{convolution.normalisation}.{name}": convolution.shape[:1] for name in STATISTICS
        }
        for name, fold, index in (("scale", fold_scale, 0), ("offset", fold_offset, 1)):
            convert = fold if is_fixed else (lambda *arrays, index=index: arrays[index])
            pieces[*convolution.path, "norm", name] = Piece(sources, convert)
    if options["layout"] == "clip":
        pieces |= _make_pool(file, prefix, options, grid)
    return pieces


def _make_pool(
    file: WeightFile, prefix: str, options: dict[str, Any], grid: tuple[int, int] | None
) -> dict[Path, Piece]:
    width = options["width"] * 2 ** (len(options["blocks"]) - 1) * (4 if options["bottleneck"] else 1)
    name = f"{prefix}attnpool.positional_embedding"
    count = file.shapes[name][0] - 1 if file.shapes.get(name) else 0
    if count < 1 or round(count**0.5) ** 2 != count:
        raise DataError(f"{name} is no square of positions", str(file.path), "take another file")

    def resize(table: np.ndarray) -> np.ndarray:
        if grid is None:
            return table
        return np.concatenate([table[:1], position_grid.resize(table[1:], grid, "antialiased")])

    pieces: dict[Path, Piece] = {("pool", "positions"): Piece({name: (count + 1, width)}, resize)}
    for path, sources, outputs in (
        ("projection", ATTENTION, width),
        ("mix", ("attnpool.c_proj",), options["projection"]),
    ):
        matrices = {f"{prefix}{source}.weight": (outputs, width) for source in sources}
        biases = {f"{prefix}{source}.bias": (outputs,) for source in sources}
        pieces["pool", "attention", path, "kernel"] = Piece(matrices, lambda *parts: np.concatenate(parts).T)
        pieces["pool", "attention", path, "bias"] = Piece(biases, lambda *parts: np.concatenate(parts))
    return pieces


def make_ignored(layout: str, prefix: str) -> str:
    """Return the pattern of names that may stand in a file beside those of the network."""
    head = re.escape(prefix)
    outside = rf"|(?!{head}).*" if prefix else ""
    return rf"{head}({LAYOUTS[layout].ignored}|.*\.num_batches_tracked){outside}"
