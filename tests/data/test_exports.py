"""`metarun data export`: files that the families of a user's own data read."""

import numpy as np
import pytest
from PIL import Image

from helpers.commands import assert_three_lines
from metarun.data import class_folders, exports, sentence_pairs
from metarun.data.preparation import Preparation
from metarun.data.sets.omniglot_files import DRAWINGS, Omniglot
from metarun.errors import UsageError
from metarun.tasks import translation
from metarun.tasks.translation import language_world

pytestmark = pytest.mark.usefixtures("own_place")


@pytest.fixture
def omniglot():
    """Four characters whose drawings have a corner of ink as large as their numbers."""
    images = np.zeros((4, DRAWINGS, 105, 105), np.uint8)
    for character in range(4):
        for drawing in range(DRAWINGS):
            images[character, drawing, : character + 1, : drawing + 1] = 255
    names = tuple(f"Greek/character{number:02}" for number in range(1, 5))
    return Omniglot(images, np.zeros(4, np.int32), ("Greek",), names, 4)


def read_ink(path):
    with Image.open(path) as picture:
        assert picture.mode == "1" and picture.size == (105, 105)
        return ~np.asarray(picture)


def test_every_character_is_a_folder_of_black_drawings_on_white(omniglot, tmp_path):
    exports.export_drawings(tmp_path / "new", omniglot, np.array([1, 3]), 5, shots=0, seed=0)
    files = sorted(path.relative_to(tmp_path / "new") for path in (tmp_path / "new").rglob("*.png"))
    assert [str(path) for path in files] == [
        f"Greek_character{character:02}/{drawing + 1:02}.png"
        for character in (2, 4)
        for drawing in range(DRAWINGS)
    ]
    for path in files:
        ink = read_ink(tmp_path / "new" / path)
        character, drawing = int(path.parent.name[-2:]), int(path.stem)
        np.testing.assert_array_equal(np.argwhere(ink).max(axis=0), [character - 1, drawing - 1])


def test_shots_divide_the_drawings_of_each_character_into_support_and_query(omniglot, tmp_path):
    exports.export_drawings(tmp_path, omniglot, np.arange(4), 3, shots=2, seed=0)
    support, query = (
        {path.relative_to(tmp_path / side) for path in (tmp_path / side).rglob("*.png")}
        for side in ("support", "query")
    )
    assert (len(support), len(query)) == (3 * 2, 3 * (DRAWINGS - 2))
    assert not support & query


def test_the_seed_chooses_the_characters(omniglot, tmp_path):
    chosen = set()
    for seed in range(8):
        folder = tmp_path / str(seed)
        exports.export_drawings(folder, omniglot, np.arange(4), 1, shots=0, seed=seed)
        chosen |= {path.name for path in folder.iterdir()}
    assert len(chosen) > 1


def test_the_drawings_are_what_an_image_folder_reads(omniglot, tmp_path):
    exports.export_drawings(tmp_path, omniglot, np.arange(4), 4, shots=0, seed=0)
    folder = class_folders.load(tmp_path, Preparation(105, crop="stretch", channels=1))
    assert folder.class_names == tuple(name.replace("/", "_") for name in omniglot.class_names)
    np.testing.assert_array_equal(255 - folder.images[..., 0], omniglot.images.reshape(-1, 105, 105))


def test_a_text_is_a_file_of_lines_with_a_tab(tmp_path):
    exports.export_sentences(tmp_path / "new", {"l00-l01": [("ä b", "c"), ("d", "e")], "l00-l02": []})
    assert (tmp_path / "new/l00-l01.tsv").read_bytes() == "ä b\tc\nd\te\n".encode()
    assert (tmp_path / "new/l00-l02.tsv").read_bytes() == b""


def test_the_texts_are_what_parallel_text_reads(tmp_path):
    texts = {"l00-l01": [("a b", "c"), ("d", "e")], "l00-l02": [("a", "f")]}
    exports.export_sentences(tmp_path, texts)
    pairs = sentence_pairs.read(tmp_path).pairs
    assert {
        f"{pair.source}-{pair.target}": list(zip(pair.sources, pair.targets, strict=True)) for pair in pairs
    } == texts


def test_a_text_says_the_same_in_the_two_languages_of_its_name():
    world = translation.make_world(translation.Config())
    texts = language_world.draw_texts(world, languages=4, pairs=3, sentences=5, seed=0)
    assert len(texts) == 3
    for name, pairs in texts.items():
        first, second = (int(side[1:]) for side in name.split("-"))
        assert first < second < 4 and len(pairs) == 5
        sides = [language_world.spell(world.vocabulary, world.corpus[side]) for side in (first, second)]
        assert set(pairs) <= set(zip(*sides, strict=True))


@pytest.mark.parametrize("name", ["omniglot", "translation"])
def test_a_folder_that_is_not_empty_is_refused_in_three_lines_and_stays_as_it_is(metarun_, tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/precious.txt").write_text("kept")
    said = metarun_("data", "export", name, tmp_path / "mine")
    assert_three_lines(said, 2, "not an empty folder", "mine", "name a new folder")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["precious.txt"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not an empty folder"):
        exports.export_sentences(tmp_path / "file", {})
