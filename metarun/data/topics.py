"""Topics of sentences: clusters of their words, found in some sentences and given to all.

Spherical k-means (Dhillon and Modha 2001) of tf-idf vectors of words, which are lower case and have a rate of their own
per sentence. It is a function of the sentences, their number and the seed, up to the rounding of sums.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

MOST_WORDS = 1000  # that count, the most frequent ones first
LEAST_SENTENCES = 3  # that have a word which counts
MOST_SHARE = 0.5  # of the sentences that have a word which counts; others are like `a`
MOST_LEARNED = 20_000  # sentences that clusters are found in
ROUNDS = 30  # at most; usually fewer change nothing any more
BATCH = 4096  # sentences whose vectors are in memory at once
NAMED_WORDS = 3

_WORD = re.compile(r"\w{2,}")


class Topics(NamedTuple):
    """The topic of each sentence."""

    labels: Int[np.ndarray, "sentence"]
    names: tuple[str, ...]  # of each topic, its words


def find_topics(texts: Sequence[str], learned: Sequence[int], count: int, seed: int) -> Topics:
    """Return the topics of sentences.

    Args:
      learned: places of the sentences that the clusters are found in, such as those of the training.
      count: of the topics.
      seed: of the sentences that the clusters begin at.

    Raises:
      ValueError: there are fewer different sentences than topics.
    """
    generator = np.random.default_rng(seed)
    chosen = np.asarray(learned)[np.sort(generator.permutation(len(learned))[:MOST_LEARNED])]
    words = choose_words([texts[place] for place in chosen])
    weights = np.log(len(chosen) / np.array([max(number, 1) for number in words.values()]))
    places = {word: place for place, word in enumerate(words)}

    def embed(place_list: Sequence[int]) -> Float[np.ndarray, "sentence word"]:
        return make_vectors([texts[place] for place in place_list], places, weights)

    centers = find_centers(embed(chosen.tolist()), count, generator)
    blocks = [range(start, min(start + BATCH, len(texts))) for start in range(0, len(texts), BATCH)]
    labels = np.concatenate([np.argmax(embed(list(block)) @ centers.T, axis=1) for block in blocks])
    listed = list(words)
    names = [", ".join(listed[word] for word in np.argsort(-center)[:NAMED_WORDS]) for center in centers]
    return Topics(labels, tuple(names))


def choose_words(texts: Sequence[str]) -> dict[str, int]:
    """Return {word: sentences that have it} of the words that count, the most frequent first."""
    counts = Counter(word for text in texts for word in set(_WORD.findall(text.lower())))
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    usable = [(word, n) for word, n in frequent if LEAST_SENTENCES <= n <= MOST_SHARE * len(texts)]
    return dict((usable or frequent)[:MOST_WORDS])


def make_vectors(
    texts: Sequence[str], places: dict[str, int], weights: Float[np.ndarray, "word"]
) -> Float[np.ndarray, "sentence word"]:
    """Return unit vectors of weighted words; zeros for a sentence without a word that counts."""
    vectors = np.zeros((len(texts), len(places)), np.float32)
    for row, text in enumerate(texts):
        known = [places[word] for word in _WORD.findall(text.lower()) if word in places]
        np.add.at(vectors[row], known, 1.0)
    vectors *= weights.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def find_centers(
    vectors: Float[np.ndarray, "sentence word"], count: int, generator: np.random.Generator
) -> Float[np.ndarray, "topic word"]:
    """Return the unit vectors at the middle of clusters. A cluster that runs empty keeps its center."""
    candidates = np.unique(vectors, axis=0, return_index=True)[1]
    if len(candidates) < count:
        raise ValueError(
            f"there are {len(candidates)} different sentences for {count} topics", "take fewer topics"
        )
    centers = vectors[generator.permutation(np.sort(candidates))[:count]]
    labels = np.full(len(vectors), -1)
    for _ in range(ROUNDS):
        nearest = np.argmax(vectors @ centers.T, axis=1)
        if (nearest == labels).all():
            break
        labels = nearest
        sums = (labels[:, None] == np.arange(count)).astype(np.float32).T @ vectors
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centers = np.where(lengths > 0, sums / np.where(lengths > 0, lengths, 1), centers)
    return centers
