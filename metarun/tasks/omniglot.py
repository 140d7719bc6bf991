"""N-way K-shot classification of handwritten characters from 50 alphabets.

Lake, Salakhutdinov, Tenenbaum 2015: 1,623 characters, 20 drawings of each. The splits are of classes and
depend on `split_seed` alone, never on the run's seed, so that no test class is ever seen in training:

    random       all characters shuffled, then 1,100 / 100 / 423 of them (Finn et al. 2017; with 1,200 / 0 / 423 the
                 split of Vinyals et al. 2016 and Santoro et al. 2016)
    background   the data set's own: training and validation from its 964 background characters, test from its
                 659 evaluation characters, whose alphabets never occur in training

Rotations by multiples of 90°: `random` turns each class of an episode at random, in every split (as the MAML
authors' code does); `classes` makes four classes of each character, all on the same side of the split.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np

from metarun import base, locations, losses
from metarun.data.sets import omniglot as dataset
from metarun.ranges import AtLeast, Between
from metarun.tasks import _classes

DRAWINGS = 20  # of each character
CHARACTERS = 1623  # in all
BACKGROUND = 964  # of them in the background set
COUNTS = {"random": (1100, 100, 423), "background": (864, 100, 659)}  # train, validation, test
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Config:
    """How an episode is drawn, and from which characters."""

    ways: Annotated[int, AtLeast(2)] = 5  # classes of an episode
    shots: Annotated[int, AtLeast(1)] = 1  # support pictures of each class
    queries: Annotated[int, AtLeast(1)] = 1  # query pictures of each class
    split: Literal["random", "background"] = "random"  # how characters fall to train, validation and test
    counts: tuple[
        Annotated[int, AtLeast(0)], ...
    ] = ()  # characters in train, validation, test; empty: COUNTS
    split_seed: Annotated[int, Between(0, 2**32 - 1)] = 0  # of the shuffle; not the run's seed
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
        if any(
            wanted > there for wanted, there in zip(together[self.split], available[self.split], strict=True)
        ):
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
    """The indices of the characters of each split, sorted; a function of the split's own fields alone."""
    generator = np.random.default_rng(config.split_seed)
    train, validation, test = config.characters
    if config.split == "random":
        order = generator.permutation(CHARACTERS)
        parts = np.split(order[: train + validation + test], [train, train + validation])
    else:
        background = generator.permutation(BACKGROUND)[: train + validation]
        evaluation = BACKGROUND + generator.permutation(CHARACTERS - BACKGROUND)[:test]
        parts = [background[:train], background[train:], evaluation]
    return {name: np.sort(part) for name, part in zip(SPLITS, parts, strict=True) if part.size}


def build(config: Config) -> base.TaskFamily:
    """The family; its facts are `class`, `character`, `quarter_turns` and `alphabet`, each int32 [way].

    A class is a character of the split with its quarter turns: four classes a character, unless `rotations` is none.

    Raises:
      DataError: the archives are missing, truncated or altered.
      ValueError: no alphabet of a split has enough characters for `within_alphabet`.
    """
    omniglot = dataset.load(locations.data_root(), config.size)
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
    return family(config, data)


def outline(config: Config) -> base.TaskFamily:
    """The family without the archives: the shapes and dtypes of its data in the place of the data."""
    data = {}
    for name, characters in split_characters(config).items():
        count = len(characters)
        data[name] = {
            "images": jax.ShapeDtypeStruct((count, DRAWINGS, config.size, config.size), jnp.uint8),
            "character": jax.ShapeDtypeStruct((count,), jnp.int32),
            "alphabet": jax.ShapeDtypeStruct((count,), jnp.int32),
        }
    return family(config, data)


def family(config: Config, data: dict[str, base.PyTree]) -> base.TaskFamily:
    """The family with this data, or with the shapes of it."""

    def sample(part, key) -> base.Episode:
        class_key, drawing_key, rotation_key = jax.random.split(key, 3)
        classes, turns = choose_classes(config, part["alphabet"], class_key)
        if config.rotations == "random":
            turns = jax.random.randint(rotation_key, (config.ways,), 0, 4)
        return draw_examples(part, classes, turns, drawing_key)

    def drift(part, task_key, position, examples_key) -> base.Episode:
        """One way after another has its class replaced by the next of a random order of all classes."""
        class_key, rotation_key = jax.random.split(task_key)
        count = part["character"].shape[0]
        order = _classes.choose(class_key, count * config.copies, count * config.copies)
        first = jnp.floor(position * config.ways).astype(jnp.int32)
        places = (first + (jnp.arange(config.ways) - first) % config.ways) % order.shape[0]
        classes, turns = order[places] % count, order[places] // count
        if config.rotations == "random":
            turns = jax.random.randint(rotation_key, order.shape, 0, 4)[places]
        return draw_examples(part, classes, turns, examples_key)

    def draw_examples(part, classes, turns, drawing_key) -> base.Episode:
        """Drawings of these classes of the split, each class with its quarter turns."""
        images = _classes.gather_examples(part["images"], classes, config.shots + config.queries, drawing_key)
        if config.rotations != "none":
            images = _classes.rotate(images, turns)
        facts = {
            "class": (classes + turns * part["character"].shape[0]).astype(jnp.int32),
            "character": part["character"][classes],
            "quarter_turns": turns.astype(jnp.int32),
            "alphabet": part["alphabet"][classes],
        }
        return _classes.to_episode(images, config.shots, facts)

    spec = base.Spec((config.size, config.size, 1), config.ways)
    classes = config.characters[0] * (1 if config.rotations == "none" else 4)
    objective = losses.classification(config.ways, classes)._replace(relations=relate(config))
    form, path = base.Pictures(inverted=True), None if config.within_alphabet else drift
    return base.TaskFamily(data, sample, objective, spec, _classes.draw, None, form, path)


def relate(config: Config) -> base.Relations:
    """A class belongs to its alphabet, and a turned class to the turned alphabet: "Greek/character07@90" to "Greek@90".

    The nodes are the training classes in the order of facts["class"], their alphabets, the classes of other splits.
    """
    characters, names = split_characters(config), dataset.class_names()
    turns = ["", "@90", "@180", "@270"] if config.rotations != "none" else [""]

    def named(split: str) -> list[str]:
        return [names[index] + turn for turn in turns for index in characters.get(split, ())]

    known = named("train")
    owners = [name.partition("/")[0] + "".join(name.partition("@")[1:]) for name in known]
    concepts = {owner: len(known) + place for place, owner in enumerate(dict.fromkeys(owners))}
    edges = tuple((member, concepts[owner]) for member, owner in enumerate(owners))
    nodes = (*known, *concepts, *named("validation"), *named("test"))
    return base.Relations(nodes, len(known), edges, lambda facts: facts["class"])


def choose_classes(config: Config, alphabet, key):
    """Indices into the split of the episode's characters [way], and their quarter turns as classes [way]."""
    owner = jnp.tile(alphabet, config.copies)
    if config.within_alphabet:
        alphabet_key, key = jax.random.split(key)
        sizes = jnp.sum(owner[:, None] == owner[None, :], axis=1)  # of each class's alphabet
        # An alphabet is chosen with the same probability as any other: each class weighs 1 / its alphabet's size.
        weights = jnp.where(sizes >= config.ways, 1.0 / sizes, 0.0)
        anchor = jax.random.choice(alphabet_key, owner.shape[0], p=weights / weights.sum())
        chosen = _classes.choose_allowed(key, config.ways, owner == owner[anchor])
    else:
        chosen = _classes.choose(key, config.ways, owner.shape[0])
    return chosen % alphabet.shape[0], chosen // alphabet.shape[0]


def check_alphabets(config: Config, data) -> None:
    """Refuse a split in which no alphabet has as many classes as an episode."""
    for name, part in data.items():
        largest = int(np.bincount(part["alphabet"]).max()) * config.copies
        if largest < config.ways:
            raise ValueError(
                f"the largest alphabet of the {name} split has {largest} classes, not {config.ways}",
                "take fewer ways or other counts: without validation characters that split is not drawn from",
            )
