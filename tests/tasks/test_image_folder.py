"""A folder of anybody's pictures becomes fair episodes, or is refused by name: whatever is in it."""

import collections
import itertools
import logging
import os
import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from helpers import trees
from metarun import config, errors, plugins
from metarun.data import class_folders, folder_listing, observers, picture_files
from metarun.data.preparation import Preparation
from metarun.tasks import _classes, image_folder


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))


def paint(path, value, size=(8, 8)):
    """A picture of one grey value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value,) * 3).save(path)
    return path


@pytest.fixture
def unequal(tmp_path):
    """Nine classes of 2 to 10 pictures; the picture p of class c has the grey value 16 c + p."""
    root = tmp_path / "pictures"
    for number in range(9):
        for picture in range(2 + number):
            paint(root / f"class{number}" / f"{picture:02}.png", 16 * number + picture)
    return root


def family(root, **given):
    options = {"ways": 2, "queries": 1, "size": 8, "counts": (4, 2, 3), **given}
    return image_folder.build(image_folder.Config(folder=str(root), **options))


def episodes(built, split="train", count=200):
    keys = jax.random.split(jax.random.key(0), count)
    return jax.device_get(jax.jit(jax.vmap(built.sample, in_axes=(None, 0)))(built.data[split], keys))


def values(part):
    """The grey value of every picture, which names it: [task, example]."""
    grey = np.round(part.inputs * 255).astype(int)
    assert (grey == grey[:, :, :1, :1, :1]).all()
    return grey[:, :, 0, 0, 0]


# Episodes


def test_choosing_below_a_number_gives_every_ordered_choice_equally_often():
    keys = jax.random.split(jax.random.key(0), 24_000)
    drawn = jax.jit(jax.vmap(lambda key: _classes.choose_below(key, 3, jnp.int32(4))))(keys)
    counts = collections.Counter(map(tuple, np.asarray(drawn).tolist()))
    assert set(counts) == set(itertools.permutations(range(4), 3))
    assert max(abs(count - 1000) for count in counts.values()) < 5 * 1000**0.5


def test_choosing_as_many_as_there_are_gives_each_once():
    drawn = _classes.choose_below(jax.random.key(0), 40, jnp.int32(40))
    assert sorted(np.asarray(drawn).tolist()) == list(range(40))


def test_an_episode_holds_different_pictures_of_its_own_classes_and_split(unequal):
    built = family(unequal, ways=3, shots=1, queries=2, counts=(5, 0, 4))
    for split, indices in built.data.items():
        drawn = episodes(built, split)
        support, query = values(drawn.support).reshape(-1, 3, 1), values(drawn.query).reshape(-1, 3, 2)
        both = np.concatenate([support, query], axis=2)
        assert (both // 16 == drawn.facts["class"][:, :, None]).all()
        assert set(np.unique(both // 16)) <= set(indices["class"].tolist())
        assert all(len(set(of_way)) == 3 for of_way in both.reshape(-1, 3).tolist())
        assert (drawn.query.targets == np.repeat(np.arange(3), 2)).all()


def test_every_picture_of_every_class_that_is_large_enough_is_drawn_and_no_other(unequal):
    built = family(unequal, shots=2, queries=2, counts=(5, 0, 4))
    for split, indices in built.data.items():
        drawn = episodes(built, split, 1000)
        large = [number for number in indices["class"].tolist() if 2 + number >= 4]
        expected = {16 * number + picture for number in large for picture in range(2 + number)}
        for part in (drawn.support, drawn.query):
            assert set(values(part).ravel().tolist()) == expected


def test_the_splits_hold_different_classes_whatever_is_drawn_from_them(unequal):
    split = {name: set(part["class"].tolist()) for name, part in family(unequal).data.items()}
    assert sorted(itertools.chain(*split.values())) == list(range(9))
    for given in ({"shots": 2}, {"queries": 2}, {"size": 10}, {"channels": 1}):
        other = family(unequal, **given).data
        assert {name: set(part["class"].tolist()) for name, part in other.items()} == split
    different = family(unequal, split_seed=1).data
    assert {name: set(part["class"].tolist()) for name, part in different.items()} != split


def test_shares_of_the_classes_fall_to_the_splits(tmp_path):
    for number, picture in np.ndindex(25, 2):
        paint(tmp_path / "pictures" / f"{number:02}" / f"{picture}.png", number)
    sizes = {name: len(part["class"]) for name, part in family(tmp_path / "pictures", counts=()).data.items()}
    assert sizes == {"train": 16, "validation": 4, "test": 5}
    whole = family(tmp_path / "pictures", counts=(), shares=(0.8, 0.0, 0.2)).data
    assert {name: len(part["class"]) for name, part in whole.items()} == {"train": 20, "test": 5}


def test_splits_made_by_hand_are_taken_as_they_are(tmp_path):
    root = tmp_path / "pictures"
    for split, names in {"train": "abc", "test": "de"}.items():
        for name, picture in itertools.product(names, range(2)):
            paint(root / split / name / f"{picture}.png", ord(name) + 10 * picture)
    built = family(root, counts=())
    assert {name: part["class"].tolist() for name, part in built.data.items()} == {
        "train": [0, 1, 2],
        "test": [3, 4],
    }
    assert set(values(episodes(built, "test").query).ravel().tolist()) == {100, 101, 110, 111}
    with pytest.raises(errors.DataError, match="counts was given"):
        family(root, counts=(3, 0, 2))


def test_the_folder_is_kept_as_a_whole_path_so_that_a_run_finds_it_from_anywhere(unequal, monkeypatch):
    monkeypatch.chdir(unequal.parent)
    assert image_folder.Config(folder="pictures").folder == str(unequal)
    twin = plugins.read_config_class("task", "image_folder")(folder="pictures")
    assert plugins.make_config("task", "image_folder", twin).folder == str(unequal)


def test_a_config_file_binds_the_folder_and_its_options(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "task: {name: image_folder, folder: /pictures, channels: 1, shares: [0.5, 0.25, 0.25]}\n"
        "model: {name: resnet12, width: 16}\nalgorithm: {name: maml, inner_steps: 1, inner_lr: 0.1}\n"
        "training: {steps: 1, tasks_per_step: 1}\n"
    )
    loaded = config.load(file).task.config
    assert (loaded.folder, loaded.channels, loaded.shares) == ("/pictures", 1, (0.5, 0.25, 0.25))
    with pytest.raises(errors.ConfigError, match="channels cannot be 2"):
        config.load(file, ["task.channels=2"])
    with pytest.raises(errors.ConfigError, match="add up to 1"):
        config.load(file, ["task.shares=[0.5,0.5,0.5]"])


# Too little


def test_small_classes_are_named_and_left_out_or_refused(unequal, caplog):
    with caplog.at_level(logging.WARNING, "metarun"):
        family(unequal, shots=2, queries=2, counts=(5, 0, 4))
    assert "2 classes have fewer than 4 pictures (shots + queries): class0 (2), class1 (3)" in caplog.text
    with pytest.raises(errors.DataError, match=r"class0 \(2\), class1 \(3\)") as caught:
        family(unequal, shots=2, queries=2, counts=(5, 0, 4), small_classes="refuse")
    assert caught.value.exit_code == 4
    assert "leave_out" in caught.value.remedy


def test_a_split_without_classes_enough_is_refused_with_their_number(unequal):
    with pytest.raises(
        errors.DataError, match=r"3 classes of the test split.*4 train . 2 validation . 3 test"
    ) as it:
        family(unequal, ways=4)
    assert it.value.where == str(unequal)
    assert "task.counts=[5,0,4]" in it.value.remedy
    assert set(family(unequal, ways=4, counts=(5, 0, 4)).data) == {"train", "test"}
    with pytest.raises(errors.DataError, match="0 classes of the train split"):
        family(unequal, counts=(0, 0, 9))
    with pytest.raises(errors.DataError, match=r"5 \+ 3 \+ 4 classes of 9"):
        family(unequal, counts=(5, 3, 4))


# What a folder may hold


def load(root, size=8, channels=3):
    return class_folders.load(root, Preparation(size, crop="stretch", channels=channels))


def test_the_table_is_the_pictures_in_sorted_order(unequal):
    loaded = load(unequal)
    assert loaded.class_names == tuple(f"class{number}" for number in range(9))
    assert loaded.counts.tolist() == [2 + number for number in range(9)]
    expected = [16 * number + picture for number in range(9) for picture in range(2 + number)]
    assert loaded.images[:, 0, 0, 0].tolist() == expected
    assert (loaded.images == loaded.images[:, :1, :1, :1]).all()
    starts = [row for row, value in enumerate(expected) if value % 16 == 0]
    assert loaded.starts.tolist() == starts


def colours(root):
    """Red over blue, 6 wide and 4 high, in every form that pictures come in; (name, colour of the top, grey)."""
    red, blue = (250, 10, 20), (10, 20, 250)
    picture = Image.new("RGB", (6, 4), red)
    picture.paste(blue, (0, 2, 6, 4))
    forms = root / "forms"
    forms.mkdir(parents=True)
    picture.save(forms / "plain.png")
    picture.save(forms / "plain.bmp")
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(forms / "palette.gif")
    picture.convert("CMYK").save(forms / "print.tiff")
    picture.save(forms / "UPPER.PPM")
    clear = picture.convert("RGBA")
    clear.paste((250, 10, 20, 255), (0, 0, 6, 2))
    clear.save(forms / "alpha.png")
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90°
    turned.save(forms / "turned.png", exif=exif)
    picture.save(
        forms / "moving.gif", save_all=True, append_images=[Image.new("RGB", (6, 4), "green")], duration=9
    )
    return red, blue


def test_colours_palettes_alpha_print_orientation_and_animations_are_read_alike(tmp_path):
    red, blue = colours(tmp_path / "pictures")
    loaded = load(tmp_path / "pictures", size=8)
    assert loaded.counts.tolist() == [8]
    for picture in loaded.images:
        np.testing.assert_allclose(picture[0], [red] * 8, atol=12)  # sharpening overshoots by up to 10
        np.testing.assert_allclose(picture[7], [blue] * 8, atol=12)


def test_sixteen_bits_one_bit_and_transparent_pictures_keep_their_brightness(tmp_path):
    root = tmp_path / "pictures" / "a"
    root.mkdir(parents=True)
    Image.fromarray(np.full((8, 8), 257 * 100, np.uint16)).save(root / "deep.png")
    Image.new("1", (8, 8), 1).save(root / "one-bit.png")
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(root / "transparent.png")
    Image.new("LA", (8, 8), (0, 128)).save(root / "veil.png")
    loaded = load(tmp_path / "pictures", channels=1)
    assert loaded.images.shape == (4, 8, 8, 1)
    assert loaded.images[:, 4, 4, 0].tolist() == [100, 255, 255, 127]


def test_unreadable_pictures_are_named_and_refused_or_left_out(unequal, caplog):
    (unequal / "class3" / "00.png").write_bytes(b"no picture")
    whole = (unequal / "class8" / "09.png").read_bytes()
    (unequal / "class8" / "09.png").write_bytes(whole[:50])
    with pytest.raises(errors.DataError, match=r"2 pictures cannot be read: class3: 00\.png") as caught:
        family(unequal)
    assert "class8: 09.png" in caught.value.what
    assert str(caught.value).count("\n") == 2
    with caplog.at_level(logging.WARNING, "metarun"):
        built = family(unequal, unreadable="leave_out", counts=(5, 0, 4))
    assert "class3: 00.png" in caplog.text
    loaded = load(unequal)
    assert loaded.counts.tolist() == [2, 3, 4, 4, 6, 7, 8, 9, 9]
    assert loaded.images[loaded.starts, 0, 0, 0].tolist() == [0, 16, 32, 49, 64, 80, 96, 112, 128]
    drawn = np.concatenate([values(episodes(built, split, 1000).query).ravel() for split in built.data])
    assert not {48, 137} & set(drawn.tolist())


def test_a_decompression_bomb_is_refused_by_its_header(unequal):
    bomb = unequal / "class0" / "bomb.png"
    bomb.write_bytes(header_of_png(60_000, 60_000))
    with pytest.raises(errors.DataError, match=r"bomb\.png"):
        family(unequal)
    bomb.write_bytes(header_of_png(9_000, 9_000))
    with pytest.raises(errors.DataError, match=r"bomb\.png has 9000 × 9000 pixels"):
        family(unequal)


def header_of_png(width, height):
    """A PNG that claims these sizes and holds next to nothing."""

    def chunk(kind, content):
        packed = struct.pack(">I", len(content)) + kind + content
        return packed + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(9)))


LINKS = {
    "a picture outside": ("class0/link.png", "../../secret.png", "class0/link.png leads out"),
    "a class outside": ("class9", "../outside", "class9 leads out"),
    "an absolute path": ("class0/link.png", "/etc/hostname", "leads out of the folder"),
    "a loop": ("class0/loop.png", "loop.png", "class0/loop.png leads nowhere"),
    "nothing": ("class0/gone.png", "gone-for-good.png", "class0/gone.png leads nowhere"),
    "a folder whose name begins as the root's": ("class9", "../pictures2", "class9 leads out"),
}


@pytest.mark.parametrize("case", LINKS)
def test_links_out_of_the_folder_are_refused_by_name(unequal, case):
    link, target, reason = LINKS[case]
    for neighbour in ("outside", "pictures2"):
        paint(unequal.parent / neighbour / "a.png", 1)
    paint(unequal.parent / "secret.png", 1)
    (unequal / link).symlink_to(target)
    with pytest.raises(errors.DataError, match=reason) as caught:
        load(unequal)
    assert caught.value.exit_code == 4


def test_links_within_the_folder_and_a_root_that_is_a_link_are_followed(unequal):
    (unequal / "class0" / "link.png").symlink_to(unequal / "class8" / "00.png")
    root = unequal.parent / "link-to-root"
    root.symlink_to(unequal)
    assert load(root).images[:3, 0, 0, 0].tolist() == [0, 1, 128]


def test_hidden_files_are_passed_over_and_what_is_no_picture_is_named(unequal, caplog):
    before = load(unequal).images.shape
    for name in (
        ".DS_Store",
        ".git/config",
        "class0/.hidden.png",
        "class0/Thumbs.db",
        "notes.txt",
        "empty/a.doc",
    ):
        (unequal / name).parent.mkdir(exist_ok=True)
        (unequal / name).write_text("nothing to see")
    paint(unequal / "class0" / "deeper" / "a.png", 1)
    os.mkfifo(unequal / "class0" / "pipe.png")
    with caplog.at_level(logging.WARNING, "metarun"):
        assert load(unequal).images.shape == before
    named = "notes.txt, class0/Thumbs.db, class0/deeper, class0/pipe.png, empty/a.doc, empty/"
    assert f"passed over {named}" in caplog.text


NO_FOLDERS = {
    "missing": (lambda root: None, "No such file"),
    "a file": (lambda root: root.write_text("a file"), "Not a directory"),
    "empty": (lambda root: root.mkdir(), "no pictures in class folders"),
    "pictures without classes": (lambda root: paint(root / "a.png", 1), "no pictures in class folders"),
    "train and others": (
        lambda root: [paint(root / name / "x" / "a.png", 1) for name in ("train", "val")],
        "beside the folder train there is val",
    ),
    "a class on both sides": (
        lambda root: [paint(root / name / "cat" / "a.png", 1) for name in ("train", "test")],
        "the class cat is in train and in test",
    ),
    "train without test": (
        lambda root: paint(root / "train" / "x" / "a.png", 1),
        "classes of the train split",
    ),
}


@pytest.mark.parametrize("case", NO_FOLDERS)
def test_what_is_no_folder_of_classes_is_refused_with_what_it_should_be(tmp_path, case):
    make, reason = NO_FOLDERS[case]
    make(tmp_path / "pictures")
    with pytest.raises(errors.DataError, match=reason) as caught:
        family(tmp_path / "pictures", counts=())
    assert str(tmp_path / "pictures") in caught.value.where
    assert str(caught.value).count("\n") == 2


def test_without_train_a_class_may_be_called_test(tmp_path):
    for name in ("test", "other"):
        paint(tmp_path / "pictures" / name / "a.png", 1)
    loaded = load(tmp_path / "pictures")
    assert (loaded.class_names, loaded.splits) == (("other", "test"), ())


def test_names_that_would_write_to_the_terminal_are_spelt_out(unequal):
    (unequal / "class0" / "\x1b[31m\n.png").write_bytes(b"no picture")
    with pytest.raises(errors.DataError) as caught:
        family(unequal)
    assert "\x1b" not in str(caught.value)
    assert str(caught.value).count("\n") == 2


@pytest.mark.parametrize(
    ("module", "limit", "value", "reason"),
    [
        (folder_listing, "MOST_ENTRIES", 20, "20 files"),
        (folder_listing, "MOST_BYTES", 500, "500 bytes"),
        (class_folders, "MOST_DECODED", 500, "500 allowed"),
    ],
)
def test_folders_beyond_the_limits_are_refused_before_decoding(
    unequal, monkeypatch, module, limit, value, reason
):
    monkeypatch.setattr(module, limit, value)
    monkeypatch.setattr(picture_files, "read_picture", None)
    with pytest.raises(errors.DataError, match=reason):
        load(unequal)


# The cache


@pytest.fixture
def decoded(monkeypatch):
    """The pictures that were decoded."""
    paths, read = [], picture_files.read_picture
    monkeypatch.setattr(
        picture_files, "read_picture", lambda path, *given: (paths.append(path), read(path, *given))[1]
    )
    return paths


CHANGES = {
    "a new picture": lambda root: paint(root / "class0" / "new.png", 7),
    "a lost picture": lambda root: (root / "class8" / "09.png").unlink(),
    "a renamed picture": lambda root: (root / "class0" / "00.png").rename(root / "class0" / "x.png"),
    "a renamed class": lambda root: (root / "class0").rename(root / "other"),
    "an altered picture": lambda root: os.utime(paint(root / "class0" / "00.png", 9), ns=(1, 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_is_decoded_once_and_again_when_it_has_changed(unequal, decoded, change):
    first = np.array(load(unequal).images)
    np.testing.assert_array_equal(load(unequal).images, first)
    assert len(decoded) == 54
    CHANGES[change](unequal)
    load(unequal)
    assert len(decoded) in (54 + 53, 54 + 54, 54 + 55)


def test_each_size_and_number_of_channels_has_its_own_entry(unequal, decoded):
    for size, channels in ((8, 3), (9, 3), (8, 1), (8, 3), (9, 3), (8, 1)):
        assert load(unequal, size, channels).images.shape == (54, size, size, channels)
    assert len(decoded) == 3 * 54


def test_progress_is_told_to_whoever_watches_and_ends_at_the_number_of_pictures(unequal):
    reports = []
    with observers.report_to(lambda *report: reports.append(report)):
        load(unequal)
        load(unequal)
    assert reports[-1] == (54, 54, "decoding pictures")
    assert [done for done, _, _ in reports] == sorted({done for done, _, _ in reports})
    assert observers.current_observer() is None


def test_a_picture_of_an_episode_is_drawn_in_colour_and_not_inverted(tmp_path):
    from matplotlib.figure import Figure

    for name in "abcd":
        for picture in range(2):
            path = tmp_path / "pictures" / name / f"{picture}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (200, 100, 50)).save(path)
    for channels, expected in ((3, [200 / 255, 100 / 255, 50 / 255]), (1, 124 / 255)):
        built = family(tmp_path / "pictures", counts=(2, 0, 2), channels=channels)
        episode = jax.tree.map(lambda leaf: leaf[0], episodes(built, count=1))
        figure = Figure()
        built.draw(figure, episode, {0: lambda inputs: np.eye(2)[[0, 1]]})
        image = figure.axes[0].images[0]
        np.testing.assert_allclose(np.asarray(image.get_array())[0, 0], expected, rtol=1e-5)
        assert image.get_cmap().name != "gray_r"
    assert trees.kind_of(episode.support.inputs).shape == (2, 8, 8, 1)
