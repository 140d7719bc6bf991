"""The processes beside a training: they copy to the end, and nothing that happens to them happens to it."""

import fcntl
import importlib.util
import json
import time

import pytest

from helpers import copied_runs, runs
from metarun import config, errors, experiment
from metarun.progress import Progress
from metarun.runs import directory, metrics
from metarun.sinks import bookmark, launch, registry

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboardX") is None, reason="the extra `tensorboard` is not installed"
)


@needs_tensorboard
def test_a_sink_has_all_lines_when_the_run_has_ended(tmp_path, warnings_of_metarun):
    run = copied_runs.make_run(tmp_path / "run", [])
    with launch.follow(run, ["tensorboard"]):
        copied_runs.write_rows(run, copied_runs.make_rows())
    assert warnings_of_metarun == []
    expected = copied_runs.expect(copied_runs.make_rows())
    found = copied_runs.read_events(run / "tensorboard")
    assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]


@needs_tensorboard
def test_a_sink_that_dies_is_one_warning(tmp_path, warnings_of_metarun, monkeypatch):
    monkeypatch.setattr(launch, "LOOK", 0.05)
    run = copied_runs.make_run(tmp_path / "run")
    (run / "tensorboard").write_text("no folder")
    with launch.follow(run, ["tensorboard"]) as (follower,):
        follower.process.wait(60)
    (message,) = warnings_of_metarun
    assert "ended with code 8" in message
    assert f"metarun sync {run} --to tensorboard" in message
    assert "a file is there, and a folder is needed" in (run / "sinks" / "tensorboard.log").read_text()


@needs_tensorboard
def test_a_sink_that_stands_still_is_one_warning_and_holds_nobody_up(
    tmp_path, warnings_of_metarun, monkeypatch
):
    """It waits for a lock here, and is still there when the run has ended."""
    monkeypatch.setattr(launch, "LOOK", 0.05)
    monkeypatch.setattr(launch, "STANDSTILL", 0.2)
    monkeypatch.setattr(launch, "PATIENCE", 0.0)
    run = copied_runs.make_run(tmp_path / "run")
    with bookmark.lock(bookmark.find_path(run, "tensorboard", None), wait=False):
        with launch.follow(run, ["tensorboard"]) as (follower,):
            while not follower.warned:
                time.sleep(0.01)
        (message,) = warnings_of_metarun
        assert "has copied nothing" in message
        assert follower.process.poll() is None
    assert follower.process.wait(60) == 0  # it has copied everything after all
    assert len(copied_runs.read_events(run / "tensorboard")) == 15


@pytest.mark.slow
@needs_tensorboard
def test_a_run_that_is_resumed_is_in_its_sink_once(tmp_path):
    """Its last checkpoint is lost, so a third of the steps are taken, and written, again."""
    run = runs.train(tmp_path / "run", runs.SINGLE, "sinks=[tensorboard]")
    last = runs.last_checkpoints(run)["maml"].path
    (last / "manifest.json").unlink()
    runs.train(run, runs.SINGLE, "sinks=[tensorboard]", resume=True)
    found = [(name, step) for name, step, _ in copied_runs.read_events(run / "tensorboard")]
    assert len(found) == len(set(found))
    losses = [step for name, step in found if name == "maml/train/loss"]
    assert losses == list(range(1, 25))
    rows = metrics.read(run / directory.METRICS)
    assert [row["step"] for row in rows if row["split"] == "train"] == losses
    assert ("maml/test-result/inductive/adapted/loss", 24) in found
    assert json.loads((run / "sinks" / "tensorboard.json").read_text())["sending"] is None


def test_what_is_not_installed_is_refused_before_there_is_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "is_installed", lambda package: package != "alembic")
    run_config = runs.load(tmp_path, runs.SINGLE, "sinks=[tensorboard, mlflow]")
    with pytest.raises(errors.ConfigError, match="alembic") as caught:
        experiment.train(run_config, tmp_path / "run", False, [], Progress())
    assert caught.value.remedy == "pip install 'metarun[mlflow]'"
    assert not (tmp_path / "run").exists()


def test_a_folder_that_has_the_name_of_a_package_is_none(tmp_path, monkeypatch):
    (tmp_path / "somewhere_else").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not registry.is_installed("somewhere_else")
    assert registry.is_installed("json")


def test_the_config_names_each_sink_once_and_only_those_that_exist(tmp_path):
    assert set(registry.SINKS) == set(config.schema.Sink.__args__)
    for wrong in ("sinks=[comet]", "sinks=[wandb, wandb]"):
        with pytest.raises(errors.ConfigError):
            runs.load(tmp_path, runs.SINGLE, wrong)


def test_sync_says_what_it_copied(tmp_path, own_place, metarun_):
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    copied_runs.make_run(tmp_path / "runs" / "maml" / "one")
    said = metarun_("sync", "runs/maml/one", "--to", "tensorboard")
    assert said.out == ["tensorboard: 15 new rows in runs/maml/one/tensorboard"]
    said = metarun_("sync", "latest", "--to", "tensorboard", "--json")
    assert json.loads(said.out[0])["rows"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["runs/maml/one", "--to", "comet"], 2, "comet"),
        (["elsewhere", "--to", "tensorboard"], 5, "elsewhere"),
    ],
)
def test_sync_refuses_what_does_not_exist(own_place, metarun_, arguments, code, word):
    from helpers.commands import assert_three_lines

    assert_three_lines(metarun_("sync", *arguments), code, word)


def test_locks_end_with_their_process(tmp_path):
    path = tmp_path / "sinks" / "name.json"
    with bookmark.lock(path, wait=False):
        pass
    with path.with_suffix(".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
