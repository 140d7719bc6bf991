"""A stage that is trained again from its start: which of its checkpoints go."""

import time

import pytest

from helpers.saved_states import names, save
from helpers.training_states import training
from metarun.runs import manifest
from metarun.runs.checkpoints import START, Checkpoints


def test_all_checkpoints_of_a_stage_go(tmp_path):
    save(tmp_path / "maml", 3, 7)
    with Checkpoints(tmp_path / "maml") as saved:
        saved.clear()
        assert not (tmp_path / "maml").exists()
        saved.save(5, *training(5), {}, best=False)
    assert names(tmp_path / "maml") == ["5"]


def test_a_start_that_came_from_another_run_stays(tmp_path):
    save(tmp_path / "maml", START, 3, 7)
    with Checkpoints(tmp_path / "maml") as saved:
        saved.clear()
        assert names(tmp_path / "maml") == [str(START)]


def test_a_save_that_is_under_way_goes_with_the_others(tmp_path, monkeypatch):
    write = manifest.write

    def write_slowly(*arguments, **options):
        time.sleep(0.3)
        return write(*arguments, **options)

    monkeypatch.setattr(manifest, "write", write_slowly)
    with Checkpoints(tmp_path / "maml") as saved:
        saved.save(3, *training(3), {}, best=False)
        saved.clear()
    assert not (tmp_path / "maml").exists()


def test_trials_that_have_diverged_are_pairs_of_whole_numbers():
    assert manifest.parse_diverged({}) == ()
    assert manifest.parse_diverged({"diverged": [[1, 30], [0, 4]]}) == ((1, 30), (0, 4))
    for wrong in ([[1, "30"]], [[1, -1]], [[1, True]], [1, 2], {"1": 30}, [[1, 2, 3]], None):
        with pytest.raises((TypeError, ValueError)):
            manifest.parse_diverged({"diverged": wrong})
