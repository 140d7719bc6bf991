"""One point of bench/gpu.py: measures it in this process, and prints one line of JSON last.

    python bench/gpu_worker.py PART JSON

The programs are those of `metarun train`. The pictures are random, so that no data set is needed: a step of the same
shapes takes the same time.
"""

import functools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gpu_launches
import jax
import jax.numpy as jnp
import numpy as np

from metarun import assembly, base, config, hardware
from metarun.assembly import Tasks
from metarun.config import Accelerator, RunConfig
from metarun.progress import Progress
from metarun.stages import Stage
from metarun.training import cost, loop, operations, task_chunks
from metarun.training.stage_run import StageRun

SLOW_RATE = "algorithm.inner_lr=0.01"  # keeps steps on random pictures finite, and changes no shape


def measure_install(_: dict[str, Any]) -> dict[str, Any]:
    """Return what this machine is, after one product on its device."""
    device = hardware.select(Accelerator())[0]
    ones = jax.device_put(np.ones((128, 128), np.float32), device)
    np.testing.assert_array_equal(jnp.matmul(ones, ones), 128.0)
    memory = (device.memory_stats() or {}).get("bytes_limit")
    return {"jax": jax.__version__, "memory_limit": memory, "driver": read_driver()}


def read_driver() -> str | None:
    """Return what nvidia-smi says of the card and its driver; None: there is no nvidia-smi, or it does not answer."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,power.limit", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def open_run(arguments: dict[str, Any], *more: str) -> tuple[RunConfig, list[jax.Device], Tasks, Stage]:
    """Return the run of a config with random pictures, its devices selected."""
    overrides = [*arguments["overrides"], *more]
    for option, key in (("precision", "accelerator.precision"), ("convolution", "model.convolution")):
        if option in arguments:
            overrides.append(f"{key}={arguments[option]}")
    run_config = config.load(Path(arguments["config"]), overrides)
    devices = hardware.select(run_config.accelerator)
    outline = assembly.outline_tasks(run_config)
    data = {split: make_random_data(arrays) for split, arrays in outline.data.items()}
    tasks = outline._replace(data=jax.device_put(data, devices[0]))
    (stage,) = assembly.build_stages(run_config, tasks.family.problem)
    shapes = {stage.name: stage.trace_weights(tasks.family.sample, tasks.data["train"], {})}
    (stage,) = task_chunks.settle([stage], shapes, tasks, devices[0])
    return run_config, devices, tasks, stage


def make_random_data(shapes: base.PyTree) -> base.PyTree:
    """Return random pictures in place of shapes of bytes, and zeros in place of all others."""
    generator = np.random.default_rng(0)

    def fill(leaf):
        if leaf.dtype == np.uint8:
            return generator.integers(0, 256, leaf.shape, dtype=np.uint8)
        return np.zeros(leaf.shape, leaf.dtype)

    return jax.tree.map(fill, shapes)


def sample_case(tasks: Tasks, stage: Stage, data: base.PyTree) -> tuple[base.Weights, base.Episode]:
    """Return the weights at the start, and the episodes [task] of one step."""
    key = stage.make_keys()
    task_keys = loop.make_task_keys(key, 0, jnp.arange(stage.training.tasks_per_step))
    weights = stage.make_start(tasks.family.sample)(data, key, {})
    return weights, jax.vmap(tasks.family.sample, in_axes=(None, 0))(data, task_keys)


def make_outer_gradient(stage: Stage):
    """Make (weights, episodes) -> the gradient of the mean outer loss."""
    algorithm = stage.build_algorithm()

    def mean_loss(trained, frozen, episodes):
        def measure_task(episode):
            return algorithm.loss(base.Weights(trained, frozen), episode, jax.random.key(0), 0.0)[0]

        return jax.vmap(measure_task)(episodes).mean()

    return jax.jit(lambda weights, episodes: jax.grad(mean_loss)(weights.trained, weights.frozen, episodes))


def measure_reference(arguments: dict[str, Any]) -> dict[str, Any]:
    """Compute the gradient in float64 on the CPU, and save it with what it was computed from."""
    _, _, tasks, stage = open_run(arguments, "accelerator.platform=cpu", "accelerator.devices=1")
    case = jax.jit(functools.partial(sample_case, tasks, stage))(tasks.data["train"])
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(case)]
    with jax.enable_x64(True):
        doubles = [leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf for leaf in leaves]
        gradient = make_outer_gradient(stage)(*jax.tree.unflatten(jax.tree.structure(case), doubles))
        flat = flatten(gradient)
    assert flat.dtype == np.float64
    arrays: dict[str, Any] = {f"leaf_{index}": leaf for index, leaf in enumerate(leaves)}
    np.savez(arguments["file"], gradient=flat, **arrays)
    return {"norm": float(np.linalg.norm(flat))}


def measure_gradient(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return how far the gradient on the device lies from the reference, as a share of the reference's length."""
    _, _, tasks, stage = open_run(arguments)
    shapes = jax.eval_shape(functools.partial(sample_case, tasks, stage), tasks.data["train"])
    with np.load(arguments["file"], allow_pickle=False) as file:
        leaves = [file[f"leaf_{index}"] for index in range(len(jax.tree.leaves(shapes)))]
        reference = file["gradient"]
    gradient = make_outer_gradient(stage)(*jax.tree.unflatten(jax.tree.structure(shapes), leaves))
    difference = flatten(gradient).astype(np.float64) - reference
    return {"error": float(np.linalg.norm(difference) / np.linalg.norm(reference))}


def flatten(tree: base.PyTree) -> np.ndarray:
    """Return all numbers of a tree in one row."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def measure_peak(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the operations a second of a large square product, the fastest of some calls of ten products each."""
    size, products = arguments["size"], 10
    device = hardware.select(Accelerator(precision=arguments["precision"]))[0]
    keys = jax.random.split(jax.random.key(0))
    left, right = (jax.device_put(jax.random.normal(key, (size, size)) / size**0.5, device) for key in keys)

    @jax.jit
    def multiply(left, right):
        return jax.lax.fori_loop(0, products, lambda _, total: total @ right, left)

    multiply(left, right).block_until_ready()
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        multiply(left, right).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return {"flops": products * 2 * size**3 / min(seconds)}


def measure_step(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the time of a training step, its operations, kernels and memory."""
    more = [SLOW_RATE, f"replicas={arguments['replicas']}"]
    run_config, devices, tasks, stage = open_run(arguments, *more)
    stage_run = StageRun(cost.open_session(run_config, devices, tasks, Progress()), stage, {})
    stage_run.restore()
    program = loop.compile_program(stage_run.loop, stage_run.data, stage_run.keys, stage_run.state)
    calls, _ = cost.time_steps(program, stage_run.state, stage)
    timed = cost.choose_calls(calls)
    layout = cost.read_memory(program.compiled)
    stats = devices[0].memory_stats() or {}
    return {
        "seconds": sum(call.seconds for call in timed) / sum(call.steps for call in timed),
        "seconds_min": min(call.seconds / call.steps for call in timed),
        "steps": sum(call.steps for call in timed),
        "compile_seconds": program.compile_seconds,
        "flops": operations.count_flops(program.traced.jaxpr.jaxpr),
        "launches": gpu_launches.count_launches(program.compiled.as_text() or ""),
        "temporary_bytes": layout.temporary if layout else None,
        "peak_bytes": stats.get("peak_bytes_in_use"),
        "process_bytes": cost.read_process_memory(),
        "devices": stage_run.loop.mesh.size,
        "task_chunk": stage.training.task_chunk,
        "accelerator": hardware.describe(devices),
    }


MEASURES = {
    "install": measure_install,
    "reference": measure_reference,
    "gradient": measure_gradient,
    "peak": measure_peak,
    "step": measure_step,
}


def main() -> None:
    """Measure the part with the arguments, and print the answer with the device that gave it."""
    answer = MEASURES[sys.argv[1]](json.loads(sys.argv[2]))
    device = jax.devices()[0]
    print(json.dumps({**answer, "platform": device.platform, "device": device.device_kind}), flush=True)


if __name__ == "__main__":
    main()
