"""Weights of other runs: a stage starts from them, or is a whole stage of another run."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from helpers.runs import (
    final_states,
    last_checkpoints,
    read_arrays,
    read_episodes,
    read_json,
    results,
)
from metarun import config, errors, experiment
from metarun.finished.finished_run import find_run
from metarun.finished.opened_run import open_run
from metarun.progress import Progress
from metarun.runs import checkpoints, manifest, stage_reference
from metarun.sweeps import stage_flops
from metarun.training import source_leaves, source_weights, start_costs

HEAD = """
task: {name: sinusoid, shots: 5, queries: 5}
evaluation: {every: 10, episodes: 6}
checkpoint: {every: 8, keep: 2}
accelerator: {platform: cpu, devices: 1}
"""
STUDENT = "model: {name: mlp, hidden: [8]}, algorithm: {name: maml}, training: {steps: 4, tasks_per_step: 4, chunk: 4}"
START = f"{HEAD}stages: [{{name: student, {STUDENT}, init_from: SOURCE}}]"
FUSED = f"""{HEAD}
stages:
  - {{name: teacher, taken_from: SOURCE/checkpoints/maml/24}}
  - {{name: again, taken_from: SOURCE}}
  - name: fused
    model: {{name: mlp, hidden: [8]}}
    algorithm: {{name: fusion, kind: average, members: [teacher, again]}}
"""
BASE = (
    "{name: base, model: {name: mlp, hidden: [8]}, algorithm: {name: maml}, copies: 3, "
    "training: {steps: 8, tasks_per_step: 4}, init_from: SOURCE/base}"
)


def load(folder: Path, text: str, source: Path, *overrides: str) -> config.RunConfig:
    file = folder / "own.yaml"
    file.write_text(text.replace("SOURCE", str(source)))
    return config.load(file, overrides, stage_reference.find_stage)


def train(run_config: config.RunConfig, path: Path, resume: bool = False) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "draw_pictures", lambda *_: None)
        experiment.train(run_config, path, resume, ["test"], Progress())
    return path


def read(run_config: config.RunConfig) -> dict[str, source_weights.Source]:
    """Return what the stages of a run have from others. Compiles and computes nothing."""
    _, stages, shapes = experiment.assemble(run_config, jax.devices("cpu")[0])
    return source_weights.read_all(stages, stages, shapes)


def read_last_weights(run: Path, stage: str) -> list[np.ndarray]:
    arrays = read_arrays(last_checkpoints(run)[stage])
    return [arrays[name] for name in sorted(arrays) if name.startswith(manifest.WEIGHTS)]


def assert_equal_leaves(weights, arrays: list[np.ndarray]) -> None:
    leaves = jax.tree.leaves(weights)
    assert len(leaves) == len(arrays) > 0
    for leaf, array in zip(leaves, arrays, strict=True):
        np.testing.assert_array_equal(leaf, array)


@pytest.fixture
def source(single, tmp_path) -> Path:
    """A copy of a finished run, to be removed."""
    return shutil.copytree(single, tmp_path / "source")


@pytest.mark.slow
def test_a_stage_starts_from_the_weights_of_another_run_and_then_needs_it_no_more(single, source, tmp_path):
    run = train(load(tmp_path, START, source), tmp_path / "run")
    start = read_arrays(manifest.verify(run / "checkpoints/student/0"))
    assert_equal_leaves([start[name] for name in sorted(start)], read_last_weights(single, "maml"))
    record = read_json(run / "sources.json")["stages"]["student"]
    assert (record["run"], record["stage"], record["step"]) == (str(source), "maml", 24)
    assert read_json(run / "result.json")["sources"]["stages"]["student"] == record
    counts = [
        array for name, array in read_arrays(last_checkpoints(run)["student"]).items() if ".count" in name
    ]
    assert counts and all(count == 4 for count in counts)  # the optimizer has seen this run's steps alone
    ended, rows = final_states(run), (run / "metrics.jsonl").read_text().splitlines()
    again = read(load(tmp_path, f"{HEAD}stages: [{{name: mine, taken_from: SOURCE}}]", run))[
        "mine"
    ].describe()
    assert again["parts"] == record["parts"]  # of the weights that the taken stage has begun with
    total, half = (start_costs.read_total(source, "maml", step) for step in (None, 12))
    assert record["parts"] == {f"{source}/maml": total}
    assert start_costs.list_parts(source, "maml", 12) == {f"{source}/maml": half}
    assert total is not None and half is not None
    assert (half["steps"], half["flops"]) == (total["steps"] - 12, total["flops"] / 2)
    assert half["parameters"] == total["parameters"]
    stage = experiment.assemble(load(tmp_path, START, source), jax.devices("cpu")[0])[1][-1]
    assert stage_flops.find_start(stage) == (None, record["parts"])
    shutil.rmtree(source)
    described = experiment.describe_dry_run(config.load(run / "config.yaml"), resumed=run)
    assert described.endswith(f"from step 24 of maml in {source}")
    shutil.rmtree(run / "checkpoints/student/4")
    train(config.load(run / "config.yaml"), run, resume=True)
    assert final_states(run) == ended
    losses = [
        [json.loads(row)["loss"] for row in text if '"train"' in row] for text in (rows, read_lines(run))
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 4


def read_lines(run: Path) -> list[str]:
    return (run / "metrics.jsonl").read_text().splitlines()


@pytest.mark.slow
def test_taken_stages_are_those_of_the_other_run_and_stay_when_it_is_gone(single, source, tmp_path):
    run = train(load(tmp_path, FUSED, source), tmp_path / "run")
    theirs = read_episodes(single)
    for stage in ("teacher", "again", "fused"):  # the average of two equal members is each of them
        values = read_episodes(run, stage)
        np.testing.assert_allclose(
            values["inductive/adapted/loss"], theirs["inductive/adapted/loss"], rtol=1e-6
        )
    assert not [line for line in read_lines(run) if '"teacher"' in line]  # it was not trained here
    measured = results(run)["stages"]
    shutil.rmtree(source)
    opened = open_run(find_run(run))
    assert list(opened.trained) == ["teacher", "again", "fused"]
    assert_equal_leaves(opened.trained["teacher"].weights, read_last_weights(single, "maml"))
    shutil.rmtree(run / "checkpoints/fused")
    (run / "result.json").unlink()
    train(config.load(run / "config.yaml"), run, resume=True)
    again = results(run)["stages"]
    assert all(again[stage]["inductive"] == measured[stage]["inductive"] for stage in measured)
    sources = read(load(tmp_path, f"{HEAD}stages: [{{name: whole, taken_from: SOURCE/fused}}]", run))
    assert list(sources) == ["whole-teacher", "whole-again", "whole"]
    # The frozen members lie under the names of their stages, which are others here.
    assert_equal_leaves(sources["whole"].weights, read_last_weights(run, "fused"))


def test_names_of_stages_change_at_once_also_where_one_is_that_of_another_there():
    names = {"t-t-a": "t-a", "t-a": "a"}
    leaf = "weights.frozen['t-t-a'].trained['t-a']['kernel']"
    assert source_leaves.rename(leaf, names) == "weights.frozen['t-a'].trained['a']['kernel']"
    assert source_leaves.rename(leaf, {}) == leaf


def test_a_start_that_is_gone_is_no_random_start(single, source, tmp_path):
    """Where the stage before is trained again, only the start of the stage is left of it."""
    text = f"{HEAD}stages: [{{name: first, {STUDENT}}}, {{name: student, {STUDENT}, init_from: SOURCE}}]"
    run_config, run = load(tmp_path, text, source), tmp_path / "run"
    with checkpoints.Checkpoints(run / "checkpoints/student") as saved:  # its checkpoint 0 is gone
        saved.save(4, np.zeros(1), (), {"step": 4}, False)
    (run / "config.yaml").write_text(config.to_yaml(run_config))
    (run / "lock").touch()
    with pytest.raises(
        errors.CheckpointError, match="that the stage student starts from are damaged or gone"
    ):
        train(run_config, run, resume=True)
    _, stages, _ = experiment.assemble(run_config, jax.devices("cpu")[0])
    assert [stage.name for stage in source_weights.list_missing(run, stages)] == ["student"]


def test_replicas_and_members_start_one_for_one(both, tmp_path):
    text = f"{HEAD}replicas: 2\nstages: [{BASE}]"
    found = read(load(tmp_path, text, both))["base"]
    assert_equal_leaves(found.weights, read_last_weights(both, "base"))
    with pytest.raises(errors.ConfigError, match="has 2 replicas, and the stage here has 3") as refusal:
        read(load(tmp_path, text, both, "replicas=3"))
    assert refusal.value.exit_code == 3
    with pytest.raises(errors.ConfigError, match="has 3 copies, and the stage here has 1"):
        read(load(tmp_path, text, both, "stages.base.copies=null"))


def test_a_source_of_one_starts_all_replicas_and_members(single, tmp_path):
    found = read(load(tmp_path, START, single, "replicas=2", "stages.student.copies=3"))["student"]
    whole = read(load(tmp_path, START, single))["student"]
    assert found.digest == whole.digest
    for many, one in zip(jax.tree.leaves(found.weights), jax.tree.leaves(whole.weights), strict=True):
        np.testing.assert_array_equal(many, np.broadcast_to(one, (2, 3, *one.shape)))


def test_weights_that_do_not_fit_are_refused_with_the_first_leaves_that_differ(single, tmp_path):
    run_config = load(tmp_path, START, single, "stages.student.model.hidden=[8, 4]")
    with pytest.raises(errors.ConfigError) as refusal:
        train(run_config, tmp_path / "run")
    assert "trained['head']['kernel'] is float32[8, 1] there and float32[4, 1] here" in refusal.value.what
    assert "missing there" in refusal.value.what
    assert refusal.value.where == f"stage student: init_from={single}"
    assert not (tmp_path / "run").exists()


def test_a_taken_stage_says_that_its_task_was_another(single, tmp_path, warnings_of_metarun):
    text = f"{HEAD}stages: [{{name: teacher, taken_from: SOURCE}}]".replace("shots: 5", "shots: 3")
    run_config = load(tmp_path, text, single)
    source_weights.warn_of_other_tasks(run_config, read(run_config))
    assert warnings_of_metarun == [
        "the stage teacher was trained on another task; other values of: task.shots"
    ]
    assert config.document(run_config)["stages"][0]["taken_from"] == str(single / "maml")
