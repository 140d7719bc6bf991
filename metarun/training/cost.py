"""What a run will cost, from its compiled programs and a few steps of every stage. Writes nothing.

The seconds are measured as training spends them: in chunks, whose length `pace.Pace` chooses. The memory is what the
compiler lays out for the program, beside what the process has held.
"""

import resource
import sys
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import NamedTuple, cast

import jax

from metarun import base, config, errors, signals
from metarun.assembly import Tasks
from metarun.progress import Progress
from metarun.runs.directory import RunDirectory
from metarun.stages import Stage
from metarun.training import loop, operations
from metarun.training.loop import Program, State
from metarun.training.pace import CHUNK_SECONDS, Pace
from metarun.training.session import Session
from metarun.training.stage_run import StageRun

STEPS = 10  # steps to time, beside a first one
LONGEST = 20.0  # seconds, after which no more steps are timed


class Memory(NamedTuple):
    """Bytes that the compiler lays out on a device for a program."""

    held: int  # for what it takes and gives: the data, the weights and the optimizer's memory
    temporary: int  # for what lies between

    @property
    def total(self) -> int:
        """What the program needs at once."""
        return self.held + self.temporary


class Call(NamedTuple):
    """One call of a compiled program."""

    steps: int
    seconds: float


class Cost(NamedTuple):
    """What one stage costs."""

    stage: str
    steps: int
    calls: list[Call]  # the calls that were timed
    start_seconds: float  # for the weights before the first step
    compile_seconds: float
    memory: Memory | None  # on each device; None: the compiler does not say
    process_bytes: int  # the most memory that this process has held so far, the compiler's own work included
    flops: float  # operations of the matrix products and convolutions of a step, for all learners
    devices: int
    budget_seconds: float | None = None  # after which training ends; None: `steps` alone end it

    @property
    def timed(self) -> int:
        """How many steps were timed."""
        return sum(call.steps for call in self.calls)

    @property
    def seconds(self) -> float:
        """The mean time of a step."""
        return sum(call.seconds for call in self.calls) / self.timed

    @property
    def total_seconds(self) -> float:
        """The time from the start of the stage to its last step."""
        return self.start_seconds + self.compile_seconds + self.training_seconds

    @property
    def training_seconds(self) -> float:
        """The time of all steps, or the budget in seconds if it ends them."""
        seconds = self.steps * self.seconds
        return seconds if self.budget_seconds is None else min(seconds, self.budget_seconds)

    @property
    def expected_steps(self) -> int:
        """How many steps training takes, if they all take as long as those that were timed."""
        return min(self.steps, max(1, round(self.training_seconds / max(self.seconds, 1e-12))))


def measure(
    run_config: config.RunConfig,
    devices: list[jax.Device],
    tasks: Tasks,
    stages: Sequence[Stage],
    progress: Progress,
) -> list[Cost]:
    """Compile every stage, take a few steps of it, and return what each costs.

    The weights that an earlier stage has after its few steps stand in for trained ones.

    Raises:
      DivergedError: a stage begins with weights that are not finite, or a step makes them so.
    """
    session = open_session(run_config, devices, tasks, progress)
    costs: list[Cost] = []
    earlier: dict[str, base.Weights] = {}
    for stage in stages:
        cost, weights = measure_stage(StageRun(session, stage, earlier))
        costs.append(cost)
        earlier = earlier | {stage.name: jax.device_put(weights, devices[0])}
    return costs


def open_session(
    run_config: config.RunConfig, devices: list[jax.Device], tasks: Tasks, progress: Progress
) -> Session:
    """Return the session of a run without a run directory: its stages can start and take steps, but save nothing."""
    nowhere = cast(RunDirectory, SimpleNamespace(path="no run directory"))
    # Nothing has to be saved, so a signal ends the process at once: the request to stop handles none.
    stop = signals.StopRequest()
    return Session(
        nowhere,
        devices,
        tasks,
        run_config.evaluation,
        run_config.checkpoint,
        progress,
        stop,
        accelerator=run_config.accelerator,
    )


def measure_stage(stage_run: StageRun) -> tuple[Cost, base.Weights]:
    """Return the cost of a stage, and its weights after the steps that were timed."""
    started = time.perf_counter()
    stage_run.restore()
    state = jax.block_until_ready(stage_run.state)
    start_seconds = time.perf_counter() - started
    program = loop.compile_program(stage_run.loop, stage_run.data, stage_run.keys, state)
    stage_run.session.progress.compiled(stage_run.stage.name, program.compile_seconds)
    calls, state = time_steps(program, state, stage_run.stage)
    cost = Cost(
        stage=stage_run.stage.name,
        steps=stage_run.stage.training.last_step,
        calls=choose_calls(calls),
        start_seconds=start_seconds,
        compile_seconds=program.compile_seconds,
        memory=read_memory(program.compiled),
        process_bytes=read_process_memory(),
        flops=operations.count_flops(program.traced.jaxpr.jaxpr),
        devices=stage_run.loop.mesh.size,
        budget_seconds=stage_run.stage.training.seconds,
    )
    return cost, state.weights


def time_steps(program: Program, state: State, stage: Stage) -> tuple[list[Call], State]:
    """Take STEPS steps after a first call, and more until they last CHUNK_SECONDS; or stop after LONGEST seconds.

    Raises:
      DivergedError: a step is not finite.
    """
    training = stage.training
    pace, calls, step = Pace(training.chunk), list[Call](), 0
    while step < training.last_step and not is_enough(calls):
        count = pace.next(step, [training.last_step])
        started = time.perf_counter()
        state, _, finite = program.run(state, step, count)
        jax.block_until_ready(state)
        calls.append(Call(count, time.perf_counter() - started))
        if not finite.all():
            raise errors.DivergedError(
                f"the loss or the update is not finite within the first {step + count} steps",
                f"training of stage {stage.name}",
                "lower algorithm.inner_lr or training.optimizer.learning_rate, or set training.clip_norm",
            )
        pace.learn(*calls[-1])
        step += count
    return calls, state


def is_enough(calls: list[Call]) -> bool:
    """Return whether these calls tell how long a step takes. The first one, which warms up, does not count."""
    counted = calls[1:]
    seconds = sum(call.seconds for call in counted)
    ready = sum(call.steps for call in counted) >= STEPS and seconds >= CHUNK_SECONDS
    return ready or sum(call.seconds for call in calls) > LONGEST


def choose_calls(calls: list[Call]) -> list[Call]:
    """Return the calls that are like those of training: not the first one, nor those that were short by their steps."""
    counted = calls[1:] or calls
    longest = max(call.steps for call in counted)
    return [call for call in counted if 2 * call.steps >= longest]


def read_memory(compiled: jax.stages.Compiled) -> Memory | None:
    """Return what the compiler lays out for a program; None: it does not say so on this platform."""
    layout = compiled.memory_analysis()
    if layout is None:
        return None
    results = layout.output_size_in_bytes - layout.alias_size_in_bytes  # an alias is an argument's own memory
    return Memory(layout.argument_size_in_bytes + max(results, 0), layout.temp_size_in_bytes)


def read_process_memory() -> int:
    """Return the most bytes of memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
