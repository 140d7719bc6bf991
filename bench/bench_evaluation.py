"""Time the final evaluation of a config and the picture of its episode, beside another checkout of metarun.

    python bench/bench_evaluation.py configs/omniglot/5way-1shot/maml.yaml --against FOLDER evaluation.episodes=96

Each checkout works in a process of its own, on the first weights of the last stage, which nothing has trained: the time
does not depend on them. `compile` and `compute` are seconds of all cores, user and system. The evaluation runs twice,
with an empty cache of compiled programs and with a full one: `compute` is the second time, with tracing and loading,
and `compile` is what the first one took beyond it. `programs` says how many programs were compiled. With `--against`
the last line says by how much the values of an episode differ at most. Prints one JSON object a line.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = "/jax/core/compile/backend_compile_duration"  # the event of one compiled program


def main() -> None:
    """Measure this checkout, and another one if there is one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--against", type=Path, help="folder of another checkout")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_intermixed_args()
    if options.worker:
        work(options.config, options.overrides, options.worker)
        return
    here = Path(__file__).resolve().parent.parent
    sides = {"here": here} | ({"against": options.against.resolve()} if options.against else {})
    with tempfile.TemporaryDirectory() as folder:
        for side, checkout in sides.items():
            (own := Path(folder) / side).mkdir()
            command = [sys.executable, __file__, options.config, *options.overrides, "--worker", str(own)]
            environment = {"PYTHONPATH": str(checkout), "METARUN_CACHE": str(own / "cache")}
            subprocess.run(command, env=os.environ | environment, check=True)
            print(json.dumps({"side": side} | json.loads((own / "report.json").read_text())), flush=True)
        if options.against:
            print(json.dumps({"largest difference": compare_values(Path(folder))}))


def work(path: str, overrides: list[str], folder: Path) -> None:
    """Measure the checkout that is first on the path, and leave a report and its values in the folder."""
    import jax
    import numpy as np

    from metarun import assembly, config
    from metarun.evaluation import episodes, results, run_evaluation
    from metarun.figures import run_pictures
    from metarun.stages import take_learner

    jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    run_config = config.load(Path(path), overrides)
    settings = run_config.evaluation
    tasks = assembly.build_tasks(run_config, jax.devices()[0])
    stages = assembly.build_stages(run_config, tasks.family.problem)
    stage = settle_chunks(stages, tasks)[-1]
    weights = jax.jit(stage.make_start(tasks.family.sample))(tasks.data["train"], stage.make_keys(), {})
    frozen = episodes.freeze(tasks, settings)

    def evaluate() -> Any:
        return run_evaluation.measure_stage(stage, weights, tasks, settings, frozen)

    def draw() -> None:
        one = take_learner(weights, stage.positions[0])
        run_pictures.write_episode(folder / "pictures" / "episode.png", stage, one, tasks, settings)

    report: dict[str, Any] = {"episodes": settings.episodes, "at once": stage.at_once}
    for name, function in (("evaluation", evaluate), ("picture", draw)):
        values, cold = measure(function)
        jax.clear_caches()
        _, warm = measure(function)
        report[name] = {
            "compile": round(cold["core seconds"] - warm["core seconds"], 1),
            "compute": warm["core seconds"],
            "seconds cold": cold["seconds"],
            "seconds warm": warm["seconds"],
            "programs": cold["programs"],
        }
        if name == "evaluation":
            columns: dict[str, Any] = results.flatten_values(values)
            np.savez(folder / "values.npz", **columns)
    (folder / "report.json").write_text(json.dumps(report))


def settle_chunks(stages: list[Any], tasks: Any) -> list[Any]:
    """Return the stages with as many tasks at once as a run would take; older checkouts take all."""
    import jax

    try:
        from metarun.training import task_chunks
    except ImportError:
        return stages
    shapes: dict[str, Any] = {}
    for stage in stages:
        shapes[stage.name] = stage.trace_weights(tasks.family.sample, tasks.data["train"], shapes)
    return task_chunks.settle(stages, shapes, tasks, jax.devices()[0])


def measure(function: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """Call the function, and return what it gives, its seconds by the clock and on all cores, and its programs."""
    from jax import monitoring

    programs: list[str] = []

    def count_program(event: str, duration_secs: float, **_: str | int) -> None:
        programs.extend([event] * (event == PROGRAM))

    monitoring.register_event_duration_secs_listener(count_program)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    value = function()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return value, {
        "seconds": round(seconds, 1),
        "core seconds": round(used, 1),
        "programs": len(programs),
    }


def compare_values(folder: Path) -> dict[str, float]:
    """Return {metric: the largest difference between the two sides, over variants and episodes}."""
    import numpy as np

    here, against = (np.load(folder / side / "values.npz") for side in ("here", "against"))
    differences: dict[str, float] = {}
    for name in here.files:
        metric = name.rpartition("/")[2]
        difference = float(np.abs(here[name] - against[name]).max())
        differences[metric] = max(difference, differences.get(metric, 0.0))
    return differences


if __name__ == "__main__":
    main()
