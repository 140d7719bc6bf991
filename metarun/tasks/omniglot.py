"""N-way K-shot classification of handwritten characters from 50 alphabets.

Lake, Salakhutdinov, Tenenbaum 2015: 1,623 characters, 20 drawings of each. The splits are of classes and depend on
`split_seed` alone, never on the run's seed, so that training never sees a test class:

    random       all characters shuffled, then 1,100 / 100 / 423 of them (Finn et al. 2017); with 1,200 / 0 / 423 this
                 is the split of Vinyals et al. 2016 and Santoro et al. 2016
    background   the split of the data set itself: training and validation from its 964 background characters, test
                 from its 659 evaluation characters, whose alphabets never occur in training

Rotations are by multiples of 90°. `random` turns each class of an episode at random, in every split, as the MAML
authors' code does. `classes` makes four classes of each character, all in the same split. `training` does so in the
training split alone, and turns nothing in the others, as the code of Reptile does.

With `presentations` P an episode is one stream, the protocol of Santoro et al. 2016 (arXiv 1605.06065): P drawings of
each of its classes in a random order. A learner answers each before its label is told (`Problem.stream`), and beside
the accuracy over the stream, accuracy_1 … accuracy_P are those at the first, …, P-th drawing of a class.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from metarun import base, folders, losses
from metarun.data.sets import omniglot_files
from metarun.ranges import AtLeast, Between
from metarun.tasks import _classes

DRAWINGS = 20  # of each character
CHARACTERS = 1623  # of the whole data set
BACKGROUND = 964  # characters of the background set
COUNTS = {"random": (1100, 100, 423), "background": (864, 100, 659)}  # characters in train, validation, test
SPLITS = ("train", "validation", "test")
TURNS = ("", "@90", "@180", "@270")  # what the names of turned characters and alphabets end with


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
    # By multiples of 90°: of each class at random, as four classes of each character, so in training alone, or none.
    rotations: Literal["random", "classes", "training", "none"] = "random"
    within_alphabet: bool = False  # all classes of an episode from one alphabet
    # The support says the alphabet of each class, turned as the class is; knowledge_graph uses it.
    tells_alphabet: bool = False
    # Drawings of each class in a stream whose labels come one drawing late, in place of shots and queries; 0: episodes
    # with support and query.
    presentations: Annotated[int, Between(0, DRAWINGS)] = 0
    size: Annotated[int, Between(8, 105)] = 28  # pixels a side; 105 is the original

    def __post_init__(self):
        if self.shots + self.queries > DRAWINGS:
            raise ValueError(
                f"{self.shots} shots and {self.queries} queries need more than a character's {DRAWINGS} drawings"
            )
        if self.counts and len(self.counts) != len(SPLITS):
            raise ValueError("counts takes three numbers: train, validation, test")
        if self.tells_alphabet and self.presentations:
            raise ValueError(
                "a stream does not tell alphabets", "set presentations: 0, or tells_alphabet: false"
            )
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
            classes = count * self.count_copies(name)
            if classes < self.ways and not (name == "validation" and classes == 0):
                raise ValueError(f"{self.ways} ways need more than the {classes} classes of the {name} split")

    @property
    def replaced_options(self) -> dict[str, str]:
        """The options in whose place others stand: a stream has presentations for shots and queries."""
        return {"shots": "presentations", "queries": "presentations"} if self.presentations else {}

    @property
    def characters(self) -> tuple[int, ...]:
        """How many characters are in train, validation and test."""
        return self.counts or COUNTS[self.split]

    def count_copies(self, split: str) -> int:
        """Return how many classes of a split are made of one character."""
        return 4 if self.rotations == "classes" or (self.rotations, split) == ("training", "train") else 1


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
        | make_copies(config, name)
        for name, characters in split_characters(config).items()
    }
    if config.within_alphabet:
        check_alphabets(config, data)
    return make_family(config, data)


def make_copies(config: Config, split: str) -> dict[str, np.ndarray]:
    """Return {"copy": [copy]} where only this array says how many classes a split makes of a character; else {}."""
    has_own = config.rotations == "training"
    return {"copy": np.arange(config.count_copies(split), dtype=np.int32)} if has_own else {}


def count_copies(config: Config, data) -> int:
    """Return how many classes the split of this data makes of one character."""
    return data["copy"].shape[0] if "copy" in data else config.count_copies("train")


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
        copies = make_copies(config, name)
        data[name] |= jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), copies)
    return make_family(config, data)


def make_family(config: Config, data: dict[str, base.PyTree]) -> base.TaskFamily:
    """Make the family from its data, or from the shapes of its data."""
    spec = base.Spec((config.size, config.size, 1), config.ways, "classes")
    classes = config.characters[0] * (1 if config.rotations == "none" else 4)
    problem = base.Problem(spec, losses.classification(), classes, relate(config))
    form, drift = base.Pictures(inverted=True), None if config.within_alphabet else make_drift(config)
    if config.presentations:
        objective = _classes.count_presentations(problem.objective, config.presentations)
        problem = problem._replace(objective=objective, stream=True)
        return base.TaskFamily(data, make_sample(config), problem, _classes.draw_stream, None, form)
    return base.TaskFamily(data, make_sample(config), problem, _classes.draw, None, form, drift)


def make_sample(config: Config) -> Callable:
    """Make the sampler of episodes; see `base.TaskFamily`."""

    def sample(data, key) -> base.Episode:
        class_key, drawing_key, rotation_key = jax.random.split(key, 3)
        classes, turns = choose_classes(config, data, class_key)
        if config.rotations == "random":
            turns = jax.random.randint(rotation_key, (config.ways,), 0, 4)
        return draw_episode(config, data, classes, turns, drawing_key)

    return sample


def make_drift(config: Config) -> Callable:
    """Make the path of tasks: one way after another gets the next class of a random order of all classes."""

    def drift(data, task_key, position, examples_key) -> base.Episode:
        class_key, rotation_key = jax.random.split(task_key)
        count, copies = data["character"].shape[0], count_copies(config, data)
        order = _classes.choose(class_key, count * copies, count * copies)
        first = jnp.floor(position * config.ways).astype(jnp.int32)
        places = (first + (jnp.arange(config.ways) - first) % config.ways) % order.shape[0]
        classes, turns = order[places] % count, order[places] // count
        if config.rotations == "random":
            turns = jax.random.randint(rotation_key, order.shape, 0, 4)[places]
        return draw_episode(config, data, classes, turns, examples_key)

    return drift


def draw_episode(config: Config, data, classes, turns, drawing_key) -> base.Episode:
    """Draw an episode of these classes of the split, each turned by its quarter turns."""
    count = config.presentations or config.shots + config.queries
    if config.presentations:
        drawing_key, order_key = jax.random.split(drawing_key)
    images = _classes.gather_examples(data["images"], classes, count, drawing_key)
    if config.rotations != "none":
        images = _classes.rotate(images, turns)
    facts = {
        "class": (classes + turns * data["character"].shape[0]).astype(jnp.int32),
        "character": data["character"][classes],
        "quarter_turns": turns.astype(jnp.int32),
        "alphabet": data["alphabet"][classes],
    }
    if config.presentations:
        return _classes.to_stream(images, facts, order_key)
    episode = _classes.to_episode(images, config.shots, facts)
    if not config.tells_alphabet:
        return episode
    concepts = jnp.asarray(number_alphabets(config))[facts["quarter_turns"], facts["alphabet"]]
    inputs = base.Related(episode.support.inputs, jnp.repeat(concepts, config.shots))
    return episode._replace(support=episode.support._replace(inputs=inputs))


def number_alphabets(config: Config) -> Int[np.ndarray, "turn alphabet"]:
    """Return the place of each turned alphabet in the names of `relate`; -1: training has no class of it."""
    names = relate(config).names
    places = {name: place for place, name in enumerate(names)}
    alphabets = dict.fromkeys(name.partition("/")[0] for name in omniglot_files.list_class_names())
    table = [[places.get(alphabet + turn, -1) for alphabet in alphabets] for turn in TURNS]
    return np.array(table, np.int32)


def relate(config: Config) -> base.Relations:
    """Relate each class to its alphabet, and each turned class, "Greek/character07@90", to the turned one, "Greek@90".

    The nodes are the training classes in the order of facts["class"], then their alphabets, then the classes of the
    other splits.
    """
    characters, names = split_characters(config), omniglot_files.list_class_names()
    turns = TURNS if config.rotations != "none" else TURNS[:1]

    def list_names(split: str) -> list[str]:
        return [names[index] + turn for turn in turns for index in characters.get(split, ())]

    known = list_names("train")
    owners = [name.partition("/")[0] + "".join(name.partition("@")[1:]) for name in known]
    concepts = {owner: len(known) + place for place, owner in enumerate(dict.fromkeys(owners))}
    edges = tuple((member, concepts[owner]) for member, owner in enumerate(owners))
    nodes = (*known, *concepts, *list_names("validation"), *list_names("test"))
    return base.Relations(nodes, len(known), edges, lambda facts: facts["class"])


def choose_classes(config: Config, data, key):
    """Draw the characters of an episode, as indices into the split [way], and their quarter turns as classes [way]."""
    alphabet = data["alphabet"]
    owner = jnp.tile(alphabet, count_copies(config, data))
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
        largest = int(np.bincount(table["alphabet"]).max()) * config.count_copies(name)
        if largest < config.ways:
            raise ValueError(
                f"the largest alphabet of the {name} split has {largest} classes, not {config.ways}",
                "take fewer ways or other counts: without validation characters that split is not drawn from",
            )
