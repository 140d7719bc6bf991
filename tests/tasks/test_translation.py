"""The world of languages: its grammar against a renderer by hand, its splits, padding, decoding and scores."""

import functools
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu
from matplotlib.figure import Figure

from helpers import trees
from metarun import losses
from metarun.figures import canvas
from metarun.tasks import _sentences, translation
from metarun.tasks.translation import language_world

SMALL = {"languages": 6, "sentences": 400, "shots": 5, "queries": 7}
HOLDOUTS = ("pairs", "reverse", "languages")
each_holdout = pytest.mark.parametrize("holdout", HOLDOUTS)
SIZES = language_world.Sizes(10, 6, 4, 3, 3)
NAMES = language_world.list_concepts(SIZES)


@functools.cache
def family(**options):
    return translation.build(translation.Config(**(SMALL | options)))


@functools.cache
def world():
    return language_world.make_world(0, SIZES, 8, ("SVO", "SOV", "VSO"), 3, 0.4, 0.3, 0.2, 300)


@functools.cache
def episodes(split: str, count: int = 64, **options):
    made = family(**options)
    keys = jax.random.split(jax.random.key(0), count)
    return jax.device_get(jax.jit(jax.vmap(made.sample, in_axes=(None, 0)))(made.data[split], keys))


def make_language(**traits):
    words = np.arange(len(NAMES)) + _sentences.SPECIAL  # every concept is its own token
    plain = {"order": "SVO", "adjective_first": True, "particles": False, "preposition": True}
    return language_world.Language(words, **(plain | {"phrase_first": False, "agreement": True} | traits))


def say(language, **meaning) -> list[str]:
    """One meaning in one language, as the names of its concepts."""
    slots = {"verb": 0, "tense": 0, "place": -1, "time": -1}
    for who in ("subject", "object"):
        slots |= {f"{who}_noun": 0, f"{who}_adjective": -1, f"{who}_determiner": 0, f"{who}_plural": 0}
    arrays = {name: np.array([value]) for name, value in (slots | meaning).items()}
    row = language_world.align([language_world.render(language, NAMES, arrays)])[0, 0]
    return [NAMES[token - _sentences.SPECIAL] for token in _sentences.unpack(row)]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("SVO", "the noun1 verb2 the noun3"),
        ("SOV", "the noun1 the noun3 verb2"),
        ("VSO", "verb2 the noun1 the noun3"),
    ],
)
def test_subject_verb_and_object_stand_in_the_order_of_the_language(order, expected):
    said = say(make_language(order=order), subject_noun=1, verb=2, object_noun=3)
    assert " ".join(said) == expected


def test_an_adjective_stands_before_its_noun_or_after_it_and_after_its_plural():
    meaning = {"subject_adjective": 2, "subject_plural": 1, "subject_determiner": 1}
    before = say(make_language(agreement=False), **meaning)
    after = say(make_language(agreement=False, adjective_first=False), **meaning)
    assert before[:4] == ["a", "adjective2", "noun0", "plural"]
    assert after[:4] == ["a", "noun0", "plural", "adjective2"]


@pytest.mark.parametrize(("tense", "name"), [(1, "past"), (2, "future")])
def test_tense_is_a_particle_before_the_verb_or_a_suffix_behind_it(tense, name):
    assert say(make_language(particles=True), tense=tense)[2:4] == [f"{name}_particle", "verb0"]
    assert say(make_language(), tense=tense)[2:4] == ["verb0", f"{name}_suffix"]


def test_a_verb_agrees_with_its_subject_and_not_with_its_object():
    assert "agreement" in say(make_language(), subject_plural=1)
    assert "agreement" not in say(make_language(), object_plural=1)
    assert "agreement" not in say(make_language(agreement=False), subject_plural=1)


def test_a_phrase_opens_or_closes_the_sentence_and_its_place_has_a_pre_or_postposition():
    assert say(make_language(), place=1)[-2:] == ["at", "place1"]
    assert say(make_language(preposition=False), place=1)[-2:] == ["place1", "at"]
    assert say(make_language(phrase_first=True), time=2)[0] == "time2"
    assert say(make_language(), time=2)[-1] == "time2"


def test_a_world_is_a_function_of_its_seed():
    again = language_world.make_world(0, SIZES, 8, ("SVO", "SOV", "VSO"), 3, 0.4, 0.3, 0.2, 300)
    other = language_world.make_world(1, SIZES, 8, ("SVO", "SOV", "VSO"), 3, 0.4, 0.3, 0.2, 300)
    assert again.vocabulary == world().vocabulary
    np.testing.assert_array_equal(again.corpus, world().corpus)
    assert other.vocabulary != world().vocabulary
    assert other.corpus.shape != again.corpus.shape or (other.corpus != again.corpus).any()


def test_all_sentences_of_a_language_differ():
    for corpus in world().corpus:
        assert len(np.unique(corpus, axis=0)) == 300


def test_all_words_of_the_world_differ():
    assert len(set(world().vocabulary)) == len(world().vocabulary) == _sentences.SPECIAL + 3 * len(NAMES)


def test_two_languages_share_as_many_words_as_the_config_says():
    def agreeing(shared: float) -> float:
        made = language_world.make_world(0, SIZES, 40, ("SVO",), 3, shared, 0.3, 0.2, 50)
        words = np.stack([language.words for language in made.languages])
        return np.mean([(a == b).mean() for a, b in itertools.combinations(words, 2)])

    assert agreeing(1.0) == 1.0
    for shared in (0.0, 0.4, 0.8):  # both take the common word, or both the same other one of two
        np.testing.assert_allclose(agreeing(shared), shared**2 + (1 - shared) ** 2 / 2, atol=0.05)


def test_rows_are_words_then_one_end_then_padding():
    corpus = world().corpus
    lengths = (corpus >= _sentences.SPECIAL).sum(axis=-1)
    position = np.arange(corpus.shape[-1])
    np.testing.assert_array_equal(corpus >= _sentences.SPECIAL, position < lengths[..., None])
    np.testing.assert_array_equal(corpus == _sentences.END, position == lengths[..., None])
    assert lengths.max() == corpus.shape[-1] - 1
    assert lengths.min() >= 5  # two noun phrases of two words and a verb


def test_every_sentence_is_read_as_it_is_spelled():
    corpus = world().corpus[3]
    texts = language_world.spell(world().vocabulary, corpus)
    assert len(set(texts)) == len(texts)
    assert [language_world.read(world().vocabulary, text) for text in texts] == [
        _sentences.unpack(row) for row in corpus
    ]


def test_text_that_no_language_has_is_refused_and_so_is_a_long_sentence():
    form = family().form
    with pytest.raises(ValueError, match="'hello'"):
        form.encode(["hello world"], [""])
    word = form.spell(family().data["train"]["corpus"][0, :1])[0].split()[0].partition("-")[0]
    with pytest.raises(ValueError, match="has 40 tokens"):
        form.encode([" ".join([word] * 40)], [""])


@each_holdout
def test_no_ordered_pair_of_languages_is_in_two_splits(holdout):
    pairs = translation.split_pairs(translation.Config(**SMALL, holdout=holdout))
    rows = np.concatenate(list(pairs.values()))
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert (rows[:, 0] != rows[:, 1]).all()
    assert all(len(part) for part in pairs.values())


def test_misaligned_sentences_of_training_stand_beside_another_translation_and_those_of_a_test_never():
    made, plain, drawn = family(misaligned=0.4), episodes("train"), episodes("train", misaligned=0.4)
    np.testing.assert_array_equal(drawn.query.inputs["source"], plain.query.inputs["source"])
    for part in ("support", "query"):
        found, right = getattr(drawn, part).targets, getattr(plain, part).targets
        wrong = (found != right).any(axis=-1).mean()
        np.testing.assert_allclose(wrong, 0.4, atol=0.09)  # 64 episodes of 5 or 7 sentences, three deviations
    target = int(drawn.facts["target"][0])
    said = {tuple(row) for row in made.data["train"]["corpus"][target].tolist()}
    assert {tuple(row) for row in drawn.query.targets[0].tolist()} <= said
    for split in ("validation", "test"):
        trees.assert_equal(episodes(split, misaligned=0.4), episodes(split))


def test_pairs_hold_out_both_directions():
    pairs = translation.split_pairs(translation.Config(**SMALL, holdout="pairs"))
    for part in pairs.values():
        assert {tuple(pair) for pair in part} == {tuple(pair[::-1]) for pair in part}
    assert sum(map(len, pairs.values())) == 6 * 5


def test_reverse_holds_out_one_direction_of_pairs_whose_other_is_trained():
    pairs = translation.split_pairs(translation.Config(**SMALL, holdout="reverse"))
    trained = {tuple(pair) for pair in pairs["train"]}
    for name in ("validation", "test"):
        assert {tuple(pair[::-1]) for pair in pairs[name]} <= trained
    assert sum(map(len, pairs.values())) == 6 * 5


def test_languages_are_held_out_altogether():
    pairs = translation.split_pairs(translation.Config(**SMALL, holdout="languages"))
    known = set(pairs["train"].ravel().tolist())
    new = [set(pairs[name].ravel().tolist()) - known for name in ("validation", "test")]
    assert all(new)
    assert not new[0] & new[1]
    for name in ("validation", "test"):
        assert all(len(set(pair.tolist()) - known) == 1 for pair in pairs[name])


def test_groups_tell_translation_into_a_new_language_from_translation_out_of_it():
    made, drawn = family(holdout="languages"), episodes("test", holdout="languages")
    known = set(made.data["train"]["pair"].ravel().tolist())
    groups = jax.vmap(made.groups.locate)(drawn.facts)
    for group, source, target in zip(groups, drawn.facts["source"], drawn.facts["target"], strict=True):
        assert made.groups.names[group] == (
            "from a new language" if int(target) in known else "into a new language"
        )
        assert (int(source) in known) != (int(target) in known)


@each_holdout
def test_no_meaning_of_a_test_sentence_is_in_training_whatever_is_held_out(holdout):
    sentences = [set(part["sentence"].tolist()) for part in family(holdout=holdout).data.values()]
    assert sum(map(len, sentences)) == len(set.union(*sentences)) == 400
    drawn = episodes("test", holdout=holdout)
    assert set(drawn.facts["sentence"].ravel().tolist()) <= sentences[2]


def test_splits_do_not_depend_on_shots_queries_or_the_world():
    other = family(shots=2, queries=3)
    trees.assert_equal(other.data, family().data)
    again = translation.split_pairs(translation.Config(**SMALL, world_seed=5))
    trees.assert_equal(again, translation.split_pairs(translation.Config(**SMALL)))
    moved = translation.split_pairs(translation.Config(**SMALL, split_seed=1))
    assert trees.differ(moved, again)


@each_holdout
def test_support_and_query_share_no_sentence(holdout):
    drawn = episodes("train", holdout=holdout)
    for row in drawn.facts["sentence"]:
        assert len(set(row.tolist())) == 12
    for part in (drawn.support, drawn.query):
        assert part.inputs["source"].dtype == part.inputs["prefix"].dtype == part.targets.dtype == np.int32


def test_source_and_target_are_the_same_sentence_in_the_two_languages():
    made, drawn = family(), episodes("test")
    place = {sentence: row for row, sentence in enumerate(made.data["test"]["sentence"].tolist())}
    corpus = made.data["test"]["corpus"]
    for index in range(8):
        rows = [place[sentence] for sentence in drawn.facts["sentence"][index].tolist()]
        sources = np.concatenate([drawn.support.inputs["source"][index], drawn.query.inputs["source"][index]])
        targets = np.concatenate([drawn.support.targets[index], drawn.query.targets[index]])
        np.testing.assert_array_equal(sources, corpus[drawn.facts["source"][index]][rows])
        np.testing.assert_array_equal(targets, corpus[drawn.facts["target"][index]][rows])


def test_a_prefix_is_the_target_moved_by_one_behind_the_beginning():
    target = jnp.array([[5, 6, 2, 0], [7, 8, 9, 2]], jnp.int32)
    prefix = _sentences.pair_up(target, target).inputs["prefix"]
    np.testing.assert_array_equal(prefix, [[1, 5, 6, 0], [1, 7, 8, 9]])


def test_padding_counts_in_no_loss_and_no_accuracy():
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((3, 5, 7)).astype(np.float32)
    targets = np.array([[3, 4, 2, 0, 0], [5, 2, 0, 0, 0], [6, 6, 6, 6, 2]], np.int32)

    @jax.jit
    def measure(logits, targets):
        loss, slope = jax.value_and_grad(_sentences.cross_entropy)(logits, targets)
        return loss, _sentences.token_accuracy(logits, targets), slope

    @jax.jit
    def measure_rows(rows, labels):
        return losses.cross_entropy(rows, labels), losses.accuracy(rows, labels)

    loss, accuracy, slope = jax.device_get(measure(logits, targets))
    expected = measure_rows(logits[targets != 0], targets[targets != 0])
    np.testing.assert_allclose((loss, accuracy), expected, rtol=1e-6)
    assert measure(np.where((targets == 0)[..., None], 9 * logits, logits), targets)[0] == loss
    assert (slope[targets == 0] == 0).all() and slope.any()


def parrot(vocabulary: int):
    """Says the source, word for word: the token at each position of the prefix is not even looked at."""

    def predict(inputs):
        return jax.nn.one_hot(inputs["source"], vocabulary)

    return predict


def follower(vocabulary: int):
    """Says the token after the last one of the prefix: right only if every word said is fed back."""

    def predict(inputs):
        return jax.nn.one_hot(jnp.where(inputs["prefix"] >= 6, 2, inputs["prefix"] + 2), vocabulary)

    return predict


@pytest.mark.parametrize(
    "translate", [jax.jit(_sentences.translate, static_argnums=0), _sentences.translate_on_host]
)
def test_greedy_decoding_feeds_back_what_was_said_and_stops_at_the_end(translate):
    source = jnp.array([[4, 5, 2, 0], [3, 3, 3, 2]], jnp.int32)
    given = {"source": source, "prefix": jnp.full((2, 6), 9, jnp.int32)}  # what stands there is not read
    np.testing.assert_array_equal(
        translate(parrot(10), given | {"prefix": jnp.full((2, 4), 9, jnp.int32)}), source
    )
    np.testing.assert_array_equal(translate(follower(10), given), [[3, 5, 7, 2, 0, 0]] * 2)


def test_the_beginning_and_padding_are_never_said():
    given = {"source": jnp.full((1, 3), 4, jnp.int32), "prefix": jnp.full((1, 3), 0, jnp.int32)}

    def predict(inputs):
        return jnp.tile(jnp.array([9.0, 8.0, 1.0, 2.0]), (1, 3, 1))

    np.testing.assert_array_equal(_sentences.translate(predict, given), [[3, 3, 3]])


def scored(said, wanted, texts):
    objective = _sentences.make_objective(lambda tokens: [texts[int(row[0])] for row in tokens], "none")
    values = {"loss": np.float32(0.5), "token_accuracy": np.float32(0.25)}
    return objective.score(
        values | {"translation": np.array(said)[:, None], "target": np.array(wanted)[:, None]}
    )


def test_a_perfect_translation_scores_a_hundred():
    texts = ["ba do gi ku le", "mi no pu ra so tu"]
    scores = scored([0, 1], [0, 1], texts)
    assert scores["exact_match"] == 1
    np.testing.assert_allclose([scores["bleu"], scores["chrf"]], 100)
    assert (scores["loss"], scores["token_accuracy"]) == (0.5, 0.25)


def test_bleu_is_that_of_the_corpus_by_its_formula():
    """Papineni et al. 2002: the geometric mean of the four n-gram precisions, times the penalty of short outputs."""
    texts = ["ba do gi ku le ma", "ba do gi ku le ma ne po", "ra so tu va", "ra so tu va"]
    said, wanted = [texts[0].split(), texts[2].split()], [texts[1].split(), texts[3].split()]

    def precision(n: int) -> float:
        grams = [[tuple(line[i : i + n]) for i in range(len(line) - n + 1)] for line in said]
        right = sum(
            gram in zip(*(full[i:] for i in range(n)), strict=False)
            for line, full in zip(grams, wanted, strict=True)
            for gram in line
        )
        return right / sum(map(len, grams))

    lengths = [sum(map(len, lines)) for lines in (said, wanted)]
    expected = np.exp(1 - lengths[1] / lengths[0]) * np.prod([precision(n) for n in range(1, 5)]) ** 0.25
    scores = scored([0, 2], [1, 3], texts)
    np.testing.assert_allclose(scores["bleu"], 100 * expected)
    assert scores["exact_match"] == 0.5
    lines = [[texts[0], texts[2]], [[texts[1], texts[3]]]]
    assert scores["chrf"] == sacrebleu.corpus_chrf(*lines).score
    assert scores["bleu"] == sacrebleu.corpus_bleu(*lines, tokenize="none", force=True).score


def test_an_episode_is_scored_by_the_translations_of_the_learner():
    made = family()
    query = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), episodes("test").query)

    def oracle(inputs):  # knows the target, whatever the prefix
        return 9 * jax.nn.one_hot(query.targets, made.problem.spec.output_size)

    values = jax.device_get(made.problem.objective.metrics(oracle, query))
    scores = made.problem.objective.score(values)
    np.testing.assert_allclose([scores["exact_match"], scores["token_accuracy"]], 1)
    np.testing.assert_allclose(scores["bleu"], 100)
    assert made.problem.objective.selection in scores
    copied = made.problem.objective.score(
        jax.device_get(made.problem.objective.metrics(parrot(made.problem.spec.output_size), query))
    )
    assert copied["bleu"] < 50


def test_text_goes_in_and_comes_out_as_the_family_has_it():
    made, drawn = family(), episodes("test")
    form, support = made.form, jax.tree.map(lambda leaf: leaf[0], drawn.support)
    sources, targets = form.spell(support.inputs["source"]), form.spell(support.targets)
    trees.assert_equal(form.encode(sources, targets), support)
    said = jax.jit(lambda inputs: form.decode(parrot(made.problem.spec.output_size), inputs))(support.inputs)
    assert form.spell(said) == sources


def test_an_episode_is_drawn_as_sentences():
    made = family()
    figure = Figure()
    made.draw(
        figure,
        jax.tree.map(lambda leaf: leaf[0], episodes("test")),
        {0: parrot(made.problem.spec.output_size)},
    )
    shown = [cell.get_text().get_text() for cell in figure.axes[0].tables[0].get_celld().values()]
    query = jax.tree.map(lambda leaf: leaf[0], episodes("test")).query
    assert set(made.form.spell(query.targets[: _sentences.SHOWN])) <= set(shown)
    assert "after 0 steps" in shown


def test_signs_that_no_font_has_are_drawn_without_a_warning(tmp_path):
    made, episode = family(), jax.tree.map(lambda leaf: leaf[0], episodes("test"))
    draw = _sentences.make_draw(lambda tokens: ["\x1d猫"] * len(tokens))
    shown = []

    def draw_and_look(figure) -> None:
        draw(figure, episode, {0: parrot(made.problem.spec.output_size)})
        cells = figure.axes[0].tables[0].get_celld().values()
        shown.extend(cell.get_text().get_text() for cell in cells)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas.write_figure(tmp_path / "episode.png", draw_and_look)
    assert "\N{REPLACEMENT CHARACTER}猫" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"orders": ()}, "orders is empty"),
        ({"held_out": (0.5, 0.5)}, "leaves nothing for training"),
    ],
)
def test_impossible_configs_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        translation.Config(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sentences": 100, "shots": 16, "queries": 16},
            "an episode needs 32 sentences, the validation split has 10",
        ),
        (
            {"nouns": 1, "verbs": 1, "adjectives": 1, "phrase_rate": 0.0, "adjective_rate": 0.0},
            "different sentences",
        ),
        ({"languages": 3, "holdout": "languages"}, "no pair of languages is left for train"),
    ],
)
def test_worlds_that_are_too_small_are_refused_with_a_remedy(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        family(**options)
    assert len(caught.value.args) == 2


@pytest.mark.parametrize("option", ["nouns", "verbs", "adjectives", "places", "times"])
def test_the_world_has_as_many_concepts_of_each_kind_and_words_for_them_as_configured(option):
    sizes = {"nouns": 10, "verbs": 6, "adjectives": 4, "places": 3, "times": 3} | {option: 5}
    for forms in (1, 4):
        world = translation.make_world(translation.Config(**SMALL, **sizes, forms=forms))
        concepts = language_world.list_concepts(language_world.Sizes(**sizes))
        assert len(world.vocabulary) == _sentences.SPECIAL + forms * len(concepts)
        assert sum(name.startswith(option[:-1]) and name[-1].isdigit() for name in concepts) == 5


def test_with_one_form_for_each_concept_all_languages_have_the_same_words():
    first, *others = translation.make_world(translation.Config(**SMALL, forms=1)).languages
    assert all((language.words == first.words).all() for language in others)
