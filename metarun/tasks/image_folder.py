"""N-way K-shot classification of the user's own pictures: a folder with a folder of pictures for each class.

    FOLDER/<class>/*.{png,jpg,...}                        `split_seed` splits the classes
    FOLDER/{train,validation,test}/<class>/*.{png,...}    the classes are split by hand

Pictures may have any size and colour. They become squares of side `size` as `crop` says, and grey or coloured as
`channels` says. The splits are of classes. They depend on the names of the class folders and on `split_seed`, never on
the run's seed, nor on ways, shots and queries. Classes may have different numbers of pictures; a class with fewer than
shots + queries is not drawn from. A new run chooses what is null by the folder, and its config.yaml says what.

Training pictures can be changed at random (`augment`), episodes that are evaluated never are. A table of more than
1 GiB stays on the disk as a memory map: on a CPU a program reads the pictures that it needs from there; a GPU must hold
the whole table.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from metarun import base, losses
from metarun.data import class_folders, parallel
from metarun.data.preparation import Preparation, cut_middle
from metarun.options import UNCHANGED, Augment, ClassFolders
from metarun.ranges import Above, AtLeast, Between
from metarun.tasks import _augmentation, _classes, _folder_classes

MOST_HELD = 1 << 30  # bytes of a table that is held in memory; a larger one stays on the disk
READ_AT_ONCE = 8  # picture files that a thread reads before it hands them on
LOOKED_AT = 512  # training pictures that statistics are of, spread evenly over all of them


@dataclass(frozen=True)
class Config(ClassFolders):
    """Where the pictures are, how they are prepared, and how an episode is drawn from them."""

    size: Annotated[int, Between(8, 512)] = 84  # pixels a side
    channels: Literal[1, 3] = 3  # 1: grey; 3: red, green, blue
    # What becomes of a picture that is not square. centre: the square in the middle; random: like centre, and training
    # cuts random windows of side `size` from the square of side `resize`; stretch: both sides become equal. Null:
    # stretch, as in older runs; a new run writes centre.
    crop: Literal["centre", "random", "stretch"] | None = None
    # Pixels of the shorter side before the square of side `size` is cut out. Null: `size`; with random 8/7 of it.
    resize: Annotated[int, AtLeast(8)] | None = None
    # How pictures are resized.
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "lanczos"
    # Mean of each channel, for values in [0, 1]; it is subtracted. Empty: 0.
    mean: tuple[float, ...] = ()
    # Standard deviation of each channel; it divides. Empty: 1, so inputs stay in [0, 1] without a mean.
    deviation: tuple[Annotated[float, Above(0)], ...] = ()
    augment: Augment = UNCHANGED  # random changes to training pictures

    settled_options: ClassVar[tuple[str, ...]] = (*ClassFolders.settled_options, "crop")

    def __post_init__(self):
        super().__post_init__()
        for name in ("mean", "deviation"):
            if getattr(self, name) and len(getattr(self, name)) != self.channels:
                raise ValueError(f"{name} takes {self.channels} numbers, one for each channel")
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"resize {self.resize} is below size {self.size}", "raise resize, or lower size")

    @property
    def names_episodes_by_content(self) -> bool:
        """Whether frozen episodes are named by the bytes of the pictures and by `episode_options` alone.

        Runs of older versions have no `crop`, and keep the names of theirs.
        """
        return self.crop is not None

    @property
    def training_only(self) -> dict[str, Any]:
        """The options of training that an evaluation does not have, with what it has in their place."""
        usual = {"augment": type(self.augment)()}
        if self.crop != "random":
            return usual
        return usual | {"crop": "centre", "resize": self.resize or self.size * 8 // 7}


def example(folder: Path) -> Config:
    """Write 30 classes of six pictures of coloured noise into an empty folder, and return a config for them."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 6, 8, 8, 3), dtype=np.uint8)
    for index, number in np.ndindex(noise.shape[:2]):
        path = folder / f"class{index:02}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise[index, number]).save(path)
    return Config(str(folder), ways=5, shots=1, queries=1, size=8)


def settle(config: Config) -> Config:
    """Return the config of a new run, with all that was null chosen by the folder."""
    return replace(_folder_classes.settle(config), crop=config.crop or "centre")


def build(config: Config, kept: Mapping[str, Any] | None = None) -> base.TaskFamily:
    """Build the family. Its facts are `class`, int32 [way], indices of the class names in sorted order.

    Raises:
      DataError: the folder is missing, unsafe or too large, holds unreadable pictures, or has too few classes for an
        episode of some split.
      StorageError: the folder may not be read, or the cache may not be written.
    """
    pictures = class_folders.load(Path(config.folder), make_preparation(config))
    _folder_classes.check_unreadable(config, pictures)
    split = _folder_classes.split_classes(config, pictures.class_names, pictures.splits)
    config = _folder_classes.fill(config, [pictures.counts[classes] for classes in split.values()])
    _folder_classes.check(config, pictures, split)
    data = {name: make_table(pictures, classes) for name, classes in split.items()}
    keeps = _folder_classes.keep(config, pictures, split) | describe(config, data["train"])
    if kept is not None:
        keeps["options"] = kept.get("options", {})
    return make_family(config, data, pictures.class_names, split)._replace(kept=keeps)


def outline(config: Config, kept: Mapping[str, Any] | None = None) -> base.TaskFamily:
    """Build the family without its folder, from what a run has kept. A run that has kept nothing needs the folder."""
    if kept is None or "classes" not in kept:
        return build(config)
    split, side = _folder_classes.restore(kept), make_preparation(config).shorter
    config = _folder_classes.fill(config, [np.array(counts) for counts in kept["pictures"].values()])
    data = {}
    for name in split:
        index = _folder_classes.shape_index(kept, name)
        shape = (index.pop("rows").shape[0], side, side, config.channels)
        data[name] = index | {"images": jax.ShapeDtypeStruct(shape, np.uint8)}
    return make_family(config, data, kept["class_names"], split)._replace(kept=kept)


def make_family(
    config: Config, data: Mapping[str, Any], names: Sequence[str], split: _folder_classes.Split
) -> base.TaskFamily:
    """Make the family from its data, or from the shapes of its data."""
    assert config.ways is not None
    spec = base.Spec((config.size, config.size, config.channels), config.ways, "classes")
    relations = _folder_classes.name_nodes(names, split)
    return base.TaskFamily(
        data,
        make_sample(config),
        base.Problem(spec, losses.classification(), len(names), relations),
        functools.partial(draw, config),
        form=make_form(config),
    )


def make_preparation(config: Config) -> Preparation:
    """Return how a picture file becomes an input."""
    return Preparation(
        config.size,
        config.resize,
        config.crop or "stretch",
        config.mean,
        config.deviation,
        config.channels,
        config.interpolation,
    )


def make_sample(config: Config) -> Callable:
    """Make the sampler of episodes; see `base.TaskFamily`."""
    assert config.shots is not None
    shots = config.shots

    def sample(data, key) -> base.Episode:
        classes, rows = _folder_classes.draw_rows(config, data, key)
        images = data["images"][data["rows"][rows] if "rows" in data else rows]
        images = change(config, images, jax.random.fold_in(key, 2))
        episode = _classes.to_episode(images, shots, {"class": data["class"][classes]})
        return episode._replace(
            support=normalise(config, episode.support), query=normalise(config, episode.query)
        )

    return sample


def change(config: Config, images, key):
    """Cut the windows of the training or of an evaluation, and augment them; uint8 [way, example, ...]."""
    window_key, change_key = jax.random.split(key)
    if config.crop == "random":
        flat = images.reshape(-1, *images.shape[2:])
        flat = _augmentation.each(_augmentation.cut_window, window_key, flat, config.size)
        images = flat.reshape(*images.shape[:2], *flat.shape[1:])
    elif images.shape[2] > config.size:
        images = cut_middle(images, config.size)
    if config.augment == UNCHANGED:
        return images
    return _augmentation.augment(change_key, images, config.augment)


def normalise(config: Config, examples: base.Examples) -> base.Examples:
    """Subtract the mean of each channel from inputs in [0, 1], and divide by its deviation."""
    inputs = examples.inputs
    if config.mean:
        inputs = inputs - jnp.array(config.mean, jnp.float32)[None, None, None]
    if config.deviation:
        inputs = inputs / jnp.array(config.deviation, jnp.float32)[None, None, None]
    return examples._replace(inputs=inputs)


def make_form(config: Config) -> base.Pictures:
    """Return how picture files become inputs: stretched, as in older runs, or as the config prepares them."""
    preparation = make_preparation(config)
    if preparation == Preparation(config.size, crop="stretch", channels=config.channels):
        return base.Pictures()

    def read_batch(files: Sequence[Path]) -> np.ndarray:
        decoded = [cut_middle(preparation.decode(file, whole=True), config.size) for file in files]
        return preparation.normalise(np.stack(decoded))

    def read(files: Sequence[Path]) -> np.ndarray:
        return np.concatenate(list(parallel.map_batches(read_batch, files, READ_AT_ONCE)))

    middle = "both sides resized" if preparation.crop == "stretch" else "the square in the middle"
    scale = f", less {config.mean}, over {config.deviation}" if config.mean or config.deviation else ""
    words = f"{middle}, side {preparation.shorter}, {config.interpolation}; side {config.size} of it{scale}"
    return base.Pictures(read=read, prepared=words)


def make_table(pictures: class_folders.Folder, classes: np.ndarray) -> base.PyTree:
    """Return the arrays of one split: its pictures, or the whole table on the disk with the rows that are its own."""
    index = _folder_classes.index_examples(pictures, classes)
    if pictures.table.nbytes > MOST_HELD:
        return {"images": pictures.table, **index}
    return {"images": np.asarray(pictures.table[index.pop("rows")]), **index}


def describe(config: Config, data: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return what a run keeps of its pictures: how they are prepared, and statistics of the training pictures.

    `statistics` are mean and deviation of each channel and the brightness of the outer ring (an eighth of the side) and
    of the middle half, in [0, 1]; black is 0.
    """
    rows = data.get("rows", np.arange(len(data["images"])))
    chosen = np.linspace(0, len(rows) - 1, min(LOOKED_AT, len(rows))).astype(int)
    values = data["images"][rows[chosen]].astype(np.float32) / 255
    side = values.shape[1]
    ring, quarter = max(1, side // 8), side // 4
    inner = values[:, ring : side - ring, ring : side - ring]
    border = (values.sum() - inner.sum()) / max(1, values.size - inner.size)
    statistics = {
        "pictures": len(chosen),
        "mean": values.mean(axis=(0, 1, 2)).tolist(),
        "deviation": values.std(axis=(0, 1, 2)).tolist(),
        "border": float(border),
        "centre": float(values[:, quarter : side - quarter, quarter : side - quarter].mean()),
    }
    fields = asdict(make_preparation(config)).items()
    prepared = {name: list(value) if isinstance(value, tuple) else value for name, value in fields}
    return {"preparation": prepared, "statistics": statistics}


def draw(config: Config, figure, episode: base.Episode, predictors) -> None:
    """Draw an episode as `_classes.draw` does, with pictures back in [0, 1]."""

    def restore(inputs):
        scaled = inputs * np.array(config.deviation, np.float32) if config.deviation else inputs
        return np.clip(scaled + np.array(config.mean, np.float32) if config.mean else scaled, 0, 1)

    _classes.draw(figure, episode, predictors, inverted=False, restore=restore)
