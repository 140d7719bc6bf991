"""One stage of a run, from its first step or its newest valid checkpoint to its last step.

Between chunks: metrics to disk, validation when due, checkpoint when due, an end to what is not finite, and an
answer to signals. None of these changes the numbers: only steps do, and they depend on nothing but their number.
"""

import functools
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Key

from metarun import base, config, errors, meshes, numbers, signals, trees
from metarun.hosts.transfers import collect
from metarun.runs import checkpoints
from metarun.runs.checkpoints import Checkpoint
from metarun.stages import Divergence, Stage, take_learner
from metarun.training import budgets, first_memory, learner_log, loop, optimizer, speedometer, validation
from metarun.training.facts import Facts, Spent, read_facts, write_facts
from metarun.training.loop import Loop, Program, State
from metarun.training.pace import Pace
from metarun.training.session import Session
from metarun.training.survivors import Survivors

logger = logging.getLogger("metarun")

CHECKPOINT_SECONDS = 60.0  # between two checkpoints, if the config gives no steps


class StageRun:
    """The training of a stage, after the stages whose weights are `earlier`, from the checkpoint `begun`.

    Trials that have `diverged` in an earlier stage take no part.
    """

    def __init__(
        self,
        session: Session,
        stage: Stage,
        earlier: dict[str, base.Weights],
        begun: Checkpoint | None = None,
        diverged: Mapping[int, Divergence] | None = None,
    ) -> None:
        self.session, self.stage, self.begun = session, stage, begun
        mesh = make_mesh(stage, session.devices, session.accelerator)
        if mesh.size < len(session.devices) and (
            mesh.devices.flat[0].platform != "cpu" or stage.shares_tasks
        ):
            logger.warning("%s uses %d of %d devices", stage.name, mesh.size, len(session.devices))
        session.processes.refuse_idle(mesh)
        algorithm, chain = stage.build_algorithm(), optimizer.build(stage.training)
        self.loop = Loop(algorithm, session.tasks.family.sample, chain, stage.training, mesh, stage)
        self.data = meshes.replicate(session.tasks.data["train"], mesh)
        self.earlier = meshes.share_out(earlier, mesh)
        self.make_validation = functools.cache(lambda: validation.make_validation(stage, session))
        self.facts = Facts()
        self.survivors = Survivors(stage, diverged or {})
        self.speedometer = speedometer.Speedometer(stage, session.devices)
        self.state: State
        self.keys: Array  # [replica, member]
        self.last_save = time.monotonic()

    def train(self) -> base.Weights:
        """Train until a budget is used up, and return the weights that the stage ends with.

        Raises:
          DivergedError: the loss or an update is not finite; the checkpoints before it stay.
          Stopped: a signal asked for it; the state is saved.
        """
        name, training, progress = self.stage.name, self.stage.training, self.session.progress
        with self.session.run.checkpoints(name, self.session.checkpoint.keep) as self.saved:
            self.session.processes.wait_for(self.restore)
            logger.info("%s begins after step %d", name, self.facts.step)
            tasks, last_step = training.tasks_per_step * len(self.stage.positions), training.last_step
            progress.stage_started(name, self.facts.step, self.facts.step if self.end else last_step, tasks)
            if training.seconds is not None:
                progress.timed(name, self.facts.seconds, training.seconds)
            self.session.run.write_status("running", name, self.facts.step)
            if self.facts.unvalidated:
                self.facts = replace(self.facts, unvalidated=False)
                self.conclude()
            if self.end is None:
                self.advance_to_end()
        progress.stage_ended(name)
        logger.info("%s ended by %s after %.1f s of training", name, self.end, self.facts.seconds)
        return self.state.weights

    @property
    def end(self) -> budgets.End | None:
        """The budget that is used up; None: the training goes on. It is the same on every process."""
        facts = self.facts
        return budgets.find_end(self.stage.training, facts.step, facts.seconds, facts.step_flops)

    @property
    def spent(self) -> Spent:
        """What the training has taken so far."""
        facts = self.facts
        return Spent(facts.step, facts.seconds, facts.step_flops, facts.flops_at_least, self.end)

    def restore(self) -> None:
        """Start the stage, or take up the checkpoint that it had reached."""
        state, keys = self.begin() if self.begun is None else self.take_up(self.begun)
        self.state, self.keys = meshes.share_out((state, keys), self.loop.mesh)

    def begin(self) -> tuple[State, Key[Array, "..."]]:
        """Return the state before the first step and the keys of the stage, from one program."""
        make_start = numbers.jit(self.make_start, self.stage.list_numbers())
        state, keys, finite = make_start(*self.list_start_arguments())
        if not signals.wait_for(lambda: jax.device_get(finite)):
            self.refuse_not_finite(state.weights)
        return state, keys

    def take_up(self, begun: Checkpoint) -> tuple[State, Key[Array, "..."]]:
        """Return the state of a checkpoint and the keys of the stage.

        A stage without steps left needs no memory of the optimizer, so its checkpoint may have been published without.
        """
        shapes, _, _ = jax.eval_shape(self.make_start, {}, *self.list_start_arguments())
        spread = self.session.processes.spread
        weights, memory = spread(lambda: checkpoints.load_weights(begun, shapes.weights), shapes.weights), ()
        self.facts = read_facts(begun)
        self.survivors.restore(self.facts.diverged)
        if self.end is None or self.facts.unvalidated:
            if begun.step == checkpoints.START:
                memory = first_memory.compute(self.stage, weights)
            else:
                memory = spread(lambda: checkpoints.load_memory(begun, shapes.memory), shapes.memory)
        return State(weights, memory), self.stage.make_keys()

    def list_start_arguments(self) -> tuple[Any, ...]:
        """Return what `make_start` takes beside the numbers that all replicas share."""
        return dict(self.stage.differing), self.stage.list_seeds(), self.data, self.earlier

    def make_start(
        self, values: numbers.Numbers, differing: numbers.Numbers, seeds, data, earlier
    ) -> tuple[State, Key[Array, "..."], Bool[Array, ""]]:
        """Return the state before the first step, the keys, and whether the weights are finite; jittable.

        Args:
          values: the numbers of the stage, or some of them; see `Stage.take_numbers`.
          differing: the numbers in which the trials differ, [replica].
        """
        stage = self.stage.take_numbers(values)
        keys = stage.make_keys(seeds)
        weights = stage.make_start(self.loop.sample, differing)(data, keys, earlier)
        memory = first_memory.remember(stage, differing, weights)
        return State(weights, memory), keys, trees.all_finite(weights)

    def refuse_not_finite(self, weights: base.Weights) -> None:
        """Raise DivergedError: the stage begins with an infinity or a NaN, and its steps may never look at it.

        Trials go on without those that begin so, if there are others.
        """
        learners = (take_learner(weights, position) for position in self.stage.positions)
        finite = list(map(bool, map(jax.jit(trees.all_finite), learners)))
        if self.stage.has_trials:
            self.survivors.note_start(finite)
            self.facts = replace(self.facts, diverged=self.survivors.list_own())
            if self.survivors.alive.any():
                return
        diverged = learner_log.name_diverged(self.stage, finite)
        raise errors.DivergedError(
            f"the stage {self.stage.name} begins with weights that are not finite{diverged}",
            str(self.session.run.path),
            "lower the rate of the steps that it is fitted by, such as adapted_lr, or look at earlier stages",
        )

    def advance_to_end(self) -> None:
        """Run chunk after chunk, with what is due between them."""
        program = self.session.processes.wait_for(
            lambda: loop.compile_program(self.loop, self.data, self.keys, self.state)
        )
        self.session.progress.compiled(self.stage.name, program.compile_seconds)
        logger.info("%s compiled in %.1f s", self.stage.name, program.compile_seconds)
        step_flops, at_least = budgets.count_program_flops(program, self.loop)
        self.facts = replace(self.facts, step_flops=step_flops, flops_at_least=at_least)
        self.session.processes.meet()  # a process that still compiles is not waited for in a collective
        pace = Pace(self.stage.training.chunk)
        while self.end is None:
            self.advance(program, pace)
            self.conclude()

    def conclude(self) -> None:
        """Do what is due after a chunk: validate, save, and answer a signal."""
        best = self.is_due(self.session.evaluation.every) and self.note_validation()
        best, due, signal = self.session.processes.share(
            (best, best or self.is_checkpoint_due(), self.session.processes.find_signal())
        )
        if due or signal is not None:
            self.save(best)
        self.session.processes.stop_together(signal)

    def advance(self, program: Program, pace: Pace) -> None:
        """Run one chunk: it moves the state, writes its metrics to disk, and sets the pace of the next one."""
        first = self.facts.step
        periods = [self.session.evaluation.every, self.session.checkpoint.every]
        ends = [(first // period + 1) * period for period in periods if period]
        left = budgets.count_seconds_left(self.stage.training, self.facts.seconds)
        count = self.session.processes.share(pace.next(first, [*ends, self.stage.training.last_step], left))
        started = time.perf_counter()
        alive = (self.survivors.alive,) if self.stage.has_trials else ()
        self.state, metrics, finite = program.run(self.state, first, count, *alive)
        seconds = self.session.processes.share(time.perf_counter() - started)  # they may end the stage
        steps = len(metrics["loss"])
        rows = learner_log.make_training_rows(self.stage, first, metrics)
        rows += self.speedometer.make_rows(first + steps, steps, seconds, self.facts.seconds)
        self.session.run.metrics.append(rows)
        if self.stage.has_trials:
            self.survivors.note_steps(first, metrics, finite)
            self.facts = replace(self.facts, diverged=self.survivors.list_own())
        if not (finite.any() if self.stage.has_trials else finite.all()):
            self.session.run.metrics.sync()
            raise self.make_divergence(first + steps, finite)
        self.facts = replace(self.facts, step=first + steps, seconds=self.facts.seconds + seconds)
        self.session.run.renew_status(self.stage.name, self.facts.step)
        means = learner_log.average_metrics(metrics)
        self.session.progress.advanced(self.stage.name, self.facts.step, steps, seconds, means)
        pace.learn(steps, seconds)

    def is_due(self, period: int | None) -> bool:
        """Return whether the step is a multiple of the period."""
        return period is not None and self.facts.step % period == 0

    def is_checkpoint_due(self) -> bool:
        """Return whether to save now: by steps, else by time, and always at the end."""
        period = self.session.checkpoint.every
        long_ago = period is None and time.monotonic() - self.last_save > CHECKPOINT_SECONDS
        return self.is_due(period) or long_ago or self.end is not None

    def save(self, best: bool) -> None:
        """Save a checkpoint of this moment. The lines of metrics that it counts on are on disk before it."""
        metrics = self.session.run.metrics
        metrics.sync()
        self.facts = replace(self.facts, metrics_bytes=metrics.size(), metrics_sha256=metrics.digest())
        weights, memory = collect(self.state)
        self.saved.save(self.facts.step, weights, memory, write_facts(self.facts), best)
        self.session.processes.meet()
        self.session.run.write_status("running", self.stage.name, self.facts.step)
        self.last_save = time.monotonic()

    def note_validation(self) -> bool:
        """Measure the validation split and write a line for every learner that still trains; return whether it is best.

        The best of several learners is that of their mean: one checkpoint holds them all. A signal puts it all off.
        """
        validate = self.make_validation()
        if validate is None:
            return False
        objective = self.session.tasks.family.problem.objective
        weights = collect(self.state.weights)
        if not self.session.processes.is_first:
            return False  # the first process measures, and says whether it is the best
        try:
            values = self.session.processes.wait_for(lambda: validate(weights))
        except signals.Stopped:
            self.facts = replace(self.facts, unvalidated=True)
            return False
        measured = zip(self.stage.positions, values, self.survivors.flags, strict=True)
        positions, learners, _ = zip(*[entry for entry in measured if entry[2]], strict=True)
        head = {"step": self.facts.step, "mode": self.session.evaluation.modes[0]}
        end = {"seconds": round(self.facts.seconds, 3)}
        self.session.run.metrics.append(
            learner_log.make_head(self.stage, position, "validation") | head | metrics | end
            for position, metrics in zip(positions, learners, strict=True)
        )
        means = {name: sum(metrics[name] for metrics in learners) / len(learners) for name in learners[0]}
        logger.info("%s step %d, validation %s", self.stage.name, self.facts.step, means)
        best = validation.is_better(objective, means[objective.selection], self.facts.best)
        if best:
            self.facts = replace(self.facts, best=means[objective.selection])
        self.session.progress.validated(self.stage.name, self.facts.step, means, best)
        return best

    def make_divergence(self, step: int, finite: np.ndarray) -> errors.DivergedError:
        """Return what to say when a step is not finite; `finite` says it for each learner, [replica, member]."""
        self.session.processes.let_first_raise()
        self.saved.wait()
        newest = self.saved.newest_valid()
        kept = f"the checkpoint of step {newest.step} is intact" if newest else "there is no checkpoint yet"
        diverged = learner_log.name_diverged(self.stage, finite.ravel().tolist())
        return errors.DivergedError(
            f"the loss or the update is not finite in stage {self.stage.name}, step {step}{diverged}",
            f"{self.session.run.path} ({kept})",
            "lower algorithm.inner_lr or training.optimizer.learning_rate, or set training.clip_value or clip_norm",
        )


def make_mesh(stage: Stage, devices: list[jax.Device], accelerator: config.Accelerator) -> Mesh:
    """Make the mesh of a stage. All cores share its tasks if that pays, or if the config says how many share them."""
    share_tasks = stage.shares_tasks or accelerator.devices is not None
    return meshes.make_mesh(devices, stage.training.tasks_per_step, stage.axes.get("replica", 1), share_tasks)
