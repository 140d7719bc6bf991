"""The simplest translator: it answers with the target of the support sentence that is most like the query.

It learns nothing beyond the support, so a trained learner should be above it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from metarun import base

RULE = "copy of the nearest support target"

Rows = Int[np.ndarray, "example token"]


def make_baselines(
    spell: Callable[[Any], list[str]], score: Callable[[list[str], list[str]], dict[str, float]]
) -> Callable:
    """Make `base.TaskFamily.baselines`.

    Args:
      spell: tokens [example, token] -> sentences.
      score: (translations, references) -> {metric: value} of one episode.
    """

    def measure(data: base.PyTree, episodes: base.Episode) -> dict[str, Mapping[str, np.ndarray]]:
        support, query = episodes.support, episodes.query
        values = []
        for place in range(len(query.targets)):
            nearest = find_nearest(query.inputs["source"][place], support.inputs["source"][place])
            values.append(score(spell(support.targets[place][nearest]), spell(query.targets[place])))
        return {RULE: {name: np.array([value[name] for value in values]) for name in values[0]}}

    return measure


def find_nearest(queries: Int[np.ndarray, "query token"], support: Rows) -> Int[np.ndarray, "query"]:
    """Return the place of the support sentence nearest to each query; the first of several that are as near.

    Near is a large cosine between the counts of tokens, each weighted by how few support sentences have the token
    (tf-idf; Salton and Buckley 1988).
    """
    size = int(max(queries.max(initial=0), support.max(initial=0))) + 1
    counts = [count_tokens(rows, size) for rows in (queries, support)]
    rarity = np.log((1 + len(support)) / (1 + (counts[1] > 0).sum(axis=0))) + 1
    unit_queries, unit_support = (normalise(count * rarity) for count in counts)
    return np.argmax(unit_queries @ unit_support.T, axis=1)


def count_tokens(rows: Rows, size: int) -> Float[np.ndarray, "example vocabulary"]:
    """Return how often each row has each token, without END and padding."""
    counts = np.zeros((len(rows), size))
    np.add.at(counts, (np.arange(len(rows))[:, None], rows), 1)
    counts[:, [token for token in (base.PAD, base.BEGIN, base.END) if token < size]] = 0
    return counts


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of length 1; a vector of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
