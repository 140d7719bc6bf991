"""What is removed, and what never is."""

import os
import shutil
from pathlib import Path

import pytest

from metarun import errors
from metarun.runs.directory import RunDirectory
from metarun.runs.removal import refuse_removal, remove


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A stopped run below runs/ of the working folder."""
    monkeypatch.chdir(tmp_path)
    path = Path("runs/small/20260101-000000-aaaa")
    with RunDirectory.open(path, resume=False) as directory:
        directory.write_config("seed: 0\n")
        directory.write_status("preempted")
    return path


def test_a_run_and_the_folder_that_it_leaves_empty_are_removed(run):
    (run / "out").symlink_to(Path.cwd() / "precious")
    Path("precious").mkdir()
    Path("precious/file").touch()
    remove(run)
    assert list(Path("runs").iterdir()) == []
    assert Path("precious/file").exists()


def test_other_runs_stay(run):
    other = run.with_name("other")
    other.mkdir()
    remove(run)
    assert list(run.parent.iterdir()) == [other]


def test_a_copy_that_shares_its_files_is_removed_and_the_other_one_stays_as_it_was(run):
    copy = run.with_name("copy")
    shutil.copytree(run, copy, copy_function=os.link)  # as by cp -al
    before = (run / "lock").read_text()
    remove(copy)
    assert not copy.exists() and (run / "lock").read_text() == before


def test_a_link_is_not_followed(run):
    link, behind = Path("runs/link"), Path("runs/group")
    link.symlink_to(run.absolute())
    behind.symlink_to(run.parent.absolute())
    for path in (link, behind / run.name):
        with pytest.raises(errors.RunDirectoryError, match="a link"):
            remove(path)
    assert (run / "config.yaml").exists()


def test_a_folder_of_runs_that_is_a_link_itself_is_fine(run):
    Path("disk").mkdir()
    Path("runs").rename("disk/runs")
    Path("runs").symlink_to("disk/runs")
    remove(run)
    assert not run.exists()


def test_a_run_that_is_written_is_refused(run):
    with RunDirectory.open(run, resume=True) as directory:
        for status in ("running", "done"):  # the lock counts, too
            directory.write_status(status)
            with pytest.raises(errors.RunDirectoryError, match=f"process {os.getpid()} is writing"):
                remove(run)
    assert (run / "config.yaml").exists()


def test_what_is_no_run_is_refused(run):
    Path("project").mkdir()
    Path("project/config.yaml").touch()
    for path in (Path("project"), run.parent, run / "config.yaml", Path("absent"), Path()):
        with pytest.raises(errors.RunDirectoryError, match="no run directory"):
            refuse_removal(path)
