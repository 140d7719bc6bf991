"""Time the step of second-order MAML on Omniglot in several forms, in turns in one process.

    python bench/bench_step.py [--rounds 10] [--queries 15 1] [--forms all-tasks chunk ...]

The forms differ in how many tasks a device computes at once, in the derivative of the patches, and in how many devices
share the tasks; `before` is the program before all three. For each it prints the time of a step by the clock (median
and fastest), the seconds of all cores in the program and in the system, the memory between operations, and the bytes
that devices get from each other, of which the last two are read from the compiled program.
"""

import argparse
import dataclasses
import json
import math
import os
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import _bench_metarun
import _bench_settings
import jax
import jax.numpy as jnp
from _bench_settings import Setting

from metarun import hardware, large_pages
from metarun.config import Accelerator
from metarun.models import _convolution
from metarun.training import cost, loop
from metarun.training.loop import Program, State
from metarun.training.stage_run import StageRun


class Form(NamedTuple):
    """How the step is computed."""

    task_chunk: int | None  # tasks that a device computes at once; None: all
    planes: bool  # whether the derivative of the patches adds plane by plane
    devices: int


class Turns(NamedTuple):
    """One form in turns with the others: what it runs, and what each of its steps took."""

    program: Program
    state: list[State]  # one, which every step replaces
    clock: list[float]
    user: list[float]  # seconds of all cores
    system: list[float]


COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")
SIZES = {"f64": 8, "f32": 4, "bf16": 2, "f16": 2, "u32": 4, "s32": 4, "pred": 1}  # bytes

FORMS = {
    "before": Form(None, False, 1),
    "chunk": Form(1, False, 1),
    "planes": Form(None, True, 1),
    "chunk, planes": Form(1, True, 1),
    "chunk, devices": Form(1, False, 0),
    "chunk, planes, devices": Form(1, True, 0),
}


def slice_with_stride(
    inputs: jax.Array, window: tuple[int, ...], stride: int, padding: int | None = None
) -> jax.Array:
    """Return the patches as slices with a stride, whose derivative adds arrays of the size of the input."""
    if padding is not None:
        raise NotImplementedError("this form pads as the networks of this bench do")
    height, *rows = _convolution.pad_same(inputs.shape[1], window[0], stride)
    width, *columns = _convolution.pad_same(inputs.shape[2], window[1], stride)
    padded = jnp.pad(inputs, ((0, 0), rows, columns, (0, 0)))
    ends = ((height - 1) * stride + 1, (width - 1) * stride + 1)
    slices = [
        padded[:, row : row + ends[0] : stride, column : column + ends[1] : stride]
        for row in range(window[0])
        for column in range(window[1])
    ]
    return jnp.concatenate(slices, axis=-1)


def compile_form(setting: Setting, form: Form, make_patches: Callable[..., jax.Array]) -> Turns:
    """Compile the training of a setting in one form."""
    _convolution.make_patches = make_patches if form.planes else slice_with_stride
    whole = _bench_metarun.build(setting, devices=form.devices or None)
    stage = whole.stage
    training = dataclasses.replace(stage.settings.training, task_chunk=form.task_chunk)
    stage = dataclasses.replace(stage, settings=dataclasses.replace(stage.settings, training=training))
    session = whole.session._replace(accelerator=Accelerator(devices=len(whole.session.devices)))
    stage_run = StageRun(session, stage, {})
    stage_run.restore()
    program = loop.compile_program(stage_run.loop, stage_run.data, stage_run.keys, stage_run.state)
    return Turns(program, [stage_run.state], [], [], [])


def take_step(turns: Turns) -> None:
    """Take one step, and note what it took; one step before it, untimed, has the caches to itself."""
    for timed in (False, True):
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        chunk = turns.program.run(turns.state[0], 0, 1)
        jax.block_until_ready(chunk.state)
        turns.state[0] = chunk.state
        if timed:
            after = resource.getrusage(resource.RUSAGE_SELF)
            turns.clock.append(time.perf_counter() - started)
            turns.user.append(after.ru_utime - before.ru_utime)
            turns.system.append(after.ru_stime - before.ru_stime)


def count_collective_bytes(compiled: jax.stages.Compiled) -> int:
    """Return the bytes that the collective operations of a program give to each device, as its text says."""
    total = 0
    for line in (compiled.as_text() or "").splitlines():
        result, found, _ = line.partition("(%")
        words = result.split()
        if found and words and words[-1] in COLLECTIVES:
            for kind, extents in re.findall(r"([a-z]+[0-9]*)\[([0-9,]*)\]", result):
                total += SIZES[kind] * math.prod(int(size) for size in extents.split(",") if size)
    return total


def measure(setting: Setting, names: list[str], rounds: int) -> list[dict[str, Any]]:
    """Return a row for each form."""
    make_patches = _convolution.make_patches
    forms = {name: compile_form(setting, FORMS[name], make_patches) for name in names}
    for _ in range(rounds):
        for turns in forms.values():
            take_step(turns)
    rows = []
    for name, turns in forms.items():
        memory = cost.read_memory(turns.program.compiled)
        rows.append(
            {
                "form": name,
                "median": round(statistics.median(turns.clock), 3),
                "fastest": round(min(turns.clock), 3),
                "user": round(statistics.median(turns.user), 3),
                "system": round(statistics.median(turns.system), 3),
                "megabytes": round((memory.temporary if memory else 0) / 1e6, 1),
                "collective_bytes": count_collective_bytes(turns.program.compiled),
            }
        )
    return rows


def main() -> None:
    """Print a table for every number of queries."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--queries", type=int, nargs="+", default=[15, 1], help="of each class")
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--width", type=int, default=64, help="channels")
    arguments = parser.parse_args()
    large_pages.use_large_pages()
    hardware.select(Accelerator())
    for queries in arguments.queries:
        setting = dataclasses.replace(
            _bench_settings.FIVE_WAY, queries=queries, tasks=arguments.tasks, width=arguments.width
        )
        print(
            f"5-way 1-shot, {queries} queries, {arguments.tasks} tasks, seconds a step, {os.cpu_count()} cores"
        )
        for row in measure(setting, arguments.forms, arguments.rounds):
            print(json.dumps(row))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
