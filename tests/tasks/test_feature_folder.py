"""A task family on cached features: the episodes of its pictures, scaled by training alone, opened without them."""

import dataclasses
import functools
import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from helpers import shared_programs
from metarun import assembly, config, errors, experiment
from metarun.config import differences
from metarun.data.preparation import Preparation
from metarun.tasks import feature_folder, image_folder
from metarun.testing import small_problems

CONFIGS = Path(__file__).parents[2] / "configs" / "feature_folder"


@functools.cache
def make_config():
    return small_problems.make_example_config("feature_folder")


@functools.cache
def build(**options):
    return feature_folder.build(dataclasses.replace(make_config(), **options))


def draw(family, split="train", count=8):
    keys = jax.random.split(jax.random.key(1), count)
    return jax.device_get(jax.jit(jax.vmap(family.sample, in_axes=(None, 0)))(family.data[split], keys))


def test_standard_features_have_mean_0_and_deviation_1_over_the_training_pictures_alone():
    train, test = (build().data[split]["features"] for split in ("train", "test"))
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(axis=0), 1, atol=1e-4)
    assert np.abs(test.mean(axis=0)).max() > 1e-3
    raw = build(scaling="none").data["test"]["features"]
    scale = build().kept["scale"]
    expected = (raw - np.array(scale["mean"])) / np.array(scale["deviation"])
    np.testing.assert_allclose(test, expected, atol=1e-4)
    unit = build(scaling="unit").data["test"]["features"]
    np.testing.assert_allclose(unit, raw / np.linalg.norm(raw, axis=1, keepdims=True), rtol=1e-5)


def test_its_episodes_are_those_of_the_pictures_and_have_their_name():
    own, options = build(), make_config()
    twin = image_folder.Config(options.folder, ways=4, shots=1, queries=1, size=8, crop="centre")
    pictures = image_folder.build(twin)
    np.testing.assert_array_equal(draw(own).facts["class"], draw(pictures).facts["class"])
    recipes = [
        assembly.make_recipe(config.Selection(name, value)) | family.kept["options"]
        for name, value, family in (("feature_folder", options, own), ("image_folder", twin, pictures))
    ]
    assert recipes[0] == recipes[1]
    assert recipes[0] != assembly.make_recipe(config.Selection("feature_folder", options))


def test_a_run_opens_without_its_folder_and_reads_new_pictures_as_it_read_its_own(tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(make_config().folder, folder)
    own = dataclasses.replace(make_config(), folder=str(folder), weights=str(folder / ".network.safetensors"))
    built = feature_folder.build(own)
    rows = built.form.read([folder / "class00" / "1.png", folder / "class11" / "2.png"])
    for name in ("class00", "class11"):
        shutil.rmtree(folder / name)
    outlined = feature_folder.outline(own, built.kept)
    assert jax.tree.map(lambda leaf: leaf.shape, outlined.data) == jax.tree.map(np.shape, dict(built.data))
    assert outlined.problem.spec == built.problem.spec
    shutil.copytree(make_config().folder, tmp_path / "elsewhere")
    elsewhere = [tmp_path / "elsewhere" / name for name in ("class00/1.png", "class11/2.png")]
    np.testing.assert_array_equal(outlined.form.read(elsewhere), rows)
    everything = np.concatenate([data["features"] for data in built.data.values()])
    assert all((everything == row).all(axis=1).any() for row in rows)
    with pytest.raises(errors.DataError, match="not those of the run"):
        feature_folder.outline(dataclasses.replace(own, precision="bfloat16"), built.kept).form.read(
            elsewhere
        )


def test_pictures_are_read_by_a_network_that_is_opened_once(monkeypatch):
    opened, open_network = [], feature_folder.open_network
    monkeypatch.setattr(feature_folder, "open_network", lambda *args: opened.append(1) or open_network(*args))
    read = feature_folder.outline(make_config(), build().kept).form.read
    files = sorted(Path(make_config().folder).glob("*/*.png"))[:2]
    np.testing.assert_array_equal(read(files), read(files))
    assert len(opened) == 1


def test_a_finished_run_may_be_told_where_its_weights_lie_now(tmp_path):
    before, moved = (
        config.load(CONFIGS / "protonet.yaml", [f"task.folder={tmp_path}", f"task.weights={name}"])
        for name in ("old.safetensors", "new.safetensors")
    )
    differences.check_evaluation(before, moved)
    files = sorted(Path(make_config().folder).glob("*/*.png"))[:2]
    gone = dataclasses.replace(make_config(), weights=str(tmp_path / "gone.safetensors"))
    with pytest.raises(errors.DataError, match="not there any more") as refused:
        feature_folder.outline(gone, build().kept).form.read(files)
    assert "task.weights=FILE" in refused.value.remedy


def test_a_network_of_patches_takes_pictures_of_any_size_that_it_fits():
    weights = str(Path(__file__).parents[1] / "backbones" / "timm.safetensors")
    built = build(weights=weights, size=32)
    assert built.data["train"]["features"].shape[1] == built.problem.spec.input_shape[0]


def test_random_weights_are_said_and_a_seed_is_another_network(caplog, monkeypatch):
    class Network(feature_folder.backbones.Backbone):
        """A network that computes nothing."""

    def open_backbone(weights, *, model, seed, precision, size):
        label = f"{model}, random weights (seed {seed})"
        return Network(
            "vit", label, f"{seed:064}", Preparation(size), 5, lambda pictures: pictures[:, 0, :5, 0]
        )

    monkeypatch.setattr(feature_folder.backbones, "open_backbone", open_backbone)
    options = dataclasses.replace(make_config(), weights=None, model="vit_s14", weights_seed=3)
    with caplog.at_level(logging.WARNING, "metarun"):
        built = feature_folder.build(options)
    assert "task.weights is null: features of vit_s14, random weights (seed 3)" in caplog.text
    assert built.kept["network"] == {
        "label": "vit_s14, random weights (seed 3)",
        "digest": f"{3:064}",
        "features": 5,
    }
    assert feature_folder.open_network(options).preparation.size == 16


def test_pictures_that_cannot_be_read_are_refused_or_left_out(tmp_path, caplog):
    folder = tmp_path / "pictures"
    shutil.copytree(make_config().folder, folder)
    (folder / "class03" / "0.png").write_bytes(b"no picture")
    own = dataclasses.replace(make_config(), folder=str(folder))
    with pytest.raises(errors.DataError, match=r"1 pictures cannot be read: class03/0\.png") as caught:
        feature_folder.build(own)
    assert "task.unreadable=leave_out" in caught.value.remedy
    built = feature_folder.build(dataclasses.replace(own, unreadable="leave_out"))
    assert sorted(np.concatenate([data["counts"] for data in built.data.values()]).tolist()) == [2, *[3] * 23]


def test_an_episode_is_of_the_kind_on_which_the_contract_runs_every_algorithm():
    assert build().problem.spec == small_problems.blobs(ways=4).problem.spec


@pytest.mark.slow
def test_every_shipped_config_builds_and_traces_on_it():
    own = make_config()
    places = [f"task.folder={own.folder}", f"task.weights={own.weights}", "task.size=16", "task.ways=2"]
    with shared_programs.share():
        for path in sorted(CONFIGS.glob("*.yaml")):
            if path.stem != "base":
                experiment.assemble(config.load(path, places), jax.devices("cpu")[0])
