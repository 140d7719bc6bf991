"""N-way K-shot classification of handwritten characters from 50 alphabets.

Lake, Salakhutdinov, Tenenbaum 2015: 1,623 characters, 20 drawings of each. The splits are of classes and depend on
`split_seed` alone, never on the run's seed, so that training never sees a test class:

    random       all characters shuffled, then 1,100 / 100 / 423 of them (Finn et al. 2017); with 1,200 / 0 / 423 this
                 is the split of Vinyals et al. 2016 and Santoro et al. 2016
    background   the split of the data set itself: training and validation from its 964 background characters, test
                 from its 659 evaluation characters, whose alphabets never occur in training

Rotations are by multiples of 90°. `random` turns each class of an episode at random, in every split, as the MAML
authors' code does. `classes` makes four classes of each character, all in the same split.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np

from metarun import base, folders, losses
from metarun.data.sets import omniglot_files
from metarun.ranges import AtLeast, Between
from metarun.tasks import _classes

DRAWINGS = 20  # of each character
CHARACTERS = 1623  # of the whole data set
BACKGROUND = 964  # characters of the background set
COUNTS = {"random": (1100, 100, 423), "background": (864, 100, 659)}  # characters in train, validation, test
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Config:
    """How an episode is drawn, and from which characters."""

    ways: Annotated[int, AtLeast(2)] = 5  # classes of an episode
    shots: Annotated[int, AtLeast(1)] = 1  # support pictures of each class
    queries: Annotated[int, AtLeast(1)] = 1  # query pictures of each class
    split: Literal["random", "background"] = "random"  # how train, validation and test share the characters
    # Characters in train, validation and test; empty: 1100, 100, 423 for random and 864, 100, 659 for background.
    counts: tuple[Annotated[int, AtLeast(0)], ...] = ()
    split_seed: Annotated[int, Between(0, 2**32 - 1)] = 0  # seed of the shuffle; not the run's seed
    rotations: Literal["random", "classes", "none"] = "random"  # by multiples of 90°
    within_alphabet: bool = False  # all classes of an episode from one alphabet
    size: Annotated[int, Between(8, 105)] = 28  # pixels a side; 105 is the original

    def __post_init__(self):
        if self.shots + self.queries > DRAWINGS:
            raise ValueError(
                f"{self.shots} shots and {self.queries} queries need more than a character's {DRAWINGS} drawings"
            )
        if self.counts and len(self.counts) != len(SPLITS):
            raise ValueError("counts takes three numbers: train, validation, test")
        train, validation, test = self.characters
        available = {"random": (CHARACTERS, CHARACTERS), "background": (BACKGROUND, CHARACTERS - BACKGROUND)}
        together = {"random": (train + validation + test, test), "background": (train + validation, test)}
        limits = zip(together[self.split], available[self.split], strict=True)
        if any(count > limit for count, limit in limits):
            raise ValueError(
                f"the {self.split} split has no {train} + {validation} + {test} characters",
                f"Omniglot has {BACKGROUND} background and {CHARACTERS - BACKGROUND} evaluation characters",
            )
        for name, count in zip(SPLITS, self.characters, strict=True):
            classes = count * self.copies
            if classes < self.ways and not (name == "validation" and classes == 0):
                raise ValueError(f"{self.ways} ways need more than the {classes} classes of the {name} split")

    @property
    def characters(self) -> tuple[int, ...]:
        """How many characters are in train, validation and test."""
        return self.counts or COUNTS[self.split]

    @property
    def copies(self) -> int:
        """Classes made of one character."""
        return 4 if self.rotations == "classes" else 1


def split_characters(config: Config) -> dict[str, np.ndarray]:
    """Return the indices of the characters of each split, sorted.

    They depend on `split`, `counts` and `split_seed` alone.
    """
    generator = np.random.default_rng(config.split_seed)
    train, validation, test = config.characters
    if config.split == "random":
        order = generator.permutation(CHARACTERS)
        blocks = np.split(order[: train + validation + test], [train, train + validation])
    else:
        background = generator.permutation(BACKGROUND)[: train + validation]
        evaluation = BACKGROUND + generator.permutation(CHARACTERS - BACKGROUND)[:test]
        blocks = [background[:train], background[train:], evaluation]
    return {name: np.sort(block) for name, block in zip(SPLITS, blocks, strict=True) if block.size}


def build(config: Config) -> base.TaskFamily:
    """Build the family. Its facts are `class`, `character`, `quarter_turns` and `alphabet`, each int32 [way].

    A class is a character of the split with its quarter turns, so a character has four classes unless `rotations` is
    none.

    Raises:
      DataError: the archives are missing, truncated or altered.
      ValueError: no alphabet of a split has enough characters for `within_alphabet`.
    """
    omniglot = omniglot_files.load(folders.data_root(), config.size)
    data = {
        name: {
            "images": np.asarray(omniglot.images[characters]),
            "character": characters.astype(np.int32),
            "alphabet": omniglot.alphabet[characters].astype(np.int32),
        }
        for name, characters in split_characters(config).items()
    }
    if config.within_alphabet:
        check_alphabets(config, data)
    return make_family(config, data)


def outline(config: Config) -> base.TaskFamily:
    """Build the family without the archives, from the shapes and dtypes of its data alone."""
    data = {}
    for name, characters in split_characters(config).items():
        count = len(characters)
        data[name] = {
            "images": jax.ShapeDtypeStruct((count, DRAWINGS, config.size, config.size), jnp.uint8),
            "character": jax.ShapeDtypeStruct((count,), jnp.int32),
            "alphabet": jax.ShapeDtypeStruct((count,), jnp.int32),
        }
    return make_family(config, data)


def make_family(config: Config, data: dict[str, base.PyTree]) -> base.TaskFamily:
    """Make the family from its data, or from the shapes of its data."""
    spec = base.Spec((config.size, config.size, 1), config.ways, "classes")
    classes = config.characters[0] * (1 if config.rotations == "none" else 4)
    problem = base.Problem(spec, losses.classification(), classes, relate(config))
    form, drift = base.Pictures(inverted=True), None if config.within_alphabet else make_drift(config)
    return base.TaskFamily(data, make_sample(config), problem, _classes.draw, None, form, drift)


def make_sample(config: Config) -> Callable:
    """Make the sampler of episodes; see `base.TaskFamily`."""

    def sample(data, key) -> base.Episode:
        class_key, drawing_key, rotation_key = jax.random.split(key, 3)
        classes, turns = choose_classes(config, data["alphabet"], class_key)
        if config.rotations == "random":
            turns = jax.random.randint(rotation_key, (config.ways,), 0, 4)
        return draw_episode(config, data, classes, turns, drawing_key)

    return sample


def make_drift(config: Config) -> Callable:
    """Make the path of tasks: one way after another gets the next class of a random order of all classes."""

    def drift(data, task_key, position, examples_key) -> base.Episode:
        class_key, rotation_key = jax.random.split(task_key)
        count = data["character"].shape[0]
        order = _classes.choose(class_key, count * config.copies, count * config.copies)
        first = jnp.floor(position * config.ways).astype(jnp.int32)
        places = (first + (jnp.arange(config.ways) - first) % config.ways) % order.shape[0]
        classes, turns = order[places] % count, order[places] // count
        if config.rotations == "random":
            turns = jax.random.randint(rotation_key, order.shape, 0, 4)[places]
        return draw_episode(config, data, classes, turns, examples_key)

    return drift


def draw_episode(config: Config, data, classes, turns, drawing_key) -> base.Episode:
    """Draw an episode of these classes of the split, each turned by its quarter turns."""
    images = _classes.gather_examples(data["images"], classes, config.shots + config.queries, drawing_key)
    if config.rotations != "none":
        images = _classes.rotate(images, turns)
    facts = {
        "class": (classes + turns * data["character"].shape[0]).astype(jnp.int32),
        "character": data["character"][classes],
        "quarter_turns": turns.astype(jnp.int32),
        "alphabet": data["alphabet"][classes],
    }
    return _classes.to_episode(images, config.shots, facts)


def relate(config: Config) -> base.Relations:
    """Relate each class to its alphabet, and each turned class, "Greek/character07@90", to the turned one, "Greek@90".

    The nodes are the training classes in the order of facts["class"], then their alphabets, then the classes of the
    other splits.
    """
    characters, names = split_characters(config), omniglot_files.list_class_names()
    turns = ["", "@90", "@180", "@270"] if config.rotations != "none" else [""]

    def list_names(split: str) -> list[str]:
        return [names[index] + turn for turn in turns for index in characters.get(split, ())]

    known = list_names("train")
    owners = [name.partition("/")[0] + "".join(name.partition("@")[1:]) for name in known]
    concepts = {owner: len(known) + place for place, owner in enumerate(dict.fromkeys(owners))}
    edges = tuple((member, concepts[owner]) for member, owner in enumerate(owners))
    nodes = (*known, *concepts, *list_names("validation"), *list_names("test"))
    return base.Relations(nodes, len(known), edges, lambda facts: facts["class"])


def choose_classes(config: Config, alphabet, key):
    """Draw the characters of an episode, as indices into the split [way], and their quarter turns as classes [way]."""
    owner = jnp.tile(alphabet, config.copies)
    if config.within_alphabet:
        alphabet_key, key = jax.random.split(key)
        sizes = jnp.sum(owner[:, None] == owner[None, :], axis=1)  # the size of the alphabet of each class
        # All alphabets are equally likely, because each class has the weight 1 / (size of its alphabet).
        weights = jnp.where(sizes >= config.ways, 1.0 / sizes, 0.0)
        anchor = jax.random.choice(alphabet_key, owner.shape[0], p=weights / weights.sum())
        chosen = _classes.choose_allowed(key, config.ways, owner == owner[anchor])
    else:
        chosen = _classes.choose(key, config.ways, owner.shape[0])
    return chosen % alphabet.shape[0], chosen // alphabet.shape[0]


def check_alphabets(config: Config, data) -> None:
    """Refuse a split in which no alphabet has as many classes as an episode."""
    for name, table in data.items():
        largest = int(np.bincount(table["alphabet"]).max()) * config.copies
        if largest < config.ways:
            raise ValueError(
                f"the largest alphabet of the {name} split has {largest} classes, not {config.ways}",
                "take fewer ways or other counts: without validation characters that split is not drawn from",
            )
