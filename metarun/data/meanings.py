"""Which sentences of a corpus mean the same, in whatever languages, so that a split can hold out whole meanings."""

import itertools
from collections.abc import Hashable

import numpy as np
from jaxtyping import Int

from metarun.data.sentence_pairs import Corpus


def number_meanings(corpus: Corpus) -> list[Int[np.ndarray, "sentence"]]:
    """Return the meaning of each sentence of each pair, numbered from 0 in their order.

    Two sentences have one meaning if they come from one line of aligned files, if they are the same text of the same
    language, or over others that share one of these with both. Lines that are left out of a pair, because one of their
    sentences is there already, count here, too: they say that their sentences mean the same.
    """
    places: dict[Hashable, int] = {}
    parents: list[int] = []

    def find(thing: Hashable) -> int:
        node = places.setdefault(thing, len(parents))
        if node == len(parents):
            parents.append(node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    line = itertools.count()
    for group in corpus.groups:
        for texts in zip(*group.columns, strict=True):
            number = next(line)
            for language, text in zip(group.languages, texts, strict=True):
                if text:
                    low, high = sorted((find(number), find((language, text))))
                    parents[high] = low
    numbers: dict[int, int] = {}
    return [
        np.array([numbers.setdefault(find(line), len(numbers)) for line in pair.lines], np.int64)
        for pair in corpus.pairs
    ]
