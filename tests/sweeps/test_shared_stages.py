"""Stages that a control takes from its method: which they are, and that nothing but the time of training differs."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from helpers.runs import read_json, train
from metarun import config
from metarun.runs import directory
from metarun.runs.directory import RunDirectory
from metarun.sweeps import control_runs, controls, execution, shared_stages, workers

TEXT = """
task: {name: sinusoid, shots: 5, queries: 5}
stages:
  - {name: teacher, model: {name: mlp, hidden: [8]}, algorithm: {name: maml}, training: {steps: 6}}
  - {name: student, model: {name: mlp, hidden: [4]}, algorithm: {name: maml}, training: {steps: 5}}
  - {name: second, draws_as: student, model: {name: mlp, hidden: [4]}, algorithm: {name: maml}, training: {steps: 4}}
  - name: distilled
    draws_as: second
    model: {name: mlp, hidden: [4]}
    algorithm: {name: distillation, teachers: [teacher], student: second, share: 0.9}
    training: {steps: 5}
evaluation: {episodes: 6}
accelerator: {platform: cpu, devices: 1}
seed: 5
controls:
  - {name: shuffled, says: other answers, changes: [stages.distilled.algorithm.answers=shuffled]}
  - {name: untaught, says: no teacher, changes: [stages.student.training.steps=7], stage: student, against: [distilled]}
  - {name: alone, says: no teacher, changes: [stages.teacher.training.steps=1, stages.distilled.algorithm.share=0]}
"""


@pytest.fixture
def plan(tmp_path) -> controls.Plan:
    file = tmp_path / "distilled.yaml"
    file.write_text(TEXT)
    return controls.make_plan(file)


def test_the_stages_before_the_first_that_differs_are_shared_and_the_compared_one_is_not(plan):
    assert [shared_stages.count_shared(plan, run) for run in plan.runs] == [0, 3, 1, 0]
    best = dataclasses.replace(plan.method.config.evaluation, checkpoint="best")
    shuffled = plan.controls[0]
    measured = dataclasses.replace(shuffled.config, evaluation=best)
    assert shared_stages.count_shared(plan, shuffled._replace(config=measured)) == 0


def test_a_control_with_shared_stages_is_the_one_that_trains_them_but_for_the_time(plan, tmp_path):
    method, shuffled = plan.runs[:2]
    train(tmp_path / "method", config.to_yaml(method.config))
    alone = train(tmp_path / "alone", config.to_yaml(shuffled.config))
    shared_config = shared_stages.take_shared(plan, shuffled, tmp_path / "method")
    assert shared_config is not None
    assert [stage.taken_from is not None for stage in shared_config.stages] == [True, True, True, False]
    shared = train(tmp_path / "shared", config.to_yaml(shared_config))
    for stage in ("teacher", "student", "second", "distilled"):
        one, other = (np.load(tmp_path / name / f"episodes/{stage}-test.npz") for name in ("alone", "shared"))
        assert one.files == other.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])
    totals = [read_json(run / "result.json")["costs"]["distilled"]["total"] for run in (alone, shared)]
    assert all(total.pop("seconds") > 0 for total in totals)
    assert totals[0] == totals[1]


def test_controls_that_share_wait_for_the_method_and_the_others_do_not(plan, tmp_path, monkeypatch):
    rounds = []

    def train_all(folder, listed, *_, wait):
        rounds.append([program.name for program in listed])
        for program in listed:
            written = config.load(folder.find_program(program.name) / "config.yaml")
            rounds[-1][rounds[-1].index(program.name)] += f" {written.stages[0].taken_from is not None}"
            run = folder.find_run(program.name)
            run.mkdir(parents=True)
            (run / directory.CONFIG).write_text(config.to_yaml(written))
            (run / directory.RESULT).write_text(json.dumps({}))
        return workers.Outcome({}, 0)

    monkeypatch.setattr(workers, "train", train_all)
    monkeypatch.setattr(shared_stages, "can_be_taken", lambda *_: True)
    monkeypatch.setattr(execution, "find_slots", lambda *_: [workers.Slot(None)])
    folder = control_runs.open_directory(tmp_path / "controls", plan)
    control_runs.train(folder, plan, None, workers.Report())
    assert rounds == [["method False", "alone False"], ["shuffled True", "untaught True"]]
    assert read_json(tmp_path / "controls/controls.json")["runs"] == json.loads(
        json.dumps(plan.describe()["runs"])
    )


def test_a_control_trains_all_its_stages_if_the_method_has_no_result(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "train", lambda *_, **__: workers.Outcome({}, 0))
    monkeypatch.setattr(execution, "find_slots", lambda *_: [workers.Slot(None)])
    folder = control_runs.open_directory(tmp_path / "controls", plan)
    control_runs.train(folder, plan, None, workers.Report())
    written = config.load(folder.find_program("shuffled") / "config.yaml")
    assert [stage.taken_from for stage in written.stages] == [None] * 4


def test_a_control_that_has_saved_something_keeps_its_config_and_one_that_has_not_begins_anew(
    plan, tmp_path, monkeypatch
):
    monkeypatch.setattr(shared_stages, "can_be_taken", lambda *_: True)
    folder = control_runs.open_directory(tmp_path / "controls", plan)
    method = folder.find_run("method")
    method.mkdir()
    (method / directory.CONFIG).write_text(config.to_yaml(plan.method.config))
    (method / directory.RESULT).write_text("{}")
    for run in plan.controls[:2]:
        path = folder.find_run(run.name)
        path.mkdir()
        (path / directory.CONFIG).write_text(config.to_yaml(run.config))
        (path / directory.LOCK).touch()
    (folder.find_run("shuffled") / "checkpoints/teacher/3").mkdir(parents=True)
    control_runs.share(folder, plan, plan.controls[:2])
    taken = {
        name: config.load(folder.find_program(name) / "config.yaml").stages[0].taken_from
        for name in ("shuffled", "untaught")
    }
    assert taken == {"shuffled": None, "untaught": str(method.resolve() / "teacher")}
    assert not folder.find_run("untaught").exists()


def test_a_control_trains_all_its_stages_if_the_method_has_lost_a_checkpoint(plan, tmp_path):
    train(tmp_path / "method", config.to_yaml(plan.method.config))
    assert shared_stages.take_shared(plan, plan.controls[0], tmp_path / "method") is not None
    shutil.rmtree(tmp_path / "method/checkpoints/student")
    assert shared_stages.take_shared(plan, plan.controls[0], tmp_path / "method") is None
    assert shared_stages.take_shared(plan, plan.controls[1], tmp_path / "method") is not None


def test_the_dry_run_says_which_stages_are_taken(plan, metarun_):
    said = metarun_("compare", plan.file, "--controls", "--dry-run")
    assert said.code == 0, said
    lines = {line.partition(":")[0]: line for line in said.out if "; stage" in line}
    assert lines["shuffled"].endswith("takes teacher, student, second from the method")
    assert "takes" not in lines["alone"]


@pytest.mark.parametrize("state", ["done", "diverged"])
def test_a_control_that_has_ended_stays_though_it_has_no_checkpoint(plan, tmp_path, monkeypatch, state):
    """A finished run may have been pruned, and one that diverged early never had any."""
    monkeypatch.setattr(shared_stages, "can_be_taken", lambda *_: True)
    folder = control_runs.open_directory(tmp_path / "controls", plan)
    shuffled = plan.controls[0]
    for run in (plan.method, shuffled):
        with RunDirectory.open(folder.find_run(run.name), False) as opened:
            opened.write_config(config.to_yaml(run.config))
            opened.write_status("done" if run is plan.method else state)
            if run is plan.method or state == "done":
                opened.write_result({})
    control_runs.share(folder, plan, [shuffled])
    assert folder.find_state("shuffled") == state
    assert config.load(folder.find_program("shuffled") / "config.yaml").stages[0].taken_from is None
