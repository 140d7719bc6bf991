"""Omniglot's splits keep their classes apart whatever is rotated, and its episodes are what their facts say."""

import functools

import jax
import numpy as np
import pytest

from helpers import trees
from metarun.tasks import _classes, omniglot

SPLITS = ("train", "validation", "test")


SIDES = {"counts": (100, 100, 100), "shots": 2, "queries": 3}  # splits of one size need one compilation
FEW = {"counts": (5, 0, 5), "rotations": "none"}  # all five characters are in every episode


@functools.cache
def family(**options):
    return omniglot.build(omniglot.Config(**options))


@functools.cache
def sampler(**options):
    return jax.jit(jax.vmap(family(**options).sample, in_axes=(None, 0)))


@functools.cache
def episodes(split: str = "train", count: int = 100, **options):
    """Many episodes of a split, in numpy."""
    keys = jax.random.split(jax.random.key(0), count)
    return jax.device_get(sampler(**options)(family(**options).data[split], keys))


def characters(**options):
    return omniglot.split_characters(omniglot.Config(**options))


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({}, {"train": 1100, "validation": 100, "test": 423}),
        ({"counts": (1200, 0, 423)}, {"train": 1200, "test": 423}),
        (
            {"counts": (1100, 100, 423), "rotations": "classes"},
            {"train": 1100, "validation": 100, "test": 423},
        ),
        ({"split": "background"}, {"train": 864, "validation": 100, "test": 659}),
    ],
    ids=str,
)
def test_splits_have_their_counts_share_no_character_and_leave_none_out(options, counts):
    parts = characters(**options)
    assert {name: len(part) for name, part in parts.items()} == counts
    together = np.concatenate(list(parts.values()))
    np.testing.assert_array_equal(np.sort(together), np.arange(1623))


def test_fewer_characters_are_some_of_them_and_share_none():
    parts = characters(counts=(50, 10, 40))
    together = np.concatenate(list(parts.values()))
    assert len(np.unique(together)) == len(together) == 100
    assert together.max() > 1000  # of the whole data set, not of its beginning


@pytest.mark.parametrize("split", ["random", "background"])
def test_splits_depend_on_the_split_seed_and_on_no_other_random_state(split):
    reference = characters(split=split)
    for seed in (0, 1):
        np.random.seed(seed)  # the global state is the point
        jax.random.normal(jax.random.key(seed))
        trees.assert_equal(characters(split=split), reference)
    unrelated = characters(
        split=split, ways=20, shots=5, queries=10, rotations="none", within_alphabet=True, size=8
    )
    trees.assert_equal(unrelated, reference)


@pytest.mark.parametrize("name", SPLITS)
def test_another_split_seed_is_another_split(name):
    assert not np.array_equal(characters(split_seed=0)[name], characters(split_seed=1)[name])


@pytest.mark.parametrize("seed", range(5))
def test_test_alphabets_of_the_background_split_never_occur_in_training(data_root, seed):
    data = family(split="background", split_seed=seed).data
    seen = np.concatenate([data["train"]["alphabet"], data["validation"]["alphabet"]])
    assert not set(seen) & set(data["test"]["alphabet"])


@pytest.mark.parametrize("rotations", ["random", "classes", "none"])
def test_whatever_the_key_an_episode_stays_in_its_split(data_root, rotations):
    for name, part in characters(**SIDES).items():
        drawn = episodes(name, rotations=rotations, **SIDES).facts["character"]
        assert set(drawn.ravel()) <= set(part)
        assert len(set(drawn.ravel())) > 90  # 500 draws of 100 characters


def pictures(episode_part, way: int, ways: int):
    """The uint8 pictures [example, height, width] of a way in one part of an episode."""
    inputs = np.rint(episode_part.inputs[..., 0] * 255).astype(np.uint8)
    np.testing.assert_array_equal(episode_part.targets, np.repeat(np.arange(ways), len(inputs) // ways))
    return inputs.reshape(ways, -1, *inputs.shape[1:])[way]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("rotations", ["random", "classes", "none"])
def test_pictures_are_different_drawings_of_the_character_of_the_facts_all_turned_alike(
    data_root, rotations, split
):
    options = {"rotations": rotations, **SIDES}
    data, batch = family(**options).data[split], episodes(split, **options)
    for index in range(20):
        episode = jax.tree.map(lambda leaf, index=index: leaf[index], batch)
        for way, (character, turns) in enumerate(
            zip(episode.facts["character"], episode.facts["quarter_turns"], strict=True)
        ):
            row = np.searchsorted(data["character"], character)
            assert data["character"][row] == character
            assert data["alphabet"][row] == episode.facts["alphabet"][way]
            turned = np.rot90(data["images"][row], turns, axes=(1, 2))
            shown = np.concatenate([pictures(part, way, 5) for part in (episode.support, episode.query)])
            drawings = [np.flatnonzero((turned == picture).all(axis=(1, 2))) for picture in shown]
            assert all(len(found) == 1 for found in drawings)
            assert len(np.unique(drawings)) == 5


@pytest.mark.parametrize("split", SPLITS)
def test_each_class_of_an_episode_is_turned_at_random_in_every_split(data_root, split):
    turns = episodes(split, rotations="random", **SIDES).facts["quarter_turns"]
    assert_shares(turns.ravel(), range(4))
    assert (turns.min(axis=1) != turns.max(axis=1)).mean() > 0.9  # not one turn an episode: 1 − 4⁻⁴ = 0.996


def test_without_rotations_nothing_is_turned(data_root):
    assert not episodes(rotations="none", **SIDES).facts["quarter_turns"].any()


def test_rotated_classes_are_four_of_each_character_on_the_same_side_of_the_split(data_root):
    options = {"rotations": "classes", "counts": (5, 5, 5), "ways": 20}
    sides = []
    for split in SPLITS:
        facts = episodes(split, **options).facts
        for character, turns in zip(facts["character"], facts["quarter_turns"], strict=True):
            everything = {(c, t) for c in characters(**options)[split] for t in range(4)}
            assert set(zip(character, turns, strict=True)) == everything
        sides.append(set(facts["character"].ravel()))
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]


def test_classes_turned_in_training_alone_are_upright_elsewhere(data_root):
    options = {"rotations": "training", "counts": (5, 5, 5), "ways": 5}
    turned = {split: episodes(split, **options).facts["quarter_turns"] for split in SPLITS}
    assert set(np.unique(turned["train"])) == {0, 1, 2, 3}
    assert not turned["validation"].any() and not turned["test"].any()
    everything = {(c, t) for c in characters(**options)["train"] for t in range(4)}
    facts = episodes("train", **options).facts
    assert set(zip(facts["character"].ravel(), facts["quarter_turns"].ravel(), strict=True)) == everything


@pytest.mark.parametrize("rotations", ["random", "classes", "none"])
def test_classes_of_an_episode_are_different(data_root, rotations):
    facts = episodes(rotations=rotations, **SIDES).facts
    turns = facts["quarter_turns"] if rotations == "classes" else 0
    assert (np.diff(np.sort(4 * facts["character"] + turns, axis=1), axis=1) > 0).all()


@pytest.mark.parametrize("turns", range(4))
def test_rotation_is_that_of_numpy(turns):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 5), np.uint8)
    other = (turns + 1) % 4
    turned = _classes.rotate(jax.numpy.asarray(images), jax.numpy.array([turns, other]))
    np.testing.assert_array_equal(turned[0], np.rot90(images[0], turns, axes=(1, 2)))
    np.testing.assert_array_equal(turned[1], np.rot90(images[1], other, axes=(1, 2)))


def assert_shares(values, choices) -> None:
    """Whether every choice has about the same share: chi-square within five of its standard deviations."""
    choices = list(choices)
    counts = np.array([np.sum(values == choice) for choice in choices])
    assert counts.sum() == len(values)
    expected = len(values) / len(choices)
    freedom = len(choices) - 1
    assert np.sum((counts - expected) ** 2 / expected) < freedom + 5 * np.sqrt(2 * freedom)


@pytest.mark.slow
def test_within_an_alphabet_each_large_enough_one_is_as_likely(data_root):
    options = {"within_alphabet": True, "ways": 16, "counts": (1200, 0, 423)}
    alphabet = episodes(count=2000, **options).facts["alphabet"]
    np.testing.assert_array_equal(alphabet, np.repeat(alphabet[:, :1], 16, axis=1))
    names, sizes = np.unique(family(**options).data["train"]["alphabet"], return_counts=True)
    assert 0 < (sizes < 16).sum() < len(sizes)  # some are too small, else this would show less
    assert_shares(alphabet[:, 0], names[sizes >= 16])


def test_without_it_classes_come_from_all_alphabets_and_each_character_is_as_likely(data_root):
    facts = episodes(rotations="random", **SIDES).facts
    assert_shares(facts["character"].ravel(), characters(**SIDES)["train"])
    assert len(np.unique(facts["alphabet"])) > 25


def test_every_label_is_as_likely_for_every_character(data_root):
    order = episodes(count=400, **FEW).facts["character"]
    for character in characters(**FEW)["train"]:
        assert_shares(np.argmax(order == character, axis=1), range(5))


def test_every_drawing_is_as_likely_in_support_and_in_query(data_root):
    batch, data = episodes(count=400, **FEW), family(**FEW).data["train"]
    rows = np.searchsorted(data["character"], batch.facts["character"])  # [episode, way]
    for part in (batch.support, batch.query):
        shown = np.rint(part.inputs[..., 0] * 255).astype(np.uint8)  # [episode, way, height, width]
        same = (data["images"][rows] == shown[:, :, None]).all(axis=(-2, -1))  # [episode, way, drawing]
        assert_shares(same.argmax(axis=-1).ravel(), range(20))


def test_ink_is_one_and_paper_is_zero(data_root):
    inputs = episodes(rotations="none", **SIDES).support.inputs
    assert inputs.min() == 0
    assert 0.9 < inputs.max() <= 1
    assert inputs.mean() < 0.5
    border = np.concatenate([inputs[:, :, 0].ravel(), inputs[:, :, -1].ravel()])
    assert np.median(border) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 15, "queries": 6}, "20 drawings"),
        ({"counts": (1100, 100)}, "three"),
        ({"counts": (1200, 100, 424)}, "1200"),
        ({"split": "background", "counts": (900, 100, 600)}, "background"),
        ({"split": "background", "counts": (800, 100, 700)}, "background"),
        ({"ways": 20, "counts": (1100, 100, 19)}, "20 ways"),
        ({"ways": 20, "counts": (1100, 19, 400)}, "20 ways"),
        ({"ways": 5, "counts": (4, 0, 400)}, "5 ways"),
        ({"ways": 21, "counts": (5, 5, 5), "rotations": "classes"}, "21 ways"),
    ],
    ids=str,
)
def test_what_cannot_be_sampled_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        omniglot.Config(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"shots": 15, "queries": 5},
        {"ways": 20, "counts": (5, 5, 5), "rotations": "classes"},
        {"ways": 423, "counts": (1200, 0, 423)},
    ],
    ids=str,
)
def test_the_largest_episodes_are_allowed(options):
    omniglot.Config(**options)


def test_more_ways_than_the_largest_alphabet_has_are_refused_before_training(data_root):
    with pytest.raises(ValueError, match="largest alphabet"):
        omniglot.build(omniglot.Config(within_alphabet=True, ways=60))
