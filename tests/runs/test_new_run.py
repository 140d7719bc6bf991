"""The folder of a new run: no two processes get the same, and none is left empty."""

import threading
from pathlib import Path

import pytest

from metarun import errors
from metarun.runs import directory, new_run
from metarun.runs.directory import RunDirectory


def test_a_new_folder_has_the_time_and_eight_digits_and_is_there(tmp_path):
    path = new_run.make_folder("maml", tmp_path)
    assert path.parent == tmp_path / "maml" and path.is_dir()
    assert directory.has_stamp(path) and len(path.name.rpartition("-")[2]) == 8


@pytest.mark.parametrize(
    ("name", "is_one"), [("860a", True), ("77aa03e2", True), ("860", False), ("77AA03E2", False)]
)
def test_runs_of_older_versions_keep_their_four_digits(name, is_one):
    assert directory.has_stamp(Path(f"20260101-000000-{name}")) == is_one


def test_who_draws_a_name_that_is_taken_draws_again(tmp_path, monkeypatch):
    names = iter(["20260101-000000-aaaaaaaa"] * 3 + ["20260101-000000-bbbbbbbb"])
    monkeypatch.setattr(new_run, "draw_name", lambda: next(names))
    first, second = new_run.make_folder("maml", tmp_path), new_run.make_folder("maml", tmp_path)
    assert (first.name[-8:], second.name[-8:]) == ("aaaaaaaa", "bbbbbbbb")


def test_at_once_everybody_gets_a_folder_of_his_own_although_names_are_few(tmp_path, monkeypatch):
    draw, made = iter(range(10**6)), []
    monkeypatch.setattr(new_run, "draw_name", lambda: f"20260101-000000-{next(draw) % 40:08x}")
    threads = [
        threading.Thread(target=lambda: made.append(new_run.make_folder("maml", tmp_path))) for _ in range(32)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == len(set(made)) == 32


def test_a_disk_on_which_every_name_is_taken_is_a_storage_error(tmp_path, monkeypatch):
    monkeypatch.setattr(new_run, "draw_name", lambda: "20260101-000000-aaaaaaaa")
    new_run.make_folder("maml", tmp_path)
    with pytest.raises(errors.StorageError, match="no folder could be made"):
        new_run.make_folder("maml", tmp_path)


def test_a_folder_that_nobody_wrote_to_goes_with_those_that_it_leaves_empty(tmp_path):
    with pytest.raises(errors.DataError), new_run.hold_folder("maml", tmp_path / "runs") as path:
        assert path.is_dir()
        raise errors.DataError("a", "b", "c")
    assert list(tmp_path.iterdir()) == []


def test_a_run_stays(tmp_path):
    with new_run.hold_folder("maml", tmp_path / "runs") as path, RunDirectory.open(path, resume=False) as run:
        run.write_config("seed: 0\n")
    assert (path / "config.yaml").is_file()
