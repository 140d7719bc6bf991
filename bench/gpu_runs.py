"""The long runs of bench/gpu.py: `metarun train` with seeds as replicas, stopped when the time is up, and resumed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gpu_points
from gpu_points import Point
from gpu_report import Answers

AFFORDABLE = 2.0  # how much longer a step with more seeds may take than a step with one
STOP_SECONDS = 30.0  # that a run has to save its state after a signal
DATA_MISSING = 4  # an exit code of metarun
# Exit codes of a run that can go on: the directory is still held by a run that is saving, or a signal has come.
UNFINISHED = (6, 130, 143, -signal.SIGTERM, -signal.SIGKILL)


def choose_replicas(setting: str, answers: Answers) -> int:
    """Return the most seeds whose step was measured to be affordable; 1 if it was not measured."""
    base = {"setting": setting, **gpu_points.FIRST}
    seconds = {
        count: answers.get(gpu_points.name_step({**base, "replicas": count}), {}).get("seconds")
        for count in gpu_points.REPLICAS
    }
    if seconds[1] is None:
        return 1
    return max(count for count, value in seconds.items() if value and value <= AFFORDABLE * seconds[1])


def go_on(point: Point, begun: dict[str, Any], folder: Path, seconds: float) -> dict[str, Any]:
    """Train for so many seconds at most, from where the run has come, and return what to keep of it.

    Args:
      begun: {"replicas", "minutes"}: what the run began with, and how long it has trained.
    """
    run, started = folder / "runs" / point.arguments["setting"], time.monotonic()
    command = [sys.executable, "-m", "metarun", "train", point.arguments["config"], "--run-dir", str(run)]
    command += ["--resume", f"replicas={begun['replicas']}", *point.arguments["overrides"]]
    (folder / "logs").mkdir(exist_ok=True)
    with (folder / "logs" / f"{point.name}.txt").open("a") as log:
        code = wait_or_stop(subprocess.Popen(command, stdout=log, stderr=log, cwd=gpu_points.ROOT), seconds)
    minutes = begun["minutes"] + (time.monotonic() - started) / 60
    return begun | {"minutes": minutes} | describe_end(code, run, folder / "logs" / f"{point.name}.txt")


def describe_end(code: int, run: Path, log: Path) -> dict[str, Any]:
    """Return the state of a run after its process has ended."""
    if code == 0:
        result = json.loads((run / "result.json").read_text())
        return {"state": "done", "score": format_score(result), "accelerator": result["accelerator"]}
    if code in UNFINISHED:
        return {"state": "stopped"}
    lines = log.read_text(errors="replace").splitlines()
    error = next((line for line in reversed(lines) if line.startswith("error:")), f"exit code {code}")
    if code == DATA_MISSING:
        return {"skipped": f"{error} (`metarun data fetch omniglot`)"}
    return {"failed": error}


def format_score(result: dict[str, Any]) -> str:
    """Return the metrics of the adapted learner of the last stage, in the first mode."""
    *_, stage = result["stages"].values()
    metrics = stage[result["modes"][0]]["adapted"]
    return ", ".join(f"{name} {value['mean']:.4f} ± {value['ci95']:.4f}" for name, value in metrics.items())


def wait_or_stop(process: subprocess.Popen, seconds: float) -> int:
    """Return the exit code of a process, which is asked to stop after so many seconds, and killed if it does not."""
    try:
        return process.wait(max(seconds, 0))
    except subprocess.TimeoutExpired:
        return stop(process)
    except BaseException:  # this process is being ended
        stop(process)
        raise


def stop(process: subprocess.Popen) -> int:
    """Ask a process to stop, kill it if it does not, and return its exit code."""
    process.terminate()
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
