"""Which checkpoint a path means, and what is said of those that are passed over."""

import logging

import pytest

from helpers.saved_states import names, save
from helpers.training_states import training
from metarun import errors
from metarun.runs import checkpoints
from metarun.runs.checkpoints import Checkpoints


@pytest.fixture
def run(tmp_path):
    """The folder of a run with three checkpoints of one stage."""
    save(tmp_path / "run" / "checkpoints" / "maml", 1, 2, 3)
    return tmp_path / "run"


def damage(run, step: int) -> None:
    (run / f"checkpoints/maml/{step}/manifest.json").write_text("{}")


def test_one_checkpoint_is_kept_unless_more_are_asked_for(tmp_path):
    with Checkpoints(tmp_path) as saved:
        for step in (1, 2):
            saved.save(step, *training(step), {}, best=False)
    assert names(tmp_path) == ["2"]


def test_a_path_means_a_checkpoint_or_the_newest_of_the_only_stage(run):
    assert checkpoints.open_checkpoint(run / "checkpoints" / "maml" / "2").step == 2
    assert checkpoints.open_checkpoint(run).step == checkpoints.open_checkpoint(run, "maml").step == 3


def test_a_run_whose_name_is_a_number_is_a_run(run):
    numbered = run.rename(run.with_name("7"))
    assert checkpoints.open_checkpoint(numbered).step == 3


def test_damaged_ones_are_passed_over_in_this_order_and_said(run, warnings_of_metarun):
    damage(run, 3)
    damage(run, 2)
    opened = checkpoints.open_checkpoint(run)
    assert opened.step == 1 and [skipped.path.name for skipped in opened.skipped] == ["3", "2"]
    [said] = warnings_of_metarun
    assert said.startswith(f"skipped 2 damaged: {run}/checkpoints/maml/3: ")
    assert f"; {run}/checkpoints/maml/2: " in said


def test_a_damaged_one_is_refused_where_no_older_one_may_stand_in(run):
    damage(run, 3)
    for refuse in (
        lambda: checkpoints.open_checkpoint(run, allow_older=False),
        lambda: checkpoints.open_evaluated(run, "maml", "last"),
        lambda: checkpoints.open_checkpoint(run / "checkpoints" / "maml" / "3"),
    ):
        with pytest.raises(errors.CheckpointError):
            refuse()
    assert checkpoints.open_evaluated(run, "maml", "last", allow_older=True).step == 2


def test_the_stages_are_named_where_one_must_be_chosen_or_is_not_there(run):
    save(run / "checkpoints" / "other", 4)
    with pytest.raises(errors.CheckpointError, match="several stages") as refused:
        checkpoints.open_checkpoint(run)
    assert refused.value.remedy == "name one of its stages: maml, other"
    assert checkpoints.open_checkpoint(run, "other").step == 4
    with pytest.raises(errors.CheckpointError):
        checkpoints.open_checkpoint(run, "third")


def test_orbax_does_not_log_every_step_of_every_save(run):
    assert logging.getLogger("absl").level == logging.WARNING
