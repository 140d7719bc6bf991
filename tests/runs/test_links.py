"""No link is followed where metarun writes: what a link in a run directory leads to stays as it is."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from metarun import errors, outside
from metarun.figures import canvas
from metarun.runs import code_copies, files, removal, run_log
from metarun.runs.directory import RunDirectory
from metarun.sinks import bookmark, launch
from metarun.sweeps.sweep_directory import SweepDirectory

WORDS = "precious"
# What docs/runs.md names; whoever renames one breaks the runs of others.
FILES = (
    "config.yaml",
    "status.json",
    "metrics.jsonl",
    "result.json",
    "log.txt",
    "lock",
    "environment.json",
    "sources.json",
)
FOLDERS = ("checkpoints", "episodes", "pictures", "sinks", "code", "tensorboard", "wandb", "checkpoints/maml")


@pytest.fixture
def precious(tmp_path) -> Path:
    """A file of somebody, which no test may change."""
    file = tmp_path / "precious" / "file"
    file.parent.mkdir()
    file.write_text(WORDS)
    yield file
    assert [path.name for path in file.parent.iterdir()] == ["file"] and file.read_text() == WORDS


@pytest.fixture
def run(tmp_path) -> Path:
    """A stopped run."""
    with RunDirectory.open(tmp_path / "run", resume=False) as opened:
        opened.write_config("seed: 0\n")
        opened.write_status("preempted")
    return tmp_path / "run"


def put_link(place: Path, target: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


@pytest.mark.parametrize(
    "make", [put_link, lambda place, _: (place.unlink(missing_ok=True), os.mkfifo(place))]
)
def test_a_link_or_a_pipe_in_the_place_of_a_file_of_a_run_is_refused(run, precious, make):
    for name in FILES:
        before = (run / name).read_bytes() if (run / name).exists() else None
        make(run / name, precious)
        with pytest.raises(errors.RunDirectoryError) as caught:
            RunDirectory.open(run, resume=True)
        assert caught.value.where == str(run / name)
        assert str(caught.value).count("\n") == 2
        (run / name).unlink()
        if before is not None:
            (run / name).write_bytes(before)
    RunDirectory.open(run, resume=True).close()


def test_a_link_in_the_place_of_a_folder_of_a_run_is_refused(run, precious):
    for name in FOLDERS:
        put_link(run / name, precious.parent)
        with pytest.raises(errors.RunDirectoryError, match="this is a link"):
            RunDirectory.open(run, resume=True)
        (run / name).unlink()
    (run / "notes").symlink_to(precious)  # what metarun never writes may be a link
    RunDirectory.open(run, resume=True).close()


def test_the_run_directory_itself_may_be_a_link(run, tmp_path):
    (tmp_path / "latest").symlink_to(run)
    with RunDirectory.open(tmp_path / "latest", resume=True) as opened:
        opened.metrics.append([{"step": 1}])
    assert (run / "metrics.jsonl").read_text() == '{"step": 1}\n'


def refuse(work: Callable[[], object], words: str) -> None:
    with pytest.raises(errors.StorageError, match=words):
        work()


def test_a_second_name_of_a_file_that_is_written_in_place_is_refused(run, precious):
    for name in ("lock", "metrics.jsonl"):
        (run / name).unlink()
        os.link(precious, run / name)
        refuse(lambda: RunDirectory.open(run, resume=True), "several names")
        (run / name).unlink()
    os.link(precious, run / "log.txt")
    with RunDirectory.open(run, resume=True) as opened:
        refuse(lambda: run_log.LogFile(opened.log), "several names")


def test_a_second_name_of_a_file_that_is_replaced_keeps_the_old_content(run, precious):
    (run / "status.json").unlink()
    os.link(precious, run / "status.json")
    with RunDirectory.open(run, resume=True) as opened:
        opened.write_status("running")
    assert "running" in (run / "status.json").read_text()


def test_files_of_ours_replace_a_link_and_refuse_a_pipe(tmp_path, precious):
    (tmp_path / "link").symlink_to(precious)
    files.write_text(tmp_path / "link", "new")
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "link").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    refuse(lambda: files.write_text(tmp_path / "pipe", "new"), "a pipe or a device")
    refuse(lambda: files.open_own(tmp_path / "pipe", os.O_WRONLY), "a pipe or a device")
    refuse(lambda: files.open_own(tmp_path, os.O_RDONLY), "folder")


def test_what_is_removed_is_the_link(tmp_path, precious):
    for target in (precious, precious.parent):
        (tmp_path / "link").symlink_to(target)
        files.remove(tmp_path / "link")
        assert not os.path.lexists(tmp_path / "link")
    files.remove(tmp_path / "link")  # nothing is there


def test_what_a_killed_process_left_is_removed_and_no_link_among_it_is_followed(run, precious):
    (run / f"{files.TEMPORARY}a").symlink_to(precious.parent)
    (run / f"{files.TEMPORARY}b").mkdir()
    RunDirectory.open(run, resume=True).close()
    assert not list(run.glob(f"{files.TEMPORARY}*"))


def test_no_run_is_removed_through_a_link_in_the_place_of_its_lock(run, precious):
    put_link(run / "lock", precious)
    refuse(lambda: removal.remove(run), "a link is there")


def test_no_picture_nor_code_is_written_behind_a_link_that_came_later(run, precious):
    for name in ("pictures", "code"):
        put_link(run / name, precious.parent)
    refuse(
        lambda: canvas.write_figure(run / "pictures/a.png", lambda figure: None, root=run), "a link is there"
    )
    code = outside.Code("model", "m.py", {"m.py": b""})
    refuse(lambda: code_copies.write(run, [code]), "a link is there")


def test_no_sink_writes_behind_a_link(run, precious, caplog, tmp_path):
    put_link(run / "sinks" / "tensorboard.lock", precious)
    refuse(
        lambda: bookmark.lock(run / "sinks" / "tensorboard.json", wait=False).__enter__(), "a link is there"
    )
    put_link(run / "sinks" / "tensorboard.log", precious)
    assert launch.try_to_start(run, "tensorboard") is None
    assert "does not start: a link is there" in caplog.text


def test_a_sweep_with_a_link_in_it_is_refused(tmp_path, precious):
    def open_sweep() -> SweepDirectory:
        return SweepDirectory.take_up(tmp_path / "sweep", "sweep.json", {"a": 1}, ("other", "none"), "choose")

    sweep = open_sweep()
    (sweep.path / "programs" / "0").mkdir()
    for name, target in [
        ("study.journal", precious),
        ("rounds", precious.parent),
        ("programs/1", precious.parent),
    ]:
        put_link(sweep.path / name, target)
        with pytest.raises(errors.RunDirectoryError, match="this is a link"):
            open_sweep()
        (sweep.path / name).unlink()
    put_link(sweep.path / "programs/0/lock", precious)
    refuse(lambda: sweep.claim("0"), "a link is there")
    put_link(sweep.path / "lock", precious)
    refuse(lambda: sweep.locked().__enter__(), "a link is there")
