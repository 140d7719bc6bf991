"""The bench of what comes before and after the steps."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCH_FOLDER = Path(__file__).parents[2] / "bench"

# A process that does something, writes metrics, and ends when it is told to, or by itself.
CODE = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
sum(range(10**6))
pathlib.Path(sys.argv[1]).write_text("a line")
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def bench_folder(monkeypatch):
    """Let a test import the files of bench/, which is no package."""
    monkeypatch.syspath_prepend(BENCH_FOLDER)


def watch(tmp_path, seconds: float, to_result: bool):
    """What `watch` says about a process that goes on for so many seconds after its first step."""
    import bench_startup

    metrics, started = tmp_path / "metrics.jsonl", time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", CODE, str(metrics), str(seconds)])
    return bench_startup.watch(process, metrics, started, to_result)


def test_a_process_is_timed_to_its_first_step_and_to_its_end(tmp_path):
    first_step, result, cpu, code = watch(tmp_path, 0.3, to_result=True)
    assert 0 < first_step < result and result > 0.3
    assert cpu > 0 and code == 0


def test_a_process_that_is_not_timed_to_its_end_is_asked_to_end_after_its_first_step(tmp_path):
    first_step, result, _, code = watch(tmp_path, 600.0, to_result=False)
    assert 0 < first_step < 600 and result is None and code == 130


def test_what_is_not_known_has_a_dash():
    import bench_startup

    columns = bench_startup.format_timing(bench_startup.Timing(1.25, None, 3.0, None, None)).split()
    assert columns == ["1.2", "-", "3.0", "-", "-"]
