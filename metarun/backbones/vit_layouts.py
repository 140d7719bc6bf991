"""From a file of a Vision Transformer to its shape, and to where each of its arrays lies in the file."""

import re
from typing import Any

import numpy as np

from metarun.backbones import key_map, position_grid
from metarun.backbones.key_map import Path, Piece
from metarun.backbones.safetensors_file import WeightFile
from metarun.backbones.vit_names import LAYOUTS, Names
from metarun.errors import DataError

CHANNELS = 3
ACTIVATIONS = ("gelu", "quick_gelu")
# Heads of the published networks by their width; elsewhere heads of 64 features are not certain enough to guess.
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1536: 24, 1664: 16}


def find_layout(file: WeightFile, layout: str | None = None) -> tuple[str, str] | None:
    """Return the layout of a file, and what stands before its names, such as "module."; None: it is none of these.

    Args:
      layout: the only one to look for; None: all that can be told from the names.
    """
    shapes = file.shapes
    for name in [layout] if layout else [name for name in LAYOUTS if name != "dino"]:
        names = LAYOUTS[name]
        first, block = names.patches.format("weight"), names.block.format(0)
        marks = [block + names.norms[0].format("weight"), block + names.projection[0].format("weight")]
        marks += [block + names.dense[0].format("weight"), names.class_token]
        prefixes = [found.removesuffix(first) for found in shapes if found.endswith(first)]
        # A file with teacher and student is asked for its teacher.
        for prefix in sorted(prefixes, key=lambda prefix: ("teacher" not in prefix, len(prefix))):
            if all(prefix + mark in shapes for mark in marks) and _is_own(name, prefix, shapes, layout):
                return name, prefix
    return None


def _is_own(name: str, prefix: str, shapes: dict[str, key_map.Shape], layout: str | None) -> bool:
    """Return whether names that two layouts share are those of dinov2: timm drops the mask token."""
    if name != "dinov2" or layout:
        return True
    has_gain = f"{prefix}blocks.0.ls1.gamma" in shapes
    return prefix + "register_tokens" in shapes or (has_gain and prefix + "mask_token" in shapes)


def describe(file: WeightFile, layout: str, prefix: str) -> dict[str, Any]:
    """Return the options of `models/vit.py` that the file tells; `heads` is None if it does not.

    Raises:
      DataError: the first arrays have no shapes that a Vision Transformer has.
    """
    names, shapes = LAYOUTS[layout], file.shapes

    def find(name: str, rank: int) -> key_map.Shape:
        shape = shapes.get(prefix + name, ())
        if len(shape) != rank or not all(shape):
            what = f"the array {prefix + name} of the layout {layout} has the shape {list(shape)}"
            raise DataError(what, str(file.path), f"take a file in which it has {rank} axes")
        return shape

    def has(name: str) -> bool:
        return bool(name) and prefix + name in shapes

    width, _, patch, _ = find(names.patches.format("weight"), 4)
    block = names.block.format(0)
    depth = 1
    while has(names.block.format(depth) + names.norms[0].format("weight")):
        depth += 1
    has_output, before = has(names.output), has(names.norm_before.format("weight"))
    places = find(names.positions, 2 if names.flat else 3)[-2]
    projection = find(names.output, 2)[0 if names.output.endswith("weight") else 1] if has_output else 0
    return {
        "layout": layout,
        "width": width,
        "depth": depth,
        "heads": read_heads(file) or HEADS.get(width),
        "patch": patch,
        "feedforward": find(block + names.dense[0].format("weight"), 2)[0],
        "registers": find(names.registers, 3)[1] if has(names.registers) else 0,
        "layer_scale": has(block + names.gains[0]) if names.gains[0] else False,
        "norm_before": before,
        "patch_bias": has(names.patches.format("bias")),
        "class_position": not _is_square(places),
        "projection": projection,
        "activation": read_activation(file) or names.activation,
        "epsilon": 1e-5 if before else names.epsilon,
    }


def read_heads(file: WeightFile) -> int | None:
    """Return the heads that the metadata of a file say; None if they do not.

    Raises:
      DataError: they say something that is no number of heads.
    """
    said = file.metadata.get("heads")
    if said is not None and not re.fullmatch(r"[1-9][0-9]{0,3}", said):
        raise DataError(
            f"the metadata say {said[:100]!r} heads", str(file.path), "write a whole number there"
        )
    return None if said is None else int(said)


def read_activation(file: WeightFile) -> str | None:
    """Return the activation that the metadata of a file say; None if they do not.

    Raises:
      DataError: they say another than gelu and quick_gelu.
    """
    said = file.metadata.get("activation")
    if said not in (None, *ACTIVATIONS):
        what = f"the metadata say the activation {said[:100]!r}"
        raise DataError(what, str(file.path), f"write one of {', '.join(ACTIVATIONS)} there")
    return said


def _is_square(count: int) -> bool:
    return round(count**0.5) ** 2 == count


def make_pieces(
    file: WeightFile, prefix: str, options: dict[str, Any], grid: tuple[int, int] | None
) -> dict[Path, Piece]:
    """Return where each array of the network lies in the file.

    Args:
      options: as `describe` returns them.
      grid: the rows and columns of patches of an input; None: those of the file.

    Raises:
      DataError: the file has no square grid of positions.
    """
    names, width, wide = LAYOUTS[options["layout"]], options["width"], options["feedforward"]
    lead = () if names.flat else (1,)
    pieces: dict[Path, Piece] = {
        ("class_token",): Piece({names.class_token: (*lead, *lead, width)}, np.ravel),
        ("positions",): _make_positions(file, prefix, names, options, grid),
        **_make_patches(names, options),
        **_make_norm(("norm",), names.norm, width),
    }
    if options["registers"]:
        shape = (1, options["registers"], width)
        pieces["registers",] = Piece({names.registers: shape}, lambda array: array[0])
    if options["norm_before"]:
        pieces |= _make_norm(("norm_before",), names.norm_before, width)
    if options["projection"]:
        size, is_matrix = options["projection"], names.output.endswith("weight")
        turned = (size, width) if is_matrix else (width, size)
        convert = key_map.take_dense if is_matrix else key_map.keep
        pieces["projection", "kernel"] = Piece({names.output: turned}, convert)
    for index in range(options["depth"]):
        for path, piece in _make_block(names, width, wide, options["layer_scale"]).items():
            block = names.block.format(index)
            sources = {block + name: shape for name, shape in piece.sources.items()}
            pieces[(f"blocks_{index}", *path)] = piece._replace(sources=sources)
    return {
        path: piece._replace(sources={prefix + name: shape for name, shape in piece.sources.items()})
        for path, piece in pieces.items()
    }


def _make_patches(names: Names, options: dict[str, Any]) -> dict[Path, Piece]:
    width, patch = options["width"], options["patch"]

    def flatten(kernel: np.ndarray) -> np.ndarray:
        return key_map.take_convolution(kernel).reshape(-1, width)

    name = names.patches.format("weight")
    pieces: dict[Path, Piece] = {
        ("patches", "kernel"): Piece({name: (width, CHANNELS, patch, patch)}, flatten)
    }
    if options["patch_bias"]:
        pieces["patches", "bias"] = Piece({names.patches.format("bias"): (width,)}, key_map.keep)
    return pieces


def _make_positions(
    file: WeightFile, prefix: str, names: Names, options: dict[str, Any], grid: tuple[int, int] | None
) -> Piece:
    extra, width = int(options["class_position"]), options["width"]
    shape = file.shapes.get(prefix + names.positions, ())
    count = shape[-2] - extra if len(shape) > 1 else 0
    if not _is_square(count) or count < 1:
        what = f"{prefix + names.positions} has the shape {list(shape)}, which is no square of patches"
        raise DataError(what, str(file.path), "take a network that was trained on square pictures")
    rule = names.rule
    if options["registers"] and options["layout"] in ("dinov2", "hf_dinov2"):
        rule = "antialiased"  # so are the networks with registers published

    def resize(table: np.ndarray) -> np.ndarray:
        table = table.reshape(-1, width)
        if grid is None:
            return table
        return np.concatenate([table[:extra], position_grid.resize(table[extra:], grid, rule)])

    lead = () if names.flat else (1,)
    return Piece({names.positions: (*lead, count + extra, width)}, resize)


def _make_norm(path: Path, name: str, width: int) -> dict[Path, Piece]:
    return {
        (*path, ours): Piece({name.format(theirs): (width,)}, key_map.keep)
        for ours, theirs in (("scale", "weight"), ("offset", "bias"))
    }


def _make_dense(path: Path, sources: tuple[str, ...], inputs: int, outputs: int) -> dict[Path, Piece]:
    """Return kernel and bias of a dense layer whose outputs lie in one array of the file or in several."""
    size = outputs // len(sources)
    matrices = {name.format("weight"): (size, inputs) for name in sources}
    biases = {name.format("bias"): (size,) for name in sources}
    return {
        (*path, "kernel"): Piece(matrices, lambda *parts: np.concatenate(parts).T),
        (*path, "bias"): Piece(biases, lambda *parts: np.concatenate(parts)),
    }


def _make_block(names: Names, width: int, wide: int, has_gains: bool) -> dict[Path, Piece]:
    pieces = {
        **_make_norm(("norm_attention",), names.norms[0], width),
        **_make_dense(("attention", "projection"), names.projection, width, 3 * width),
        **_make_dense(("attention", "mix"), (names.mix,), width, width),
        **_make_norm(("norm_dense",), names.norms[1], width),
        **_make_dense(("dense_in",), (names.dense[0],), width, wide),
        **_make_dense(("dense_out",), (names.dense[1],), wide, width),
    }
    if has_gains:
        for path, name in zip(("gain_attention", "gain_dense"), names.gains, strict=True):
            pieces[path,] = Piece({name: (width,)}, key_map.keep)
    return pieces


def make_ignored(layout: str, prefix: str) -> str:
    """Return the pattern of names that may stand in a file beside those of the network."""
    head = re.escape(prefix)
    outside = rf"|(?!{head}).*" if prefix else ""
    return rf"{head}({LAYOUTS[layout].ignored}){outside}"
