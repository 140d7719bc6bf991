"""Checkpoints: what comes back is what was saved, or it is refused."""

import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.saved_states import assert_same, load, names, save
from helpers.training_states import Training, training
from metarun import errors
from metarun.runs import checkpoints, manifest, state_files, strict_json
from metarun.runs.checkpoints import Checkpoints


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "run" / "checkpoints" / "maml"


# --- what comes back ---


def test_a_state_comes_back_bit_for_bit_in_its_own_structure(folder):
    save(folder, 7)
    found = Checkpoints(folder).newest_valid()
    assert (found.step, found.stage, found.facts, found.best) == (7, "maml", {"step": 7}, False)
    assert_same(load(found, training(0)), training(7))


def test_a_template_of_shapes_alone_is_enough(folder):
    save(folder, 7)
    weights = {"kernel": training(7).weights["conv/kernel é"]}
    template = jax.eval_shape(lambda: weights)
    with Checkpoints(folder) as saved:
        saved.save(8, weights, (), {}, best=False)
        assert_same(checkpoints.load_weights(saved.newest_valid(), template), weights)


def test_the_weights_are_read_without_knowing_the_memory(folder):
    save(folder, 7)
    newest = Checkpoints(folder).newest_valid()
    assert_same(checkpoints.load_weights(newest, training(0).weights), training(7).weights)
    roots = {name.partition("[")[0].partition(".")[0] for name in newest.leaves}
    assert roots == {"weights", "memory"}


def test_a_checkpoint_without_its_memory_can_be_opened_but_not_trained_further(folder):
    save(folder, 6, 7)
    shutil.rmtree(folder / "7" / "memory")
    newest = Checkpoints(folder).newest_valid()
    assert newest.step == 7
    assert_same(checkpoints.load_weights(newest, training(0).weights), training(7).weights)
    with pytest.raises(errors.CheckpointError, match="the checkpoint has no memory/") as caught:
        checkpoints.load_memory(newest, training(0).memory)
    assert caught.value.where == str(folder / "7")


def test_a_state_without_a_single_number_comes_back(folder):
    state = Training({"a": np.zeros((0, 2), np.int8), "b": ()}, ())
    with Checkpoints(folder) as saved:
        saved.save(1, *state, {}, best=False)
        assert_same(load(saved.newest_valid(), state), state)


def test_orbax_alone_can_read_a_state(folder):
    import orbax.checkpoint

    save(folder, 3)
    with orbax.checkpoint.PyTreeCheckpointer() as checkpointer:
        arrays = checkpointer.restore(folder / "3" / "weights")
    np.testing.assert_array_equal(arrays["weights['conv/kernel é']"], np.full((3, 4), 3))


def test_the_caller_may_change_or_donate_the_state_at_once(folder):
    array, facts = np.ones(1000), {"size": 1}
    donated = jnp.ones(1000)
    with Checkpoints(folder) as saved:
        saved.save(1, {"numpy": array}, {"jax": donated}, facts, best=False)
        array[:] = 2
        facts["size"] = 2
        jax.jit(lambda x: x + 1, donate_argnums=0)(donated).block_until_ready()
        found = saved.newest_valid()
    assert found.facts == {"size": 1}
    ones = Training({"numpy": np.ones(1000)}, {"jax": np.ones(1000, np.float32)})
    assert_same(load(found, ones), ones)


@pytest.mark.slow
def test_an_array_spread_over_devices_is_saved_whole(folder):
    code = """
import sys, pathlib, jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from metarun.runs.checkpoints import Checkpoints
mesh = jax.make_mesh((4,), ("task",))
array = jnp.arange(32.0).reshape(8, 4)
state = {axis: jax.device_put(array, NamedSharding(mesh, PartitionSpec(axis))) for axis in (None, "task")}
with Checkpoints(pathlib.Path(sys.argv[1])) as saved:
    saved.save(1, list(state.values()), (), {}, best=False)"""
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code, folder], timeout=60, check=True, env=os.environ | devices)
    whole = [np.arange(32, dtype=np.float32).reshape(8, 4)] * 2
    assert_same(checkpoints.load_weights(Checkpoints(folder).newest_valid(), whole), whole)


def test_save_returns_before_the_checkpoint_is_written(folder, monkeypatch):
    written = threading.Event()
    write = state_files.write
    monkeypatch.setattr(state_files, "write", lambda *arguments: written.wait(30) and write(*arguments))
    with Checkpoints(folder) as saved:
        saved.save(1, *training(1), {}, best=False)
        assert saved.steps() == []
        written.set()
        saved.wait()
        assert saved.steps() == [1]


def test_what_would_need_pickle_is_refused(folder):
    with Checkpoints(folder) as saved, pytest.raises(TypeError, match="pickle"):
        saved.save(1, {"model": object()}, (), {}, best=False)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda w: w | {"new": np.ones(2)},
            r"weights\['new'\] is missing in the checkpoint, and float64\[2\]",
        ),
        (lambda w: {"a": w["a"]}, r"weights\['b'\] is int64\[\] in the checkpoint, and missing"),
        (
            lambda w: w | {"a": np.ones(4)},
            r"weights\['a'\] is float64\[3\] in the checkpoint, and float64\[4\]",
        ),
        (lambda w: w | {"a": np.ones(3, np.float32)}, r"float64\[3\] in the checkpoint, and float32\[3\]"),
    ],
)
def test_a_state_of_another_program_is_refused_by_the_name_of_the_leaf(folder, change, complaint):
    weights = {"a": np.ones(3), "b": 1}
    with Checkpoints(folder) as saved:
        saved.save(1, weights, (), {}, best=False)
        with pytest.raises(errors.CheckpointError, match=complaint) as caught:
            checkpoints.load_weights(saved.newest_valid(), change(weights))
    assert caught.value.exit_code == 5


# --- which are kept ---


def test_the_newest_and_the_newest_best_are_kept(folder):
    save(folder, 1, 2, 3, 4, 5, 6, keep=2, best=(1, 3))
    assert names(folder) == ["3", "5", "6"]
    assert Checkpoints(folder).best_valid().step == 3
    assert Checkpoints(folder).newest_valid().step == 6


def test_an_old_checkpoint_is_removed_only_after_the_new_one_counts(folder, monkeypatch):
    save(folder, 1, keep=1)
    monkeypatch.setattr(manifest, "write", refuse)
    with Checkpoints(folder, keep=1) as saved:
        saved.save(2, *training(2), {}, best=False)
        with pytest.raises(errors.StorageError):
            saved.wait()
    assert names(folder) == ["1"]
    assert Checkpoints(folder).newest_valid().step == 1


def test_a_damaged_later_step_does_not_push_out_the_one_just_saved(folder):
    save(folder, 10, 30)
    flip(folder)
    save(folder, 20, keep=1)
    assert names(folder) == ["20"]


@pytest.mark.parametrize("damage", [False, True])
def test_a_step_is_saved_anew_over_a_valid_or_damaged_one(folder, damage):
    save(folder, 1, 2)
    if damage:
        flip(folder)
    with Checkpoints(folder) as saved:
        saved.save(2, *training(20), {}, best=True)
        found = saved.best_valid()
    assert found.step == 2
    assert_same(load(found, training(0)), training(20))


# --- damage ---


def data_file(folder: Path) -> Path:
    """Return the largest file of the newest checkpoint's weights."""
    newest = folder / str(max(Checkpoints(folder).steps()))
    return max(
        (path for path in (newest / "weights").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def flip(folder: Path) -> None:
    path = data_file(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def link(folder: Path) -> None:
    """The same bytes, but from somewhere else."""
    path = data_file(folder)
    path.rename(folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


def find_manifest(folder: Path) -> Path:
    return folder / str(max(Checkpoints(folder).steps())) / "manifest.json"


def edit(folder: Path, **changes: object) -> None:
    """Change a manifest together with the digest of itself: only what it says can give it away."""
    path = find_manifest(folder)
    path.write_text(json.dumps(strict_json.seal(json.loads(path.read_text()) | changes)))


def replace(folder: Path, old: str, new: str) -> None:
    """Change the text of a manifest, as somebody does by hand, or a disk by mistake."""
    path = find_manifest(folder)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def write_as_older(folder: Path, number: int) -> None:
    """Give a manifest the format of an older version of metarun, which had no digests."""
    path = find_manifest(folder)
    content = json.loads(path.read_text()) | {"format": number}
    path.write_text(json.dumps({key: content[key] for key in content if key not in ("sealed", "sha256")}))


def edit_without(folder: Path, key: str) -> None:
    path = find_manifest(folder)
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))


def put_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE = {
    "flipped bit": flip,
    "truncated file": lambda folder: data_file(folder).write_bytes(data_file(folder).read_bytes()[:-1]),
    "missing file": lambda folder: data_file(folder).unlink(),
    "added file": lambda folder: (data_file(folder).parent / "extra").write_text(""),
    "linked file": link,
    "missing weights": lambda folder: shutil.rmtree(folder / "3" / "weights"),
    "half a memory": lambda folder: next((folder / "3" / "memory").glob("*")).unlink(),
    "missing manifest": lambda folder: (folder / "3" / "manifest.json").unlink(),
    "half a manifest": lambda folder: (folder / "3" / "manifest.json").write_text('{"format": 2, "st'),
    "deep manifest": lambda folder: (folder / "3" / "manifest.json").write_text("[" * 100_000),
    "huge manifest": lambda folder: (folder / "3" / "manifest.json").write_text(" " * (manifest.LARGEST + 1)),
    "list as manifest": lambda folder: (folder / "3" / "manifest.json").write_text("[]"),
    "pipe as manifest": lambda folder: put_pipe(find_manifest(folder)),
    "edited step": lambda folder: replace(folder, '"step": 3', '"step": 4'),
    "edited fact": lambda folder: replace(folder, '"best": false', '"best": true'),
    "flipped format": lambda folder: replace(folder, '"format": 3', '"format": 2'),
    "format flipped to the first": lambda folder: replace(folder, '"format": 3', '"format": 1'),
    "missing digest": lambda folder: edit_without(folder, "sha256"),
    "missing seal of the run": lambda folder: edit(folder, sealed=None),
    "text for a digest": lambda folder: edit(folder, sealed={"config.yaml": "0"}),
    "other format": lambda folder: edit(folder, format=4),
    "other step": lambda folder: edit(folder, step=4),
    "other stage": lambda folder: edit(folder, stage="teacher"),
    "absolute name": lambda folder: edit(folder, files={"/etc/passwd": {"bytes": 1, "sha256": ""}}),
    "name outside": lambda folder: edit(folder, files={"../../a": {"bytes": 1, "sha256": ""}}),
    "negative size": lambda folder: edit(folder, leaves={"a": {"shape": [-1], "dtype": "float32"}}),
    "text for a number": lambda folder: edit(folder, step="3"),
}


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("intact") / "maml"
    save(folder, 1, 2, 3)
    return folder


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_refused_and_resume_goes_back_behind_it(folder, intact, caplog, damage):
    shutil.copytree(intact, folder)
    damage(folder)
    with pytest.raises(errors.CheckpointError) as caught:
        checkpoints.open_checkpoint(folder / "3")
    assert caught.value.exit_code == 5
    assert caught.value.where == str(folder / "3")
    with caplog.at_level(logging.WARNING, logger="metarun"):
        found = Checkpoints(folder).newest_valid()
    assert_same(load(found, training(0)), training(2))
    assert len(caplog.records) == 1
    assert str(folder / "3") in caplog.text


def test_a_checkpoint_of_an_older_version_is_refused_and_never_skipped_or_removed(folder):
    save(folder, 1, 2)
    write_as_older(folder, 1)
    for open_it in (
        lambda: checkpoints.open_checkpoint(folder / "2"),
        lambda: checkpoints.open_checkpoint(folder.parent.parent),
        lambda: Checkpoints(folder).newest_valid(),
        lambda: Checkpoints(folder).best_valid(),
    ):
        with pytest.raises(errors.CheckpointError) as caught:
            open_it()
        assert caught.value.exit_code == 5
        what, where, remedy = str(caught.value).splitlines()
        assert what == "error: the checkpoint was written by an older version of metarun"
        assert where == f"where: {folder / '2'}"
        assert "environment.json" in remedy and "train again" in remedy
    assert names(folder) == ["1", "2"]


def test_a_checkpoint_of_format_2_is_read_without_the_digests_that_it_lacks(folder, caplog):
    save(folder, 1, 2)
    write_as_older(folder, 2)
    found = checkpoints.open_checkpoint(folder / "2")
    assert (found.step, dict(found.sealed)) == (2, {})
    assert_same(load(found, training(0)), training(2))
    assert caplog.records == []


def test_a_damaged_newest_checkpoint_is_passed_over_only_if_that_is_allowed(
    folder, intact, warnings_of_metarun
):
    shutil.copytree(intact, folder)
    flip(folder)
    run = folder.parent.parent
    for kind in ("last", "best"):
        with pytest.raises(errors.CheckpointError, match="--allow-older") as caught:
            checkpoints.open_evaluated(run, "maml", kind)
        assert caught.value.where == str(folder / "3")
    assert warnings_of_metarun == []
    found = checkpoints.open_evaluated(run, "maml", "last", allow_older=True)
    assert (found.step, [path for path, _ in found.skipped]) == (2, [folder / "3"])
    assert len(warnings_of_metarun) == 1


def test_a_checkpoint_whose_manifest_is_damaged_may_have_been_the_best(folder):
    save(folder, 1, 2, 3, best=(1,))
    assert checkpoints.open_evaluated(folder.parent.parent, "maml", "best").step == 1
    replace(folder, '"step": 3', '"step": 4')
    with pytest.raises(errors.CheckpointError, match="its manifest is damaged"):
        checkpoints.open_evaluated(folder.parent.parent, "maml", "best")


def test_an_intact_checkpoint_is_read_without_a_warning(intact, caplog):
    assert Checkpoints(intact).newest_valid().step == 3
    assert caplog.records == []


# --- opening by path ---


def test_a_run_opens_at_its_newest_checkpoint_and_a_step_at_itself(folder):
    save(folder, 1, 2)
    run = folder.parent.parent
    assert checkpoints.open_checkpoint(run).step == 2
    assert checkpoints.open_checkpoint(run, "maml").step == 2
    assert checkpoints.open_checkpoint(folder / "1").step == 1


def test_a_run_of_several_stages_asks_for_one(folder):
    save(folder, 1)
    save(folder.parent / "student", 5)
    run = folder.parent.parent
    with pytest.raises(errors.CheckpointError, match="maml, student"):
        checkpoints.open_checkpoint(run)
    assert checkpoints.open_checkpoint(run, "student").step == 5


def test_a_stage_that_has_saved_nothing_is_named_with_one_that_has(folder):
    save(folder, 1)
    with pytest.raises(errors.CheckpointError, match="of the stage student") as raised:
        checkpoints.open_checkpoint(folder.parent.parent, "student")
    assert raised.value.remedy.endswith("such as maml")


@pytest.mark.parametrize("path", [".", "nowhere", "run/checkpoints/maml/99", "run/config.yaml"])
def test_what_is_missing_is_a_checkpoint_error(tmp_path, folder, path):
    save(folder, 1)
    with pytest.raises(errors.CheckpointError) as caught:
        checkpoints.open_checkpoint(tmp_path / path)
    assert caught.value.exit_code == 5


def test_reading_writes_nothing(folder):
    save(folder, 1)
    (folder / ".temporary-2-abcd").mkdir()  # another process may be writing it
    with Checkpoints(folder) as saved:
        assert saved.newest_valid().step == 1
    assert names(folder) == [".temporary-2-abcd", "1"]


def test_the_first_save_removes_what_a_killed_one_left(folder):
    (folder / ".temporary-2-abcd" / "weights").mkdir(parents=True)
    (folder / "3" / "weights").mkdir(parents=True)  # no manifest
    save(folder, 4)
    assert names(folder) == ["4"]


# --- failures while saving ---


def refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_failed_save_surfaces_at_the_next_one_and_only_once(folder, monkeypatch):
    save(folder, 1)
    with Checkpoints(folder, keep=1) as saved:
        with monkeypatch.context() as full:
            full.setattr("os.fsync", refuse)
            saved.save(2, *training(2), {}, best=False)
            with pytest.raises(errors.StorageError, match="disk is full") as caught:
                saved.save(3, *training(3), {}, best=False)
        assert caught.value.exit_code == 8
        assert names(folder) == ["1"]
        saved.save(4, *training(4), {}, best=False)
    assert names(folder) == ["4"]


def test_a_file_size_limit_hit_inside_orbax_is_a_storage_error(folder):
    save(folder, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(folder, keep=1) as saved:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            saved.save(2, {"noise": np.random.default_rng(0).normal(size=100_000)}, (), {}, best=False)
            with pytest.raises(errors.StorageError):
                saved.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(folder) == ["1"]
    assert_same(load(Checkpoints(folder).newest_valid(), training(0)), training(1))


def test_the_error_that_ends_a_run_is_not_hidden_by_a_failed_save(folder, monkeypatch, caplog):
    monkeypatch.setattr(manifest, "write", refuse)
    with pytest.raises(ZeroDivisionError), Checkpoints(folder) as saved:
        saved.save(1, *training(1), {}, best=False)
        raise ZeroDivisionError
    assert "disk is full" in caplog.text


def test_a_program_that_forgets_to_wait_still_ends_and_loses_no_earlier_checkpoint(folder):
    save(folder, 1)
    code = """
import sys, pathlib, numpy
from metarun.runs.checkpoints import Checkpoints
Checkpoints(pathlib.Path(sys.argv[1])).save(2, {"a": numpy.ones(1_000_000)}, (), {}, best=False)"""
    done = subprocess.run([sys.executable, "-c", code, folder], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert Checkpoints(folder).newest_valid().step in (1, 2)


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_a_signal_during_a_save_lets_it_finish(folder, signal_name):
    code = f"""
import os, sys, pathlib, signal, numpy
from metarun.runs.checkpoints import Checkpoints
def stop(*_): raise SystemExit(0)
signal.signal(signal.{signal_name}, stop)
with Checkpoints(pathlib.Path(sys.argv[1])) as saved:
    saved.save(1, {{"a": numpy.ones(100_000)}}, (), {{}}, best=False)
    os.kill(os.getpid(), signal.{signal_name})
    saved.save(2, {{"a": numpy.ones(100_000)}}, (), {{}}, best=False)"""
    done = subprocess.run([sys.executable, "-c", code, folder], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert names(folder) == ["1"]
    assert Checkpoints(folder).newest_valid().step == 1
