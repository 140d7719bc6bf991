"""Several processes that begin at once on one run directory: one of them has it, and the others say who."""

import random
import subprocess
import sys
import time

import pytest

from fault import rivals
from fault.share import seed, share
from helpers import processes
from helpers.attempts import make_start
from helpers.runs import SINGLE, assert_same_run
from metarun import errors
from metarun.runs import new_run
from metarun.runs.directory import RunDirectory

RIVALS = 4


def finish(children: list) -> list[int]:
    """Return the exit codes of processes that end by themselves."""
    for child in children:
        child.join(300)
    return [child.exitcode for child in children]


def test_of_processes_that_begin_at_once_on_a_run_one_writes_at_a_time(attack, tmp_path):
    start, draw = make_start(["fault.rivals"], rivals.write_lines), random.Random(seed())
    for index in range(share(50)):
        path, patience = tmp_path / f"run-{index}", draw.choice([0.0, 0.002, 0.05])
        begin = time.monotonic() + 0.15
        codes = finish([start(path, begin, patience) for _ in range(RIVALS)])
        attack.tries += 1
        if not {rivals.WON} <= set(codes) <= {rivals.WON, rivals.REFUSED}:
            attack.fail(f"try {index}, patience {patience}: exit codes {codes}")
        elif len((path / "metrics.jsonl").read_bytes().splitlines()) != rivals.LINES * codes.count(
            rivals.WON
        ):
            attack.fail(f"try {index}: lines are missing, or there are too many")


def test_of_two_trainings_that_begin_at_once_on_a_run_one_is_refused_and_the_other_is_not_disturbed(
    attack, tmp_path, single
):
    (tmp_path / "small.yaml").write_text(SINGLE)
    for index in range(share(1)):
        run = tmp_path / f"run-{index}"
        command = [sys.executable, "-m", "metarun", "train", "small.yaml", "--run-dir", run, "--resume"]
        options = {"cwd": tmp_path, "env": processes.environment(), "stderr": subprocess.PIPE}
        pair = [subprocess.Popen(command, stdout=subprocess.DEVNULL, **options) for _ in range(2)]
        said = [process.communicate(timeout=300)[1].decode() for process in pair]
        codes = sorted(process.returncode for process in pair)
        attack.tries += 1
        if codes != [rivals.WON, rivals.REFUSED]:
            attack.fail(f"try {index}: exit codes {codes}, and they said {said}")
            continue
        try:
            assert_same_run(run, single)
        except AssertionError as difference:
            attack.fail(f"try {index}: another result: {difference}")


def test_no_two_processes_draw_the_same_folder_for_a_new_run(attack, tmp_path):
    """A second has 4 billion names. Here it has 2,000, for 4 × 250 runs, so many draw a name that is taken."""
    start, draws = make_start(["fault.rivals"], rivals.draw_folders), 250
    for index in range(share(10)):
        group = tmp_path / f"group-{index}"
        codes = finish([start(group, draws, 2000, seed() + 1000 * index + rival) for rival in range(RIVALS)])
        owners = [len(list(folder.iterdir())) for folder in group.iterdir()]
        attack.tries += RIVALS * draws
        if codes != [0] * RIVALS or owners != [1] * (RIVALS * draws):
            attack.fail(f"round {index}: exit codes {codes}, {sum(owners)} runs in {len(owners)} folders")


def test_ten_thousand_runs_of_one_second_have_ten_thousand_names(attack, tmp_path, monkeypatch):
    monkeypatch.setattr(new_run, "draw_name", lambda draw=new_run.draw_name: f"20260101-000000-{draw()[-8:]}")
    for _ in range(10_000):
        attack.tries += 1
        new_run.make_folder("maml", tmp_path)
    if (made := len(list((tmp_path / "maml").iterdir()))) != 10_000:
        attack.fail(f"{made} folders")


def test_a_run_whose_writer_is_killed_is_free_for_the_next_and_not_before(attack, tmp_path):
    start = make_start(["fault.rivals"], rivals.hold)
    for index in range(share(10)):
        path, ready = tmp_path / f"run-{index}", tmp_path / f"ready-{index}"
        holder = start(path, ready)
        deadline = time.monotonic() + 300
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        attack.tries += 1
        with pytest.raises(errors.RunDirectoryError, match=f"process {holder.pid} "):
            RunDirectory.open(path, resume=True)
        holder.kill()
        holder.join()
        RunDirectory.open(path, resume=True).close()
