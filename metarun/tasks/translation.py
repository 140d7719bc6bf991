"""Translation between two of many small made-up languages, from a few pairs of sentences.

A world of languages follows from `world_seed` (see `_language`): they share concepts and, in part, words, and differ in
the words that they choose, the order of subject, verb and object, of adjective and noun, in how tense and place are
marked. A task is an ordered pair of languages. Nothing names the languages: that a translation should be in *this* one,
and what its words and orders are, only the support says. What no learner has met in training:

    pairs       both directions of some pairs of languages
    reverse     one direction of some pairs, whose other direction is trained (English to Chinese, then back)
    languages   some languages altogether; their pairs with those of training

In all three no sentence of a test episode means what a sentence of training does.

With `misaligned` some sentences of training stand beside the translation of another one, as in corpora that a machine
collected (Khayrallah, Koehn 2018, arXiv 1805.12282). Validation and test have none of these.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from metarun import base
from metarun.ranges import AtLeast, Between
from metarun.tasks import _language, _sentences

SPLITS = ("train", "validation", "test")
GROUPS = ("from a new language", "into a new language", "between known languages")
Share = Annotated[float, Between(0, 1)]


@dataclass(frozen=True)
class Config:
    """The world, what is held out of it, and how much of it a learner sees."""

    shots: Annotated[int, AtLeast(1)] = 16  # support sentences
    queries: Annotated[int, AtLeast(1)] = 16  # query sentences
    languages: Annotated[int, AtLeast(3)] = 24  # of the world
    orders: tuple[Literal["SVO", "SOV", "VSO", "VOS", "OVS", "OSV"], ...] = (
        "SVO",
        "SOV",
        "VSO",
    )  # a language has one of these; the three most frequent of mankind's
    forms: Annotated[int, AtLeast(1)] = 3  # words that the world has for a concept; a language takes one
    shared: Share = 0.4  # probability that it takes the same as most; else any other
    nouns: Annotated[int, AtLeast(1)] = 10  # concepts that are subjects and objects
    verbs: Annotated[int, AtLeast(1)] = 6  # concepts that subjects do to objects
    adjectives: Annotated[int, AtLeast(1)] = 4  # concepts that describe nouns
    places: Annotated[int, AtLeast(1)] = 3  # concepts with a preposition or postposition
    times: Annotated[int, AtLeast(1)] = 3  # concepts of one word
    adjective_rate: Share = 0.3  # probability that a noun has an adjective
    phrase_rate: Annotated[float, Between(0, 0.5)] = 0.2  # of a place in a sentence, and of a time
    sentences: Annotated[int, AtLeast(10)] = 4000  # different meanings, each said in every language
    misaligned: Share = (
        0.0  # probability that a sentence of training stands beside the translation of another
    )
    holdout: Literal["pairs", "reverse", "languages"] = "pairs"  # what training does not see
    held_out: tuple[Share, Share] = (0.1, 0.2)  # shares of validation and test, of those and of the sentences
    world_seed: Annotated[int, Between(0, 2**32 - 1)] = 0  # of languages and sentences; not the run's seed
    split_seed: Annotated[int, Between(0, 2**32 - 1)] = 0  # of what is held out; not the run's seed

    def __post_init__(self):
        if not self.orders:
            raise ValueError("orders is empty", "give at least one, for example [SVO, SOV]")
        if sum(self.held_out) >= 1:
            raise ValueError(f"held_out {self.held_out} leaves nothing for training")


def build(config: Config) -> base.TaskFamily:
    """The family; its facts are `source` and `target`, int32 numbers of languages, and `sentence`, int32 [example].

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

    def sample(part, key) -> base.Episode:
        pair_key, sentence_key = jax.random.split(key)
        source, target = part["pair"][jax.random.randint(pair_key, (), 0, part["pair"].shape[0])]
        scores = jax.random.uniform(sentence_key, part["sentence"].shape)
        rows = jax.lax.top_k(scores, config.shots + config.queries)[1]
        beside = misalign(sentence_key, rows, part) if "misaligned" in part else rows
        support, query = (
            _sentences.examples(part["corpus"][source, rows[some]], part["corpus"][target, beside[some]])
            for some in (slice(config.shots), slice(config.shots, None))
        )
        return base.Episode(
            support, query, {"source": source, "target": target, "sentence": part["sentence"][rows]}
        )

    def spell(tokens) -> list[str]:
        return _language.spell(world.vocabulary, np.asarray(tokens))

    length, vocabulary = world.corpus.shape[2], len(world.vocabulary)
    return base.TaskFamily(
        data,
        sample,
        _sentences.objective(spell, "none"),
        base.Spec((length,), vocabulary, vocabulary),
        _sentences.make_draw(spell),
        make_groups(config, pairs["train"]) if config.holdout == "languages" else None,
        _sentences.make_form(spell, lambda text: _language.read(world.vocabulary, text), length),
    )


def misalign(key, rows: Int[Array, "example"], part) -> Int[Array, "example"]:
    """The rows, some of them in exchange for any row of the split."""
    which_key, row_key = jax.random.split(jax.random.fold_in(key, 1))  # the key itself has drawn the rows
    wrong = jax.random.bernoulli(which_key, part["misaligned"], rows.shape)
    return jnp.where(wrong, jax.random.randint(row_key, rows.shape, 0, part["sentence"].shape[0]), rows)


def make_world(config: Config) -> _language.World:
    """The languages, their words and all their sentences."""
    sizes = _language.Sizes(config.nouns, config.verbs, config.adjectives, config.places, config.times)
    return _language.make_world(
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
    """Whether a pair leads from or into a language that no pair of training has."""
    new = np.isin(np.arange(config.languages), trained, invert=True)

    def index(facts):
        of_source, of_target = jnp.asarray(new)[facts["source"]], jnp.asarray(new)[facts["target"]]
        return jnp.where(of_target, 1, jnp.where(of_source, 0, 2)).astype(jnp.int32)

    return base.Groups(GROUPS, index)


def split_pairs(config: Config) -> dict[str, np.ndarray]:
    """{split: int32 [pair, 2]}: the ordered pairs of languages, source and target; a function of the split's fields.

    Raises:
      ValueError: nothing is left for training or test.
    """
    generator = np.random.default_rng((config.split_seed, 0))
    if config.holdout == "languages":
        parts = language_pairs(config, generator.permutation(config.languages))
    else:
        first, second = np.triu_indices(config.languages, 1)
        forward = np.stack([first, second], axis=1)
        forward = np.where(generator.random((len(forward), 1)) < 0.5, forward, forward[:, ::-1])
        forward = generator.permutation(forward)
        validation, test = cut(len(forward), config.held_out)
        held = [forward[:validation], forward[validation : validation + test]]
        rest = forward[validation + test :]
        if config.holdout == "pairs":
            parts = [np.concatenate([part, part[:, ::-1]]) for part in (rest, *held)]
        else:
            parts = [np.concatenate([rest, rest[:, ::-1], *held]), *(part[:, ::-1] for part in held)]
    for name, part in zip(SPLITS, parts, strict=True):
        if not len(part) and name != "validation":
            raise ValueError(
                f"no pair of languages is left for {name}", "take more languages or other held_out"
            )
    return {name: part.astype(np.int32) for name, part in zip(SPLITS, parts, strict=True)}


def language_pairs(config: Config, order: np.ndarray) -> list[np.ndarray]:
    """The pairs of training languages; of each held-out language with each of them, in both directions."""
    validation, test = cut(config.languages, config.held_out)
    held, known = (order[:validation], order[validation : validation + test]), order[validation + test :]
    between = [(source, target) for source in known for target in known if source != target]
    beyond = [[pair for new in part for old in known for pair in ((new, old), (old, new))] for part in held]
    return [np.array(part, np.int64).reshape(-1, 2) for part in (between, *beyond)]


def split_sentences(config: Config) -> dict[str, np.ndarray]:
    """{split: int32 [sentence]}, sorted; a function of the split's own fields alone.

    Raises:
      ValueError: a split has fewer sentences than an episode.
    """
    generator = np.random.default_rng((config.split_seed, 1))
    validation, test = cut(config.sentences, config.held_out)
    order = generator.permutation(config.sentences).astype(np.int32)
    parts = np.split(order, [config.sentences - validation - test, config.sentences - test])
    wanted = config.shots + config.queries
    for name, part in zip(SPLITS, parts, strict=True):
        if len(part) < wanted and not (name == "validation" and not len(part)):
            raise ValueError(
                f"an episode needs {wanted} sentences, the {name} split has {len(part)}",
                "raise sentences or held_out, or lower shots and queries",
            )
    return {name: np.sort(part) for name, part in zip(SPLITS, parts, strict=True)}


def cut(count: int, shares: tuple[float, float]) -> tuple[int, int]:
    """How many of `count` go to validation and to test: rounded, at least one where the share is not zero."""
    validation, test = (max(1, round(share * count)) if share else 0 for share in shares)
    return validation, test
