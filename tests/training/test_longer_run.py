"""A finished run that goes on for more steps is the run that is trained at once, byte for byte."""

import shutil
from pathlib import Path

import jax
import pytest

from helpers.commands import assert_three_lines
from helpers.runs import BOTH, SINGLE, evaluate, final_states, lines, load, read_json, results, train
from metarun import errors, experiment
from metarun.config import extension
from metarun.progress import Progress
from metarun.training import longer_run


def extend(source: Path, path: Path, *overrides: str) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "draw_pictures", lambda *_: None)
        run_config = extension.load(source / "config.yaml", overrides)
        experiment.train(run_config, path, False, ["test"], Progress(), extended=source)
    return path


@pytest.mark.slow
def test_replicas_and_several_stages_go_on_as_if_trained_at_once_also_to_their_best_checkpoint(
    both, tmp_path
):
    best = "evaluation.checkpoint=best"
    short = train(tmp_path / "short", BOTH, "stages.other.training.steps=4", best)
    run = extend(short, tmp_path / "run", "training.steps=8")
    assert lines(run) == lines(both)
    assert final_states(run) == final_states(both)
    at_once, stages = evaluate(both, best)["stages"], results(run)["stages"]
    assert {name: stage["inductive"] for name, stage in stages.items()} == {
        name: stage["inductive"] for name, stage in at_once.items()
    }
    assert read_json(run / "sources.json")["extended"] == {"run": str(short), "stage": "other", "step": 4}
    assert read_json(short / "status.json")["step"] == 4


@pytest.mark.slow
def test_the_command_goes_on_with_a_run_in_a_new_one(single, tmp_path, own_place, metarun_, monkeypatch):
    monkeypatch.setattr(experiment, "draw_pictures", lambda *_: None)
    short = train(tmp_path / "runs/small/20261121-144857-dafe", SINGLE, "training.steps=12")
    said = metarun_("train", "--extend", "dafe", "training.steps=24")
    run = Path(said.out[-1])
    assert (said.code, run.parent) == (0, Path("runs/small"))
    assert lines(run) == lines(single)
    assert final_states(run) == final_states(single)
    assert len(lines(short)) < len(lines(run))
    assert_three_lines(metarun_("train", "--extend", "dafe", "training.steps=6"), 3, "has 12 steps")
    assert_three_lines(metarun_("train", "--extend", "--resume", "dafe"), 2, "resumed or extended")
    assert_three_lines(metarun_("train", "--extend", "dafe/maml", "training.steps=24"), 2, "from its end")
    assert_three_lines(metarun_("train", "--extend", "nowhere", "training.steps=24"), 5, "no run here")


def test_a_loss_that_depends_on_the_length_is_refused_with_the_option(tmp_path):
    run_config = load(tmp_path, SINGLE, "algorithm.outer_loss=annealed", "algorithm.inner_steps=2")
    with pytest.raises(errors.ConfigError, match=r"algorithm\.outer_loss is annealed"):
        experiment.assemble(run_config, jax.devices("cpu")[0], Path())
    experiment.assemble(load(tmp_path, SINGLE, "algorithm.inner_steps=2"), jax.devices("cpu")[0], Path())


def test_a_run_that_is_not_finished_is_not_extended(single, tmp_path):
    run = shutil.copytree(single, tmp_path / "run")
    shutil.rmtree(run / "checkpoints/maml/24/memory")
    with pytest.raises(errors.CheckpointError, match="no memory of the optimizer"):
        longer_run.find_end(run)
    shutil.rmtree(run / "checkpoints/maml/24")
    with pytest.raises(errors.CheckpointError, match=r"has taken \d+ of 24 steps of the stage maml"):
        longer_run.find_end(run)
