"""The counter of attacks: a failure fails the test, and the table counts over all processes of pytest."""

import subprocess
import sys

import pytest

from fault import share
from helpers import processes
from helpers.attacks import Attack

TESTS = """
def test_held(attack):
    attack.tries += 3

def test_fell(attack):
    for index in range(4):
        attack.tries += 1
        if index == 2:
            attack.fail("try 2 got in")

def test_idle(attack):
    pass

def test_broken(attack):
    attack.tries += 2
    raise ValueError
"""


def test_the_table_counts_over_processes_and_a_failure_or_no_try_fails_the_test(attack, tmp_path):
    (tmp_path / "test_small.py").write_text(TESTS)
    command = "-m pytest -p no:cacheprovider -p helpers.attacks -n 2 --rootdir . test_small.py"
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=tmp_path,
        env=processes.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    table = [line.split() for line in done.stdout.partition(" attacks ")[2].splitlines()]
    for name, tries, failures in (("held", 3, 0), ("fell", 4, 1), ("idle", 0, 0), ("broken", 2, 0)):
        assert [f"test_small.py::test_{name}", str(tries), str(failures)] in table
    assert ["all", "9", "1"] in table
    assert "1 failures in 4 tries\ntry 2 got in" in done.stdout.replace("E   ", "")
    assert "the attack has tried nothing" in done.stdout
    assert "3 failed, 1 passed" in done.stdout
    attack.tries += 1


def test_an_attack_is_checked_by_its_own_count():
    attack = Attack()
    with pytest.raises(pytest.fail.Exception, match="nothing"):
        attack.check()
    attack.tries = 2
    attack.check()
    attack.fail("one got in")
    with pytest.raises(pytest.fail.Exception, match="1 failures in 2 tries\none got in"):
        attack.check()


def test_the_long_share_is_twenty_times_the_short_one(monkeypatch):
    monkeypatch.delenv("METARUN_FAULT_LONG", raising=False)
    assert share.share(7) == 7
    monkeypatch.setenv("METARUN_FAULT_LONG", "1")
    assert share.share(7) == 140
