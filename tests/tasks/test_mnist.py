"""MNIST's views draw what their facts say, from pictures, angles and permutations of their own split alone."""

import functools
import gzip
import hashlib
import json
import struct
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import ndimage

from helpers import trees
from metarun import config, errors
from metarun.data import downloads
from metarun.data import idx as idx_files
from metarun.data.sets import mnist_files as dataset
from metarun.data.sources import Source
from metarun.tasks import mnist
from metarun.tasks.mnist import digit_splits, pixel_maps

SPLITS = ("train", "validation", "test")
ALL = (tuple(range(10)),)
TRAIN = tuple(30 + 2 * label for label in range(10))  # pictures of each class in the small folder
TEST = tuple(12 + label for label in range(10))
NAMES = [Path(source.file).name for source in dataset.SOURCES]
AT_ONCE = 200  # episodes
FEW = {"shots": 2, "queries": 3, "validation_share": 0.25}  # for the small folder


def labels_of(counts, seed: int):
    """Labels in which class i occurs counts[i] times, in random order."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(10, dtype=np.uint8), counts))


def idx(values) -> bytes:
    """The array as an idx file of unsigned bytes."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def write(folder, arrays) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in zip(NAMES, arrays, strict=True):
        (folder / name).write_bytes(gzip.compress(idx(values), 1))


@functools.cache
def arrays():
    """Training pictures and labels, test pictures and labels; no picture twice."""
    train, test = labels_of(TRAIN, 0), labels_of(TEST, 1)
    pictures = np.random.default_rng(2).integers(0, 256, (len(train) + len(test), 10, 9), np.uint8)
    return pictures[: len(train)], train, pictures[len(train) :], test


@functools.cache
def owners():
    """{picture: (part, label)} of the small folder."""
    train_images, train_labels, test_images, test_labels = arrays()
    rows = [("train", *row) for row in zip(train_images, train_labels, strict=True)]
    rows += [("test", *row) for row in zip(test_images, test_labels, strict=True)]
    return {image.tobytes(): (part, int(label)) for part, image, label in rows}


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> str:
    """A folder of idx files with few and small pictures, which are noise."""
    folder = tmp_path_factory.mktemp("small")
    write(folder, arrays())
    return str(folder)


@pytest.fixture
def damaged(tmp_path):
    """A copy of it that the test may damage."""
    write(tmp_path / "folder", arrays())
    return tmp_path / "folder"


@functools.cache
def family(folder: str, **options):
    return mnist.build(mnist.Config(folder=folder, **FEW | options))


@functools.cache
def sampler(folder: str, **options):
    return jax.jit(jax.vmap(family(folder, **options).sample, in_axes=(None, 0)))


@functools.cache
def episodes(folder: str, split: str = "train", count: int = AT_ONCE, **options):
    """Many episodes of a split, in numpy. All splits are filled up to one size, to need one compilation."""
    part = dict(family(folder, **options).data[split])
    part["images"] = np.concatenate(
        [part["images"], np.zeros((sum(TRAIN) - len(part["images"]), 10, 9), np.uint8)]
    )
    keys = jax.random.split(jax.random.key(0), count).reshape(-1, AT_ONCE)
    batches = [jax.device_get(sampler(folder, **options)(part, each)) for each in keys]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)


def pictures_of(part):
    """The uint8 pictures of a part of many episodes: [episode, example, height, width]."""
    return np.rint(part.inputs[..., 0] * 255).astype(np.uint8)


def assert_shares(values, choices) -> None:
    """Whether every choice has about the same share: chi-square within five of its standard deviations."""
    counts = np.array([np.sum(values == choice) for choice in choices])
    assert counts.sum() == np.size(values)
    expected, freedom = np.size(values) / len(counts), len(counts) - 1
    assert np.sum((counts - expected) ** 2 / expected) <= freedom + 5 * np.sqrt(2 * freedom)


# What is drawn

VIEWS = {
    "classes": {"view": "classes"},
    "split": {"view": "split"},
    "all ten": {"view": "split", "tasks": ALL},
    "rotated, fixed": {"view": "rotated", "labels": "fixed", "counts": (2, 2, 2)},
    "rotated": {"view": "rotated", "counts": (2, 2, 2)},
    "permuted": {"view": "permuted", "counts": (2, 2, 2)},
}
upright = pytest.mark.parametrize("view", ["classes", "split", "all ten"])


@upright
@pytest.mark.parametrize("split", SPLITS)
def test_pictures_are_of_the_class_of_the_facts_and_of_the_files_of_the_split(small, view, split):
    batch = episodes(small, split, **VIEWS[view])
    ways = batch.facts["class"].shape[1]
    for part, count in ((batch.support, FEW["shots"]), (batch.query, FEW["queries"])):
        np.testing.assert_array_equal(part.targets, np.tile(np.repeat(np.arange(ways), count), (200, 1)))
        for shown, classes in zip(pictures_of(part), batch.facts["class"], strict=True):
            found = [owners()[picture.tobytes()] for picture in shown]
            assert [label for _, label in found] == np.repeat(classes, count).tolist()
            assert {origin for origin, _ in found} == {"test" if split == "test" else "train"}


@upright
def test_the_splits_share_no_picture(small, view):
    seen = [
        {picture.tobytes() for part in batch[:2] for shown in pictures_of(part) for picture in shown}
        for batch in (episodes(small, split, **VIEWS[view]) for split in SPLITS)
    ]
    assert min(map(len, seen)) > 20
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]


@pytest.mark.parametrize("view", VIEWS)
def test_pictures_of_an_episode_are_all_different(small, view):
    batch = episodes(small, "validation", **VIEWS[view])
    shown = np.concatenate([pictures_of(part) for part in batch[:2]], axis=1)
    for episode in shown:
        assert len({picture.tobytes() for picture in episode}) == len(episode)


def test_every_picture_of_a_class_is_as_likely_in_support_and_in_query(small):
    batch = episodes(small, "test", count=2000, **VIEWS["split"])
    images = arrays()[2][arrays()[3] == 9]
    for part, count in ((batch.support, FEW["shots"]), (batch.query, FEW["queries"])):
        shown = pictures_of(part)[np.repeat(batch.facts["class"] == 9, count, axis=1)]
        same = (shown[:, None] == images).all(axis=(2, 3))
        assert_shares(same.argmax(axis=1), range(TEST[9]))


def test_test_classes_are_never_in_the_data_of_training_or_validation(small):
    data = family(small, **VIEWS["classes"]).data
    for split in ("train", "validation"):
        shown = {owners()[image.tobytes()][1] for image in data[split]["images"]}
        assert shown == set(range(7))
    assert {owners()[image.tobytes()][1] for image in data["test"]["images"]} == {7, 8, 9}
    assert set(np.unique(episodes(small, "train", **VIEWS["classes"]).facts["class"])) == set(range(7))
    assert set(np.unique(episodes(small, "test", **VIEWS["classes"]).facts["class"])) == {7, 8, 9}


def test_validation_classes_of_their_own_are_neither_in_training_nor_in_test(small):
    options = {"train_classes": (0, 1), "validation_classes": (3, 4), "test_classes": (8, 9)}
    drawn = [set(np.unique(episodes(small, split, **options).facts["class"])) for split in SPLITS]
    assert drawn == [{0, 1}, {3, 4}, {8, 9}]


def test_a_fixed_list_is_one_task_and_each_is_as_likely(small):
    facts = episodes(small, count=1000, **VIEWS["split"]).facts
    np.testing.assert_array_equal(np.sort(facts["class"], axis=1), 2 * facts["task"][:, None] + [0, 1])
    assert_shares(facts["task"], range(5))


def test_groups_name_the_task_of_an_episode(small):
    built = family(small, **VIEWS["split"])
    batch = episodes(small, **VIEWS["split"])
    for episode in range(50):
        facts = jax.tree.map(lambda leaf, episode=episode: leaf[episode], batch.facts)
        low, high = sorted(facts["class"].tolist())
        assert built.groups.names[int(built.groups.locate(facts))] == f"classes {low} and {high}"
    assert family(small, **VIEWS["all ten"]).groups is None


@pytest.mark.parametrize("view", ["classes", "split", "all ten", "rotated"])
def test_shuffled_labels_give_every_label_to_every_class_as_often(small, view):
    classes = episodes(small, count=1000, **VIEWS[view]).facts["class"]
    for way in range(classes.shape[1]):
        assert_shares(classes[:, way], np.unique(classes))


def test_fixed_labels_are_those_of_the_list_in_every_episode(small):
    for view in ("permuted", "rotated, fixed"):
        classes = episodes(small, **VIEWS[view]).facts["class"]
        np.testing.assert_array_equal(classes, np.tile(np.arange(10), (AT_ONCE, 1)))
    listed = episodes(small, view="split", labels="fixed", tasks=((3, 1), (0, 2))).facts
    np.testing.assert_array_equal(listed["class"], np.array([[3, 1], [0, 2]])[listed["task"]])


# Angles and permutations


def test_the_parts_of_the_circle_are_all_in_one_split_each():
    for seed in range(5):
        sectors = digit_splits.split_sectors(mnist.Config(view="rotated").split_counts, seed)
        assert [len(sectors[name]) for name in SPLITS] == [24, 4, 8]
        np.testing.assert_array_equal(np.sort(np.concatenate([*sectors.values()])), np.arange(36))


def test_angles_of_a_split_fill_its_parts_of_the_circle_and_no_other(small):
    options = VIEWS["rotated"]
    sectors = digit_splits.split_sectors(mnist.Config(**options).split_counts, 0)
    for split in SPLITS:
        angle = episodes(small, split, count=600, **options).facts["angle"]
        assert_shares(np.floor(angle / 60), sectors[split])
        assert_shares(np.floor(angle % 60 / 10), range(6))


def test_permutations_are_fixed_tasks_and_no_split_has_one_of_another():
    counts = {"train": 20, "validation": 10, "test": 10}
    permutations = digit_splits.split_permutations(counts, 0, 784)
    together = np.concatenate([permutations[name] for name in SPLITS])
    np.testing.assert_array_equal(np.sort(together, axis=1), np.tile(np.arange(784), (40, 1)))
    assert len(np.unique(together, axis=0)) == 40
    fewer = digit_splits.split_permutations(counts | {"train": 5}, 0, 784)
    np.testing.assert_array_equal(fewer["test"], permutations["test"])
    other = digit_splits.split_permutations(counts, 1, 784)
    assert not (other["test"] == permutations["test"]).all(axis=1).any()


@pytest.mark.parametrize("split", SPLITS)
def test_the_pixels_of_an_episode_are_in_the_order_of_its_permutation(small, split):
    batch = episodes(small, split, **VIEWS["permuted"])
    permutations = family(small, **VIEWS["permuted"]).data[split]["permutations"]
    for part, count in ((batch.support, FEW["shots"]), (batch.query, FEW["queries"])):
        for episode, shown in enumerate(pictures_of(part)):
            order = permutations[batch.facts["permutation"][episode]]
            original = np.empty((len(shown), 90), np.uint8)
            original[:, order] = shown.reshape(len(shown), 90)
            labels = [owners()[picture.tobytes()][1] for picture in original]
            assert labels == np.repeat(batch.facts["class"][episode], count).tolist()


turn = jax.jit(pixel_maps.turn)


@pytest.mark.parametrize("quarter", range(4))
def test_turning_by_quarters_of_the_circle_is_that_of_numpy(quarter):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 9, 9), np.uint8)
    turned = turn(images, np.float32(90 * quarter))
    np.testing.assert_array_equal(turned, np.rot90(images, quarter, axes=(2, 3)))


@pytest.mark.parametrize("degrees", [0.0, 10.0, 77.5, 200.0, 359.0])
def test_turning_by_any_angle_is_that_of_scipy(degrees):
    images = np.random.default_rng(0).integers(0, 256, (1, 2, 9, 12), np.uint8)
    turned = turn(images, np.float32(degrees))
    settings = {"axes": (2, 3), "reshape": False, "order": 1, "mode": "grid-constant"}
    expected = ndimage.rotate(images.astype(np.float64), degrees, **settings)
    assert np.abs(np.asarray(turned, np.float64) - expected).max() < 0.51  # rounded to whole grey values


@pytest.mark.parametrize("view", VIEWS)
def test_splits_depend_on_the_split_seed_and_on_no_other_random_state(small, view):
    reference = family(small, **VIEWS[view]).data
    np.random.seed(1)  # the global state is the point
    again = mnist.build(mnist.Config(folder=small, **FEW | VIEWS[view]))
    trees.assert_equal(again.data, reference)
    other = family(small, split_seed=1, **VIEWS[view]).data
    assert not np.array_equal(other["validation"]["images"], reference["validation"]["images"])


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_gives_episodes_as_its_spec_says(small, view):
    built, batch = family(small, **VIEWS[view]), episodes(small, **VIEWS[view])
    assert batch.support.inputs.shape[2:] == built.problem.spec.input_shape == (10, 9, 1)
    assert set(np.unique(batch.query.targets)) == set(range(built.problem.spec.output_size))
    assert built.problem.spec.output_size == {"classes": 3, "split": 2}.get(view, 10)
    assert built.form.inverted


@pytest.mark.parametrize("inverted", [True, False])
def test_the_form_of_a_picture_file_is_as_configured(inverted):
    assert mnist.outline(mnist.Config(inverted=inverted)).form.inverted == inverted


@pytest.mark.parametrize("view", ["classes", "split", "all ten", "rotated", "permuted"])
def test_the_outline_draws_the_episodes_of_the_family_without_any_file(view, data_root, monkeypatch):
    options = {name: value for name, value in VIEWS[view].items() if name != "counts"}
    built = mnist.build(mnist.Config(**options))
    monkeypatch.setenv("METARUN_DATA", "nowhere")
    outline = mnist.outline(mnist.Config(**options))
    assert (outline.problem.spec, outline.form, outline.groups is None) == (
        built.problem.spec,
        built.form,
        built.groups is None,
    )
    assert outline.problem.training_classes == built.problem.training_classes == {"classes": 7}.get(view, 10)
    for split in SPLITS:
        drawn, expected = (
            jax.eval_shape(each.sample, each.data[split], jax.random.key(0)) for each in (outline, built)
        )
        assert drawn == expected
        trees.assert_equal(*(each.data[split]["classes"].shape for each in (outline, built)))


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ALL}, "tasks is an option of the view split, not of classes"),
        ({"counts": (2, 2, 2)}, "rotated or permuted"),
        ({"view": "split", "test_classes": (8, 9)}, "test_classes is an option"),
        ({"test_classes": (6, 7)}, "two of"),
        ({"validation_classes": (0, 1)}, "two of"),
        ({"train_classes": (1, 1, 2)}, "twice"),
        ({"test_classes": (7,)}, "1 classes, two"),
        ({"view": "split", "tasks": ((0, 1), (2, 3, 4))}, "one length"),
        ({"view": "split", "tasks": ()}, "one length"),
        ({"view": "split", "tasks": ((0, 0),)}, "twice"),
        ({"view": "rotated", "counts": (2, 2)}, "three numbers"),
        ({"view": "rotated", "counts": (3000, 500, 500)}, "more than 3600 parts"),
        ({"view": "permuted", "counts": (2, 2, 0)}, "only validation"),
        ({"labels": "fixed"}, "fixed labels"),
    ],
    ids=str,
)
def test_options_that_contradict_each_other_are_refused_without_the_data(options, message):
    with pytest.raises(ValueError, match=message):
        mnist.Config(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 4}, "4 ways cannot be taken from the 3 classes that a test task has"),
        ({"view": "split", "ways": 3}, "3 ways"),
        (
            {"view": "rotated", "labels": "fixed", "ways": 5},
            "5 ways with fixed labels are not all of the 10 classes",
        ),
        ({"view": "split", "tasks": ((0, 1), (2, 12))}, "class 12 has 0 train pictures"),
        ({"view": "split", "shots": 5, "queries": 4}, "class 0 has 8 validation pictures"),
        ({"view": "split", "shots": 7, "queries": 6}, "take fewer shots"),
    ],
    ids=str,
)
def test_what_the_data_has_not_is_refused(small, options, message):
    with pytest.raises(ValueError) as caught:
        mnist.build(mnist.Config(folder=small, **FEW | options))
    assert message in " ".join(caught.value.args)


def test_the_largest_episodes_take_every_picture_of_a_class(small):
    batch = episodes(small, "validation", view="split", tasks=((0, 1),), shots=4, queries=4)
    for shown in np.concatenate([pictures_of(part) for part in batch[:2]], axis=1):
        assert len({picture.tobytes() for picture in shown}) == 16


# Files


def test_a_folder_is_read_whole_and_sorted_by_label(small):
    loaded = dataset.load(Path("nowhere"), Path(small))
    for part, images, labels in ((loaded.train, *arrays()[:2]), (loaded.test, *arrays()[2:])):
        order = np.argsort(labels, kind="stable")
        np.testing.assert_array_equal(part.images, images[order])
        np.testing.assert_array_equal(part.labels, labels[order])
        assert isinstance(part.images, np.memmap)
        assert not part.images.flags.writeable


@pytest.mark.parametrize(
    "renamed",
    [
        lambda name: name,
        lambda name: name.removesuffix(".gz"),
        lambda name: name.removesuffix(".gz").replace("-idx", ".idx"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_files_are_found_plain_or_gzipped_whatever_their_ending(damaged, packed, renamed):
    before = np.array(dataset.load(Path("nowhere"), damaged).train.images)
    for name in NAMES:
        content = (damaged / name).read_bytes()
        (damaged / name).unlink()
        (damaged / renamed(name)).write_bytes(content if packed else gzip.decompress(content))
    np.testing.assert_array_equal(dataset.load(Path("nowhere"), damaged).train.images, before)


def test_a_folder_that_was_written_again_is_read_again(damaged):
    dataset.load(Path("nowhere"), damaged)
    write(damaged, [255 - values if values.ndim == 3 else values for values in arrays()])
    loaded = dataset.load(Path("nowhere"), damaged)
    np.testing.assert_array_equal(loaded.train.labels, np.sort(arrays()[1]))
    assert loaded.test.images[0].tobytes() not in owners()


def rewrite(name: str, change):
    """Damages the content of one file and packs it again."""
    return lambda folder: (folder / name).write_bytes(
        gzip.compress(change(gzip.decompress((folder / name).read_bytes())), 1)
    )


def cut_packed(folder):
    (folder / NAMES[0]).write_bytes((folder / NAMES[0]).read_bytes()[:-1000])


def flip_packed(folder):
    content = bytearray((folder / NAMES[0]).read_bytes())
    content[-6] ^= 1  # in the checksum at the end
    (folder / NAMES[0]).write_bytes(content)


def swap(folder):
    (folder / NAMES[0]).write_bytes((folder / NAMES[1]).read_bytes())


DAMAGES = {
    "missing": (lambda folder: (folder / NAMES[2]).unlink(), "t10k-images-idx3-ubyte.gz is missing"),
    "a folder": (
        lambda folder: ((folder / NAMES[0]).unlink(), (folder / NAMES[0]).mkdir()),
        "not a regular file",
    ),
    "empty": (lambda folder: (folder / NAMES[0]).write_bytes(b""), "begins with nothing"),
    "text": (lambda folder: (folder / NAMES[0]).write_text("<html>"), "magic number 00000803"),
    "labels for pictures": (swap, "begins with 00000801"),
    "cut": (cut_packed, "truncated or damaged"),
    "a flipped bit": (flip_packed, "truncated or damaged"),
    "header alone": (rewrite(NAMES[0], lambda content: content[:10]), "within its header"),
    "a byte short": (rewrite(NAMES[0], lambda content: content[:-1]), "ends before"),
    "a byte long": (rewrite(NAMES[0], lambda content: content + b"x"), "goes on after"),
    "floats": (rewrite(NAMES[0], lambda content: b"\0\0\x0d\x03" + content[4:]), "magic number"),
    "no pictures": (rewrite(NAMES[0], lambda content: content[:4] + bytes(12)), "states 0 bytes"),
    "huge": (rewrite(NAMES[0], lambda content: content[:4] + b"\x7f" * 12), "allowed"),
    "a label short": (
        rewrite(NAMES[3], lambda content: idx(arrays()[3][:-1])),
        "165 pictures, and there are 164",
    ),
    "other size": (rewrite(NAMES[2], lambda content: idx(arrays()[2][:, :9])), "test pictures of 9×9"),
    "a label alone": (
        rewrite(NAMES[3], lambda content: idx(arrays()[3] + 1)),
        "label 0 occurs in training alone",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_folder_is_a_data_error_that_says_what_where_and_what_to_do(damaged, damage):
    spoil, reason = DAMAGES[damage]
    spoil(damaged)
    with pytest.raises(errors.DataError) as caught:
        dataset.load(Path("nowhere"), damaged)
    assert reason in caught.value.what
    assert caught.value.exit_code == 4
    assert str(damaged) in caught.value.where
    assert "a folder of idx files needs" in caught.value.remedy
    assert "data fetch" not in caught.value.remedy


def test_a_bomb_is_not_decompressed(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((1, 8, 8), np.uint8)) + bytes(1 << 24), 9))
    opened = []

    class Counted(gzip.GzipFile):
        def read(self, size=-1):
            content = super().read(size)
            opened.append(len(content))
            return content

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(errors.DataError, match="goes on after the 64 bytes"),
    ):
        patch.setattr(gzip, "GzipFile", Counted)
        idx_files.read_bytes(path, 3, "remedy")
    assert sum(opened) == 16 + 64 + 1


def published(folder):
    """Sources whose content is that of the small folder, below its parent."""
    return tuple(
        Source(
            f"{folder.name}/{name}",
            (),
            "md5:0",
            hashlib.sha256(gzip.decompress((folder / name).read_bytes())).hexdigest(),
            0,
        )
        for name in NAMES
    )


def test_published_files_must_have_their_content_however_they_are_packed(damaged):
    sources = published(damaged)
    loaded = dataset._load(damaged.parent, sources, None, None)
    (damaged / NAMES[0]).write_bytes(idx(arrays()[0]))  # not packed at all
    np.testing.assert_array_equal(
        dataset._load(damaged.parent, sources, None, None).train.images, loaded.train.images
    )
    altered = arrays()[0].copy()
    altered[0, 5, 5] ^= 1
    (damaged / NAMES[0]).write_bytes(idx(altered))
    with pytest.raises(errors.DataError, match="was altered") as caught:
        dataset._load(damaged.parent, sources, None, None)
    assert "metarun data fetch" in caught.value.remedy


def test_verify_tells_ok_from_missing_and_altered(damaged, monkeypatch):
    monkeypatch.setattr(dataset, "SOURCES", published(damaged))
    (damaged / NAMES[1]).unlink()
    flip_packed(damaged)
    (damaged / NAMES[2]).write_bytes(idx(255 - arrays()[2]))
    states = [report.state for report in downloads.verify("mnist", damaged.parent)]
    assert states == ["altered", "missing", "altered", "ok"]


def test_a_folder_that_is_not_there_says_which_file_it_looked_for(tmp_path):
    with pytest.raises(errors.DataError, match="is missing") as caught:
        mnist.build(mnist.Config(folder=str(tmp_path / "absent")))
    assert str(tmp_path / "absent" / NAMES[0]) == caught.value.where


def test_mnist_that_is_not_there_can_be_fetched(tmp_path):
    with pytest.raises(errors.DataError, match=r"train-images-idx3-ubyte\.gz is missing") as caught:
        dataset.load(tmp_path)
    assert "metarun data fetch mnist" in caught.value.remedy


# The real data


def test_mnist_has_60000_training_and_10000_test_pictures_of_ten_digits(data_root):
    loaded = dataset.load(data_root)
    assert loaded.train.images.shape == (60_000, 28, 28)
    assert loaded.test.images.shape == (10_000, 28, 28)
    assert np.bincount(loaded.train.labels)[[0, 1, 5]].tolist() == [5923, 6742, 5421]  # as the paper's files
    assert np.bincount(loaded.test.labels)[[0, 1, 5]].tolist() == [980, 1135, 892]


def test_ink_is_bright_on_dark_paper(data_root):
    images = dataset.load(data_root).test.images
    assert np.median(images) == 0
    assert images.max(axis=(1, 2)).min() > 128
    assert images[:, 0].max() == 0  # the border


def test_the_real_files_verify_by_content(data_root):
    assert [report.state for report in downloads.verify("mnist", data_root)] == ["ok"] * 4


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "configs" / "mnist").glob("*.yaml")), ids=str
)
def test_a_config_draws_the_episodes_that_it_names(path, data_root):
    selection = config.load(path).task
    built = mnist.build(mnist.Config(**vars(selection.config)))
    episode = jax.eval_shape(built.sample, built.data["test"], jax.random.key(0))
    assert episode.support.inputs.shape == (
        built.problem.spec.output_size * selection.config.shots,
        28,
        28,
        1,
    )


def test_what_a_run_keeps_of_a_folder_stands_for_its_files_and_tells_them_from_others(small, tmp_path):
    made = family(small)
    kept = json.loads(json.dumps(made.kept))
    outline = mnist.outline(mnist.Config(folder="/nowhere", **FEW), kept)
    assert outline.problem.spec == made.problem.spec and outline.kept == kept
    other = [np.array(values) for values in arrays()]
    other[0][0, 0, 0] += 1
    write(tmp_path, other)
    changed = mnist.build(mnist.Config(folder=str(tmp_path), **FEW)).kept
    assert changed["fingerprint"] != kept["fingerprint"] and changed["size"] == kept["size"]
