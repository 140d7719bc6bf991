"""The metarun side of bench/bench.py: the program that `metarun train` compiles, on random pictures.

With a setting as its argument it is a worker; with the word `peak` it measures the matrix products of this machine.
"""

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import _bench_settings
import jax
import jax.numpy as jnp
import numpy as np
from _bench_settings import Setting

from metarun import assembly, base, hardware, losses, plugins
from metarun.assembly import Tasks
from metarun.config import Accelerator, RunConfig, Selection, Stage, Training
from metarun.config.optimizers import Adam
from metarun.progress import Progress
from metarun.tasks import _classes, sinusoid
from metarun.training import cost, loop, operations, task_chunks
from metarun.training.loop import Loop
from metarun.training.stage_run import StageRun


def make_random_pictures(setting: Setting) -> base.TaskFamily:
    """Make tasks as those of Omniglot are, from a random table of the same size as its training split."""
    side = _bench_settings.PICTURE
    size = (_bench_settings.CLASSES, _bench_settings.DRAWINGS, side, side)
    table = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)

    def sample(images, key) -> base.Episode:
        class_key, drawing_key, rotation_key = jax.random.split(key, 3)
        classes = _classes.choose(class_key, setting.ways, images.shape[0])
        turns = jax.random.randint(rotation_key, (setting.ways,), 0, 4)
        pictures = _classes.gather_examples(images, classes, setting.shots + setting.queries, drawing_key)
        return _classes.to_episode(_classes.rotate(pictures, turns), setting.shots, classes)

    spec = base.Spec((side, side, 1), setting.ways, "classes")
    return base.TaskFamily({"train": table}, sample, base.Problem(spec, losses.classification()))


def make_family(setting: Setting) -> base.TaskFamily:
    """Make the tasks of the setting."""
    if setting.ways:
        return make_random_pictures(setting)
    return sinusoid.build(sinusoid.Config(setting.shots, setting.queries))


def select(kind: str, name: str, **options: Any) -> Selection:
    """Return what a config says as {name: ..., option: ...}."""
    return Selection(name, plugins.read_config_class(kind, name)(**options))


def make_config(setting: Setting, replicas: int = 1, devices: int | None = None) -> RunConfig:
    """Make the config of a run that does this work. Its task stands in for ours, which are no plug-in.

    Args:
      devices: to compute on; None: as `metarun train` chooses.
    """
    training = Training(
        steps=10**6,
        tasks_per_step=setting.tasks,
        optimizer=Selection("adam", Adam(learning_rate=_bench_settings.OUTER_RATE)),
        mode="transductive",
    )
    network = select("model", "conv4", width=setting.width) if setting.ways else select("model", "mlp")
    maml = select("algorithm", "maml", inner_steps=setting.inner_steps, inner_lr=setting.inner_rate)
    return RunConfig(
        task=select("task", "sinusoid"),
        stages=(Stage("maml", network, maml, training),),
        replicas=replicas,
        accelerator=Accelerator(devices=devices),
    )


def build(setting: Setting, replicas: int = 1, devices: int | None = None) -> StageRun:
    """Build the training of a setting as `metarun train` does, before its first step."""
    run_config = make_config(setting, replicas, devices)
    selected = hardware.select(run_config.accelerator)
    family = make_family(setting)
    data = {split: jax.device_put(arrays, selected[0]) for split, arrays in family.data.items()}
    tasks = Tasks(family, family, data, {})
    stages = assembly.build_stages(run_config, family.problem)
    shapes = {stage.name: stage.trace_weights(family.sample, data["train"], {}) for stage in stages}
    (stage,) = task_chunks.settle(stages, shapes, tasks, selected[0])
    return StageRun(cost.open_session(run_config, selected, tasks, Progress()), stage, {})


def prepare(setting: Setting) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Return the worker's steps and facts."""
    stage_run = build(setting)
    stage_run.restore()
    state, data, keys = stage_run.state, stage_run.data, stage_run.keys
    program = loop.compile_program(stage_run.loop, data, keys, state)
    first = 0

    def take_steps(count: int) -> None:
        nonlocal state, first
        end = first + count
        while first < end:  # in chunks as long as those of `metarun train`
            steps = min(loop.CAPACITY, end - first)
            state, _, finite = program.run(state, first, steps)
            if not finite:
                raise FloatingPointError(f"{setting.name}: not finite after step {first}")
            first += steps

    memory = cost.read_memory(program.compiled)
    return take_steps, {
        "version": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "platform": jax.devices()[0].platform,
        "devices": stage_run.loop.mesh.size,
        "task_chunk": stage_run.stage.training.task_chunk,
        "compile_seconds": program.compile_seconds,
        "temporary_bytes": memory.temporary if memory else None,
        "matrix_flops": operations.count_flops(program.traced.jaxpr.jaxpr),
        "sampling_seconds": time_sampling(stage_run.loop, data, keys),
    }


def time_sampling(outer_loop: Loop, data: base.PyTree, key) -> float:
    """Return the seconds that sampling the tasks of one step takes by itself: the fastest of five runs."""
    tasks = jnp.arange(outer_loop.training.tasks_per_step)

    @jax.jit
    def sample_steps(data, count):
        def add(step, total):
            keys = loop.make_task_keys(key, step, tasks)
            episodes = jax.vmap(outer_loop.sample, in_axes=(None, 0))(data, keys)
            # Without the sum, nothing would be drawn.
            return total + sum(jnp.sum(leaf) for leaf in jax.tree.leaves(episodes))

        return jax.lax.fori_loop(0, count, add, 0.0)

    return time_fastest(lambda: sample_steps(data, 100)) / 100


def time_fastest(call: Callable[[], jax.Array], repeats: int = 5) -> float:
    """Return the seconds of the fastest of some calls, after one that compiles."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def measure_peak_flops() -> float:
    """Return the operations a second of the best of three sizes of float32 matrix products, on one device.

    On a CPU this is the machine's: one device uses all cores.
    """
    hardware.select(Accelerator(devices=1))
    rates = []
    for size in (1024, 2048, 4096):
        left, right = (jax.random.normal(jax.random.key(seed), (size, size)) for seed in (0, 1))
        rates.append(2 * size**3 / time_fastest(functools.partial(jnp.matmul, left, right)))
    return max(rates)


if __name__ == "__main__":
    if sys.argv[1] == "peak":
        _bench_settings.print_answer({"peak_flops": measure_peak_flops()})
    else:
        _bench_settings.serve(prepare)
