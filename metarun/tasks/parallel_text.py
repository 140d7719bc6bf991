"""Translation between pairs of languages of the user's own text, from a few pairs of sentences.

    FOLDER/en-de/en.txt, FOLDER/en-de/de.txt    line n of one file translates line n of the other
    FOLDER/en-de.tsv                            or SOURCE<tab>TARGET on every line

A task is an ordered pair of languages, and only the support says which. The sub-words are learned from the training
sentences alone; see metarun/data/subwords.py. `holdout` says what training does not see:

    pairs        both directions of some pairs of languages, with all their sentences
    reverse      one direction of some pairs, and some sentences of every pair
    sentences    some sentences of every pair

A sentence that several pairs have, such as an English one with a German and a French translation, counts as one
sentence of each pair. With `pairs`, a test pair may hold an English sentence that a training pair holds, but never with
the same translation.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metarun import base, errors
from metarun.data import sentence_pairs, subwords
from metarun.folders import expand_home
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
    # Which directions of a pair are tasks; forward: the pair en-de is translated from en to de only.
    directions: Literal["both", "forward"] = "both"
    holdout: Literal["pairs", "reverse", "sentences"] = "pairs"  # what training does not see
    # Shares of train, validation and test, of the pairs or sentences of `holdout`.
    shares: tuple[Annotated[float, Between(0, 1)], ...] = (0.7, 0.1, 0.2)
    split_seed: Annotated[int, Between(0, 2**32 - 1)] = 0  # seed of what is held out; not the run's seed

    def __post_init__(self):
        if not self.folder:
            raise ValueError("folder is empty", "give the folder that holds the pairs of languages")
        # The config in the run directory then names the same folder wherever it is read.
        object.__setattr__(self, "folder", str(expand_home(self.folder).absolute()))
        if len(self.shares) != len(SPLITS) or not math.isclose(sum(self.shares), 1):
            raise ValueError("shares takes three numbers that add up to 1: train, validation, test")
        if self.holdout == "reverse" and self.directions == "forward":
            raise ValueError("the reverse direction is no task where directions is forward", "take both")


def example(folder: Path) -> Config:
    """Write ten pairs of made-up languages, half of them as tables, into an empty folder; return a config for them."""
    pairs, lines = 10, 340
    generator = np.random.default_rng(0)
    syllables = np.array(["ba", "do", "gi", "ku", "le", "mä", "no", "ру", "λι", "ste"])
    for index in range(pairs):
        words = syllables[generator.integers(0, 10, (2, lines, 4, 2))]
        sides = [[" ".join("".join(word) for word in sentence) for sentence in side] for side in words]
        place = folder / f"l{index}-m{index}"
        if index % 2:
            table = "\n".join("\t".join(row) for row in zip(*sides, strict=True))
            place.with_suffix(".tsv").write_text(table, "utf-8")
            continue
        place.mkdir()
        for language, side in zip(("l", "m"), sides, strict=True):
            (place / f"{language}{index}.txt").write_text("\n".join(side) + "\n", "utf-8")
    return Config(str(folder), vocabulary=320, holdout="sentences")


class Direction(NamedTuple):
    """One task: the sentences of a pair, and the direction of translation."""

    pair: int  # its place in the folder
    backward: bool  # from the second language to the first
    sentences: np.ndarray  # of the pair, sorted


def build(config: Config) -> base.TaskFamily:
    """Build the family.

    Its facts are `task`, int32, the index of an ordered pair of languages, and `sentence` [example].

    Raises:
      DataError: the text cannot be read, or is too little for an episode of training or test, or for the vocabulary.
    """
    pairs = sentence_pairs.read(Path(config.folder))
    splits = split_tasks(config, [len(pair.sources) for pair in pairs])
    vocabulary = learn_vocabulary(config, pairs, splits["train"])
    rows = [encode_pair(config, vocabulary, pair) for pair in pairs]
    warn_of_long_sentences(config, rows)
    names = tuple(f"{a}-{b}" for pair in pairs for a, b in (pair[:2], pair[1::-1]))
    data = {name: make_table(rows, directions) for name, directions in splits.items() if directions}
    check_counts(config, data)

    def spell(tokens) -> list[str]:
        return vocabulary.decode([_sentences.unpack(row) for row in np.asarray(tokens)])

    length = config.longest + 1
    spec = base.Spec((length,), vocabulary.size, "tokens", vocabulary.size)
    return base.TaskFamily(
        data,
        make_sample(config),
        base.Problem(spec, _sentences.make_objective(spell, "13a")),
        _sentences.make_draw(spell),
        base.Groups(names, lambda facts: facts["task"]),
        _sentences.make_form(spell, lambda text: vocabulary.encode([text])[0], length),
    )


def make_sample(config: Config) -> Callable:
    """Make the sampler of episodes; see `base.TaskFamily`."""
    count = config.shots + config.queries

    def sample(data, key) -> base.Episode:
        task_key, sentence_key = jax.random.split(key)
        task = _classes.choose_allowed(task_key, 1, data["count"] >= count)[0]
        chosen = _classes.choose_allowed(sentence_key, count, data["member"] < data["count"][task])
        places = data["start"][task] + chosen
        both = data["tokens"][places]  # [example, language, token]
        source, target = jnp.where(data["backward"][task], both[:, ::-1], both).swapaxes(0, 1)
        examples = _sentences.pair_up(source, target)
        support, query = (
            jax.tree.map(lambda leaf, block=block: leaf[block], examples)
            for block in (slice(config.shots), slice(config.shots, count))
        )
        facts = {"task": data["task"][task], "sentence": data["sentence"][places]}
        return base.Episode(support, query, facts)

    return sample


def split_tasks(config: Config, counts: list[int]) -> dict[str, list[Direction]]:
    """Return the tasks of each split.

    They depend on `directions`, `holdout`, `shares`, `split_seed` and the numbers of sentences alone.

    Args:
      counts: the number of sentences of each pair.
    """
    generator = np.random.default_rng(config.split_seed)
    turns = (False, True) if config.directions == "both" else (False,)
    pair_blocks = divide(config, generator.permutation(len(counts)))
    sentence_blocks = [divide(config, generator.permutation(count)) for count in counts]
    first_turns = generator.random(len(counts)) < 0.5
    owner = {int(pair): index for index, block in enumerate(pair_blocks) for pair in block}
    tasks: dict[str, list[Direction]] = {name: [] for name in SPLITS}
    for pair, count in enumerate(counts):
        for backward in turns:
            if config.holdout == "pairs":
                tasks[SPLITS[owner[pair]]].append(Direction(pair, backward, np.arange(count)))
            elif config.holdout == "sentences":
                for name, block in zip(SPLITS, sentence_blocks[pair], strict=True):
                    tasks[name].append(Direction(pair, backward, block))
            else:
                split = owner[pair] if backward == first_turns[pair] else 0
                tasks[SPLITS[split]].append(Direction(pair, backward, sentence_blocks[pair][split]))
    return tasks


def divide(config: Config, order: np.ndarray) -> list[np.ndarray]:
    """Divide shuffled indices into train, validation and test, each sorted, by the configured shares.

    Validation and test get at least one index if their share is not 0.
    """
    _, validation, test = (max(1, round(share * len(order))) if share else 0 for share in config.shares)
    train = max(len(order) - validation - test, 0)
    return [np.sort(block) for block in np.split(order, [train, train + validation])]


def learn_vocabulary(
    config: Config, pairs: list[sentence_pairs.Pair], train: list[Direction]
) -> subwords.Subwords:
    """Learn the sub-words of the training sentences, each of which counts once."""
    used = {(task.pair, index) for task in train for index in task.sentences.tolist()}
    texts = [side[index] for pair, index in sorted(used) for side in pairs[pair][2:]]
    if not texts:
        remedy = "add pairs of languages, or change shares"
        raise errors.DataError("no sentence is left for training", config.folder, remedy)
    try:
        return subwords.learn(texts, config.vocabulary)
    except ValueError as error:
        what, remedy = map(str, error.args)
        raise errors.DataError(what, config.folder, remedy) from error


def encode_pair(config: Config, vocabulary: subwords.Subwords, pair: sentence_pairs.Pair) -> np.ndarray:
    """Return int32 [sentence, language, token]; a sentence that is too long in one language is a row of PAD."""
    sides = [vocabulary.encode(side) for side in pair[2:]]
    fits = [all(len(tokens) <= config.longest for tokens in row) for row in zip(*sides, strict=True)]
    short_sides = [[tokens if fit else [] for tokens, fit in zip(side, fits, strict=True)] for side in sides]
    rows = np.stack([_sentences.pack(side, config.longest + 1) for side in short_sides], axis=1)
    rows[~np.array(fits)] = _sentences.PAD
    return rows


def warn_of_long_sentences(config: Config, rows: list[np.ndarray]) -> None:
    """Warn about the sentences that are too long, if there are any."""
    total = sum(map(len, rows))
    kept = sum(int(find_short(pair_rows).sum()) for pair_rows in rows)
    if kept < total:
        logger.warning(
            "%s: %d of %d pairs of sentences have more than %d sub-words and are left out",
            config.folder,
            total - kept,
            total,
            config.longest,
        )


def find_short(rows: np.ndarray) -> np.ndarray:
    """Return which sentences were not too long, bool [sentence]."""
    return rows[:, 0, 0] != _sentences.PAD


def make_table(rows: list[np.ndarray], tasks: list[Direction]) -> dict[str, np.ndarray]:
    """Return the arrays of one split: the sentences of its tasks one after the other, and where each task begins."""
    chosen = [task.sentences[find_short(rows[task.pair][task.sentences])] for task in tasks]
    counts = np.array([len(sentences) for sentences in chosen], np.int32)
    tokens = [rows[task.pair][sentences] for task, sentences in zip(tasks, chosen, strict=True)]
    return {
        "tokens": np.concatenate(tokens),
        "sentence": np.concatenate(chosen).astype(np.int32),
        "start": np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int32),
        "count": counts,
        "backward": np.array([task.backward for task in tasks]),
        "task": np.array([2 * task.pair + task.backward for task in tasks], np.int32),
        "member": np.arange(counts.max(), dtype=np.int32),
    }


def check_counts(config: Config, data: dict[str, dict[str, np.ndarray]]) -> None:
    """Refuse a split from which no episode can be drawn, and warn about tasks that are too small for one."""
    needed = config.shots + config.queries
    for name in SPLITS:
        if name == "validation" and name not in data:
            continue
        counts = data[name]["count"] if name in data else np.zeros(0, np.int32)
        large = int((counts >= needed).sum())
        if not large:
            raise errors.DataError(
                f"no task of the {name} split has the {needed} sentences of an episode; "
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
                needed,
            )
