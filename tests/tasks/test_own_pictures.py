"""What photographs need beyond their classes: chosen episodes, preparation, tables on the disk, what a run keeps."""

import dataclasses
import json
import os
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from metarun import assembly, config, errors
from metarun.config import differences
from metarun.data import cache, class_folders, picture_files
from metarun.data.preparation import Preparation
from metarun.tasks import _folder_classes, image_folder
from metarun.tasks.image_folder import Augment, Config


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))


def draw_folder(root, classes, pictures):
    """Write pictures of noise, 12 high and 16 wide."""
    generator = np.random.default_rng(0)
    for number in range(classes):
        for picture in range(pictures):
            path = root / f"class{number:02}" / f"{picture:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(values).save(path, compress_level=1)
    return root


@pytest.fixture
def folder(tmp_path):
    """15 classes of 12 pictures."""
    return draw_folder(tmp_path / "pictures", 15, 12)


def levels(inputs):
    """The levels, 0 to 255, of pictures in [0, 1]."""
    return np.round(255 * np.asarray(inputs)).astype(np.uint8)


def sample(family, split="train", count=6):
    keys = jax.random.split(jax.random.key(0), count)
    return jax.device_get(jax.jit(jax.vmap(family.sample, in_axes=(None, 0)))(family.data[split], keys))


# What a new run chooses


def test_15_classes_of_12_pictures_give_episodes_without_any_option(folder):
    settled = image_folder.settle(Config(str(folder)))
    assert (settled.ways, settled.shots, settled.queries, settled.counts) == (5, 1, 5, (10, 0, 5))
    assert settled.crop == "centre"
    assert image_folder.settle(settled) == settled


@pytest.mark.parametrize(
    ("classes", "options", "ways", "counts"),
    [
        (100, {}, 5, ()),  # the shares serve: 64, 16, 20
        (20, {}, 5, (10, 5, 5)),
        (8, {}, 4, (4, 0, 4)),
        (15, {"ways": 3}, 3, (9, 3, 3)),
        (15, {"counts": (9, 0, 6)}, 5, (9, 0, 6)),
        (15, {"shares": (0.5, 0.0, 0.5)}, 5, ()),
    ],
)
def test_classes_are_shared_out_so_that_an_episode_fits_each_split(classes, options, ways, counts):
    chosen = Config("pictures", **options)
    assert (chosen.ways or max(2, min(5, classes // 2))) == ways
    assert (chosen.counts or _folder_classes.choose_counts(chosen, classes, ways)) == counts


def test_queries_are_what_the_smallest_class_has_left_and_the_split_never_depends_on_them(tmp_path):
    sizes = [np.array([9, 3, 4]), np.array([1, 12])]
    filled = _folder_classes.fill(Config("x", shots=2), sizes)
    assert (filled.ways, filled.shots, filled.queries) == (2, 2, 1)
    filled = _folder_classes.fill(Config("x"), sizes)
    assert (filled.shots, filled.queries) == (1, 2)
    assert _folder_classes.fill(filled, [np.array([50, 50])] * 2) == filled
    rare = [np.array([9, 1, 7, 8]), np.array([1, 7, 7, 1, 6])]
    assert _folder_classes.fill(Config("x"), rare).ways == 3  # classes of one picture are in no episode


def test_a_refusal_names_the_options_that_help(tmp_path):
    draw_folder(tmp_path / "few", 6, 3)
    with pytest.raises(errors.DataError) as caught:
        image_folder.build(Config(str(tmp_path / "few"), ways=3, queries=1, counts=(4, 0, 2), size=8))
    assert "task.ways=2" in caught.value.remedy and "task.counts=[3,0,3]" in caught.value.remedy
    with pytest.raises(errors.DataError) as caught:
        image_folder.build(Config(str(tmp_path / "few"), ways=2, queries=5, size=8))
    assert "lower task.shots and task.queries" in caught.value.remedy


def test_a_run_says_what_it_chose_and_a_resumed_one_keeps_it(folder, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        f"task: {{name: image_folder, folder: {folder}, size: 8}}\nmodel: {{name: affine}}\n"
        "algorithm: {name: maml, inner_steps: 1, inner_lr: 0.1}\ntraining: {steps: 1, tasks_per_step: 1}\n"
    )
    asked = config.load(file)
    settled = assembly.settle_task(asked)
    chosen = settled.task.config
    assert (chosen.ways, chosen.counts, chosen.crop) == (5, (10, 0, 5), "centre")
    differences.check_resume(settled, asked, "config.yaml")
    assert differences.keep_settled(settled, asked).task == settled.task
    other = dataclasses.replace(
        asked, task=dataclasses.replace(asked.task, config=dataclasses.replace(asked.task.config, ways=3))
    )
    with pytest.raises(errors.ConfigError, match=r"task\.ways"):
        differences.check_resume(settled, other, "config.yaml")
    family = assembly.build_family(settled.task)
    lines = assembly.describe_splits(settled, family)
    assert lines == [
        "train: 10 classes, 120 pictures",
        "test: 5 classes, 60 pictures",
        "episodes: ways 5, shots 1, queries 5, counts (10, 0, 5), crop centre",
    ]


def test_a_run_of_an_older_version_keeps_its_pictures_and_the_names_of_its_episodes(folder):
    old = Config(str(folder), ways=5, shots=1, queries=1, counts=(10, 0, 5), size=8)
    stretched = class_folders.load(folder, Preparation(8, crop="stretch")).images
    family = image_folder.build(old)
    assert family.form.read is None
    rows = np.concatenate([np.arange(12) + 12 * index for index in family.data["train"]["class"]])
    np.testing.assert_array_equal(family.data["train"]["images"], stretched[rows])
    recipe = assembly.make_recipe(config.Selection("image_folder", old)) | family.kept["options"]
    assert recipe == {"task": "image_folder", "folder": str(folder), "counts": (10, 0, 5), "size": 8}


# Preparation and augmentation


def test_without_augmentation_the_key_of_an_episode_draws_the_same_bits(folder):
    options = Config(str(folder), ways=3, shots=1, queries=2, size=12, crop="centre", counts=(10, 0, 5))
    plain = sample(image_folder.build(options))
    table = class_folders.load(folder, Preparation(12)).images
    assert all((table == picture).all(axis=(1, 2, 3)).any() for picture in levels(plain.query.inputs[0]))
    augmented = dataclasses.replace(options, augment=Augment(flip=True, crop=0.8, colour=0.2, rotation=5.0))
    changed = sample(image_folder.build(augmented))
    np.testing.assert_array_equal(changed.facts["class"], plain.facts["class"])
    assert (changed.query.inputs != plain.query.inputs).any()
    evaluated = assembly.select_evaluated(config.Selection("image_folder", augmented), config.Evaluation())
    assert evaluated.config == options
    again = sample(image_folder.build(evaluated.config))
    np.testing.assert_array_equal(again.query.inputs, plain.query.inputs)


def test_random_windows_are_cut_in_training_and_the_middle_one_in_an_evaluation(folder):
    options = Config(
        str(folder), ways=3, shots=1, queries=2, size=8, resize=12, crop="random", counts=(10, 0, 5)
    )
    family = image_folder.build(options)
    assert family.data["train"]["images"].shape[1:] == (12, 12, 3)
    drawn = sample(family)
    evaluated = assembly.select_evaluated(
        config.Selection("image_folder", options), config.Evaluation()
    ).config
    assert (evaluated.crop, evaluated.resize) == ("centre", 12)
    middle = sample(image_folder.build(evaluated)._replace(data=family.data))
    np.testing.assert_array_equal(drawn.facts["class"], middle.facts["class"])
    wholes = family.data["train"]["images"]
    assert (wholes[:, 2:10, 2:10] == levels(middle.query.inputs[0, 0])).all(axis=(1, 2, 3)).any()
    windows = np.lib.stride_tricks.sliding_window_view(wholes, (8, 8), (1, 2)).transpose(0, 1, 2, 4, 5, 3)
    assert (windows == levels(drawn.query.inputs[0, 0])).all(axis=(3, 4, 5)).any()
    usual = dataclasses.replace(options, resize=None)
    assert (
        assembly.select_evaluated(config.Selection("image_folder", usual), config.Evaluation()).config.resize
        == 9
    )


def test_new_pictures_are_read_as_those_of_the_training_are(folder):
    scale = {"mean": (0.4, 0.5, 0.6), "deviation": (0.2, 0.3, 0.4), "interpolation": "bicubic"}
    options = Config(
        str(folder), ways=2, queries=1, size=8, resize=10, crop="centre", counts=(10, 0, 5), **scale
    )
    family = image_folder.build(options)
    read = family.form.read([folder / "class00" / "00.png", folder / "class14" / "11.png"])
    tables = {name: family.data[name]["images"][:, 1:9, 1:9] / np.float32(255) for name in family.data}
    inputs = (np.concatenate(list(tables.values())) - np.float32(scale["mean"])) / np.float32(
        scale["deviation"]
    )
    for picture in read:
        assert np.abs(inputs - picture).max(axis=(1, 2, 3)).min() < 1e-6
    drawn = sample(family).support.inputs[0, 0]
    assert np.abs(inputs - drawn).max(axis=(1, 2, 3)).min() < 1e-6
    with pytest.raises(ValueError, match="deviation takes 3 numbers"):
        Config("x", deviation=(1.0,))
    with pytest.raises(ValueError, match="resize 7 is below size 8"):
        Config("x", size=8, resize=8 - 1)


# Tables that stay on the disk, and what a run keeps


@pytest.mark.slow
def test_a_table_on_the_disk_gives_the_bits_of_one_in_memory_and_is_there_once(folder, monkeypatch):
    (folder / "class03" / "04.png").write_bytes(b"no picture")
    options = Config(
        str(folder), ways=4, queries=2, size=8, crop="centre", counts=(8, 0, 7), unreadable="leave_out"
    )
    held = image_folder.build(options)
    monkeypatch.setattr(image_folder, "MOST_HELD", 0)
    mapped = image_folder.build(options)
    for split in ("train", "test"):
        for ours, theirs in zip(
            *map(jax.tree.leaves, (sample(held, split), sample(mapped, split))), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    table = mapped.data["train"]["images"]
    assert isinstance(table, np.memmap) and mapped.data["test"]["images"] is table
    assert mapped.kept == held.kept
    put = assembly.put_data(mapped.data, jax.devices("cpu")[0])
    assert put["train"]["images"] is put["test"]["images"]
    assert put["train"]["images"].unsafe_buffer_pointer() == table.ctypes.data  # no copy at all


def test_rows_that_are_written_to_the_disk_are_an_entry_of_the_cache(tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    layout = {"values": cache.Layout((5, 3, 2), np.int16)}

    def make():
        rows = cache.Rows("numbers", layout["values"])
        for row in (2, 0, 3, 1):
            rows.write(row, values[row])
        return cache.Entry({"values": rows}, {"fact": 1})

    for maker in (make, lambda: pytest.fail("it was made again")):
        entry = cache.load_or_make("numbers", {"recipe": 1}, layout, maker)
        np.testing.assert_array_equal(entry.arrays["values"], [*values, np.zeros((3, 2))])
        assert isinstance(entry.arrays["values"], np.memmap) and entry.facts == {"fact": 1}
    assert not list((tmp_path / "cache" / "decoded" / "numbers").glob("*.tmp"))


def test_what_an_extra_makes_readable_is_decoded_again(folder, monkeypatch):
    phone = next(folder.glob("*/*.png"))
    content = phone.read_bytes()
    phone.write_bytes(content[:4] + b"ftypheic" + content[12:])
    stamp = phone.stat()
    with monkeypatch.context() as patch:
        patch.setattr(picture_files, "import_heif", lambda: None)
        (fault,) = class_folders.load(folder, Preparation(8)).unreadable
    assert "metarun[heic]" in fault
    phone.write_bytes(content)  # in the place of an installed decoder, which reads the same bytes
    os.utime(phone, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    monkeypatch.setattr(picture_files, "import_heif", lambda: object())
    assert class_folders.load(folder, Preparation(8)).unreadable == ()


def test_a_decoding_that_is_stopped_leaves_no_half_table(folder, tmp_path, monkeypatch):
    def stop(self, row, values):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache.Rows, "write", stop)
        with pytest.raises(OSError, match="No space left"):
            class_folders.load(folder, Preparation(8))
    left = [path.name for path in (tmp_path / "cache" / "decoded").rglob("*") if path.is_file()]
    assert left == ["lock"]
    assert class_folders.load(folder, Preparation(8)).images.shape == (180, 8, 8, 3)


def test_a_run_opens_without_its_folder_and_a_copy_of_the_folder_is_the_same_data(folder, tmp_path):
    options = Config(str(folder), ways=4, queries=2, size=8, crop="centre", counts=(8, 0, 7))
    built = image_folder.build(options)
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(folder)
    outlined = image_folder.outline(options, built.kept)
    assert jax.tree.map(lambda leaf: leaf.shape, outlined.data) == jax.tree.map(np.shape, dict(built.data))
    assert outlined.problem.spec == built.problem.spec and outlined.kept == built.kept
    episode = jax.eval_shape(outlined.sample, outlined.data["test"], jax.random.key(0))
    assert episode.query.inputs.shape == (8, 8, 8, 3)
    moved = image_folder.build(dataclasses.replace(options, folder=str(tmp_path / "copy")), built.kept)
    assert moved.kept["fingerprint"] == built.kept["fingerprint"]
    Image.new("RGB", (12, 16)).save(tmp_path / "copy" / "class00" / "00.png")
    other = image_folder.build(dataclasses.replace(options, folder=str(tmp_path / "copy")))
    assert other.kept["fingerprint"] != built.kept["fingerprint"]


def test_a_run_keeps_the_statistics_of_its_training_pictures(tmp_path):
    for name in "abcd":
        for number in range(2):
            picture = Image.new("RGB", (16, 16), (255, 255, 255))
            picture.paste((51, 0, 0), (4, 4, 12, 12))
            (tmp_path / "p" / name).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "p" / name / f"{number}.png")
    kept = image_folder.build(Config(str(tmp_path / "p"), ways=2, size=16, counts=(2, 0, 2))).kept
    assert kept["class_names"] == ["a", "b", "c", "d"] and kept["pictures"] == {
        "train": [2, 2],
        "test": [2, 2],
    }
    assert json.loads(json.dumps(kept)) == kept  # as it comes back from the run
    statistics = kept["statistics"]
    assert statistics["border"] == 1 and statistics["pictures"] == 4
    np.testing.assert_allclose(statistics["centre"], 0.2 / 3, atol=1e-6)
    np.testing.assert_allclose(statistics["mean"], [0.8, 0.75, 0.75], atol=1e-5)
