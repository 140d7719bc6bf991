"""A world of small languages: the sentences that all of them can say, and the way in which each says them.

A meaning fills the slots of one grammar: a subject and an object (determiner, perhaps an adjective, noun, number), a
verb with its tense, perhaps a place or a time. A language has one word for each concept, out of the few that the world
has for it, and an order and a form for each part of the sentence. All follows from a seed, with numpy alone.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from metarun.tasks import _sentences

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
MARKERS = ("plural", "agreement", "past_suffix", "future_suffix", "past_particle", "future_particle")
SUFFIXES = ("plural", "agreement", "past_suffix", "future_suffix")  # written behind a hyphen
TENSES = ("present", "past", "future")  # the present has no marker


class Sizes(NamedTuple):
    """The number of concepts of each kind."""

    nouns: int
    verbs: int
    adjectives: int
    places: int
    times: int


class Language(NamedTuple):
    """The words and habits of one language."""

    words: Int[np.ndarray, "concept"]  # the token of each concept
    order: str  # the order of subject, verb and object: "SVO"
    adjective_first: bool  # an adjective stands before its noun
    particles: bool  # tense is a word before the verb, not a suffix of it
    preposition: bool  # the word `at` stands before its place, not after it
    phrase_first: bool  # a place or a time opens the sentence; otherwise it closes the sentence
    agreement: bool  # the verb has a suffix if the subject is plural


class World(NamedTuple):
    """All languages, and every sentence in each of them."""

    vocabulary: tuple[str, ...]  # the text of each token; suffixes begin with a hyphen
    languages: tuple[Language, ...]
    corpus: Int[np.ndarray, "language sentence token"]  # row s means the same in every language


def list_concepts(sizes: Sizes) -> list[str]:
    """Return the names of all concepts: the kind and its number."""
    numbered = [f"{kind[:-1]}{index}" for kind, count in sizes._asdict().items() for index in range(count)]
    return ["the", "a", "at", *MARKERS, *numbered]


def make_world(
    seed: int,
    sizes: Sizes,
    languages: int,
    orders: tuple[str, ...],
    forms: int,
    shared: float,
    adjective_rate: float,
    phrase_rate: float,
    sentences: int,
) -> World:
    """Make the world of a seed.

    Args:
      orders: the orders that a language may have, such as "SVO".
      forms: how many words the world has for each concept.
      shared: the probability that a language takes the first of these words; otherwise it takes any other.
      adjective_rate: the probability that a noun has an adjective.
      phrase_rate: the probability that a sentence has a place, and the probability that it has a time; never both.
      sentences: how many different meanings there are.

    Raises:
      ValueError: the grammar has fewer different sentences.
    """
    generator = np.random.default_rng(seed)
    names = list_concepts(sizes)
    vocabulary = make_vocabulary(generator, names, forms)
    speakers = tuple(make_language(generator, names, orders, forms, shared) for _ in range(languages))
    meanings = make_meanings(generator, sizes, adjective_rate, phrase_rate, sentences)
    rows = [render(language, names, meanings) for language in speakers]
    return World(vocabulary, speakers, align(rows))


def make_vocabulary(generator: np.random.Generator, names: list[str], forms: int) -> tuple[str, ...]:
    """Make the text of each token: the special ones, then `forms` words for each concept, all different."""
    words: list[str] = ["<pad>", "<begin>", "<end>"]
    used: set[str] = set()
    for name in names:
        syllables = 1 if name in MARKERS else 2
        for _ in range(forms):
            while (word := make_word(generator, syllables)) in used:
                syllables += generator.random() < 0.1  # a large world has more concepts than short words
            used.add(word)
            words.append(f"-{word}" if name in SUFFIXES else word)
    return tuple(words)


def make_word(generator: np.random.Generator, syllables: int) -> str:
    """Make a word that can be pronounced, like `talu`."""
    letters = (generator.choice(list(kind)) for _ in range(syllables) for kind in (CONSONANTS, VOWELS))
    return "".join(letters)


def make_language(
    generator: np.random.Generator, names: list[str], orders: tuple[str, ...], forms: int, shared: float
) -> Language:
    """Make a language: a word for each concept, an order and five habits, all independent of each other."""
    takes_first = generator.random(len(names)) < shared
    alternatives = generator.integers(min(1, forms - 1), forms, len(names))
    forms_taken = np.where(takes_first, 0, alternatives)
    words = _sentences.SPECIAL + np.arange(len(names)) * forms + forms_taken
    order = orders[generator.integers(len(orders))]
    return Language(words, order, *(bool(habit) for habit in generator.integers(0, 2, 5)))


def make_meanings(
    generator: np.random.Generator, sizes: Sizes, adjective_rate: float, phrase_rate: float, count: int
) -> dict[str, np.ndarray]:
    """Return {slot: [sentence]}, the concept of its kind that fills the slot, or −1. All sentences differ."""

    def draw_slots(number: int) -> dict[str, np.ndarray]:
        def draw_concepts(kinds: int, rate: float = 1.0):
            return np.where(generator.random(number) < rate, generator.integers(0, kinds, number), -1)

        phrase = generator.random(number)
        slots = {"verb": draw_concepts(sizes.verbs), "tense": draw_concepts(len(TENSES))}
        slots["place"] = np.where(phrase < phrase_rate, draw_concepts(sizes.places), -1)
        slots["time"] = np.where(phrase >= 1 - phrase_rate, draw_concepts(sizes.times), -1)
        for role in ("subject", "object"):
            slots |= {
                f"{role}_noun": draw_concepts(sizes.nouns),
                f"{role}_adjective": draw_concepts(sizes.adjectives, adjective_rate),
            }
            slots |= {f"{role}_determiner": draw_concepts(2), f"{role}_plural": draw_concepts(2)}
        return slots

    slots = draw_slots(4 * count)
    table = np.stack(list(slots.values()), axis=1)
    _, first = np.unique(table, axis=0, return_index=True)
    if len(first) < count:
        what = f"this grammar has no {count} different sentences"
        raise ValueError(what, "ask for fewer sentences or more words")
    chosen = np.sort(first)[:count]
    return {name: column[chosen] for name, column in slots.items()}


def render(
    language: Language, names: list[str], meanings: dict[str, np.ndarray]
) -> Int[np.ndarray, "sentence slot"]:
    """Return every meaning in the order of the language: a token in each slot, or PAD in an empty one."""
    place_of = {name: index for index, name in enumerate(names)}

    def find_words(kind: str, index: np.ndarray) -> np.ndarray:
        return np.where(index >= 0, language.words[place_of[kind] + index], _sentences.PAD)

    def find_marker(name: str, holds: np.ndarray) -> np.ndarray:
        return np.where(holds, language.words[place_of[name]], _sentences.PAD)

    def make_noun_phrase(role: str) -> list[np.ndarray]:
        adjective = [find_words("adjective0", meanings[f"{role}_adjective"])]
        plural = find_marker("plural", meanings[f"{role}_plural"] == 1)
        noun = [find_words("noun0", meanings[f"{role}_noun"]), plural]
        ordered = adjective + noun if language.adjective_first else noun + adjective
        return [find_words("the", meanings[f"{role}_determiner"]), *ordered]

    kind = "particle" if language.particles else "suffix"
    tense = [
        find_marker(f"{name}_{kind}", meanings["tense"] == TENSES.index(name)) for name in ("past", "future")
    ]
    agreement = find_marker("agreement", (meanings["subject_plural"] == 1) & language.agreement)
    verb = find_words("verb0", meanings["verb"])
    phrases = {
        "S": make_noun_phrase("subject"),
        "V": [*tense, verb, agreement] if language.particles else [verb, *tense, agreement],
        "O": make_noun_phrase("object"),
    }
    place = [find_marker("at", meanings["place"] >= 0), find_words("place0", meanings["place"])]
    setting = [*(place if language.preposition else place[::-1]), find_words("time0", meanings["time"])]
    clause = [slot for letter in language.order for slot in phrases[letter]]
    return np.stack(setting + clause if language.phrase_first else clause + setting, axis=1)


def align(rows: list[np.ndarray]) -> Int[np.ndarray, "language sentence token"]:
    """Move empty slots behind the words, write END after the last word, and cut to the longest sentence."""
    slots = np.stack(rows).astype(np.int32)
    order = np.argsort(slots == _sentences.PAD, axis=-1, kind="stable")
    words = np.take_along_axis(slots, order, axis=-1)
    lengths = (words != _sentences.PAD).sum(axis=-1)
    corpus = np.concatenate([words, np.full_like(words[..., :1], _sentences.PAD)], axis=-1)
    np.put_along_axis(corpus, lengths[..., None], _sentences.END, axis=-1)
    return corpus[..., : lengths.max() + 1]


def draw_texts(
    world: World, languages: int, pairs: int, sentences: int, seed: int
) -> dict[str, list[tuple[str, str]]]:
    """Return {pair of languages, such as "l00-l05": [(source, target)]}, with other sentences for each pair.

    Args:
      languages: how many of the world's languages there are to choose from, from the first on.
      pairs: how many pairs of languages are chosen at random.
      sentences: how many sentences are chosen at random for each pair.
      seed: of both choices.
    """
    generator = np.random.default_rng(seed)
    choices = list(itertools.combinations(range(languages), 2))
    texts = {}
    for index in sorted(generator.permutation(len(choices))[:pairs]):
        rows = generator.permutation(world.corpus.shape[1])[:sentences]
        first, second = choices[index]
        sources, targets = (spell(world.vocabulary, world.corpus[side, rows]) for side in (first, second))
        texts[f"l{first:02}-l{second:02}"] = list(zip(sources, targets, strict=True))
    return texts


def spell(vocabulary: tuple[str, ...], tokens: Int[np.ndarray, "example token"]) -> list[str]:
    """Return rows of tokens as text. A suffix is written at the word before it: `talu-ka`."""
    return [
        " ".join(vocabulary[token] for token in _sentences.unpack(row)).replace(" -", "-") for row in tokens
    ]


def read(vocabulary: tuple[str, ...], text: str) -> list[int]:
    """Return the tokens of a sentence.

    Raises:
      ValueError: no language of the world has one of its words.
    """
    token_of = {word: token for token, word in enumerate(vocabulary)}
    pieces = text.replace("-", " -").split()
    for piece in pieces:
        if token_of.get(piece, 0) < _sentences.SPECIAL:
            what = f"no language of this world has {piece!r}"
            raise ValueError(what, f"its words are like {vocabulary[-1]}")
    return [token_of[piece] for piece in pieces]
