"""The metarun side of scripts/bench.py: the program that `metarun train` compiles, on random pictures.

With a setting as its argument it is a worker; with the word `peak` it measures this machine's matrix products.
"""

import functools
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import _bench_settings
import jax
import jax.numpy as jnp
import numpy as np
from _bench_settings import Setting

from metarun import base, building, losses, optimizer, parallel, plugins, training
from metarun.config import Accelerator, RunConfig, Selection, Stage, Training
from metarun.config.optimizers import Adam
from metarun.tasks import _classes, sinusoid


def random_pictures(setting: Setting) -> base.TaskFamily:
    """Tasks drawn as those of Omniglot are, from a table of the same size as its training split."""
    side = _bench_settings.PICTURE
    size = (_bench_settings.CLASSES, _bench_settings.DRAWINGS, side, side)
    table = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)

    def sample(images, key) -> base.Episode:
        class_key, drawing_key, rotation_key = jax.random.split(key, 3)
        classes = _classes.choose(class_key, setting.ways, images.shape[0])
        turns = jax.random.randint(rotation_key, (setting.ways,), 0, 4)
        pictures = _classes.gather_examples(images, classes, setting.shots + setting.queries, drawing_key)
        return _classes.to_episode(_classes.rotate(pictures, turns), setting.shots, classes)

    spec = base.Spec((side, side, 1), setting.ways)
    return base.TaskFamily({"train": table}, sample, losses.classification(setting.ways), spec)


def task_family(setting: Setting) -> base.TaskFamily:
    """The tasks of the setting."""
    if setting.ways:
        return random_pictures(setting)
    return sinusoid.build(sinusoid.Config(setting.shots, setting.queries))


def select(kind: str, name: str, **options: Any) -> Selection:
    """What a config says as {name: ..., option: ...}."""
    return Selection(name, plugins.config_class(kind, name)(**options))


def run_config(setting: Setting) -> RunConfig:
    """The config of a run that does this work. Its task stands in for ours, which are no plug-in."""
    training_config = Training(
        steps=10**6,
        tasks_per_step=setting.tasks,
        optimizer=Selection("adam", Adam(learning_rate=_bench_settings.OUTER_RATE)),
        mode="transductive",
    )
    network = select("model", "conv4", width=setting.width) if setting.ways else select("model", "mlp")
    maml = select("algorithm", "maml", inner_steps=setting.inner_steps, inner_lr=setting.inner_rate)
    return RunConfig(task=select("task", "sinusoid"), stages=(Stage("maml", network, maml, training_config),))


def make_loop(setting: Setting) -> tuple[training.Loop, base.PyTree]:
    """The outer loop, as stages.py puts it together, and its data."""
    config, family = run_config(setting), task_family(setting)
    training_config = config.stages[0].training
    mesh = parallel.task_mesh(parallel.select(Accelerator()), setting.tasks)
    loop = training.Loop(
        building.algorithm(config, 0, family),
        family.sample,
        optimizer.build(training_config),
        training_config,
        mesh,
    )
    return loop, parallel.replicate(family.data["train"], mesh)


def prepare(setting: Setting) -> tuple[Callable[[int], None], dict[str, Any]]:
    """The worker's steps and facts."""
    loop, data = make_loop(setting)
    key = training.stage_key(0, 0)
    initial = jax.jit(lambda data, key: training.initial_state(loop, data, key, {}))
    state = parallel.replicate(initial(data, key), loop.mesh)
    flops = matrix_flops(jax.make_jaxpr(training.make_step(loop))(state, data, key, 0).jaxpr)
    program = training.compile_program(loop, data, key, state)
    first = 0

    def take_steps(count: int) -> None:
        nonlocal state, first
        end = first + count
        while first < end:  # in chunks as long as those of `metarun train`
            steps = min(training.CAPACITY, end - first)
            state, _, finite = program.run(state, first, steps)
            if not finite:
                raise FloatingPointError(f"{setting.name}: not finite after step {first}")
            first += steps

    return take_steps, {
        "version": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "devices": loop.mesh.size,
        "compile_seconds": program.compile_seconds,
        "matrix_flops": flops,
        "sampling_seconds": sampling_seconds(loop, data, key),
    }


def sampling_seconds(loop: training.Loop, data: base.PyTree, key) -> float:
    """What the sampling of one step's tasks takes by itself: the fastest of five runs."""
    tasks = jnp.arange(loop.training.tasks_per_step)

    @jax.jit
    def sample_steps(data, count):
        def add(step, total):
            keys = training.sampling_keys(key, step, tasks)
            episodes = jax.vmap(loop.sample, in_axes=(None, 0))(data, keys)
            return total + sum(
                jnp.sum(leaf) for leaf in jax.tree.leaves(episodes)
            )  # else nothing would be drawn

        return jax.lax.fori_loop(0, count, add, 0.0)

    return fastest(lambda: sample_steps(data, 100)) / 100


def fastest(call: Callable[[], jax.Array], repeats: int = 5) -> float:
    """Seconds of the fastest of some calls, after one that compiles."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def matrix_flops(jaxpr: Any) -> float:
    """Floating-point operations of all matrix products: a multiplication and an addition count as two."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            contracted = equation.params["dimension_numbers"][0][0]
            shape = equation.invars[0].aval.shape
            total += 2.0 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        if equation.primitive.name == "shard_map":  # its program is that of one device
            times = equation.params["mesh"].size
        total += times * sum(matrix_flops(inner) for inner in inner_jaxprs(equation.params))
    return total


def inner_jaxprs(params: dict[str, Any]) -> list[Any]:
    """The programs within the parameters of an operation."""
    values = [
        member for value in params.values() for member in (value if isinstance(value, tuple) else [value])
    ]
    opened = [getattr(value, "jaxpr", value) for value in values]
    return [value for value in opened if hasattr(value, "eqns")]


def peak_flops() -> float:
    """Operations a second of the best of three sizes of float32 matrix products, on one device."""
    parallel.select(Accelerator())
    rates = []
    for size in (1024, 2048, 4096):
        left, right = (jax.random.normal(jax.random.key(seed), (size, size)) for seed in (0, 1))
        rates.append(2 * size**3 / fastest(functools.partial(jnp.matmul, left, right)))
    return max(rates)


if __name__ == "__main__":
    if sys.argv[1] == "peak":
        _bench_settings.answer({"peak_flops": peak_flops()})
    else:
        _bench_settings.serve(prepare)
