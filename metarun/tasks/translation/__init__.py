"""Translation between two of many small made-up languages, from a few pairs of sentences.

A world of languages follows from `world_seed`; see `language_world`. The languages share concepts and some words. They
differ in the words that they choose, in the order of subject, verb and object, in the order of adjective and noun, and
in the marks of tense and place. A task is an ordered pair of languages. Only the support says which languages these
are, and with it their words and orders. `holdout` says what training does not see:

    pairs       both directions of some pairs of languages
    reverse     one direction of some pairs; the other direction is trained (English to Chinese, then back)
    languages   some languages altogether; test pairs them with the languages of training

With each of the three, no sentence of a test episode has the meaning of a sentence of training.

With `misaligned`, some sentences of training stand beside the translation of another sentence, as in corpora that a
machine has collected (Khayrallah, Koehn 2018, arXiv 1805.12282). Validation and test have no such sentences.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from metarun import base
from metarun.ranges import AtLeast, Between
from metarun.tasks import _sentences
from metarun.tasks.translation import language_world

SPLITS = ("train", "validation", "test")
GROUPS = ("from a new language", "into a new language", "between known languages")
Share = Annotated[float, Between(0, 1)]
Order = Literal["SVO", "SOV", "VSO", "VOS", "OVS", "OSV"]


@dataclass(frozen=True)
class Config:
    """The world, what is held out of it, and how much of it a learner sees."""

    shots: Annotated[int, AtLeast(1)] = 16  # support sentences
    queries: Annotated[int, AtLeast(1)] = 16  # query sentences
    languages: Annotated[int, AtLeast(3)] = 24  # languages of the world
    # The orders of subject, verb and object; each language has one of them. Most human languages have one of the
    # default orders.
    orders: tuple[Order, ...] = ("SVO", "SOV", "VSO")
    forms: Annotated[int, AtLeast(1)] = 3  # words that the world has for a concept; a language takes one
    shared: Share = 0.4  # probability that a language takes the first of these words; otherwise any other
    nouns: Annotated[int, AtLeast(1)] = 10  # concepts that are subjects and objects
    verbs: Annotated[int, AtLeast(1)] = 6  # concepts that subjects do to objects
    adjectives: Annotated[int, AtLeast(1)] = 4  # concepts that describe nouns
    places: Annotated[int, AtLeast(1)] = 3  # concepts with a preposition or postposition
    times: Annotated[int, AtLeast(1)] = 3  # concepts of one word
    adjective_rate: Share = 0.3  # probability that a noun has an adjective
    # Probability of a place in a sentence, and of a time.
    phrase_rate: Annotated[float, Between(0, 0.5)] = 0.2
    # Different meanings; every language has a sentence for each.
    sentences: Annotated[int, AtLeast(10)] = 4000
    misaligned: Share = 0.0  # probability that a training sentence stands beside the translation of another
    holdout: Literal["pairs", "reverse", "languages"] = "pairs"  # what training does not see
    # Shares of validation and of test, both of the pairs or languages of `holdout` and of the sentences.
    held_out: tuple[Share, Share] = (0.1, 0.2)
    # Seed of languages and sentences; not the run's seed.
    world_seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    split_seed: Annotated[int, Between(0, 2**32 - 1)] = 0  # seed of what is held out; not the run's seed

    headline: ClassVar[str] = "bleu"  # the metric by which learners are ranked

    def __post_init__(self):
        if not self.orders:
            raise ValueError("orders is empty", "give at least one, for example [SVO, SOV]")
        if sum(self.held_out) >= 1:
            raise ValueError(f"held_out {self.held_out} leaves nothing for training")


def build(config: Config) -> base.TaskFamily:
    """Build the family.

    Its facts are `source` and `target`, int32 numbers of languages, and `sentence`, int32 [example].

    Raises:
      ValueError: the grammar has too few sentences, or a split too few languages, pairs or sentences.
    """
    world = make_world(config)
    pairs, sentences = split_pairs(config), split_sentences(config)
    data: dict[str, dict[str, Any]] = {
        name: {"corpus": world.corpus[:, sentences[name]], "sentence": sentences[name], "pair": pairs[name]}
        for name in SPLITS
        if len(pairs[name])
    }
    if config.misaligned:
        data["train"]["misaligned"] = np.float32(config.misaligned)

    def spell(tokens) -> list[str]:
        return language_world.spell(world.vocabulary, np.asarray(tokens))

    length, vocabulary = world.corpus.shape[2], len(world.vocabulary)
    spec = base.Spec((length,), vocabulary, "tokens", vocabulary)
    return base.TaskFamily(
        data,
        make_sample(config),
        base.Problem(spec, _sentences.make_objective(spell, "none")),
        _sentences.make_draw(spell),
        make_groups(config, pairs["train"]) if config.holdout == "languages" else None,
        _sentences.make_form(spell, lambda text: language_world.read(world.vocabulary, text), length),
    )


def make_sample(config: Config) -> Callable:
    """Make the sampler of episodes; see `base.TaskFamily`."""

    def sample(data, key) -> base.Episode:
        pair_key, sentence_key = jax.random.split(key)
        source, target = data["pair"][jax.random.randint(pair_key, (), 0, data["pair"].shape[0])]
        scores = jax.random.uniform(sentence_key, data["sentence"].shape)
        rows = jax.lax.top_k(scores, config.shots + config.queries)[1]
        translations = misalign(sentence_key, rows, data) if "misaligned" in data else rows
        support, query = (
            _sentences.pair_up(
                data["corpus"][source, rows[places]], data["corpus"][target, translations[places]]
            )
            for places in (slice(config.shots), slice(config.shots, None))
        )
        facts = {"source": source, "target": target, "sentence": data["sentence"][rows]}
        return base.Episode(support, query, facts)

    return sample


def misalign(key, rows: Int[Array, "example"], data) -> Int[Array, "example"]:
    """Replace some of the rows by any row of the split."""
    which_key, row_key = jax.random.split(jax.random.fold_in(key, 1))  # the key itself has drawn the rows
    wrong = jax.random.bernoulli(which_key, data["misaligned"], rows.shape)
    return jnp.where(wrong, jax.random.randint(row_key, rows.shape, 0, data["sentence"].shape[0]), rows)


def make_world(config: Config) -> language_world.World:
    """Make the languages, their words and all their sentences."""
    sizes = language_world.Sizes(config.nouns, config.verbs, config.adjectives, config.places, config.times)
    return language_world.make_world(
        config.world_seed,
        sizes,
        config.languages,
        config.orders,
        config.forms,
        config.shared,
        config.adjective_rate,
        config.phrase_rate,
        config.sentences,
    )


def make_groups(config: Config, trained: np.ndarray) -> base.Groups:
    """Group pairs by whether they lead from or into a language that no pair of training has."""
    new = np.isin(np.arange(config.languages), trained, invert=True)

    def locate(facts):
        new_source, new_target = jnp.asarray(new)[facts["source"]], jnp.asarray(new)[facts["target"]]
        return jnp.where(new_target, 1, jnp.where(new_source, 0, 2)).astype(jnp.int32)

    return base.Groups(GROUPS, locate)


def split_pairs(config: Config) -> dict[str, np.ndarray]:
    """Return {split: int32 [pair, 2]}, ordered pairs of a source and a target language.

    They depend on `languages`, `holdout`, `held_out` and `split_seed` alone.

    Raises:
      ValueError: no pair is left for training or for test.
    """
    generator = np.random.default_rng((config.split_seed, 0))
    if config.holdout == "languages":
        pairs = pair_languages(config, generator.permutation(config.languages))
    else:
        first, second = np.triu_indices(config.languages, 1)
        forward = np.stack([first, second], axis=1)
        forward = np.where(generator.random((len(forward), 1)) < 0.5, forward, forward[:, ::-1])
        forward = generator.permutation(forward)
        validation, test = count_held_out(len(forward), config.held_out)
        held_out = [forward[:validation], forward[validation : validation + test]]
        rest = forward[validation + test :]
        if config.holdout == "pairs":
            pairs = [np.concatenate([chosen, chosen[:, ::-1]]) for chosen in (rest, *held_out)]
        else:
            pairs = [
                np.concatenate([rest, rest[:, ::-1], *held_out]),
                *(chosen[:, ::-1] for chosen in held_out),
            ]
    for name, chosen in zip(SPLITS, pairs, strict=True):
        if not len(chosen) and name != "validation":
            what = f"no pair of languages is left for {name}"
            raise ValueError(what, "take more languages or other held_out")
    return {name: chosen.astype(np.int32) for name, chosen in zip(SPLITS, pairs, strict=True)}


def pair_languages(config: Config, order: np.ndarray) -> list[np.ndarray]:
    """Return the pairs of training languages; then, for validation and for test, new languages paired with these."""
    validation, test = count_held_out(config.languages, config.held_out)
    new_languages, known = (
        (order[:validation], order[validation : validation + test]),
        order[validation + test :],
    )
    between = [(source, target) for source in known for target in known if source != target]
    beyond = [
        [pair for new in languages for old in known for pair in ((new, old), (old, new))]
        for languages in new_languages
    ]
    return [np.array(pairs, np.int64).reshape(-1, 2) for pairs in (between, *beyond)]


def split_sentences(config: Config) -> dict[str, np.ndarray]:
    """Return {split: int32 [sentence]}, sorted. They depend on `sentences`, `held_out` and `split_seed` alone.

    Raises:
      ValueError: a split has fewer sentences than an episode.
    """
    generator = np.random.default_rng((config.split_seed, 1))
    validation, test = count_held_out(config.sentences, config.held_out)
    order = generator.permutation(config.sentences).astype(np.int32)
    blocks = np.split(order, [config.sentences - validation - test, config.sentences - test])
    needed = config.shots + config.queries
    for name, block in zip(SPLITS, blocks, strict=True):
        if len(block) < needed and not (name == "validation" and not len(block)):
            raise ValueError(
                f"an episode needs {needed} sentences, the {name} split has {len(block)}",
                "raise sentences or held_out, or lower shots and queries",
            )
    return {name: np.sort(block) for name, block in zip(SPLITS, blocks, strict=True)}


def count_held_out(count: int, shares: tuple[float, float]) -> tuple[int, int]:
    """Return how many of `count` go to validation and to test, rounded, and at least one if the share is not zero."""
    validation, test = (max(1, round(share * count)) if share else 0 for share in shares)
    return validation, test
