"""Networks by the names that people know: their sizes, and how pictures are prepared for them."""

import math
from typing import Any

from metarun.backbones.safetensors_file import WeightFile
from metarun.data.preparation import Interpolation, Preparation
from metarun.errors import DataError

BOTTLENECK = {"blocks": (3, 4, 6, 3), "bottleneck": True}
SMALL = {"width": 384, "heads": 6, "feedforward": 1536}
BASE = {"width": 768, "heads": 12, "feedforward": 3072}
LARGE = {"width": 1024, "depth": 24, "heads": 16, "feedforward": 4096}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18": ("resnet", {"blocks": (2, 2, 2, 2)}),
    "resnet34": ("resnet", {"blocks": (3, 4, 6, 3)}),
    "resnet50": ("resnet", BOTTLENECK),
    **{
        f"vit_{letter}{patch}": ("vit", {**size, "patch": patch})
        for letter, size in (("s", SMALL), ("b", BASE), ("l", LARGE))
        for patch in (14, 16, 32)
    },
}
DEFAULT = "resnet18"  # without a file

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # ViTModel of Hugging Face, as its image processor has it
MOST_SIDE = 1024  # pixels; a batch of 64 such pictures takes 800 MB
SIDE, SHORTER = 224, 256  # pixels: of the window, and of the shorter side before it is cut out


def make_preparation(
    model: str, options: dict[str, Any], places: int, file: WeightFile | None
) -> Preparation:
    """Return how pictures are prepared: as the metadata of the file say, else as the published codes evaluate.

    The metadata may have `size` and `resize` in pixels, and `mean` and `deviation` as three numbers with commas.

    Args:
      places: rows of the grid of positions in the file; 0: it has none.

    Raises:
      DataError: the metadata are no numbers, or do not go together.
    """
    layout, metadata = options["layout"], {} if file is None else file.metadata
    is_clip, is_vit = layout in ("clip", "hf_clip"), model == "vit"
    trained = places * (options["patch"] if is_vit else 2 ** (len(options["blocks"]) + 1))
    # DINOv2 was trained at 518 pixels at the end, and is evaluated at 224.
    size = SIDE if layout in ("dinov2", "hf_dinov2") or not trained else trained
    scale: tuple[tuple[float, ...], ...] = CLIP if is_clip else HALF if layout == "hf_vit" else IMAGENET
    try:
        size = int(metadata.get("size", size))
        resize = int(metadata.get("resize", size if is_clip else round(size * SHORTER / SIDE)))
        mean, deviation = (
            tuple(map(float, metadata[name].split(","))) if name in metadata else values
            for name, values in zip(("mean", "deviation"), scale, strict=True)
        )
        if not 1 <= size <= MOST_SIDE or not 1 <= resize <= MOST_SIDE:
            raise ValueError(f"size {size} and resize {resize} are no pixels from 1 to {MOST_SIDE}")
        if not all(math.isfinite(value) for value in (*mean, *deviation)):
            raise ValueError("mean and deviation are not finite")
        if is_vit and size % options["patch"]:
            raise ValueError(f"size {size} is no multiple of the patch {options['patch']}")
        interpolation: Interpolation = "bicubic" if is_vit or is_clip else "bilinear"
        return Preparation(size, resize, "centre", mean, deviation, 3, interpolation)
    except ValueError as error:
        where = "" if file is None else str(file.path)
        remedy = "give size, resize, mean and deviation in the metadata as docs/backbones.md says"
        raise DataError(f"the metadata of the weights do not fit: {error.args[0]}", where, remedy) from error


def find_name(model: str, options: dict[str, Any]) -> str:
    """Return the name of the published network that has these options; else the model with its width and depth."""
    usual = {"depth": 12} if model == "vit" else {"width": 64, "bottleneck": False}
    for name, (kind, size) in SIZES.items():
        chosen = {key: value for key, value in (usual | size).items() if key in ("width", "depth", "patch")}
        chosen |= {key: value for key, value in (usual | size).items() if key in ("blocks", "bottleneck")}
        if kind == model and all(options[key] == value for key, value in chosen.items()):
            return name
    depth = options["depth"] if model == "vit" else "-".join(map(str, options["blocks"]))
    return f"{model} of width {options['width']} and depth {depth}"
