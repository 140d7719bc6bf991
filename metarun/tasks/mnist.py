"""N-way K-shot classification of handwritten digits: digits never seen, pairs, angles or permutations as tasks.

MNIST (LeCun et al. 1998), or any folder of idx files named as MNIST's. What a task is, is the view:

    classes    some classes; those of test are never seen in training
    split      one of the fixed lists in `tasks`: the ten digits as five pairs (Zenke, Poole, Ganguli 2017, arXiv
               1703.04200), or one list of all ten; accuracy is reported task by task
    rotated    an angle, by which all pictures are turned (Lopez-Paz, Ranzato 2017, arXiv 1706.08840)
    permuted   an order of the pixels (Goodfellow et al. 2013, arXiv 1312.6211)

Training and validation take the training pictures, of which validation holds a share back, and test takes the test
pictures. The angles and permutations of the three are different, too. All of it depends on `split_seed` alone, never
on the run's seed.

With `labels: shuffled` an episode gives its classes their labels at random, so that only its support can say which is
which. With `labels: fixed` a class has the same label in all episodes of its task, and adaptation is to the task alone.
The default is fixed where a network that does not adapt fails with fixed labels. With as many outer steps, such a
network (`inner_steps: 0`) had 99 % of the test pictures of the pairs right, and 90 % of those at angles that it had
never seen, where one that adapts had 93 %; but of permuted pictures 21 % instead of 70 %. One seed each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from metarun import base, locations, losses
from metarun.data.sets import mnist as dataset
from metarun.ranges import Above, AtLeast, Below, Between
from metarun.tasks import _classes

Label = Annotated[int, Between(0, 255)]
Tasks = tuple[tuple[int, ...], ...]  # the classes of each
LABELS = 256  # that a byte can say
PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
SPLITS = ("train", "validation", "test")
COUNTS = {"rotated": (24, 4, 8), "permuted": (1000, 100, 100)}  # train, validation, test
MOST_SECTORS = 3600  # of a tenth of a degree, far above what single precision tells apart
VIEWS = {  # that have an option of their own
    "train_classes": ("classes",),
    "validation_classes": ("classes",),
    "test_classes": ("classes",),
    "tasks": ("split",),
    "counts": ("rotated", "permuted"),
}


@dataclass(frozen=True)
class Config:
    """What a task is, and how an episode of it is drawn."""

    view: Literal["classes", "split", "rotated", "permuted"] = "classes"  # what a task is
    ways: Annotated[int, AtLeast(2)] | None = None  # classes of an episode; null: as many as every task has
    shots: Annotated[int, AtLeast(1)] = 5  # support pictures of each class
    queries: Annotated[int, AtLeast(1)] = 5  # query pictures of each class
    labels: Literal["shuffled", "fixed"] | None = None  # of the classes: anew in each episode, or as listed;
    # null: fixed in the view permuted, else shuffled
    train_classes: tuple[Label, ...] = (0, 1, 2, 3, 4, 5, 6)  # view classes
    validation_classes: tuple[Label, ...] = ()  # view classes; empty: other pictures of train_classes
    test_classes: tuple[Label, ...] = (7, 8, 9)  # view classes
    tasks: tuple[tuple[Label, ...], ...] = PAIRS  # view split: the classes of each
    counts: tuple[Annotated[int, AtLeast(0)], ...] = ()  # in train, validation, test; empty:
    # 24, 4, 8 equal parts of the circle in the view rotated, 1000, 100, 100 permutations in the view permuted
    validation_share: Annotated[float, Above(0), Below(1)] = 0.1  # of the training pictures of each class
    split_seed: Annotated[int, Between(0, 2**32 - 1)] = 0  # of all of these; not the run's seed
    folder: str | None = None  # of four idx files named as MNIST's; null: MNIST itself, from the data folder
    inverted: bool = True  # a picture file has dark ink on light paper; false: bright ink, as MNIST's own

    def __post_init__(self):
        for field in fields(self):
            views = VIEWS.get(field.name, (self.view,))
            if self.view not in views and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"{field.name} is an option of the view {' or '.join(views)}, not of {self.view}"
                )
        seen = {*self.train_classes, *self.validation_classes}
        if seen & set(self.test_classes) or set(self.train_classes) & set(self.validation_classes):
            raise ValueError("a class is in two of train_classes, validation_classes and test_classes")
        if self.counts and (len(self.counts) != len(SPLITS) or not self.counts[0] or not self.counts[2]):
            raise ValueError("counts takes three numbers, train, validation, test; only validation may be 0")
        if self.view == "rotated" and sum(self.counts) > MOST_SECTORS:
            raise ValueError(f"counts cuts the circle into more than {MOST_SECTORS} parts")
        if not self.tasks or len({len(task) for task in self.tasks}) > 1:
            raise ValueError("tasks takes lists of classes, all of one length")
        lists = {f"tasks[{index}]": task for index, task in enumerate(self.tasks)} | {
            name: getattr(self, name) for name in ("train_classes", "validation_classes", "test_classes")
        }
        for name, classes in lists.items():
            if len(set(classes)) < len(classes):
                raise ValueError(f"{name} has a class twice")
            if len(classes) < 2 and name != "validation_classes":
                raise ValueError(f"{name} has {len(classes)} classes, two make a task")
        if self.labels == "fixed" and self.view == "classes":
            raise ValueError("the view classes has no fixed labels: the classes of test are others")

    @property
    def shuffled(self) -> bool:
        """Whether every episode labels its classes anew."""
        usual = "fixed" if self.view == "permuted" else "shuffled"
        return (self.labels or usual) == "shuffled"


def class_lists(config: Config, known: tuple[int, ...]) -> dict[str, Tasks]:
    """The classes of every task of each split; `known` are those that the data has."""
    if config.view == "split":
        return dict.fromkeys(SPLITS, config.tasks)
    if config.view != "classes":
        return dict.fromkeys(SPLITS, (known,))
    validation = config.validation_classes or config.train_classes
    lists = (config.train_classes, validation, config.test_classes)
    return {name: (classes,) for name, classes in zip(SPLITS, lists, strict=True)}


def split_pictures(config: Config, pictures: dataset.Mnist) -> dict[str, dataset.Part]:
    """The pictures of each split, sorted by label; a function of the split's own fields alone."""
    labels = pictures.train.labels
    held_back = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        generator = np.random.default_rng([config.split_seed, int(label)])
        held_back[generator.permutation(rows)[: round(config.validation_share * len(rows))]] = True
    train, validation = (
        dataset.Part(pictures.train.images[rows], labels[rows]) for rows in (~held_back, held_back)
    )
    return {"train": train, "validation": validation, "test": pictures.test}


def split_counts(config: Config) -> dict[str, int]:
    """How many parts of the circle, or permutations, are in each split that has any."""
    counts = zip(SPLITS, config.counts or COUNTS[config.view], strict=True)
    return {name: count for name, count in counts if count}


def split_sectors(config: Config) -> dict[str, np.ndarray]:
    """The parts of the circle of each split: int32, sector i of n is the angles from 360·i/n to 360·(i + 1)/n."""
    counts = split_counts(config)
    order = np.random.default_rng(config.split_seed).permutation(sum(counts.values()))
    parts = np.split(order.astype(np.int32), np.cumsum([*counts.values()])[:-1])
    return {name: np.sort(part) for name, part in zip(counts, parts, strict=True)}


def split_permutations(config: Config, pixels: int) -> dict[str, np.ndarray]:
    """The permutations of each split: int32 [permutation, pixel].

    Each split has a generator of its own, so that another number of training permutations leaves the test as it is.
    """
    return {
        name: np.stack(
            [
                np.random.default_rng([config.split_seed, SPLITS.index(name), index]).permutation(pixels)
                for index in range(count)
            ]
        ).astype(np.int32)
        for name, count in split_counts(config).items()
    }


def build(config: Config) -> base.TaskFamily:
    """The family; its facts are `class` int32 [way], and what the task is.

    That is `task`, an index of the lists, in the view split; `angle` in degrees, counter-clockwise, in rotated; and
    `permutation`, an index of those of the split, in permuted.

    Raises:
      DataError: a file is missing, damaged, or not what it should be.
      ValueError: the data has not the classes, or not as many pictures of them, as an episode needs.
    """
    folder = Path(config.folder).expanduser() if config.folder else None
    pictures = dataset.load(locations.data_root(), folder)
    height, width = pictures.train.images.shape[1:]
    lists = class_lists(config, tuple(np.unique(pictures.train.labels).tolist()))
    tables = {name: table(part, lists[name]) for name, part in split_pictures(config, pictures).items()}
    check_tables(config, lists, tables)
    return family(config, lists, with_variations(config, tables, height * width))


def outline(config: Config) -> base.TaskFamily:
    """The family without MNIST's files, as shapes and dtypes; that of another folder needs its files.

    The number of pictures is that of all training or test pictures, of which the family has some.
    """
    if config.folder:
        return build(config)
    lists = class_lists(config, tuple(range(dataset.CLASSES)))
    tables = {
        name: {
            "images": jax.ShapeDtypeStruct((count, dataset.SIDE, dataset.SIDE), np.uint8),
            "starts": jax.ShapeDtypeStruct((LABELS,), np.int32),
            "counts": jax.ShapeDtypeStruct((LABELS,), np.int32),
            "classes": np.array(lists[name], np.int32),
        }
        for name, count in zip(SPLITS, (dataset.TRAIN, dataset.TRAIN, dataset.TEST), strict=True)
    }
    data = with_variations(config, tables, dataset.SIDE**2)
    return family(
        config, lists, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), data)
    )


def family(config: Config, lists: Mapping[str, Tasks], data: dict[str, Any]) -> base.TaskFamily:
    """The family with this data, or with the shapes of it."""
    ways = episode_ways(config, lists)

    def sample(part, key) -> base.Episode:
        task_key, class_key, picture_key, variation_key = jax.random.split(key, 4)
        task = jax.random.randint(task_key, (), 0, part["classes"].shape[0])
        classes = part["classes"][task]
        if config.shuffled:
            classes = classes[_classes.choose(class_key, ways, classes.shape[0])]
        images = _classes.gather_unequal(
            part["images"],
            part["starts"],
            part["counts"],
            classes,
            config.shots + config.queries,
            picture_key,
        )
        facts = {"class": classes}
        if config.view == "split":
            facts["task"] = task
        if config.view == "rotated":
            facts["angle"] = draw_angle(part["sectors"], sum(split_counts(config).values()), variation_key)
            images = turn(images, facts["angle"])
        if config.view == "permuted":
            facts["permutation"] = jax.random.randint(variation_key, (), 0, part["permutations"].shape[0])
            images = permute(images, part["permutations"][facts["permutation"]])
        return _classes.to_episode(images, config.shots, facts)

    height, width = data["train"]["images"].shape[1:]
    groups = base.Groups(tuple(map(spoken, config.tasks)), lambda facts: facts["task"])
    return base.TaskFamily(
        data,
        sample,
        losses.classification(ways, classes=1 + max(label for task in lists["train"] for label in task)),
        base.Spec((height, width, 1), ways),
        _classes.draw,
        groups=groups if config.view == "split" and len(config.tasks) > 1 else None,
        form=base.Pictures(inverted=config.inverted),
    )


def episode_ways(config: Config, lists: Mapping[str, Tasks]) -> int:
    """The classes of an episode: as configured, or as many as the tasks of every split have."""
    return config.ways or min(len(tasks[0]) for tasks in lists.values())


def spoken(classes: tuple[int, ...]) -> str:
    """`classes 0 and 1`."""
    *others, last = map(str, classes)
    return f"classes {', '.join(others)} and {last}"


def table(part: dataset.Part, tasks: Tasks) -> dict[str, np.ndarray]:
    """The pictures of the classes that any task has, where each class begins, and the classes of every task."""
    rows = np.isin(part.labels, np.unique(tasks))
    counts = np.bincount(part.labels[rows], minlength=LABELS).astype(np.int32)
    return {
        "images": np.asarray(part.images[rows]),
        "starts": (np.cumsum(counts) - counts).astype(np.int32),
        "counts": counts,
        "classes": np.array(tasks, np.int32),
    }


def check_tables(config: Config, lists: Mapping[str, Tasks], tables: Mapping[str, Any]) -> None:
    """Refuse tasks with fewer classes, and classes with fewer pictures, than an episode takes."""
    ways = episode_ways(config, lists)
    for name, part in tables.items():
        there, needed = part["classes"].shape[1], config.shots + config.queries
        if there < ways or (not config.shuffled and there != ways):
            need = "cannot be taken from" if config.shuffled else "with fixed labels are not all of"
            raise ValueError(
                f"{ways} ways {need} the {there} classes that a {name} task has", "change ways or labels"
            )
        for label in np.unique(part["classes"]):
            if part["counts"][label] < needed:
                raise ValueError(
                    f"class {label} has {part['counts'][label]} {name} pictures, and an episode takes {needed}",
                    "take fewer shots and queries, another validation_share, or other classes",
                )


def with_variations(config: Config, tables: Mapping[str, Any], pixels: int) -> dict[str, Any]:
    """The tables with the angles or permutations of their split; without a split that has none."""
    if config.view == "rotated":
        return {name: tables[name] | {"sectors": part} for name, part in split_sectors(config).items()}
    if config.view == "permuted":
        permutations = split_permutations(config, pixels)
        return {name: tables[name] | {"permutations": part} for name, part in permutations.items()}
    return dict(tables)


def draw_angle(sectors: Int[Array, "sector"], total: int, key) -> Float[Array, ""]:
    """An angle in degrees from one of these sectors of the circle, of which there are `total`.

    The last thousandth of a sector is left out, lest rounding gives the first angle of the next one.
    """
    sector_key, within_key = jax.random.split(key)
    sector = sectors[jax.random.randint(sector_key, (), 0, sectors.shape[0])]
    return (sector + jax.random.uniform(within_key, (), maxval=0.999)) * (360 / total)


def turn(
    images: UInt8[Array, "way example height width"], degrees: Float[Array, ""]
) -> UInt8[Array, "way example height width"]:
    """The pictures turned counter-clockwise about their centre, by bilinear interpolation; outside them is paper."""
    height, width = images.shape[2:]
    down, right = jnp.meshgrid(
        jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij"
    )
    sine, cosine = jnp.sin(jnp.deg2rad(degrees)), jnp.cos(jnp.deg2rad(degrees))
    # Where the colour of each pixel comes from, [height, width].
    row = cosine * down + sine * right + (height - 1) / 2
    column = cosine * right - sine * down + (width - 1) / 2
    pixels = _by_pixel(images)
    turned = jnp.zeros(pixels.shape, jnp.float32)
    for above in (jnp.floor(row), jnp.floor(row) + 1):
        for left in (jnp.floor(column), jnp.floor(column) + 1):
            inside = (above >= 0) & (above < height) & (left >= 0) & (left < width)
            weight = jnp.where(inside, (1 - jnp.abs(row - above)) * (1 - jnp.abs(column - left)), 0)
            index = jnp.where(inside, above * width + left, 0).astype(jnp.int32)
            turned += pixels[index.ravel()] * weight.reshape(-1, 1)
    return _from_pixels(jnp.rint(turned).astype(jnp.uint8), images.shape)


def permute(
    images: UInt8[Array, "way example height width"], permutation: Int[Array, "pixel"]
) -> UInt8[Array, "way example height width"]:
    """The pictures with pixel `permutation[i]` in the place of pixel i, in row-major order."""
    return _from_pixels(_by_pixel(images)[permutation], images.shape)


def _by_pixel(images):
    """[pixel, picture]: taking rows of it, of all pictures at once, was six times as fast as columns on a CPU."""
    return images.reshape(-1, images.shape[2] * images.shape[3]).T


def _from_pixels(pixels, shape: tuple[int, ...]):
    return pixels.T.reshape(shape)
