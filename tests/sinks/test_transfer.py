"""What goes to a sink: every step of every series once, whatever ends in between. The sink here is a list."""

import json
from pathlib import Path

import pytest

from helpers import copied_runs
from metarun import errors
from metarun.runs import directory
from metarun.sinks import bookmark, registry, transfer


class Memory:
    """A sink that keeps what it is sent."""

    place = "memory"

    def __init__(self, keeps_halves: bool = False) -> None:
        self.keeps_halves, self.received, self.times, self.fails_after = keeps_halves, [], [], None
        self.ended: list[str] = []

    def send(self, points, milliseconds):
        for number, point in enumerate(points):
            if number == self.fails_after:
                raise ConnectionError("the sink is gone")
            self.received += [(name, point.step, value) for name, value in point.values.items()]
        self.times.append(milliseconds)

    def flush(self):
        return {"received": len(self.received)}

    def close(self, status):
        self.ended.append(status)


@pytest.fixture
def memory(monkeypatch) -> Memory:
    sink = Memory()
    monkeypatch.setattr(registry, "open_sink", lambda name, opening: sink)
    return sink


def copy(run: Path) -> int:
    with transfer.open_copy(run, "tensorboard") as opened:
        return opened.copy_new() + opened.copy_result()


def test_every_line_is_copied_once(tmp_path, memory):
    run = copied_runs.make_run(tmp_path / "run")
    assert [copy(run), copy(run)] == [15, 0]
    assert sorted(memory.received) == copied_runs.expect(copied_runs.make_rows())


def test_a_line_that_is_still_written_waits_for_its_end(tmp_path, memory):
    run = copied_runs.make_run(tmp_path / "run")
    rows = copied_runs.make_rows()
    text = json.dumps(rows[-1])
    copied_runs.write_rows(run, rows[:-1], text[:20])
    assert copy(run) == 14
    copied_runs.write_rows(run, rows)
    assert copy(run) == 1


@pytest.mark.parametrize("seconds", [0.5, 1000.125])
def test_a_run_that_goes_on_from_an_earlier_checkpoint_sends_no_step_again(tmp_path, memory, seconds):
    """The lines after the checkpoint are written again, with times that may be longer."""
    run = copied_runs.make_run(tmp_path / "run", copied_runs.make_rows(range(1, 5)))
    copy(run)
    copied_runs.write_rows(run, copied_runs.make_rows(range(1, 3)))
    assert copy(run) == 0
    again = copied_runs.make_rows(range(1, 3)) + copied_runs.make_rows(range(3, 9), seconds)
    copied_runs.write_rows(run, again)
    assert copy(run) == 10
    places = [(name, step) for name, step, _ in memory.received]
    assert sorted(places) == [(name, step) for name, step, _ in copied_runs.expect(again)]


@pytest.mark.parametrize("keeps_halves", [False, True])
def test_a_batch_that_breaks_off_is_repeated_at_its_time_or_counts_as_arrived(tmp_path, memory, keeps_halves):
    run = copied_runs.make_run(tmp_path / "run")
    memory.keeps_halves, memory.fails_after = keeps_halves, 4
    with pytest.raises(ConnectionError):
        copy(run)
    assert memory.ended == ["failed"]
    noted = bookmark.read(bookmark.find_path(run, "tensorboard", None))
    memory.received, memory.fails_after = [], None
    copy(run)
    if keeps_halves:
        assert memory.received == []
    else:
        assert sorted(memory.received) == copied_runs.expect(copied_runs.make_rows())
        assert memory.times == [noted.time]
    copied_runs.write_rows(run, copied_runs.make_rows(range(1, 9)))
    assert copy(run) == 5


def test_the_result_of_a_run_that_is_done_is_copied_once(tmp_path, memory):
    run = copied_runs.make_run(tmp_path / "run", [])
    interval = {"mean": 0.5, "ci95": "nan"}
    stages = {"maml": {"step": 6, "inductive": {"adapted": {"loss": interval, "task": {"rare": interval}}}}}
    result = {"split": "test", "modes": ["inductive"], "stages": stages}
    (run / directory.RESULT).write_text(json.dumps(result))
    assert copy(run) == 0  # it is not done
    (run / directory.STATUS).write_text('{"status": "done"}')
    assert [copy(run), copy(run)] == [1, 0]
    names = [name for name, _, _ in memory.received]
    assert names[:2] == [f"maml/test-result/inductive/adapted/loss{end}" for end in ("", "_ci95")]
    assert [step for _, step, _ in memory.received] == [6] * 4
    assert memory.ended[-1] == "done"


def test_two_processes_do_not_copy_at_once(tmp_path, memory):
    run = copied_runs.make_run(tmp_path / "run")
    with transfer.open_copy(run, "tensorboard"), pytest.raises(errors.RunDirectoryError, match="another"):
        copy(run)
    with transfer.open_copy(run, "tensorboard"), transfer.open_copy(run, "tensorboard", tmp_path) as other:
        assert other.copy_new() == 15  # another folder has a bookmark of its own


def test_a_damaged_bookmark_and_a_damaged_line_are_refused(tmp_path, memory):
    run = copied_runs.make_run(tmp_path / "run", [], "failed")
    (run / directory.METRICS).write_text("[]\n")
    with pytest.raises(errors.DataError, match="no JSON object"):
        copy(run)
    bookmark.find_path(run, "tensorboard", None).write_text("{")
    with pytest.raises(errors.DataError, match="bookmark"):
        copy(run)


def test_what_is_no_run_is_refused(tmp_path, memory):
    with pytest.raises(errors.CheckpointError):
        copy(tmp_path)
