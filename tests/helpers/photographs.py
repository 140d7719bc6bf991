"""Small pictures of coloured patches as files, and a network in place of a backbone that sees their mean colours."""

from pathlib import Path

import numpy as np
from PIL import Image

from metarun.data.preparation import Preparation

COLOURS = {"apple": (200, 30, 30), "leaf": (30, 180, 40), "sky": (40, 80, 220), "sand": (210, 190, 120)}
SIDE = 12


class MeanColours:
    """A stand-in for a backbone: the mean colours of the four quarters of a picture, less a half."""

    label, features, digest = "mean colours", 12, "c0" * 32
    preparation = Preparation(SIDE, crop="stretch")

    def __init__(self) -> None:
        self.seen = 0  # pictures that were extracted, with those that fill a batch

    def extract(self, pictures: np.ndarray) -> np.ndarray:
        """Return float32 [example, 12]."""
        self.seen += len(pictures)
        quarters = pictures.reshape(len(pictures), 2, SIDE // 2, 2, SIDE // 2, 3).mean(axis=(2, 4))
        return (quarters - 0.5).reshape(len(pictures), -1).astype(np.float32)


def write_photograph(path: Path, name: str, seed: int) -> Path:
    """Write one noisy picture of a class."""
    random = np.random.default_rng(seed)
    pixels = np.array(COLOURS[name]) + random.normal(0, 40, (SIDE, SIDE, 3)) + random.normal(0, 15, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def write_classes(folder: Path, counts: dict[str, int], first: int = 0) -> Path:
    """Write so many pictures of each class into class folders."""
    for place, (name, count) in enumerate(counts.items()):
        for number in range(first, first + count):
            write_photograph(folder / name / f"{number}.png", name, 1000 * place + number)
    return folder
