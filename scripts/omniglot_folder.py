"""Writes characters of Omniglot as folders of pictures, a folder a class: something for `image_folder` and `predict`.

    python scripts/omniglot_folder.py pictures --characters 200             pictures/<class>/*.png, for training
    python scripts/omniglot_folder.py episode --split test --characters 5 --shots 1 --seed 7
                                                    episode/support/<class>/*.png and episode/query/<class>/*.png

The pictures are as published: 105×105 pixels, dark ink on white paper, 20 of each character. The splits are those of
the task family omniglot as it is by default, so that `--split test` writes characters which a run has never seen.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from metarun import locations
from metarun.data.sets import omniglot as dataset
from metarun.tasks import omniglot


def main() -> None:
    options = parse()
    drawings = dataset.load(locations.data_root(), dataset.ORIGINAL_SIZE)
    split = np.arange(omniglot.CHARACTERS)
    if options.split != "all":
        split = omniglot.split_characters(omniglot.Config())[options.split]
    generator = np.random.default_rng(options.seed)
    for character in sorted(generator.permutation(split)[: options.characters]):
        order = generator.permutation(dataset.DRAWINGS) if options.shots else np.arange(dataset.DRAWINGS)
        for position, drawing in enumerate(order):
            part = ("support" if position < options.shots else "query") if options.shots else ""
            name = drawings.class_names[character].replace("/", "_")
            write(options.folder / part / name / f"{drawing + 1:02}.png", drawings.images[character, drawing])
    print(options.folder)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where to write; made if it is not there")
    parser.add_argument("--split", choices=["all", "train", "validation", "test"], default="all")
    parser.add_argument("--characters", type=int, default=60, help="how many classes, chosen at random")
    parser.add_argument("--shots", type=int, default=0, help="of each class as support, the rest as query")
    parser.add_argument("--seed", type=int, default=0, help="of the choice")
    return parser.parse_args()


def write(path: Path, ink: np.ndarray) -> None:
    """One drawing [height, width], 255 = ink, as dark ink on white paper."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(255 - ink).convert("1").save(path)


if __name__ == "__main__":
    main()
