"""N-way K-shot classification of handwritten digits: tasks are digits never seen, pairs, angles or permutations.

MNIST (LeCun et al. 1998), or any folder of idx files with the names of MNIST's files. `view` says what a task is:

    classes    some classes; training never sees the classes of test
    split      one of the fixed lists in `tasks`: the ten digits as five pairs (Zenke, Poole, Ganguli 2017, arXiv
               1703.04200), or one list of all ten; accuracy is reported task by task
    rotated    an angle by which all pictures are turned (Lopez-Paz, Ranzato 2017, arXiv 1706.08840)
    permuted   an order of the pixels (Goodfellow et al. 2013, arXiv 1312.6211)

Training and validation take the training pictures, a share of which is for validation; test takes the test pictures.
The angles and permutations of the three differ, too. All this depends on `split_seed` alone, never on the run's seed.

With `labels: shuffled`, an episode gives its classes their labels at random, so that only its support can say which is
which. With `labels: fixed`, a class has the same label in all episodes of its task, and only the task must be learned
from the support. The default is fixed in the view `permuted` alone, because there a network that does not adapt fails.
With as many outer steps, such a network (`inner_steps: 0`) had 99 % of the test pictures of the pairs right. At angles
that it had never seen it had 90 %, and a network that adapts had 93 %. On permuted pictures it had 21 %, and a network
that adapts had 70 %. One seed each.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import jax
import numpy as np

from metarun import base, folders, losses
from metarun.data.sets import mnist_files
from metarun.ranges import Above, AtLeast, Below, Between
from metarun.tasks import _classes
from metarun.tasks.mnist import digit_splits, pixel_maps

Label = Annotated[int, Between(0, 255)]
Tasks = tuple[tuple[int, ...], ...]  # the classes of each task
PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
SPLITS = ("train", "validation", "test")
# Sectors of the circle and permutations in train, validation and test.
COUNTS = {"rotated": (24, 4, 8), "permuted": (1000, 100, 100)}
MOST_SECTORS = 3600  # of a tenth of a degree each, which is far above what single precision tells apart
# The views that have an option; an option that is not named here is for all views.
VIEWS = {
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
    # Labels of the classes: drawn anew in each episode, or as listed; null: fixed in the view permuted, else shuffled.
    labels: Literal["shuffled", "fixed"] | None = None
    train_classes: tuple[Label, ...] = (0, 1, 2, 3, 4, 5, 6)  # view classes
    validation_classes: tuple[Label, ...] = ()  # view classes; empty: other pictures of train_classes
    test_classes: tuple[Label, ...] = (7, 8, 9)  # view classes
    tasks: tuple[tuple[Label, ...], ...] = PAIRS  # view split: the classes of each task
    # Views rotated and permuted: equal sectors of the circle, or permutations, in train, validation and test; empty:
    # 24, 4, 8 sectors and 1000, 100, 100 permutations.
    counts: tuple[Annotated[int, AtLeast(0)], ...] = ()
    validation_share: Annotated[float, Above(0), Below(1)] = 0.1  # of the training pictures of each class
    split_seed: Annotated[int, Between(0, 2**32 - 1)] = 0  # seed of all these splits; not the run's seed
    # A folder with four idx files that have the names of MNIST's; null: MNIST itself, from the data folder.
    folder: str | None = None
    inverted: bool = True  # a picture file has dark ink on light paper; false: bright ink, as MNIST's own

    def __post_init__(self):
        for field in fields(self):
            views = VIEWS.get(field.name, (self.view,))
            if self.view not in views and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"{field.name} is an option of the view {' or '.join(views)}, not of {self.view}"
                )
        if self.counts and (len(self.counts) != len(SPLITS) or not self.counts[0] or not self.counts[2]):
            raise ValueError("counts takes three numbers, train, validation, test; only validation may be 0")
        if self.view == "rotated" and sum(self.counts) > MOST_SECTORS:
            raise ValueError(f"counts cuts the circle into more than {MOST_SECTORS} parts")
        if self.labels == "fixed" and self.view == "classes":
            raise ValueError("the view classes has no fixed labels: the classes of test are others")
        self._check_classes()

    def _check_classes(self):
        training = {*self.train_classes, *self.validation_classes}
        if training & set(self.test_classes) or set(self.train_classes) & set(self.validation_classes):
            raise ValueError("a class is in two of train_classes, validation_classes and test_classes")
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

    @property
    def shuffled(self) -> bool:
        """Whether every episode labels its classes anew."""
        usual = "fixed" if self.view == "permuted" else "shuffled"
        return (self.labels or usual) == "shuffled"

    @property
    def split_counts(self) -> dict[str, int]:
        """How many sectors or permutations each split has, without a split that has none."""
        counts = zip(SPLITS, self.counts or COUNTS[self.view], strict=True)
        return {name: count for name, count in counts if count}


def build(config: Config) -> base.TaskFamily:
    """Build the family. Its facts are `class`, int32 [way], and what the task is.

    In the view split that is `task`, an index of the lists; in rotated it is `angle`, in degrees counter-clockwise; in
    permuted it is `permutation`, an index of the permutations of the split.

    Raises:
      DataError: a file is missing, damaged, or not what it should be.
      ValueError: the data lacks a class, or a class has fewer pictures than an episode needs.
    """
    folder = folders.expand_home(config.folder) if config.folder else None
    data = mnist_files.load(folders.data_root(), folder)
    height, width = data.train.images.shape[1:]
    lists = list_classes(config, tuple(np.unique(data.train.labels).tolist()))
    pictures = digit_splits.split_pictures(data, config.validation_share, config.split_seed)
    tables = {name: digit_splits.make_table(pictures[name], lists[name]) for name in pictures}
    check_tables(config, lists, tables)
    family = make_family(config, lists, add_variations(config, tables, height * width))
    return family if folder is None else family._replace(kept=digit_splits.describe(config.folder, data))


def outline(config: Config, kept: Mapping[str, Any] | None = None) -> base.TaskFamily:
    """Build the family without its files, from shapes and dtypes alone.

    Another folder than MNIST's needs its files, unless a run has kept what they are like. The number of pictures is
    that of all training or test pictures; the real family may have fewer.
    """
    if config.folder and kept is None:
        return build(config)
    side = mnist_files.SIDE
    size = tuple(kept["size"]) if kept else (side, side)
    lists = list_classes(config, tuple(kept["classes"]) if kept else tuple(range(mnist_files.CLASSES)))
    tables = {
        name: {
            "images": jax.ShapeDtypeStruct((count, *size), np.uint8),
            "starts": jax.ShapeDtypeStruct((digit_splits.LABELS,), np.int32),
            "counts": jax.ShapeDtypeStruct((digit_splits.LABELS,), np.int32),
            "classes": np.array(lists[name], np.int32),
        }
        for name, count in zip(SPLITS, (mnist_files.TRAIN, mnist_files.TRAIN, mnist_files.TEST), strict=True)
    }
    data = add_variations(config, tables, math.prod(size))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), data)
    return make_family(config, lists, shapes)._replace(kept=kept)


def make_family(config: Config, lists: Mapping[str, Tasks], data: dict[str, Any]) -> base.TaskFamily:
    """Make the family from its data, or from the shapes of its data."""
    ways = count_ways(config, lists)
    height, width = data["train"]["images"].shape[1:]
    groups = base.Groups(tuple(map(name_task, config.tasks)), lambda facts: facts["task"])
    classes = 1 + max(label for task in lists["train"] for label in task)
    return base.TaskFamily(
        data,
        make_sample(config, ways),
        base.Problem(base.Spec((height, width, 1), ways, "classes"), losses.classification(), classes),
        _classes.draw,
        groups=groups if config.view == "split" and len(config.tasks) > 1 else None,
        form=base.Pictures(inverted=config.inverted),
    )


def make_sample(config: Config, ways: int) -> Callable:
    """Make the sampler of episodes; see `base.TaskFamily`."""
    per_class = config.shots + config.queries

    def sample(data, key) -> base.Episode:
        task_key, class_key, picture_key, variation_key = jax.random.split(key, 4)
        task = jax.random.randint(task_key, (), 0, data["classes"].shape[0])
        classes = data["classes"][task]
        if config.shuffled:
            classes = classes[_classes.choose(class_key, ways, classes.shape[0])]
        rows = _classes.choose_rows(data["starts"], data["counts"], classes, per_class, picture_key)
        images = data["images"][rows]
        facts = {"class": classes}
        if config.view == "split":
            facts["task"] = task
        if config.view == "rotated":
            total = sum(config.split_counts.values())
            facts["angle"] = pixel_maps.draw_angle(data["sectors"], total, variation_key)
            images = pixel_maps.turn(images, facts["angle"])
        if config.view == "permuted":
            facts["permutation"] = jax.random.randint(variation_key, (), 0, data["permutations"].shape[0])
            images = pixel_maps.permute(images, data["permutations"][facts["permutation"]])
        return _classes.to_episode(images, config.shots, facts)

    return sample


def list_classes(config: Config, known: tuple[int, ...]) -> dict[str, Tasks]:
    """Return the classes of every task of each split. `known` are the classes of the data."""
    if config.view == "split":
        return dict.fromkeys(SPLITS, config.tasks)
    if config.view != "classes":
        return dict.fromkeys(SPLITS, (known,))
    validation = config.validation_classes or config.train_classes
    lists = (config.train_classes, validation, config.test_classes)
    return {name: (classes,) for name, classes in zip(SPLITS, lists, strict=True)}


def count_ways(config: Config, lists: Mapping[str, Tasks]) -> int:
    """Return the classes of an episode: as configured, or as many as the tasks of every split have."""
    return config.ways or min(len(tasks[0]) for tasks in lists.values())


def name_task(classes: tuple[int, ...]) -> str:
    """Return `classes 0 and 1`."""
    *first, last = map(str, classes)
    return f"classes {', '.join(first)} and {last}"


def check_tables(config: Config, lists: Mapping[str, Tasks], tables: Mapping[str, Any]) -> None:
    """Refuse tasks with fewer classes, and classes with fewer pictures, than an episode takes."""
    ways, needed = count_ways(config, lists), config.shots + config.queries
    for name, table in tables.items():
        available = table["classes"].shape[1]
        if available < ways or (not config.shuffled and available != ways):
            need = "cannot be taken from" if config.shuffled else "with fixed labels are not all of"
            what = f"{ways} ways {need} the {available} classes that a {name} task has"
            raise ValueError(what, "change ways or labels")
        for label in np.unique(table["classes"]):
            if table["counts"][label] < needed:
                raise ValueError(
                    f"class {label} has {table['counts'][label]} {name} pictures, and an episode takes {needed}",
                    "take fewer shots and queries, another validation_share, or other classes",
                )


def add_variations(config: Config, tables: Mapping[str, Any], pixels: int) -> dict[str, Any]:
    """Add the angles or permutations of each split to its table. A split that has none is left out."""
    if config.view == "rotated":
        sectors = digit_splits.split_sectors(config.split_counts, config.split_seed)
        return {name: tables[name] | {"sectors": sectors[name]} for name in sectors}
    if config.view == "permuted":
        permutations = digit_splits.split_permutations(config.split_counts, config.split_seed, pixels)
        return {name: tables[name] | {"permutations": permutations[name]} for name in permutations}
    return dict(tables)
