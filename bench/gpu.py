"""Measure metarun on one GPU, as much of it as the minutes allow; call it again to go on.

    scripts/gpu.sh [--minutes N] [--out FOLDER] [--parts PART ...] [--retry] [--tiny]

Every point runs in a process of its own, so that a failure costs one point, and is kept in FOLDER/results.json and
FOLDER/results.md as soon as it is measured. The points that tell most come first (bench/gpu_points.py).

    install    versions, driver, one product             smoke      `metarun doctor`
    gradient   one gradient against float64 on a CPU     peak       large matrix products
    step       time, share of peak, launches, memory     torch      loops over tasks, and torch.func.vmap
    run        the 60,000 steps of the paper, cheapest first, with as many seeds as are nearly free

torch is looked for in METARUN_TORCH_PYTHON, else in .venv-torch; the runs need `metarun data fetch omniglot`.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gpu_points
import gpu_report
import gpu_runs
from gpu_points import ROOT, Point
from gpu_report import Store

from metarun import gpu_settings

PARTS = ("install", "smoke", "gradient", "peak", "step", "torch", "run")
POINT_SECONDS = 300.0  # after which a point has failed
SHORTEST = 40.0  # seconds that must be left to begin a point, which starts a device and compiles
BENCH = ROOT / "bench"


class Deadline:
    """When this call must have ended."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes - gpu_runs.STOP_SECONDS

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self.end - time.monotonic()


def measure_point(point: Point, folder: Path, deadline: Deadline) -> dict[str, Any] | None:
    """Return the answer of a point; None: the call ends before it."""
    command = make_command(point, folder)
    if command is None:
        return {"skipped": "torch is not there (METARUN_TORCH_PYTHON, or .venv-torch)"}
    started, limit = time.monotonic(), min(POINT_SECONDS, deadline.left)
    log = folder / "logs" / f"{point.name}.txt"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as file, start(command, file, make_environment(point, folder)) as process:
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            return {"failed": f"took more than {POINT_SECONDS:.0f} s"} if limit == POINT_SECONDS else None
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        return {"failed": find_reason(process.returncode, log.read_text(errors="replace"))}
    if point.part == "smoke":
        return {"seconds": time.monotonic() - started}
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer | {"process_seconds": round(time.monotonic() - started, 1)}


def start(command: list[str], log, environment: dict[str, str]) -> subprocess.Popen:
    """Start a process whose output is read, and whose errors go to the log."""
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=BENCH
    )


def make_command(point: Point, folder: Path) -> list[str] | None:
    """Return the command of a point; None: there is no torch for it."""
    if point.part == "smoke":
        return [sys.executable, "-m", "metarun", "doctor"]
    if point.part == "torch":
        python = os.environ.get("METARUN_TORCH_PYTHON") or str(ROOT / ".venv-torch" / "bin" / "python")
        arguments = {**point.arguments, "values": make_values(point)}
        return [python, "gpu_torch.py", json.dumps(arguments)] if Path(python).exists() else None
    arguments = point.arguments | {"file": str(folder / "reference.npz")}
    return [sys.executable, "gpu_worker.py", point.part, json.dumps(arguments)]


def make_values(point: Point) -> dict[str, Any]:
    """Return the fields of `_bench_settings.Setting` for the config of a point of torch."""
    from metarun import config

    overrides = gpu_points.TINY if point.arguments["tiny"] else ()
    run = config.load(Path(gpu_points.find_config(point.arguments["setting"])), list(overrides))
    (stage,), task = run.stages, run.task.config
    inner = stage.algorithm.config
    return {
        "name": point.name,
        "tasks": stage.training.tasks_per_step,
        "shots": task.shots,
        "queries": task.queries,
        "inner_steps": inner.inner_steps,
        "inner_rate": 0.01,  # as in gpu_worker.py
        "ways": task.ways,
        "width": stage.model.config.width,
    }


def make_environment(point: Point, folder: Path) -> dict[str, str]:
    """Return the variables of a point: its flags beside those of the caller, and a cache of compiled programs."""
    flags = gpu_settings.add_flags(point.flags, os.environ.get(gpu_settings.FLAGS, ""))
    return {**os.environ, gpu_settings.FLAGS: flags, "METARUN_CACHE": str(folder / "cache")}


def find_reason(code: int, errors: str) -> str:
    """Return the line of the errors that says why a process failed: the error of metarun, or of Python."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error:") or "Error" in line.partition(":")[0]]
    return (told or lines or [f"exit code {code}"])[-1][:200] + (f" (signal {-code})" if code < 0 else "")


def measure_run(point: Point, store: Store, folder: Path, deadline: Deadline) -> None:
    """Go on with a long run until it is done or the time is up."""
    name = f"begun-{point.name}"
    replicas = 1 if store.tiny else gpu_runs.choose_replicas(point.arguments["setting"], store.answers)
    begun = store.answers.get(name) or {"replicas": replicas, "minutes": 0.0, "state": "begun"}
    store.add(name, begun)
    answer = gpu_runs.go_on(point, begun, folder, deadline.left)
    store.add(name if answer.get("state") == "stopped" else point.name, answer)


def measure(points: list[Point], store: Store, folder: Path, deadline: Deadline) -> bool:
    """Measure what has no answer yet, and write the tables after each; return whether all have one."""
    for point in points:
        if point.name in store.answers and "skipped" not in store.answers[point.name]:
            continue
        if deadline.left < SHORTEST:
            return False
        print(f"{time.strftime('%H:%M:%S')} {point.name}", file=sys.stderr, flush=True)
        if point.part == "run":
            measure_run(point, store, folder, deadline)
        elif (answer := measure_point(point, folder, deadline)) is not None:
            store.add(point.name, answer)
        gpu_report.write_text(folder / "results.md", gpu_report.format_report(store.answers, points))
        if point.part == "install" and "failed" in store.answers.get("install", {}):
            raise SystemExit(f"the device does not work: {store.answers['install']['failed']}")
    return all(point.name in store.answers for point in points)


def read_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="this call ends after so many (10)")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-results", help="folder of the results")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="only these")
    parser.add_argument("--retry", action="store_true", help="measure again what failed")
    parser.add_argument(
        "--tiny", action="store_true", help="a few small points, also on a CPU: does all of it work?"
    )
    return parser.parse_args()


def stop(number: int, _frame: object) -> None:
    """End this process in good order: the process of the point that is being measured ends, too."""
    raise SystemExit(128 + number)


def main() -> None:
    """Measure, and say what is left."""
    arguments = read_arguments()
    signal.signal(signal.SIGTERM, stop)
    arguments.out.mkdir(parents=True, exist_ok=True)
    store = Store(arguments.out, arguments.tiny)
    if arguments.retry:
        store.remove_failed()
    parts = {*arguments.parts, *(["reference"] if "gradient" in arguments.parts else [])}
    points = [point for point in gpu_points.list_points(arguments.tiny) if point.part in parts]
    with contextlib.suppress(KeyboardInterrupt):
        done = measure(points, store, arguments.out.resolve(), Deadline(arguments.minutes))
        print("all is measured" if done else "call it again to go on", file=sys.stderr)
    print(arguments.out / "results.md")


if __name__ == "__main__":
    main()
