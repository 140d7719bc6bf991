"""bench/bench.py: its settings, its turns and its rows, with a worker that sleeps in place of one that computes."""

import json
import os
import subprocess
import sys
from pathlib import Path

BENCH_FOLDER = Path(__file__).parents[2] / "bench"


def test_the_bench_names_its_settings_apart():
    """Read in a process of its own: bench/ is no package."""
    settings = "[s.name for s in b.make_growth(True) + b.make_growth(False)]"
    program = f"import json, _bench_settings as b; print(json.dumps({settings}))"
    names = json.loads(subprocess.check_output([sys.executable, "-c", program], cwd=BENCH_FOLDER))
    assert len(set(names)) == len(names) == 11


BENCH = """
import json, os, sys
import _bench_report as report, bench
from _bench_settings import SINUSOID
sides = ["metarun", "torch", "before"]
command = bench.Command([sys.executable, sys.argv[1]], dict(os.environ))
result = bench.compare_sides(dict.fromkeys(sides, command), SINUSOID, repeats=2, seconds=0.004)
print(json.dumps(result))
print(report.align([report.make_header(sides), report.make_row(result, 1e9, sides)]), file=sys.stderr)
"""
WORKER = """
import time
import _bench_settings
facts = {"devices": 2, "platform": "cpu", "matrix_flops": 1e6, "sampling_seconds": 1e-4, "compile_seconds": 2.0}
_bench_settings.serve(lambda setting: (lambda count: time.sleep(count / 1000), facts))
"""


def test_the_bench_times_all_sides_in_turns_and_prints_a_row(tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    finished = subprocess.run(
        [sys.executable, "-c", BENCH, worker],
        cwd=BENCH_FOLDER,
        env=os.environ | {"PYTHONPATH": str(BENCH_FOLDER)},
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(finished.stdout)
    assert len(result["torch"]["seconds"]) == 2
    assert min(result["metarun"]["seconds"]) >= 0.001  # a step sleeps so long
    assert result["metarun"]["memory"] > 1e6
    header, line = finished.stderr.splitlines()
    assert header.startswith("setting") and line.startswith("sinusoid")
    assert "2.0" in line.split()  # the seconds of compilation
    step = min(result["metarun"]["seconds"])
    assert f"{1e6 / step / 1e9:.1%}" in line.split()  # of the machine's peak, however many devices it is
    assert all(len(result[side]["core_seconds"]) == 2 for side in ("metarun", "torch", "before"))


def test_another_checkout_runs_its_own_worker_and_its_own_package(tmp_path):
    program = (
        "import bench, sys; print(*bench.make_metarun_command(bench.Path(sys.argv[1]), bench.Path('c')))"
    )
    call = [sys.executable, "-c", program, tmp_path]
    refused = subprocess.run(call, cwd=BENCH_FOLDER, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.strip() == f"{tmp_path} is no checkout of metarun with a bench/"
    worker = tmp_path / "bench" / "_bench_metarun.py"
    worker.parent.mkdir()
    worker.touch()
    said = subprocess.run(call, cwd=BENCH_FOLDER, capture_output=True, text=True, check=True).stdout
    assert str(worker) in said
    assert f"'PYTHONPATH': '{tmp_path}'" in said
