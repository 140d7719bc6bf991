"""The relations that task families know between their classes or kinds of tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders
from metarun import folders
from metarun.data.sets import omniglot_files as dataset
from metarun.tasks import mixture, omniglot


@pytest.mark.parametrize("rotations", ["none", "random"])
def test_an_omniglot_class_belongs_to_its_alphabet_in_every_turn(rotations):
    options = {"counts": (60, 20, 20), "rotations": rotations}
    family, outline = (
        builders.build_task("omniglot", **options),
        omniglot.outline(omniglot.Config(**options)),
    )
    relations = family.problem.relations
    assert relations[:3] == outline.problem.relations[:3]
    assert relations.known == family.problem.training_classes and len(set(relations.names)) == len(
        relations.names
    )
    concept = dict(relations.edges)
    assert sorted(concept) == list(range(relations.known))
    names = dataset.list_class_names()
    alphabets = tuple(dict.fromkeys(name.partition("/")[0] for name in names))
    part = family.data["train"]
    for place in range(relations.known):
        index, quarter_turns = place % 60, place // 60  # as facts["class"] numbers them
        turn = f"@{90 * quarter_turns}" if quarter_turns else ""
        assert relations.names[place] == names[part["character"][index]] + turn
        assert relations.names[concept[place]] == alphabets[part["alphabet"][index]] + turn


def test_the_names_of_omniglot_are_those_of_its_archives():
    builders.build_task("omniglot", counts=(60, 20, 20))  # skips without them
    assert dataset.list_class_names() == dataset.load(folders.data_root()).class_names


def test_modes_are_related_by_what_they_have_in_common():
    relations = mixture.relate(("tanh", "sinusoid", "line"))
    assert relations.names == ("tanh", "sinusoid", "line", "monotone", "bounded")
    assert relations.edges == ((0, 3), (2, 3), (0, 4), (1, 4))
    assert mixture.relate(("sinusoid", "line")).edges == ()


def test_a_picture_folder_names_its_training_classes_first_and_finds_their_places():
    family = builders.build_task("image_folder", ways=4, counts=(18, 6, 6))
    relations = family.problem.relations
    assert relations.known == 18 and len(relations.names) == 30 and relations.edges == ()
    train = sorted(family.data["train"]["class"])
    assert relations.names[:18] == tuple(f"class{index:02}" for index in train)
    places = relations.locate({"class": jnp.asarray(train)})
    np.testing.assert_array_equal(places, np.arange(18))


@pytest.mark.parametrize("rotations", ["none", "random"])
def test_a_support_tells_the_alphabet_of_each_class_turned_as_the_class_is(rotations):
    options = {"counts": (60, 20, 200), "rotations": rotations, "shots": 2, "ways": 4}
    family = builders.build_task("omniglot", tells_alphabet=True, **options)
    plain = builders.build_task("omniglot", **options)
    names, data = family.problem.relations.names, family.data["test"]
    found, expected = (
        jax.device_get(jax.jit(case.sample)(data, jax.random.key(3))) for case in (family, plain)
    )
    np.testing.assert_array_equal(found.support.inputs.inputs, expected.support.inputs)
    np.testing.assert_array_equal(found.query.inputs, expected.query.inputs)
    alphabets = tuple(dict.fromkeys(name.partition("/")[0] for name in dataset.list_class_names()))
    concepts = found.support.inputs.concepts.reshape(4, 2)
    assert (concepts >= 0).any()
    for way, concept in enumerate(concepts[:, 0]):
        turn = ("", "@90", "@180", "@270")[found.facts["quarter_turns"][way]]
        name = alphabets[found.facts["alphabet"][way]] + turn
        assert concepts[way, 1] == concept
        assert names[concept] == name if concept >= 0 else name not in names
