"""Which sentences, in which direction, are the tasks of training, validation and test."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int

from metarun.data import meanings, topics
from metarun.data.sentence_pairs import Corpus, Pair
from metarun.data.topics import Topics
from metarun.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from metarun.tasks.parallel_text import Config

SPLITS = ("train", "validation", "test")
# Share of all sentences. A meaning that has more of them, such as that of `yes`, is for the training.
LARGE = 0.01
SPEECHLESS = 0.02  # share of the meanings that may lack a sentence of the language that tells topics
WHOLE = "split by sentence number: no sentence of validation or test is in the training in any language"
BY_PAIR = "split by pair of languages: no sentence of validation or test is in the training with the same translation"


class Direction(NamedTuple):
    """One task: the sentences of a pair, and the direction of translation."""

    pair: int  # its place in the folder
    backward: bool  # from the second language to the first
    sentences: np.ndarray  # of the pair, sorted
    topic: int = 0  # if there are topics


class Split(NamedTuple):
    """The tasks of training, validation and test."""

    tasks: dict[str, list[Direction]]
    whole_meanings: bool
    topics: Topics | None  # of the meanings of the corpus

    def name_groups(self, pairs: Sequence[Pair]) -> tuple[str, ...]:
        """Return the names of the groups of tasks: the topics, or else the ordered pairs of languages."""
        if self.topics is not None:
            return tuple(f"topic {place}: {words}" for place, words in enumerate(self.topics.names))
        return tuple(f"{a}-{b}" for pair in pairs for a, b in (pair[:2], pair[1::-1]))


def split_corpus(config: "Config", corpus: Corpus, known: Topics | None = None) -> Split:
    """Split a corpus as the config says.

    Args:
      known: the topics that the run has kept; None: they are found, if there are any.

    Raises:
      DataError: there is no language that topics can be told by, or too little text for them.
      CheckpointError: the known topics are those of another text.
    """
    whole = config.whole_meanings
    if whole is None:
        whole = corpus.is_aligned or config.topics is not None
    if not whole:
        return Split(split_tasks(config, [len(pair.sources) for pair in corpus.pairs]), False, None)
    numbers = meanings.number_meanings(corpus)
    owners = own_meanings(config, corpus, numbers)
    found = None
    if known is not None and len(known.labels) != len(owners):
        what = f"the run has kept the topics of {len(known.labels):,} sentences, and its text has {len(owners):,}"
        raise CheckpointError(what, "task.json", "restore it from a copy of the run, or train again")
    if config.topics is not None:
        found = known or find_topics(config, config.topics, corpus.pairs, numbers, owners)
    tasks = split_meanings(config, numbers, owners, None if found is None else found.labels)
    return Split(tasks, True, found)


def split_tasks(config: "Config", counts: list[int]) -> dict[str, list[Direction]]:
    """Return the tasks of each split, where every pair has sentences of its own.

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


def split_meanings(
    config: "Config",
    numbers: list[Int[np.ndarray, "sentence"]],
    owners: Int[np.ndarray, "meaning"],
    labels: Int[np.ndarray, "meaning"] | None,
) -> dict[str, list[Direction]]:
    """Return the tasks of each split, none of which has a meaning of another split.

    Args:
      numbers: the meaning of each sentence of each pair.
      owners: the place of the split of each meaning.
      labels: the topic of each meaning; None: there are no topics.
    """
    generator = np.random.default_rng((config.split_seed, 1))
    turns = (False, True) if config.directions == "both" else (False,)
    pair_owner = find_owners(divide(config, generator.permutation(len(numbers))))
    first_turns = generator.random(len(numbers)) < 0.5
    count = config.topics or 1
    topic_owner = find_owners(divide(config, generator.permutation(count)))
    topic_of = np.zeros(len(owners), np.int64) if labels is None else labels
    tasks: dict[str, list[Direction]] = {name: [] for name in SPLITS}
    for pair, own in enumerate(numbers):
        for backward in turns:
            for topic in range(count):
                places = {
                    "pairs": pair_owner[pair],
                    "reverse": pair_owner[pair] if backward == first_turns[pair] else 0,
                    "topics": topic_owner[topic],
                }
                for place, name in enumerate(SPLITS):
                    if places.get(config.holdout, place) == place:
                        chosen = np.flatnonzero((owners[own] == place) & (topic_of[own] == topic))
                        if len(chosen):
                            tasks[name].append(Direction(pair, backward, chosen, topic))
    return tasks


def own_meanings(
    config: "Config", corpus: Corpus, numbers: list[Int[np.ndarray, "sentence"]]
) -> Int[np.ndarray, "meaning"]:
    """Return the place in `SPLITS` of the split that has each meaning.

    It is the one that the names of the files say, or else drawn by `shares` and `split_seed`. A meaning that the files
    of two splits have is the test's rather than the validation's, and theirs rather than the training's, unless it is
    large. If the files say no validation, it is drawn from the training.
    """
    flat = np.concatenate(numbers)
    sizes = np.bincount(flat)
    is_large = sizes > max(LARGE * len(flat), len(numbers))
    owners = np.zeros(len(sizes), np.int64)
    by_hand = {"train", "test"} <= set(corpus.parts)
    if by_hand:
        parts = np.array([SPLITS.index(part) if part else 0 for part in corpus.parts])
        for pair, own in zip(corpus.pairs, numbers, strict=True):
            np.maximum.at(owners, own, parts[np.array(pair.lines, np.int64)])
        owners[is_large] = 0
    order = np.random.default_rng((config.split_seed, 0)).permutation(len(sizes))
    order = order[~is_large[order] & (owners[order] == 0)]
    total = sizes[owners == 0].sum()
    shares = dict(zip(SPLITS, config.shares, strict=True))
    for name in ("test", "validation"):
        if by_hand and name in corpus.parts:
            continue
        taken = np.cumsum(sizes[order]) <= round(shares[name] * total)
        owners[order[taken]] = SPLITS.index(name)
        order = order[~taken]
    return owners


def find_topics(
    config: "Config",
    count: int,
    pairs: Sequence[Pair],
    numbers: list[Int[np.ndarray, "sentence"]],
    owners: Int[np.ndarray, "meaning"],
) -> Topics:
    """Return the topics of all meanings, found in those of the training, by the text of one language.

    A meaning without a sentence of this language, of which there may be a few, has the first topic.

    Raises:
      DataError: there is no language that nearly all meanings have, or too little text.
    """
    texts: dict[str, dict[int, str]] = {}
    for pair, own in zip(pairs, numbers, strict=True):
        for language, side in ((pair.source, pair.sources), (pair.target, pair.targets)):
            known = texts.setdefault(language, {})
            for meaning, text in zip(own.tolist(), side, strict=True):
                known.setdefault(meaning, text)
    chosen = max(sorted(texts), key=lambda language: len(texts[language]))
    if len(texts[chosen]) < (1 - SPEECHLESS) * len(owners):
        raise DataError(
            f"topics need a language that nearly all sentences have; {chosen} has {len(texts[chosen]):,} of "
            f"{len(owners):,}",
            config.folder,
            "leave task.topics out, or keep pairs that share a language",
        )
    ordered = [texts[chosen].get(meaning, "") for meaning in range(len(owners))]
    try:
        return topics.find_topics(ordered, np.flatnonzero(owners == 0).tolist(), count, config.split_seed)
    except ValueError as error:
        raise DataError(str(error.args[0]), config.folder, "take fewer topics: task.topics") from error


def divide(config: "Config", order: np.ndarray) -> list[np.ndarray]:
    """Divide shuffled indices into train, validation and test, each sorted, by the configured shares.

    Validation and test get at least one index if their share is not 0.
    """
    _, validation, test = (max(1, round(share * len(order))) if share else 0 for share in config.shares)
    train = max(len(order) - validation - test, 0)
    return [np.sort(block) for block in np.split(order, [train, train + validation])]


def find_owners(blocks: list[np.ndarray]) -> dict[int, int]:
    """Return {index: the place of its block}."""
    return {int(index): place for place, block in enumerate(blocks) for index in block}


def describe(config: "Config", split: Split, data: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
    """Return what a result should say of the split, in sentences."""
    held = {"sentences": "sentences alone", "reverse": "one direction of some pairs"}.get(config.holdout)
    counts = ", ".join(
        f"{name} {len(arrays['count'])} tasks of {len(arrays['tokens']):,} pairs of sentences"
        for name, arrays in data.items()
    )
    return [
        WHOLE if split.whole_meanings else BY_PAIR,
        f"held out: {held or config.holdout}",
        counts,
    ]
