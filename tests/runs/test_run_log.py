"""How a run ends on a disk that takes no more: with the error that has ended it, and never with a traceback."""

import errno
import logging
import os

import pytest

from metarun import errors, signals
from metarun.runs import files, run_log
from metarun.runs.directory import RunDirectory
from metarun.runs.run_status import read_status

FULL = errors.StorageError("the disk is full", "here", "free some space")
DIVERGED = errors.DivergedError("the loss is nan", "here", "lower the rate")


@pytest.mark.parametrize(
    "ending", [signals.Stopped(15), DIVERGED, FULL, KeyboardInterrupt(), ZeroDivisionError()]
)
def test_a_status_that_cannot_be_written_hides_no_other_error(
    tmp_path, monkeypatch, warnings_of_metarun, ending
):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with RunDirectory.open(tmp_path / "run", resume=False) as run:
        with pytest.raises(type(ending)) as caught, run_log.report_status(run):
            monkeypatch.setattr(files, "write_all", refuse)
            raise ending
        assert caught.value is ending
    assert warnings_of_metarun == ["status.json does not say how the run ended: the disk is full"]


def test_a_run_that_refuses_to_go_on_stands_as_it_stood(tmp_path):
    refusal = errors.DataError("other pictures", "here", "put them back")
    with RunDirectory.open(tmp_path / "run", resume=False) as run, run_log.report_status(run):
        run.write_config("seed: 0\n")
        run.write_status("done", "maml", 7)
    before = (run.path / "status.json").read_bytes()
    for does_steps in (False, True):
        with (
            RunDirectory.open(run.path, resume=True) as again,
            pytest.raises(errors.DataError),
            run_log.report_status(again),
        ):
            if does_steps:
                again.write_status("running", "maml", 9)
            raise refusal
        assert ((run.path / "status.json").read_bytes() == before) is not does_steps
    assert read_status(run.path)[:3] == ("failed", "maml", 9)


def test_a_log_that_cannot_be_written_nor_closed_says_nothing(tmp_path, monkeypatch):
    close = os.close

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def refuse_to_close(descriptor: int) -> None:
        close(descriptor)
        refuse()

    with pytest.raises(ZeroDivisionError), run_log.copy_log(tmp_path / "log.txt"):
        logging.getLogger("metarun").debug("before")
        monkeypatch.setattr(os, "write", refuse)
        monkeypatch.setattr(os, "close", refuse_to_close)
        logging.getLogger("metarun").debug("not said")
        raise ZeroDivisionError
    monkeypatch.undo()
    assert (tmp_path / "log.txt").read_text().endswith("DEBUG before\n")


def test_metrics_that_cannot_be_closed_are_a_storage_error_and_the_lock_is_free(tmp_path, monkeypatch):
    run, close = RunDirectory.open(tmp_path / "run", resume=False), os.close

    def refuse_once(descriptor: int) -> None:
        close(descriptor)
        monkeypatch.undo()
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "close", refuse_once)
    with pytest.raises(errors.StorageError, match="quota"):
        run.close()
    RunDirectory.open(tmp_path / "run", resume=True).close()
