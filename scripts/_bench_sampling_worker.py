"""The worker of scripts/_bench_sampling.py: times the sampling and the training steps of the config in its argument.

It prints one line of JSON: {"rows": [one for every stage]}, or {"left_out": which data is not there}.
"""

import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _bench_settings
import jax
import jax.numpy as jnp

from metarun import base, building, config, errors, optimizer, parallel, training

REPEATS = 15  # many short ones: on a busy machine the fastest is then the least disturbed
SECONDS = 0.2  # that each of the two lasts in one repeat


def sampling_program(loop: training.Loop, count: int) -> Callable:
    """(data, key, first step, steps) -> a sum over everything that was drawn for `count` tasks of each of the steps.

    The episodes of a step are carried to the next one, which adds them up. So they are written to memory, every
    number of them is needed, and none can be drawn before the loop: their keys follow from the step.
    """
    tasks = jnp.arange(count)

    def draw(data, key, step):
        keys = training.sampling_keys(key, step, tasks)
        return jax.vmap(lambda key: loop.sample(data, jax.random.split(key)[0]))(keys)

    def add(total, episodes):
        return total + sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(episodes))

    def sample_steps(data, key, first, steps):
        def advance(step, carry):
            return add(*carry), draw(data, key, step)

        shapes = jax.eval_shape(draw, data, key, first)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return add(*jax.lax.fori_loop(first, first + steps, advance, (jnp.float32(0), nothing)))

    return jax.jit(sample_steps)


def seconds_of(run: Callable[[int], Any], steps: int) -> float:
    """Seconds of one of `steps` steps."""
    started = time.perf_counter()
    run(steps)
    return (time.perf_counter() - started) / steps


def affordable(run: Callable[[int], Any]) -> int:
    """How many steps last about SECONDS; the first ones compile and warm up."""
    run(1)
    steps = 1
    while (seconds := seconds_of(run, steps)) * steps < SECONDS / 10 and steps < training.CAPACITY:
        steps *= 4
    return max(1, min(training.CAPACITY, round(SECONDS / seconds)))


def measure_stage(loop: training.Loop, data: base.PyTree, key, state: training.State) -> dict[str, Any]:
    """Seconds of a step and of its sampling: of each the fastest of some repeats, taken in turns.

    Where several devices share out the tasks, the sampling is that of one device's share.
    """
    program = training.compile_program(loop, data, key, state)
    sample_steps = sampling_program(loop, loop.training.tasks_per_step // loop.mesh.size)
    first = 0

    def train(steps: int) -> None:
        nonlocal state, first
        state, _, finite = program.run(state, first, steps)
        if not finite:
            raise FloatingPointError(f"not finite after step {first}")
        first += steps

    def sample(steps: int) -> None:
        jax.block_until_ready(sample_steps(data, key, 0, steps))

    runs = {"step": train, "sampling": sample}
    steps = {name: affordable(run) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _, name in itertools.product(range(REPEATS), runs):
        seconds[name].append(seconds_of(runs[name], steps[name]))
    return {name: min(times) for name, times in seconds.items()}


def measure(path: Path) -> list[dict[str, Any]]:
    """A row for every stage of the config; earlier stages stand by with the weights that they start from."""
    run_config = config.load(path)
    devices = parallel.select(run_config.accelerator)
    family = building.task_family(run_config.task)
    rows: list[dict[str, Any]] = []
    earlier: dict[str, base.Weights] = {}
    for index, stage in enumerate(run_config.stages):
        mesh = parallel.task_mesh(devices, stage.training.tasks_per_step)
        algorithm = building.algorithm(run_config, index, family)
        loop = training.Loop(algorithm, family.sample, optimizer.build(stage.training), stage.training, mesh)
        data = parallel.replicate(family.data["train"], mesh)
        key = training.stage_key(run_config.seed, index)
        initial = jax.jit(lambda *arguments, loop=loop: training.initial_state(loop, *arguments))
        state = parallel.replicate(initial(data, key, earlier), mesh)
        earlier = earlier | {
            stage.name: jax.device_get(state.weights)
        }  # the steps take over the state's memory
        rows.append({"stage": stage.name, "tasks": stage.training.tasks_per_step})
        rows[-1] |= measure_stage(loop, data, key, state)
    return rows


def main() -> None:
    """Measure the config of the command line."""
    try:
        answer: dict[str, Any] = {"rows": measure(Path(sys.argv[1]))}
    except errors.DataError as error:
        answer = {"left_out": error.what}
    except errors.MetarunError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    _bench_settings.answer(answer)


if __name__ == "__main__":
    main()
