"""Translation between languages of the user's own text, from a few pairs of sentences.

    FOLDER/en-de/en.txt, FOLDER/en-de/de.txt    line n of one file translates line n of the other
    FOLDER/en-de.tsv                            or SOURCE<tab>TARGET on every line
    FOLDER/train.en, FOLDER/train.de, ...       or aligned files of two languages and more

Each may be gzipped. A task is an ordered pair of languages, or with `topics` one of its topics, and only the support
says which. The sub-words are learned from the training sentences alone; see metarun/data/subwords.py. `holdout` says
what training does not see:

    pairs        both directions of some pairs of languages
    reverse      one direction of some pairs
    sentences    no pair and no direction, but some sentences of every pair
    topics       some topics

With `whole_meanings`, no sentence of validation or test is in the training, in whatever language: a sentence is held
out with all its translations. Files whose names say train, validation and test are split so. Without it, a test pair
may hold an English sentence that a training pair holds, but never with the same translation.

A run keeps its vocabulary, its split and a fingerprint of the text, so that it translates without the text.
"""

import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from metarun import base
from metarun.data import fingerprints, sentence_pairs
from metarun.errors import DataError
from metarun.folders import expand_home
from metarun.ranges import AtLeast, Between
from metarun.tasks import _classes, _copied_targets, _sentences
from metarun.tasks.parallel_text import sentence_splits, sentence_tables, text_record, text_sizes
from metarun.tasks.parallel_text.text_record import Record

SPLITS = ("train", "validation", "test")

logger = logging.getLogger("metarun")


@dataclass(frozen=True)
class Config:
    """Where the text is, what is held out of it, and how much of it a learner sees."""

    folder: str  # holds the pairs of languages; relative to where metarun is started
    shots: Annotated[int, AtLeast(1)] = 16  # support sentences
    queries: Annotated[int, AtLeast(1)] = 16  # query sentences
    # Sub-words of all languages together, 256 of them bytes; null: 1000 to 8000, as few as keep sentences short.
    vocabulary: Annotated[int, AtLeast(300)] | None = None
    # Sub-words of a sentence; pairs with a longer one are left out. null: so many that 95 % of the pairs stay, at most
    # 64.
    longest: Annotated[int, AtLeast(1)] | None = None
    subwords: Literal["unigram", "bpe"] = "unigram"  # how sub-words are found; bpe: byte-pair encoding
    sentences: Annotated[int, Between(1, 10**9)] | None = None  # lines that are read of each file; null: all
    # Which directions of a pair are tasks; forward: the pair en-de is translated from en to de only.
    directions: Literal["both", "forward"] = "both"
    # Number of topics into which every direction is divided; null: it is not.
    topics: Annotated[int, Between(2, 1000)] | None = None
    holdout: Literal["pairs", "reverse", "sentences", "topics"] = "pairs"  # what training does not see
    # Whether a sentence is held out with its translations into all languages. null: where files of languages are
    # aligned.
    whole_meanings: bool | None = None
    # Shares of train, validation and test, of the pairs or topics of `holdout`, and of the sentences.
    shares: tuple[Annotated[float, Between(0, 1)], ...] = (0.7, 0.1, 0.2)
    split_seed: Annotated[int, Between(0, 2**32 - 1)] = 0  # seed of what is held out; not the run's seed
    # Share of the probability that the loss of the training spreads evenly over all sub-words.
    label_smoothing: Annotated[float, Between(0, 0.5)] = 0.0

    # What counts in training alone, with what an evaluation has in its place; see `assembly`.
    training_only: ClassVar[Mapping[str, Any]] = {"label_smoothing": 0.0}
    headline: ClassVar[str] = "bleu"  # the metric by which learners are ranked
    # The defaults that older runs were hashed with.
    former_defaults: ClassVar[Mapping[str, Any]] = {"vocabulary": 1000, "longest": 24}

    def __post_init__(self):
        if not self.folder:
            raise ValueError("folder is empty", "give the folder that holds the pairs of languages")
        # The config in the run directory then names the same folder wherever it is read.
        object.__setattr__(self, "folder", str(expand_home(self.folder).absolute()))
        if len(self.shares) != len(SPLITS) or not math.isclose(sum(self.shares), 1):
            raise ValueError("shares takes three numbers that add up to 1: train, validation, test")
        if self.holdout == "reverse" and self.directions == "forward":
            raise ValueError("the reverse direction is no task where directions is forward", "take both")
        if self.holdout == "topics" and self.topics is None:
            raise ValueError("no topics can be held out, because there are none", "set topics, such as 20")
        if self.whole_meanings is False and self.topics is not None:
            raise ValueError("topics are of whole meanings", "leave whole_meanings out")


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
    return Config(str(folder), vocabulary=320, longest=24, holdout="sentences")


def build(config: Config, kept: Mapping[str, Any] | None = None) -> base.TaskFamily:
    """Build the family from the text.

    Its facts are `task`, int32, the index of an ordered pair of languages, `sentence` [example], and `topic`, int32,
    if there are topics.

    Args:
      kept: of the run that was built from the text before; its vocabulary and topics are then taken from it.

    Raises:
      DataError: the text cannot be read, is too little for an episode of training or test or for the vocabulary, or is
        not that of the run.
      CheckpointError: what the run has kept is damaged.
    """
    record = None if kept is None else text_record.read(kept)
    root = Path(config.folder)
    if record is not None and not root.exists():
        what = "there is no such folder, and the text of the training is needed to draw tasks"
        raise DataError(what, config.folder, "say where it is now: task.folder=DIR")
    corpus = sentence_pairs.read(root, config.sentences)
    fingerprint = fingerprints.take_fingerprint(root, corpus.files)
    if record is not None:
        fingerprints.refuse_other(record.fingerprint, fingerprint, config.folder)
    split = sentence_splits.split_corpus(config, corpus, record.topics if record else None)
    sizes = text_sizes.settle(config, corpus, split, record)
    rows = sentence_tables.encode_pairs(sizes, corpus.pairs)
    data = {name: sentence_tables.make_table(rows, tasks) for name, tasks in split.tasks.items() if tasks}
    sentence_tables.check_counts(config, data)
    sentence_tables.warn_of_long_sentences(config, sizes, rows, split)
    if record is None:
        record = Record(
            vocabulary=sizes.vocabulary,
            longest=sizes.longest,
            groups=split.name_groups(corpus.pairs),
            topics=split.topics,
            fingerprint=fingerprint,
            files=tuple(file.relative_to(root).as_posix() for file in corpus.files),
            options=list_settled_options(config, sizes),
            shapes=text_record.describe_shapes(data),
            says=sentence_splits.describe(config, split, data),
        )
        logger.info("%s: %s", config.folder, "; ".join(record.says))
    return make_family(config, data, record)


def outline(config: Config, kept: Mapping[str, Any] | None = None) -> base.TaskFamily:
    """Build the family without the text, from what a run has kept. Without it, or in a new run, the text is needed.

    Raises:
      DataError: as `build`, if nothing is kept.
      CheckpointError: what the run has kept is damaged.
    """
    if kept is None:
        return build(config)
    record = text_record.read(kept)
    warn_of_other_text(config, record)
    return make_family(config, text_record.outline_data(record), record)


def warn_of_other_text(config: Config, record: Record) -> None:
    """Warn if the text is there, and is not that of the training. Text that is not there is not needed."""
    root = Path(config.folder)
    files = [root / name for name in record.files]
    # Unlike Path.is_file, it answers for a folder that may not be looked into, such as a colleague's.
    regular = list(map(os.path.isfile, files))
    if any(regular) and (not all(regular) or fingerprints.differ(root, files, record.fingerprint)):
        logger.warning("%s has changed since the training; the run goes by what it has kept", config.folder)


def list_settled_options(config: Config, sizes: text_sizes.Sizes) -> dict[str, Any]:
    """Return the folder, and the options that the text has settled; see `base.TaskFamily.kept`."""
    chosen = {"vocabulary": sizes.vocabulary.size, "longest": sizes.longest}
    settled = {name: value for name, value in chosen.items() if getattr(config, name) is None}
    return {"folder": config.folder, **settled}


def make_family(config: Config, data: Mapping[str, Any], record: Record) -> base.TaskFamily:
    """Make the family from its data, or from the shapes of its data."""
    vocabulary, length = record.vocabulary, record.longest + 1

    def spell(tokens) -> list[str]:
        return vocabulary.decode([_sentences.unpack(row) for row in np.asarray(tokens)])

    fact = "task" if config.topics is None else "topic"
    spec = base.Spec((length,), vocabulary.size, "tokens", vocabulary.size)
    return base.TaskFamily(
        data,
        make_sample(config),
        base.Problem(spec, _sentences.make_objective(spell, "13a", config.label_smoothing)),
        _sentences.make_draw(spell),
        base.Groups(record.groups, lambda facts: facts[fact]),
        _sentences.make_form(spell, lambda text: vocabulary.encode([text])[0], length),
        baselines=_copied_targets.make_baselines(spell, _sentences.make_text_score("13a")),
        kept=text_record.write(record),
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
        if config.topics is not None:
            facts["topic"] = data["topic"][task]
        return base.Episode(support, query, facts)

    return sample
