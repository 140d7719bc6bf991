"""The door to a finished run: what is meant, what opening needs, and which old files are refused."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import metarun
from helpers import processes, trees
from helpers.runs import SINGLE, evaluate, read_json, train
from metarun import errors
from metarun.finished import opened_run
from metarun.finished.finished_run import find_run
from metarun.finished.opened_run import open_learner, open_run


@pytest.fixture
def copy(single, tmp_path) -> Path:
    """A copy of a finished run, to be changed."""
    shutil.copytree(single, tmp_path / "run")
    return tmp_path / "run"


def test_finding_a_run_imports_no_jax(single):
    code = """
import sys
from metarun.finished.finished_run import find_run
run = find_run(sys.argv[1], ["evaluation.episodes=3"], split="validation")
print(run.chosen_stage, run.config.evaluation.split, *sorted({"jax", "flax"} & set(sys.modules)))
"""
    assert processes.run_code(code, single).split() == ["maml", "validation"]


def test_a_path_means_a_run_or_one_checkpoint_of_a_stage(several):
    run = find_run(several)
    assert (run.path, run.checkpoint, run.stage, run.chosen_stage) == (several, None, None, "second")
    checkpoint = several / "checkpoints" / "first" / "24"
    run = find_run(checkpoint)
    assert (run.path, run.checkpoint, run.stage, run.chosen_stage) == (several, checkpoint, "first", "first")


def test_the_settings_of_an_evaluation_are_chosen_when_a_run_is_found(single):
    evaluation = find_run(
        single, ["evaluation.shots=3"], split="validation", mode="transductive"
    ).config.evaluation
    assert (evaluation.shots, evaluation.split, evaluation.modes) == (3, "validation", ("transductive",))


def test_only_the_stages_up_to_the_one_that_is_meant_are_restored(several):
    assert list(open_run(find_run(several)).trained) == ["first", "second"]
    opened = open_run(find_run(several, stage="first"))
    assert list(opened.trained) == ["first"]
    assert [stage.name for stage in opened.stages] == ["first", "second"]
    assert opened.stage.name == "first"


def test_no_file_of_this_package_imports_the_training():
    for file in Path(opened_run.__file__).parent.glob("*.py"):
        assert "metarun.training" not in file.read_text("utf-8"), file


def remove_memories(run: Path) -> None:
    """Leave of every checkpoint of a run what is needed to open it."""
    for memory in run.glob("checkpoints/*/*/memory"):
        shutil.rmtree(memory)


def test_a_finished_run_needs_no_memory_of_its_optimizer(copy):
    weights, result = metarun.load(copy).weights, read_json(copy / "result.json")
    remove_memories(copy)
    trees.assert_equal(metarun.load(copy).weights, weights)
    assert evaluate(copy)["stages"] == result["stages"]
    (copy / "result.json").unlink()
    train(copy, SINGLE, resume=True)
    assert read_json(copy / "result.json")["stages"] == result["stages"]


def test_a_run_with_steps_left_cannot_go_on_without_the_memory_of_its_optimizer(copy):
    remove_memories(copy)
    shutil.rmtree(copy / "checkpoints" / "maml" / "24")
    with pytest.raises(errors.CheckpointError, match="has no memory/"):
        train(copy, SINGLE, resume=True)


def age(run: Path) -> None:
    """Give the manifests of a run the number of the first format, which had no digests."""
    for file in run.glob("checkpoints/*/*/manifest.json"):
        file.write_text(json.dumps(read_json(file) | {"format": 1}))


def test_a_checkpoint_of_the_old_format_is_refused_with_code_5(copy):
    age(copy)
    for path in (copy, copy / "checkpoints" / "maml" / "24"):
        with pytest.raises(errors.CheckpointError, match="an older version of metarun") as raised:
            evaluate(path)
        assert raised.value.exit_code == 5
        assert str(raised.value).count("\n") == 2
        assert "environment.json" in raised.value.remedy


def test_a_run_of_the_old_format_is_not_trained_again_on_resume(copy):
    age(copy)
    files = {path: path.stat().st_mtime_ns for path in copy.glob("checkpoints/**/*")}
    with pytest.raises(errors.CheckpointError, match="an older version of metarun"):
        train(copy, SINGLE, resume=True)
    assert {path: path.stat().st_mtime_ns for path in copy.glob("checkpoints/**/*")} == files


def test_a_learner_is_opened_in_the_first_mode_and_with_the_steps_that_are_evaluated(single):
    overrides = ["evaluation.modes=[transductive, inductive]", "evaluation.adapted_steps=3"]
    opened = open_learner(find_run(single, overrides))
    assert (opened.path, opened.stage, opened.step, opened.mode) == (single, "maml", 24, "transductive")
    support = jax.jit(opened.tasks.family.sample)((), jax.random.key(0)).support
    learner = jax.jit(opened.algorithm.adapt)(opened.weights, support)
    expected = metarun.load(single, inner_steps=3).adapt(
        (np.asarray(support.inputs), np.asarray(support.targets))
    )
    trees.assert_close(learner, expected.state)


def test_a_split_that_the_family_does_not_have_is_refused(single, monkeypatch):
    def build_without_validation(run_config, device, kept, build=opened_run.assembly.build_tasks):
        tasks = build(run_config, device, kept)
        return tasks._replace(data={name: tasks.data[name] for name in ("train", "test")})

    monkeypatch.setattr(opened_run.assembly, "build_tasks", build_without_validation)
    with pytest.raises(errors.UsageError, match="no validation split"):
        open_learner(find_run(single, split="validation"))
