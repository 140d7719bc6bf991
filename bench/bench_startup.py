"""Time what comes before and after the steps: from the command to the first step, and to the result.

    python bench/bench_startup.py                 # the sinusoid and Omniglot
    python bench/bench_startup.py --quick         # a short sinusoid alone
    python bench/bench_startup.py --against FOLDER    # another checkout of metarun, too

Every case runs three times: `cold` with an empty METARUN_CACHE, `warm` once more, and `changed` with other rates,
another number of steps and another seed, which need no new program. The first step is done when metrics.jsonl has a
line. A case that is not measured to its result ends there. CPU seconds are user and system time of the whole process,
and `programs` says how many were compiled, with how many of them from the cache.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent.parent
POLL_SECONDS = 0.01
# What the measured process runs: metarun, with counters of compiled programs.
WORKER = """
import atexit, collections, json, os, sys
from metarun.__main__ import main
if len(sys.argv) > 2 and "GLIBC_TUNABLES" not in os.environ:
    from metarun import large_pages
    large_pages.use_large_pages()
import jax
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: counts.update([name]))
jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: counts.update([name]))
report = sys.argv.pop(1)
def write():
    with open(report, "w") as file:
        json.dump(counts, file)
atexit.register(write)
main()
"""
PROGRAM = "/jax/core/compile/backend_compile_duration"
HIT = "/jax/compilation_cache/cache_hits"


class Case(NamedTuple):
    """A command whose start is timed."""

    name: str
    config: str
    overrides: tuple[str, ...]
    changes: tuple[str, ...]  # in the run that changes numbers alone
    to_result: bool  # whether the run goes on to its result


RATES = ("algorithm.inner_lr=0.02", "training.optimizer.learning_rate=0.002", "seed=7")
SINUSOID = Case(
    "sinusoid", "configs/sinusoid/maml.yaml", ("training.steps=1000",), (*RATES, "training.steps=900"), True
)
OMNIGLOT = Case(
    "omniglot",
    "configs/omniglot/5way-1shot/maml.yaml",
    ("training.chunk=1",),
    (*RATES, "training.steps=900"),
    False,
)
QUICK = SINUSOID._replace(
    overrides=("training.steps=20", "evaluation.episodes=8"),
    changes=(*RATES, "training.steps=10", "evaluation.episodes=8"),
)


class Timing(NamedTuple):
    """One run of a command."""

    first_step: float  # seconds
    result: float | None  # seconds; None: the run was ended before
    cpu: float  # seconds
    programs: int | None
    hits: int | None  # of the programs


def main() -> None:
    """Measure every case, and print a line for each run of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a short sinusoid alone")
    parser.add_argument("--against", type=Path, help="folder of another checkout, which is measured, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    options = parser.parse_args()
    cases = [QUICK] if options.quick else [SINUSOID, OMNIGLOT]
    checkouts = {"here": HERE} | ({"against": options.against.resolve()} if options.against else {})
    print(
        f"{'checkout':9} {'case':9} {'run':8} {'first step':>10} {'result':>8} {'cpu':>7} {'programs':>9} cached"
    )
    rows: list[dict[str, Any]] = []
    for checkout, folder in checkouts.items():
        for case in cases:
            for run, timing in measure(case, folder):
                print(f"{checkout:9} {case.name:9} {run:8} {format_timing(timing)}", flush=True)
                rows.append({"checkout": checkout, "case": case.name, "run": run, **timing._asdict()})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(case: Case, checkout: Path) -> Iterator[tuple[str, Timing]]:
    """Yield the name and the timing of each run of a case."""
    with tempfile.TemporaryDirectory(prefix="metarun-bench-") as name:
        for run, overrides in (
            ("cold", case.overrides),
            ("warm", case.overrides),
            ("changed", (*case.overrides, *case.changes)),
        ):
            yield run, time_run(case, overrides, checkout, Path(name), run)


def time_run(case: Case, overrides: tuple[str, ...], checkout: Path, folder: Path, run: str) -> Timing:
    """Run a command, and return when it came to its first step and its result.

    Raises:
      RuntimeError: the command fails; the message ends with what it said.
    """
    place, report = folder / run, folder / f"{run}.json"
    command = [sys.executable, "-c", WORKER, str(report), "train", str(checkout / case.config), *overrides]
    environment = {"PYTHONPATH": str(checkout), "METARUN_CACHE": str(folder / "cache")}
    with (folder / f"{run}.log").open("w+") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--run-dir", str(place)], env=os.environ | environment, stdout=log, stderr=log
        )
        first_step, result, cpu, code = watch(process, place / "metrics.jsonl", started, case.to_result)
        if case.to_result and code:
            log.seek(0)
            raise RuntimeError(f"{case.name} {run} ended with {code}: {log.read()[-2000:]}")
    counts = json.loads(report.read_text()) if report.exists() else {}
    return Timing(first_step, result, cpu, counts.get(PROGRAM), counts.get(HIT, 0) if counts else None)


def watch(
    process: subprocess.Popen, metrics: Path, started: float, to_result: bool
) -> tuple[float, float | None, float, int]:
    """Return the seconds to the first step and to the end, the CPU seconds, and the exit code of a process."""
    first_step = 0.0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if not first_step and metrics.exists() and metrics.stat().st_size:
            first_step = time.perf_counter() - started
            if not to_result:
                process.send_signal(signal.SIGINT)  # it saves its state and ends
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.perf_counter() - started
            cpu = usage.ru_utime + usage.ru_stime
            return first_step, seconds if to_result else None, cpu, process.returncode
        time.sleep(POLL_SECONDS)


def format_timing(timing: Timing) -> str:
    """Return the columns of a timing."""
    result = "-" if timing.result is None else f"{timing.result:.1f}"
    programs, hits = ("-" if count is None else str(count) for count in (timing.programs, timing.hits))
    return f"{timing.first_step:10.1f} {result:>8} {timing.cpu:7.1f} {programs:>9} {hits:>6}"


if __name__ == "__main__":
    main()
