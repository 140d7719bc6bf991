"""A finished run that is measured again: the numbers of its result, or those of another wish."""

import shutil

import pytest

import metarun
from helpers.runs import evaluate, measured, read_json
from metarun import errors


def test_evaluating_a_run_gives_the_numbers_of_its_result(several):
    assert evaluate(several) == measured(several)


def test_evaluating_a_checkpoint_measures_that_step_of_that_stage_only(several):
    step = min(int(path.name) for path in (several / "checkpoints/second").iterdir())
    result = evaluate(several / f"checkpoints/second/{step}")
    assert list(result["stages"]) == ["second"]
    assert result["step"] == result["stages"]["second"]["step"] == step < 24
    assert result["stages"]["second"] != read_json(several / "result.json")["stages"]["second"]
    last = evaluate(several / "checkpoints/second/24")
    assert last["stages"]["second"] == read_json(several / "result.json")["stages"]["second"]


@pytest.mark.parametrize("stage", ["first", "second"])
def test_a_stage_is_measured_alone_as_it_is_among_all(several, stage):
    assert evaluate(several, stage=stage)["stages"] == {
        stage: read_json(several / "result.json")["stages"][stage]
    }


def test_a_stage_that_is_not_there_or_not_the_checkpoints_is_refused(several):
    with pytest.raises(errors.UsageError, match="no stage third"):
        evaluate(several, stage="third")
    with pytest.raises(errors.UsageError, match="not of stage first"):
        evaluate(several / "checkpoints/second/24", stage="first")


def test_an_evaluation_may_set_its_own_shots_split_and_curve_and_writes_nothing(single):
    def list_files():
        return {
            path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
            for path in single.rglob("*")
        }

    before = list_files()
    overrides = ["evaluation.shots=3", "evaluation.inner_steps=[0, 1, 4]", "evaluation.episodes=4"]
    result = evaluate(single, *overrides, split="validation")
    assert list_files() == before
    assert (result["split"], result["episodes"]["count"]) == ("validation", 4)
    layout = result["stages"]["maml"]["inductive"]
    assert list(layout) == ["unadapted", "adapted", "inner_steps"]
    assert layout["inner_steps"]["0"] == layout["unadapted"]
    assert layout["inner_steps"]["1"] == layout["adapted"] != layout["inner_steps"]["4"]
    assert result["episodes"]["hash"] != read_json(single / "result.json")["episodes"]["hash"]


def test_the_adapted_learner_may_take_other_steps_than_in_training(single):
    overrides = ["evaluation.adapted_steps=4", "evaluation.inner_steps=[1, 4]", "evaluation.episodes=4"]
    layout = evaluate(single, *overrides)["stages"]["maml"]["inductive"]
    assert layout["adapted"] == layout["inner_steps"]["4"] != layout["inner_steps"]["1"]
    assert metarun.load(single, overrides=overrides[:1]).inner_steps == 4


@pytest.mark.parametrize(
    "override", ["seed=1", "training.steps=99", "task.shots=3", "algorithm.inner_lr=0.5"]
)
def test_an_evaluation_may_not_change_what_was_trained(single, override):
    with pytest.raises(errors.ConfigError) as raised:
        evaluate(single, override)
    assert raised.value.what == f"{override.partition('=')[0]} cannot change after training"
    assert raised.value.exit_code == 3


def test_a_folder_without_a_run_cannot_be_evaluated(tmp_path):
    with pytest.raises(errors.CheckpointError):
        evaluate(tmp_path)


def test_a_stage_that_has_not_begun_hinders_no_evaluation_of_an_earlier_checkpoint(several, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(several, copy)
    for step in (copy / "checkpoints/second").iterdir():
        shutil.rmtree(step)
    result = evaluate(copy / "checkpoints/first/24")
    assert result["stages"]["first"] == read_json(several / "result.json")["stages"]["first"]
