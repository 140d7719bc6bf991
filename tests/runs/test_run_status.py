"""How a run stands: what status.json says, and what the processes of this machine say to it."""

import json
import os
import subprocess
import sys

import pytest

from metarun.runs import process_identity, strict_json
from metarun.runs.directory import RunDirectory
from metarun.runs.run_status import read_status


@pytest.fixture
def status(tmp_path):
    """Write a status of this process, with changes; return how the run stands."""
    with RunDirectory.open(tmp_path / "run", resume=False) as run:
        run.write_config("seed: 0\n")
        run.write_status("running", "maml", 7)
    file = tmp_path / "run/status.json"
    content = json.loads(file.read_text())

    def change(**changes):
        kept = {key: value for key, value in (content | changes).items() if value != "absent"}
        file.write_text(json.dumps(strict_json.seal(kept)))
        return read_status(tmp_path / "run")

    return change


def test_a_run_of_a_living_process_is_running(status):
    assert status()[:3] == ("running", "maml", 7)


def test_a_run_whose_process_is_gone_is_killed(status):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert status(pid=process.pid, process_started=None).state == "killed"


def test_a_number_that_another_process_has_now_is_killed(status):
    started = process_identity.read_start(os.getpid())
    if started is None:
        pytest.skip("this system has no /proc")
    assert status(process_started=started - 1).state == "killed"


def test_a_process_of_another_machine_or_of_an_unknown_one_is_not_judged(status):
    assert status(host="elsewhere").state == "unknown"
    assert status(host="absent").state == "unknown"  # as an older version wrote it


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("done", "done"),
        ("preempted", "stopped"),
        ("diverged", "diverged"),
        ("failed", "failed"),
        ("?", "unknown"),
    ],
)
def test_an_ended_run_says_how(status, word, state):
    assert status(status=word, pid=0).state == state


@pytest.mark.parametrize("content", ["", "[]", '{"status": 3}', "[" * 100_000, "\x00\xff"])
def test_a_damaged_status_is_no_error(tmp_path, content):
    (tmp_path / "status.json").write_text(content)
    assert read_status(tmp_path).state == "damaged"


def test_a_run_without_a_status_is_done_if_it_has_a_result(tmp_path):
    assert read_status(tmp_path).state == "unknown"
    (tmp_path / "result.json").write_text("{}")
    assert read_status(tmp_path).state == "done"


def test_a_link_to_nowhere_is_a_damaged_status(tmp_path):
    (tmp_path / "status.json").symlink_to("nowhere")
    assert read_status(tmp_path).state == "damaged"


def test_a_status_that_was_edited_is_damaged(status, tmp_path):
    assert status().step == 7
    file = tmp_path / "run/status.json"
    file.write_text(file.read_text().replace('"step": 7', '"step": 8'))
    assert read_status(tmp_path / "run").state == "damaged"
