"""A world of small languages: what can be said in it, and how each language says it.

A meaning is filled slots of one grammar: a subject and an object (determiner, perhaps an adjective, noun, number), a
verb with its tense, perhaps a place or a time. A language is one word for each concept, out of the few that the world
has for it, and an order and a form for each part of the sentence. Everything follows from a seed, by numpy alone.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from metarun.tasks import _sentences

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
MARKERS = ("plural", "agreement", "past_suffix", "future_suffix", "past_particle", "future_particle")
SUFFIXES = ("plural", "agreement", "past_suffix", "future_suffix")  # written behind a hyphen
TENSES = ("present", "past", "future")  # the present has no marker


class Sizes(NamedTuple):
    """How many concepts of each kind there are."""

    nouns: int
    verbs: int
    adjectives: int
    places: int
    times: int


class Language(NamedTuple):
    """How one language speaks."""

    words: Int[np.ndarray, "concept"]  # the token of each concept
    order: str  # of subject, verb and object: "SVO"
    adjective_first: bool  # before its noun
    particles: bool  # tense is a word before the verb, not a suffix of it
    preposition: bool  # before its place, not after it
    phrase_first: bool  # a place or a time opens the sentence, or closes it
    agreement: bool  # the verb has a suffix where the subject is many


class World(NamedTuple):
    """All languages, and every sentence in each of them."""

    vocabulary: tuple[str, ...]  # the text of each token; suffixes begin with a hyphen
    languages: tuple[Language, ...]
    corpus: Int[np.ndarray, "language sentence token"]  # row s means the same in every language


def concepts(sizes: Sizes) -> list[str]:
    """The names of all concepts: the kind, and which of the kind."""
    counted = [f"{kind[:-1]}{index}" for kind, count in sizes._asdict().items() for index in range(count)]
    return ["the", "a", "at", *MARKERS, *counted]


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
    """The world of a seed.

    Args:
      orders: those that a language may have; "SVO" and so on.
      forms: words that the world has for each concept.
      shared: the probability that a language takes the first of them; else it takes any other.
      adjective_rate: the probability that a noun has an adjective.
      phrase_rate: the probability that a sentence has a place; the same for a time, never both.
      sentences: different meanings.

    Raises:
      ValueError: the grammar cannot say so many different things.
    """
    generator = np.random.default_rng(seed)
    names = concepts(sizes)
    vocabulary = make_vocabulary(generator, names, forms)
    spoken = tuple(make_language(generator, names, orders, forms, shared) for _ in range(languages))
    meanings = make_meanings(generator, sizes, adjective_rate, phrase_rate, sentences)
    rows = [render(language, names, meanings) for language in spoken]
    return World(vocabulary, spoken, align(rows))


def make_vocabulary(generator: np.random.Generator, names: list[str], forms: int) -> tuple[str, ...]:
    """The text of each token: special ones, then `forms` words a concept; no two are the same."""
    words: list[str] = ["<pad>", "<begin>", "<end>"]
    used: set[str] = set()
    for name in names:
        syllables = 1 if name in MARKERS else 2
        for _ in range(forms):
            while (word := make_word(generator, syllables)) in used:
                syllables += generator.random() < 0.1  # short words run out in large worlds
            used.add(word)
            words.append(f"-{word}" if name in SUFFIXES else word)
    return tuple(words)


def make_word(generator: np.random.Generator, syllables: int) -> str:
    """A word to be pronounced, like `talu`."""
    letters = (generator.choice(list(kind)) for _ in range(syllables) for kind in (CONSONANTS, VOWELS))
    return "".join(letters)


def make_language(
    generator: np.random.Generator, names: list[str], orders: tuple[str, ...], forms: int, shared: float
) -> Language:
    """A language: a word for each concept, an order and five habits, each by itself."""
    common = generator.random(len(names)) < shared
    other = generator.integers(min(1, forms - 1), forms, len(names))
    words = _sentences.SPECIAL + np.arange(len(names)) * forms + np.where(common, 0, other)
    order = orders[generator.integers(len(orders))]
    return Language(words, order, *(bool(habit) for habit in generator.integers(0, 2, 5)))


def make_meanings(
    generator: np.random.Generator, sizes: Sizes, adjective_rate: float, phrase_rate: float, count: int
) -> dict[str, np.ndarray]:
    """{slot: [sentence]}: which concept of its kind fills the slot, −1 where it is empty; all sentences differ."""

    def draw(number: int) -> dict[str, np.ndarray]:
        def some(kinds: int, rate: float = 1.0):
            return np.where(generator.random(number) < rate, generator.integers(0, kinds, number), -1)

        phrase = generator.random(number)
        slots = {"verb": some(sizes.verbs), "tense": some(len(TENSES))}
        slots["place"] = np.where(phrase < phrase_rate, some(sizes.places), -1)
        slots["time"] = np.where(phrase >= 1 - phrase_rate, some(sizes.times), -1)
        for who in ("subject", "object"):
            slots |= {
                f"{who}_noun": some(sizes.nouns),
                f"{who}_adjective": some(sizes.adjectives, adjective_rate),
            }
            slots |= {f"{who}_determiner": some(2), f"{who}_plural": some(2)}
        return slots

    slots = draw(4 * count)
    table = np.stack(list(slots.values()), axis=1)
    _, first = np.unique(table, axis=0, return_index=True)
    if len(first) < count:
        raise ValueError(
            f"this grammar has no {count} different sentences", "ask for fewer sentences or more words"
        )
    chosen = np.sort(first)[:count]
    return {name: column[chosen] for name, column in slots.items()}


def render(
    language: Language, names: list[str], meanings: dict[str, np.ndarray]
) -> Int[np.ndarray, "sentence slot"]:
    """Every meaning in the order of the language: a token in each slot, PAD where it is empty."""
    place_of = {name: index for index, name in enumerate(names)}

    def words(kind: str, index: np.ndarray) -> np.ndarray:
        return np.where(index >= 0, language.words[place_of[kind] + index], _sentences.PAD)

    def marker(name: str, holds: np.ndarray) -> np.ndarray:
        return np.where(holds, language.words[place_of[name]], _sentences.PAD)

    def noun_phrase(who: str) -> list[np.ndarray]:
        adjective = [words("adjective0", meanings[f"{who}_adjective"])]
        noun = [words("noun0", meanings[f"{who}_noun"]), marker("plural", meanings[f"{who}_plural"] == 1)]
        described = adjective + noun if language.adjective_first else noun + adjective
        return [words("the", meanings[f"{who}_determiner"]), *described]

    kind = "particle" if language.particles else "suffix"
    tense = [marker(f"{name}_{kind}", meanings["tense"] == TENSES.index(name)) for name in ("past", "future")]
    agreement = marker("agreement", (meanings["subject_plural"] == 1) & language.agreement)
    verb = words("verb0", meanings["verb"])
    parts = {
        "S": noun_phrase("subject"),
        "V": [*tense, verb, agreement] if language.particles else [verb, *tense, agreement],
        "O": noun_phrase("object"),
    }
    place = [marker("at", meanings["place"] >= 0), words("place0", meanings["place"])]
    phrase = [*(place if language.preposition else place[::-1]), words("time0", meanings["time"])]
    clause = [slot for part in language.order for slot in parts[part]]
    return np.stack(phrase + clause if language.phrase_first else clause + phrase, axis=1)


def align(rows: list[np.ndarray]) -> Int[np.ndarray, "language sentence token"]:
    """Empty slots moved behind the words, END after the last word, as few columns as the longest sentence needs."""
    slots = np.stack(rows).astype(np.int32)
    filled = np.take_along_axis(slots, np.argsort(slots == _sentences.PAD, axis=-1, kind="stable"), axis=-1)
    lengths = (filled != _sentences.PAD).sum(axis=-1)
    corpus = np.concatenate([filled, np.full_like(filled[..., :1], _sentences.PAD)], axis=-1)
    np.put_along_axis(corpus, lengths[..., None], _sentences.END, axis=-1)
    return corpus[..., : lengths.max() + 1]


def spell(vocabulary: tuple[str, ...], tokens: Int[np.ndarray, "example token"]) -> list[str]:
    """Rows of tokens as text; a suffix is written at the word before it: `talu-ka`."""
    return [
        " ".join(vocabulary[token] for token in _sentences.unpack(row)).replace(" -", "-") for row in tokens
    ]


def read(vocabulary: tuple[str, ...], text: str) -> list[int]:
    """The tokens of a sentence.

    Raises:
      ValueError: a word that no language of the world has.
    """
    token_of = {word: token for token, word in enumerate(vocabulary)}
    pieces = text.replace("-", " -").split()
    for piece in pieces:
        if token_of.get(piece, 0) < _sentences.SPECIAL:
            raise ValueError(
                f"no language of this world has {piece!r}", f"its words are like {vocabulary[-1]}"
            )
    return [token_of[piece] for piece in pieces]
