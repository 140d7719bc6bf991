"""Arrays in files: what Orbax leaves, and what is said where it or the disk refuses."""

import errno
import shutil
import signal

import numpy as np
import pytest

from metarun import errors, signals
from metarun.runs import files, state_files

ARRAYS = {"a": np.arange(3.0), "b": np.zeros((0, 2))}


def test_all_arrays_are_in_one_store_and_come_back(tmp_path):
    state_files.write(tmp_path / "weights", ARRAYS)
    assert (tmp_path / "weights" / "manifest.ocdbt").is_file()
    back = state_files.read(tmp_path / "weights", ARRAYS)
    assert set(back) == set(ARRAYS) and back["a"].tolist() == [0, 1, 2] and back["b"].shape == (0, 2)


def test_a_store_that_orbax_cannot_read_is_a_damaged_checkpoint(tmp_path):
    state_files.write(tmp_path / "weights", ARRAYS)
    shutil.rmtree(tmp_path / "weights")
    (tmp_path / "weights").mkdir()
    with pytest.raises(errors.CheckpointError, match="Orbax cannot read the checkpoint"):
        state_files.read(tmp_path / "weights", ARRAYS)


def test_a_signal_while_a_store_is_read_is_no_damage(tmp_path, monkeypatch):
    state_files.write(tmp_path / "weights", ARRAYS)

    def make_checkpointer():
        raise signals.Stopped(signal.SIGTERM)

    monkeypatch.setattr(state_files, "_make_checkpointer", make_checkpointer)
    with pytest.raises(signals.Stopped):
        state_files.read(tmp_path / "weights", ARRAYS)


def test_a_disk_that_is_full_within_a_save_is_said_as_such(tmp_path, monkeypatch):
    def refuse(path):
        raise OSError(errno.ENOSPC, "x")

    monkeypatch.setattr(files, "sync", refuse)
    with pytest.raises(errors.StorageError, match="the disk is full"):
        state_files.write(tmp_path / "weights", ARRAYS)


def test_what_orbax_says_of_a_disk_is_a_storage_error(tmp_path, monkeypatch):
    def refuse():
        raise ValueError("no space, says Orbax\nmore")

    monkeypatch.setattr(state_files, "_make_checkpointer", refuse)
    with pytest.raises(errors.StorageError) as refused:
        state_files.write(tmp_path / "weights", ARRAYS)
    assert refused.value.what == "the arrays could not be written: no space, says Orbax"
