"""Draw photographs of things that do not exist, for trying metarun on a folder of pictures where none can be had.

    python scripts/draw_pictures.py FOLDER [--classes 15] [--pictures 12] [--seed 0]

Each class is a thing: its outline, its parts, its pattern and more or less its colours are its own. Place, size, angle,
light, background and clutter differ from picture to picture, and so do the sides, as in photographs from a telephone.
They are drawn, not photographed: accuracies on them say nothing about photographs.
"""

import argparse
import colorsys
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDES = ((240, 180), (180, 240), (200, 200))  # pixels, width and height
CLUTTER = 6  # smaller shapes on the background
NAMES = (
    *("babo", "cuzil", "dorn", "eppel", "fasko", "glim", "hupper", "ilk", "jando", "krell"),
    *("lumse", "murk", "nostel", "opfer", "prill", "quast", "rumpel", "schlot", "trunk", "wambo"),
)
Point = tuple[float, float]


def draw_folder(folder: Path, classes: int, pictures: int, seed: int) -> None:
    """Draw `pictures` pictures of each of the first `classes` things into FOLDER/<thing>/<number>.jpg."""
    for index, name in enumerate(NAMES[:classes]):
        parts = design_thing(np.random.default_rng((seed, index)))
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(pictures):
            generator = np.random.default_rng((seed, index, number))
            draw_picture(parts, generator).save(folder / name / f"{number:03}.jpg", quality=88)


def design_thing(generator: np.random.Generator) -> list[tuple[list[Point], float, int]]:
    """Return the parts of a thing: (outline around 0 within 1, hue, stripes across it)."""
    parts = []
    for part in range(int(generator.integers(2, 5))):
        middle = generator.uniform(-0.5, 0.5, 2) * (part > 0)
        reach = generator.uniform(0.55, 0.9) if part == 0 else generator.uniform(0.2, 0.5)
        corners, lobes = int(generator.integers(3, 9)), int(generator.integers(2, 6))
        depth, stretch = generator.uniform(0, 0.45), generator.uniform(0.35, 1)
        outline = []
        for angle in np.linspace(0, 2 * math.pi, 8 * corners, endpoint=False):
            radius = reach * (1 - depth * (0.5 + 0.5 * math.cos(lobes * angle)))
            outline.append(
                (middle[0] + radius * math.cos(angle), middle[1] + stretch * radius * math.sin(angle))
            )
        parts.append((outline, float(generator.uniform(0, 1)), int(generator.integers(0, 6))))
    return parts


def draw_picture(parts: list[tuple[list[Point], float, int]], generator: np.random.Generator) -> Image.Image:
    """Draw one picture of a thing."""
    width, height = SIDES[generator.integers(len(SIDES))]
    image = draw_background(generator, width, height)
    draw = ImageDraw.Draw(image)
    for _ in range(CLUTTER):
        scale, place = generator.uniform(8, 26), generator.uniform(0, 1, 2) * (width, height)
        other = design_thing(generator)[0][0]
        draw.polygon(place_outline(other, place, scale, generator.uniform(0, 7)), fill=pick_colour(generator))
    scale = generator.uniform(0.38, 0.52) * min(width, height)
    place = (np.array([width, height]) / 2) + generator.uniform(-0.12, 0.12, 2) * min(width, height)
    angle, hue = generator.normal(0, 0.35), generator.normal(0, 0.06)
    for outline, shift, stripes in parts:
        draw_part(image, place_outline(outline, place, scale, angle), hue + shift, stripes, generator)
    return add_light(image.filter(ImageFilter.GaussianBlur(generator.uniform(0.3, 1.2))), generator)


def draw_background(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """Return coloured noise that is stronger at low frequencies, as most backgrounds are."""
    layers = np.full((height, width, 3), generator.uniform(70, 190) + generator.uniform(-25, 25, 3))
    for cells in (2, 4, 9, 24):
        grey = generator.uniform(-1, 1, (cells, cells, 1))
        noise = (grey + 0.4 * generator.uniform(-1, 1, (cells, cells, 3))) * 60 / math.sqrt(cells)
        layers += np.stack([stretch(noise[..., band], width, height) for band in range(3)], axis=-1)
    return Image.fromarray(layers.clip(0, 255).astype(np.uint8))


def stretch(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a channel, [height, width], at another size."""
    channel = Image.fromarray(values.astype(np.float32))
    return np.asarray(channel.resize((width, height), Image.Resampling.BICUBIC))


def draw_part(
    image: Image.Image, outline: list[Point], hue: float, stripes: int, generator: np.random.Generator
) -> None:
    """Draw one part with its stripes."""
    colours = [pick_colour(generator, hue), pick_colour(generator, hue + 0.45)]
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    pattern = Image.new("RGB", image.size, colours[0])
    draw = ImageDraw.Draw(pattern)
    left, right = min(x for x, _ in outline), max(x for x, _ in outline)
    for stripe in range(stripes):
        start = left + (right - left) * (stripe + 0.25) / stripes
        draw.rectangle((start, 0, start + (right - left) / stripes / 2, image.height), fill=colours[1])
    image.paste(pattern, (0, 0), mask)


def place_outline(outline: list[Point], place: np.ndarray, scale: float, angle: float) -> list[Point]:
    """Turn, scale and shift an outline."""
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return [tuple(point) for point in (np.array(outline) @ turn * scale + place).tolist()]


def pick_colour(generator: np.random.Generator, hue: float | None = None) -> tuple[int, int, int]:
    """Return a colour near a hue; None: of any hue."""
    hue = generator.uniform(0, 1) if hue is None else hue + generator.normal(0, 0.03)
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, generator.uniform(0.35, 0.9), generator.uniform(0.4, 1))
    return int(255 * red), int(255 * green), int(255 * blue)


def add_light(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Light the picture from one side, and add the noise of a sensor."""
    values = np.asarray(image).astype(np.float32)
    down, right = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
    angle, strength = generator.uniform(0, 2 * math.pi), generator.uniform(0, 0.35)
    light = generator.uniform(0.75, 1.15) + strength * (math.cos(angle) * right + math.sin(angle) * down)
    noisy = values * light[..., None] + generator.normal(0, 6, values.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def main() -> None:
    """Read the command line, and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", type=int, default=15, help=f"at most {len(NAMES)}")
    parser.add_argument("--pictures", type=int, default=12, help="of each class")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not 1 <= arguments.classes <= len(NAMES):
        parser.error(f"--classes is a number from 1 to {len(NAMES)}")
    draw_folder(arguments.folder, arguments.classes, arguments.pictures, arguments.seed)


if __name__ == "__main__":
    main()
