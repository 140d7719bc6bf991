"""The metarun side of bench/bench.py: the program that `metarun train` compiles, on random pictures.

With a setting as its argument it is a worker; with the word `peak` it measures the matrix products of this machine.
"""

import functools
import math
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import _bench_settings
import jax
import jax.numpy as jnp
import numpy as np
from _bench_settings import Setting

from metarun import assembly, base, hardware, losses, plugins
from metarun.config import Accelerator, RunConfig, Selection, Stage, Training
from metarun.config.optimizers import Adam
from metarun.tasks import _classes, sinusoid
from metarun.training import loop, optimizer
from metarun.training.loop import Loop, State
from metarun.training.stage_run import make_memory


class Bench(NamedTuple):
    """The outer loop of a setting, and what it starts from."""

    loop: Loop
    data: base.PyTree  # the training split, on every device
    key: jax.Array  # of the stage
    state: State  # before the first step


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


def make_config(setting: Setting) -> RunConfig:
    """Make the config of a run that does this work. Its task stands in for ours, which are no plug-in."""
    training = Training(
        steps=10**6,
        tasks_per_step=setting.tasks,
        optimizer=Selection("adam", Adam(learning_rate=_bench_settings.OUTER_RATE)),
        mode="transductive",
    )
    network = select("model", "conv4", width=setting.width) if setting.ways else select("model", "mlp")
    maml = select("algorithm", "maml", inner_steps=setting.inner_steps, inner_lr=setting.inner_rate)
    return RunConfig(task=select("task", "sinusoid"), stages=(Stage("maml", network, maml, training),))


def build(setting: Setting) -> Bench:
    """Build the outer loop as training/stage_run.py does, with its data, its key and its first state."""
    family = make_family(setting)
    (stage,) = assembly.build_stages(make_config(setting), family.problem)
    mesh = hardware.make_mesh(hardware.select(Accelerator()), setting.tasks, 1)
    chain = optimizer.build(stage.training)
    outer_loop = Loop(stage.build_algorithm(), family.sample, chain, stage.training, mesh)
    data, key = hardware.replicate(family.data["train"], mesh), stage.make_keys()
    weights = jax.jit(stage.make_start(family.sample))(data, key, {})
    memory = jax.jit(make_memory(outer_loop, 0))(weights)
    return Bench(outer_loop, data, key, hardware.replicate(State(weights, memory), mesh))


def prepare(setting: Setting) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Return the worker's steps and facts."""
    outer_loop, data, key, state = build(setting)
    flops = count_matrix_flops(jax.make_jaxpr(loop.make_step(outer_loop))(state, data, key, 0).jaxpr)
    program = loop.compile_program(outer_loop, data, key, state)
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

    return take_steps, {
        "version": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "devices": outer_loop.mesh.size,
        "compile_seconds": program.compile_seconds,
        "matrix_flops": flops,
        "sampling_seconds": time_sampling(outer_loop, data, key),
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


def count_matrix_flops(jaxpr: Any) -> float:
    """Count the floating-point operations of all matrix products: a multiplication and an addition are two."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            contracted = equation.params["dimension_numbers"][0][0]
            shape = equation.invars[0].aval.shape
            total += 2.0 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        if equation.primitive.name == "shard_map":  # its program is that of one device
            times = equation.params["mesh"].size
        total += times * sum(count_matrix_flops(inner) for inner in list_inner_jaxprs(equation.params))
    return total


def list_inner_jaxprs(params: dict[str, Any]) -> list[Any]:
    """Return the programs within the parameters of an operation."""
    values = [
        member for value in params.values() for member in (value if isinstance(value, tuple) else [value])
    ]
    opened = [getattr(value, "jaxpr", value) for value in values]
    return [value for value in opened if hasattr(value, "eqns")]


def measure_peak_flops() -> float:
    """Return the operations a second of the best of three sizes of float32 matrix products, on one device."""
    hardware.select(Accelerator())
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
