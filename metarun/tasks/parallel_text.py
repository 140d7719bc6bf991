"""Translation between pairs of languages of the user's own text, from a few pairs of sentences.

    FOLDER/en-de/en.txt, FOLDER/en-de/de.txt    line n of one file translates line n of the other
    FOLDER/en-de.tsv                            or SOURCE<tab>TARGET on every line

A task is an ordered pair of languages; nothing but the support names them. The sub-words are learned from the training
part alone (see metarun/data/subwords.py). What no learner has met in training:

    pairs        both directions of some pairs of languages, with all their sentences
    reverse      one direction of some pairs, and some sentences of every pair
    sentences    some sentences of every pair

A sentence that several pairs have (an English one with its German and its French translation) is one for each of them:
with `pairs` a test pair may hold an English sentence that a training pair holds, but never with its translation.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metarun import base, errors
from metarun.data import parallel, subwords
from metarun.ranges import AtLeast, Between
from metarun.tasks import _classes, _sentences

SPLITS = ("train", "validation", "test")

logger = logging.getLogger("metarun")


@dataclass(frozen=True)
class Config:
    """Where the text is, what is held out of it, and how much of it a learner sees."""

    folder: str  # holds the pairs of languages; relative to where metarun is started
    shots: Annotated[int, AtLeast(1)] = 16  # support sentences
    queries: Annotated[int, AtLeast(1)] = 16  # query sentences
    vocabulary: Annotated[int, AtLeast(300)] = 1000  # sub-words of all languages together, 256 of them bytes
    longest: Annotated[int, AtLeast(1)] = 24  # sub-words of a sentence; pairs with a longer one are left out
    directions: Literal["both", "forward"] = "both"  # forward: of en-de only from en to de
    holdout: Literal["pairs", "reverse", "sentences"] = "pairs"  # what training does not see
    shares: tuple[Annotated[float, Between(0, 1)], ...] = (0.7, 0.1, 0.2)  # train, validation, test, of that
    split_seed: Annotated[int, Between(0, 2**32 - 1)] = 0  # of what is held out; not the run's seed

    def __post_init__(self):
        if not self.folder:
            raise ValueError("folder is empty", "give the folder that holds the pairs of languages")
        # The run's own config then names the same folder wherever it is read.
        object.__setattr__(self, "folder", str(Path(self.folder).expanduser().absolute()))
        if len(self.shares) != len(SPLITS) or not math.isclose(sum(self.shares), 1):
            raise ValueError("shares takes three numbers that add up to 1: train, validation, test")
        if self.holdout == "reverse" and self.directions == "forward":
            raise ValueError("the reverse direction is no task where directions is forward", "take both")


class Direction(NamedTuple):
    """One task: which sentences, translated which way."""

    pair: int  # of the folder
    backward: bool  # from the second language to the first
    sentences: np.ndarray  # of the pair, sorted


def build(config: Config) -> base.TaskFamily:
    """The family; its facts are `task`, int32, the index of an ordered pair of languages, and `sentence` [example].

    Raises:
      DataError: the text cannot be read, is too little for an episode of training or test, or for the vocabulary.
    """
    pairs = parallel.read(Path(config.folder))
    splits = split(config, [len(pair.sources) for pair in pairs])
    learned = learn(config, pairs, splits["train"])
    rows = [tokens_of(config, learned, pair) for pair in pairs]
    tell_left_out(config, rows)
    names = tuple(f"{a}-{b}" for pair in pairs for a, b in (pair[:2], pair[1::-1]))
    data = {name: table(rows, directions) for name, directions in splits.items() if directions}
    check_counts(config, data)
    wanted = config.shots + config.queries

    def sample(part, key) -> base.Episode:
        task_key, sentence_key = jax.random.split(key)
        task = _classes.choose_allowed(task_key, 1, part["count"] >= wanted)[0]
        chosen = _classes.choose_allowed(sentence_key, wanted, part["member"] < part["count"][task])
        places = part["start"][task] + chosen
        both = part["tokens"][places]  # [example, language, token]
        source, target = jnp.where(part["backward"][task], both[:, ::-1], both).swapaxes(0, 1)
        examples = _sentences.examples(source, target)
        support, query = (
            jax.tree.map(lambda leaf, cut=cut: leaf[cut], examples)
            for cut in (slice(config.shots), slice(config.shots, wanted))
        )
        return base.Episode(
            support, query, {"task": part["task"][task], "sentence": part["sentence"][places]}
        )

    def spell(tokens) -> list[str]:
        return learned.decode([_sentences.unpack(row) for row in np.asarray(tokens)])

    length = config.longest + 1
    return base.TaskFamily(
        data,
        sample,
        _sentences.objective(spell, "13a"),
        base.Spec((length,), learned.size, learned.size),
        _sentences.make_draw(spell),
        base.Groups(names, lambda facts: facts["task"]),
        _sentences.make_form(spell, lambda text: learned.encode([text])[0], length),
    )


def split(config: Config, counts: list[int]) -> dict[str, list[Direction]]:
    """The tasks of each split; a function of the split's own fields and of how many sentences the pairs have.

    Args:
      counts: sentences of each pair.
    """
    generator = np.random.default_rng(config.split_seed)
    turns = (False, True) if config.directions == "both" else (False,)
    pair_parts = cut(config, generator.permutation(len(counts)))
    sentence_parts = [cut(config, generator.permutation(count)) for count in counts]
    first_turns = generator.random(len(counts)) < 0.5
    owner = {int(pair): index for index, part in enumerate(pair_parts) for pair in part}
    tasks: dict[str, list[Direction]] = {name: [] for name in SPLITS}
    for pair, count in enumerate(counts):
        everything = np.arange(count)
        for backward in turns:
            if config.holdout == "pairs":
                tasks[SPLITS[owner[pair]]].append(Direction(pair, backward, everything))
            elif config.holdout == "sentences":
                for name, part in zip(SPLITS, sentence_parts[pair], strict=True):
                    tasks[name].append(Direction(pair, backward, part))
            else:
                held = owner[pair] if backward == first_turns[pair] else 0
                tasks[SPLITS[held]].append(Direction(pair, backward, sentence_parts[pair][held]))
    return tasks


def cut(config: Config, order: np.ndarray) -> list[np.ndarray]:
    """Shuffled indices, cut into train, validation and test, each sorted; at least one where a share is not 0."""
    _, validation, test = (max(1, round(share * len(order))) if share else 0 for share in config.shares)
    train = max(len(order) - validation - test, 0)
    return [np.sort(part) for part in np.split(order, [train, train + validation])]


def learn(config: Config, pairs: list[parallel.Pair], train: list[Direction]) -> subwords.Subwords:
    """The sub-words of the training part, each of its sentences counted once."""
    used = {(task.pair, index) for task in train for index in task.sentences.tolist()}
    texts = [side[index] for pair, index in sorted(used) for side in pairs[pair][2:]]
    if not texts:
        raise errors.DataError(
            "no sentence is left for training", config.folder, "add pairs of languages, or change shares"
        )
    try:
        return subwords.learn(texts, config.vocabulary)
    except ValueError as error:
        what, remedy = map(str, error.args)
        raise errors.DataError(what, config.folder, remedy) from error


def tokens_of(config: Config, learned: subwords.Subwords, pair: parallel.Pair) -> np.ndarray:
    """int32 [sentence, language, token]; rows of PAD for a sentence that is too long in one of the languages."""
    sides = [learned.encode(side) for side in pair[2:]]
    fits = [all(len(tokens) <= config.longest for tokens in row) for row in zip(*sides, strict=True)]
    packed = [
        _sentences.pack(
            [tokens if fit else [] for tokens, fit in zip(side, fits, strict=True)], config.longest + 1
        )
        for side in sides
    ]
    rows = np.stack(packed, axis=1)
    rows[~np.array(fits)] = _sentences.PAD
    return rows


def tell_left_out(config: Config, rows: list[np.ndarray]) -> None:
    """Say how many sentences are too long, if any are."""
    total = sum(map(len, rows))
    kept = sum(int(fits(part).sum()) for part in rows)
    if kept < total:
        logger.warning(
            "%s: %d of %d pairs of sentences have more than %d sub-words and are left out",
            config.folder,
            total - kept,
            total,
            config.longest,
        )


def fits(rows: np.ndarray) -> np.ndarray:
    """Which sentences were not too long, [sentence]."""
    return rows[:, 0, 0] != _sentences.PAD


def table(rows: list[np.ndarray], tasks: list[Direction]) -> dict[str, np.ndarray]:
    """The arrays of one split: the sentences of its pairs one after the other, and where each task begins."""
    chosen = [task.sentences[fits(rows[task.pair][task.sentences])] for task in tasks]
    counts = np.array([len(sentences) for sentences in chosen], np.int32)
    return {
        "tokens": np.concatenate([rows[task.pair][part] for task, part in zip(tasks, chosen, strict=True)]),
        "sentence": np.concatenate(chosen).astype(np.int32),
        "start": np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int32),
        "count": counts,
        "backward": np.array([task.backward for task in tasks]),
        "task": np.array([2 * task.pair + task.backward for task in tasks], np.int32),
        "member": np.arange(counts.max(), dtype=np.int32),
    }


def check_counts(config: Config, data: dict[str, dict[str, np.ndarray]]) -> None:
    """Refuse a split from which no episode could be drawn; say how many tasks are too small for one."""
    wanted = config.shots + config.queries
    for name in SPLITS:
        if name == "validation" and name not in data:
            continue
        counts = data[name]["count"] if name in data else np.zeros(0, np.int32)
        large = int((counts >= wanted).sum())
        if not large:
            raise errors.DataError(
                f"no task of the {name} split has the {wanted} sentences of an episode; "
                f"it has {len(counts)} tasks, the largest of {counts.max(initial=0)} sentences",
                config.folder,
                "add text, take fewer shots or queries, raise longest, or change shares or holdout",
            )
        if large < len(counts):
            logger.warning(
                "%s: %d of %d tasks of the %s split have fewer than %d sentences and are not drawn",
                config.folder,
                len(counts) - large,
                len(counts),
                name,
                wanted,
            )
