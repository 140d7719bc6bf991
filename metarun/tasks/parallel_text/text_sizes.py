"""The vocabulary of a corpus and the length of its sentences: those of the config, or chosen from the training text."""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from metarun.data import subwords
from metarun.data.sentence_pairs import Corpus
from metarun.data.subwords import Subwords
from metarun.errors import DataError
from metarun.tasks.parallel_text.sentence_splits import Split
from metarun.tasks.parallel_text.text_record import Record

if TYPE_CHECKING:
    from metarun.tasks.parallel_text import Config

VOCABULARIES = (1000, 2000, 4000, 8000)  # that are tried in turn
KEPT = 0.95  # share of the pairs of sentences that should not be too long
COMFORTABLE = 48  # sub-words that this share may need before a larger vocabulary is tried
MOST_TOKENS = 64  # of a sentence, if the length is chosen

Tokens = dict[str, list[int]]  # of each text


class Sizes(NamedTuple):
    """A vocabulary, and the number of sub-words that a sentence may have."""

    vocabulary: Subwords
    longest: int
    tokens: Tokens  # of the texts that were encoded to choose them


def settle(config: "Config", corpus: Corpus, split: Split, record: Record | None) -> Sizes:
    """Return the sizes that a run has kept, or else those of the config, or else the ones that suit the training text.

    Raises:
      DataError: there is no training text, or it is too little for the vocabulary.
    """
    if record is not None:
        return Sizes(record.vocabulary, record.longest, {})
    rows = list_training_rows(corpus, split)
    texts = [text for row in rows for text in row]
    if not texts:
        remedy = "add pairs of languages, change task.shares, or take task.holdout=sentences"
        raise DataError("no sentence is left for training", config.folder, remedy)
    if split.whole_meanings:  # a sentence stands in several pairs there, and counts once
        texts = list(dict.fromkeys(texts))
    sizes = VOCABULARIES if config.vocabulary is None else (config.vocabulary,)
    wanted = config.longest or COMFORTABLE
    for size in sizes:
        try:
            vocabulary = subwords.learn(texts, size, config.subwords)
        except ValueError as error:
            if size != sizes[-1]:
                continue
            what, remedy = map(str, error.args)
            raise DataError(what, config.folder, f"{remedy} (task.vocabulary)") from error
        settled = measure(config, vocabulary, rows, texts)
        if size == sizes[-1] or vocabulary.size < size or find_length(settled.tokens, rows) <= wanted:
            return settled
    raise AssertionError("the last vocabulary is taken or refused")


def measure(config: "Config", vocabulary: Subwords, rows: list[tuple[str, str]], texts: list[str]) -> Sizes:
    """Return a vocabulary with the length that is configured, or that suits the rows."""
    tokens = dict(zip(texts, vocabulary.encode(texts), strict=True))
    longest = config.longest or max(1, min(find_length(tokens, rows), MOST_TOKENS))
    return Sizes(vocabulary, longest, tokens)


def find_length(tokens: Tokens, rows: list[tuple[str, str]]) -> int:
    """Return how many sub-words the longer sentence has in all but 5 % of the rows."""
    lengths = np.sort([max(len(tokens[source]), len(tokens[target])) for source, target in rows])
    return int(lengths[math.ceil(KEPT * len(lengths)) - 1])


def list_training_rows(corpus: Corpus, split: Split) -> list[tuple[str, str]]:
    """Return the (source, target) of the training, each once, in the order of the corpus."""
    used = sorted({(task.pair, index) for task in split.tasks["train"] for index in task.sentences.tolist()})
    return [(corpus.pairs[pair].sources[index], corpus.pairs[pair].targets[index]) for pair, index in used]
