"""The worker of bench/_bench_sampling.py: times the sampling and the training steps of the config in its argument.

It prints one line of JSON: {"rows": [one for every stage]}, or {"left_out": which data is not there}.
"""

import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import _bench_settings
import jax
import jax.numpy as jnp

from metarun import base, config, errors, experiment, hardware
from metarun.progress import Progress
from metarun.training import cost, loop
from metarun.training.loop import Loop, State
from metarun.training.stage_run import StageRun

REPEATS = 15  # many short ones: on a busy machine the fastest is then the least disturbed
SECONDS = 0.2  # that each of the two lasts in one repeat


def make_sampling(outer_loop: Loop, count: int, axes: int = 0) -> Callable:
    """Make (data, key, first step, steps) -> a sum over everything that is drawn for `count` tasks of each step.

    Keys have `axes` leading axes, one for each learner of a stage with copies.

    The episodes of a step are carried to the next one, which adds them up. So they are written to memory, every
    number of them is needed, and none can be drawn before the loop: their keys follow from the step.
    """
    tasks = jnp.arange(count)

    def draw(data, key, step):
        keys = loop.make_task_keys(key, step, tasks)
        return jax.vmap(lambda key: outer_loop.sample(data, jax.random.split(key)[0]))(keys)

    for _ in range(axes):
        draw = jax.vmap(draw, in_axes=(None, 0, None))

    def add(total, episodes):
        return total + sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(episodes))

    def sample_steps(data, key, first, steps):
        def advance(step, carry):
            return add(*carry), draw(data, key, step)

        shapes = jax.eval_shape(draw, data, key, first)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return add(*jax.lax.fori_loop(first, first + steps, advance, (jnp.float32(0), nothing)))

    return jax.jit(sample_steps)


def time_step(run: Callable[[int], Any], steps: int) -> float:
    """Return the seconds of one of `steps` steps."""
    started = time.perf_counter()
    run(steps)
    return (time.perf_counter() - started) / steps


def choose_steps(run: Callable[[int], Any]) -> int:
    """Return how many steps last about SECONDS; the first ones compile and warm up."""
    run(1)
    steps = 1
    while (seconds := time_step(run, steps)) * steps < SECONDS / 10 and steps < loop.CAPACITY:
        steps *= 4
    return max(1, min(loop.CAPACITY, round(SECONDS / seconds)))


def measure_stage(outer_loop: Loop, data: base.PyTree, key, state: State) -> dict[str, Any]:
    """Return the seconds of a step and of its sampling: the fastest of some repeats of each, taken in turns.

    If several devices share out the tasks, the sampling is that of one device's share.
    """
    program = loop.compile_program(outer_loop, data, key, state)
    share = -(-outer_loop.training.tasks_per_step // outer_loop.mesh.size)
    sample_steps = make_sampling(outer_loop, share, key.ndim)
    first = 0

    def train(steps: int) -> None:
        nonlocal state, first
        state, _, finite = program.run(state, first, steps)
        if not finite.all():
            raise FloatingPointError(f"not finite after step {first}")
        first += steps

    def sample(steps: int) -> None:
        jax.block_until_ready(sample_steps(data, key, 0, steps))

    runs = {"step": train, "sampling": sample}
    steps = {name: choose_steps(run) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _, name in itertools.product(range(REPEATS), runs):
        seconds[name].append(time_step(runs[name], steps[name]))
    return {name: min(times) for name, times in seconds.items()}


def measure(path: Path) -> list[dict[str, Any]]:
    """Return a row for every stage of the config, of one replica.

    Earlier stages stand by with the weights that they start from.
    """
    run_config = replace(config.load(path), replicas=1)
    devices = hardware.select(run_config.accelerator)
    tasks, stages, _ = experiment.assemble(run_config, devices[0])
    session = cost.open_session(run_config, devices, tasks, Progress())
    rows: list[dict[str, Any]] = []
    earlier: dict[str, base.Weights] = {}
    for stage in stages:
        stage_run = StageRun(session, stage, earlier)
        stage_run.restore()
        state = stage_run.state
        # A copy on the host: the steps take over the memory of the state.
        earlier = earlier | {stage.name: jax.device_get(state.weights)}
        rows.append({"stage": stage.name, "tasks": stage.training.tasks_per_step})
        rows[-1] |= measure_stage(stage_run.loop, stage_run.data, stage_run.keys, state)
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
    _bench_settings.print_answer(answer)


if __name__ == "__main__":
    main()
