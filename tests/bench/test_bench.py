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
import json, sys
import bench
from _bench_settings import SINUSOID
sides = {"metarun": [sys.executable, sys.argv[1]], "torch": [sys.executable, sys.argv[1]]}
result = bench.compare_sides(sides, SINUSOID, repeats=2, seconds=0.004)
print(json.dumps(result))
print(bench.align([bench.HEADER, bench.make_row(result, peak=1e9)]), file=sys.stderr)
"""
WORKER = """
import time
import _bench_settings
facts = {"devices": 1, "matrix_flops": 1e6, "sampling_seconds": 1e-4, "compile_seconds": 2.0}
_bench_settings.serve(lambda setting: (lambda count: time.sleep(count / 1000), facts))
"""


def test_the_bench_times_both_sides_in_turns_and_prints_a_row(tmp_path):
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
