"""A disk that takes no more ends a training with exit code 8; what was saved before is whole, and the run goes on."""

import errno
import os
from collections.abc import Callable

import pytest

from helpers.runs import assert_same_run, last_checkpoints, read_json, train
from metarun import errors
from metarun.progress import Progress


class Refusing(Progress):
    """Calls a function once a stage has reached a step, or when the final evaluation begins."""

    def __init__(self, refuse: Callable[[], None], step: int | None) -> None:
        self.refuse, self.step = refuse, step

    def advanced(self, stage, step, count, seconds, metrics) -> None:
        if step == self.step:
            self.refuse()

    def measuring(self, stage, split, episodes) -> None:
        self.refuse()


@pytest.mark.parametrize(
    ("step", "refused", "newest"),
    [(14, "write", 8), (14, "fsync", 8), (None, "write", 24)],
    ids=["lines of metrics", "a checkpoint", "the result"],
)
def test_a_disk_that_is_full_from_some_moment_on_ends_the_run_with_8_and_the_newest_checkpoint_is_whole(
    single, tmp_path, monkeypatch, step, refused, newest
):
    def be_full() -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, refused, refuse)

    with pytest.raises(errors.StorageError) as caught:
        train(tmp_path / "run", progress=Refusing(be_full, step))
    monkeypatch.undo()
    assert caught.value.exit_code == 8 and "disk is full" in caught.value.what
    assert last_checkpoints(tmp_path / "run")["maml"].step == newest
    assert_same_run(train(tmp_path / "run", resume=True), single)
    assert read_json(tmp_path / "run" / "status.json")["status"] == "done"
