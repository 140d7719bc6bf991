"""One stage of a run, from its first step or its newest valid checkpoint to its last step.

Between chunks: metrics to disk, validation when due, checkpoint when due, an end to what is not finite, and an
answer to signals. None of these changes the numbers: only steps do, and they depend on nothing but their number.
"""

import functools
import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from metarun import (
    base,
    building,
    errors,
    evaluation,
    measuring,
    optimizer,
    parallel,
    population,
    stopping,
    training,
    trees,
)
from metarun.assessment import Problem
from metarun.config import RunConfig
from metarun.progress import Progress
from metarun.runs.checkpoints import Checkpoint, load
from metarun.runs.directory import RunDirectory

logger = logging.getLogger("metarun")

CHECKPOINT_SECONDS = 60.0  # between two checkpoints, where the config gives no steps
NAMED = 8  # learners in a message


class Session(NamedTuple):
    """What all stages of a run share."""

    config: RunConfig
    run: RunDirectory
    devices: list[jax.Device]
    problem: Problem  # the task family, its data, the judge; on the first device
    progress: Progress
    stop: stopping.StopRequest


@dataclass(frozen=True)
class Facts:
    """What a checkpoint records beside the state, so that a resumed run is the uninterrupted one."""

    step: int = 0
    best: float | None = None  # the best validation so far
    seconds: float = 0.0  # spent in training
    metrics_bytes: int = 0  # length of metrics.jsonl


class StageRun:
    """The training of stage `index`, after the stages whose weights are `earlier`, from the checkpoint `begun`."""

    def __init__(
        self,
        session: Session,
        index: int,
        earlier: dict[str, base.Weights],
        begun: Checkpoint | None = None,
    ) -> None:
        self.session, self.stage, self.index = session, session.config.stages[index], index
        training_config = self.stage.training
        self.loop = training.Loop(
            building.algorithm(session.config, index, session.problem.family),
            session.problem.family.sample,
            optimizer.build(training_config),
            training_config,
            parallel.make_mesh(session.devices, training_config.tasks_per_step, session.config.replicas),
        )
        self.positions = population.positions(session.config, index)
        self.key = parallel.share_out(population.keys(session.config, index), self.loop.mesh)
        self.data = parallel.replicate(session.problem.data["train"], self.loop.mesh)
        self.earlier, self.begun = parallel.share_out(earlier, self.loop.mesh), begun
        self.facts = Facts()
        self.state: training.State
        self.last_save = time.monotonic()

    def train(self) -> base.Weights:
        """Train to the last step, and return the weights that the stage ends with.

        Raises:
          DivergedError: the loss or an update is not finite; the checkpoints before it stay.
          Stopped: a signal asked for it; the state is saved.
        """
        checkpoint = self.session.config.checkpoint
        with self.session.run.checkpoints(self.stage.name, checkpoint.keep) as self.saved:
            self.restore()
            logger.info("%s begins after step %d", self.stage.name, self.facts.step)
            self.session.progress.stage_started(
                self.stage.name,
                self.facts.step,
                self.stage.training.steps,
                self.stage.training.tasks_per_step * len(self.positions),
            )
            if self.facts.step < self.stage.training.steps:
                self.advance_to_end()
        self.session.progress.stage_ended(self.stage.name)
        logger.info("%s ended after %.1f s of training", self.stage.name, self.facts.seconds)
        return self.state.weights

    def restore(self) -> None:
        """Start, or take up the checkpoint that the stage had reached."""
        initial = jax.jit(functools.partial(training.initial_states, self.loop))
        arguments = (self.data, self.key, self.earlier)
        if self.begun is None:
            state = initial(*arguments)
            self.refuse_not_finite(state.weights)
        else:
            state = load(self.begun, jax.eval_shape(initial, *arguments))
            self.facts = read_facts(self.begun)
        self.state = parallel.share_out(state, self.loop.mesh)

    def refuse_not_finite(self, weights: base.Weights) -> None:
        """Raise DivergedError where the stage begins with an infinity or a NaN: its steps may never look at it."""
        all_finite = jax.jit(trees.all_finite)
        if not all_finite(weights):
            finite = [bool(all_finite(population.take(weights, position))) for position in self.positions]
            raise errors.DivergedError(
                f"the stage {self.stage.name} begins with weights that are not finite{self.of_which(finite)}",
                str(self.session.run.path),
                "lower the rate of the steps that it is fitted by, such as adapted_lr, or look at earlier stages",
            )

    def advance_to_end(self) -> None:
        """Chunk after chunk, with what is due between them."""
        program = training.compile_program(self.loop, self.data, self.key, self.state)
        self.session.progress.compiled(self.stage.name, program.compile_seconds)
        logger.info("%s compiled in %.1f s", self.stage.name, program.compile_seconds)
        validate = self.make_validation()
        pace = training.Pace(self.stage.training.chunk)
        while self.facts.step < self.stage.training.steps:
            self.advance(program, pace)
            best = self.due(self.session.config.evaluation.every) and validate()
            if best or self.checkpoint_due() or self.session.stop.signal is not None:
                self.save(best)
            self.session.stop.check()

    def advance(self, program: training.Program, pace: training.Pace) -> None:
        """One chunk: the state, its metrics on disk, the pace of the next one."""
        config, first = self.session.config, self.facts.step
        periods = [config.evaluation.every, config.checkpoint.every]
        ends = [(first // period + 1) * period for period in periods if period]
        count = pace.next(first, [*ends, self.stage.training.steps])
        started = time.perf_counter()
        self.state, metrics, finite = program.run(self.state, first, count)
        seconds = time.perf_counter() - started
        taken = len(metrics["loss"])
        self.session.run.metrics.append(self.rows(first, metrics))
        if not finite.all():
            self.session.run.metrics.sync()
            raise self.divergence(first + taken, finite)
        self.facts = replace(self.facts, step=first + taken, seconds=self.facts.seconds + seconds)
        means = {name: float(column.mean()) for name, column in metrics.items()}
        self.session.progress.advanced(self.stage.name, self.facts.step, taken, seconds, means)
        pace.learn(taken, seconds)

    def rows(self, first: int, metrics: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        """A line of metrics.jsonl for every step and learner; step n is the state's n-th update."""
        columns = [column.reshape(len(column), -1).T.tolist() for column in metrics.values()]
        learners = [  # one after the other: (head of its lines, its values of every step)
            (self.head(position, "train"), list(zip(*values, strict=True)))
            for position, *values in zip(self.positions, *columns, strict=True)
        ]
        return [
            {**head, "step": first + number + 1, **dict(zip(metrics, steps[number], strict=True))}
            for number in range(len(metrics["loss"]))
            for head, steps in learners
        ]

    def head(self, position: population.Position, split: str) -> dict[str, Any]:
        """What a line of metrics.jsonl begins with."""
        return {"stage": self.stage.name, "replica": 0, **position, "split": split}

    def due(self, period: int | None) -> bool:
        """Whether the step is a multiple of the period."""
        return period is not None and self.facts.step % period == 0

    def checkpoint_due(self) -> bool:
        """Whether to save now: by steps, else by time, and always at the end."""
        period = self.session.config.checkpoint.every
        long_ago = period is None and time.monotonic() - self.last_save > CHECKPOINT_SECONDS
        return self.due(period) or long_ago or self.facts.step == self.stage.training.steps

    def save(self, best: bool) -> None:
        """A checkpoint of this moment. The lines of metrics that it counts on are on disk before it."""
        metrics = self.session.run.metrics
        metrics.sync()
        self.facts = replace(self.facts, metrics_bytes=metrics.size())
        self.saved.save(self.facts.step, self.state, asdict(self.facts), best)
        self.session.run.status("running", self.stage.name, self.facts.step)
        self.last_save = time.monotonic()

    def make_validation(self):
        """() -> whether this is the best so far; measures the validation split and notes the result.

        The best of several learners is that of their mean: one checkpoint holds them all.
        """
        session, config = self.session, self.session.config.evaluation
        if config.every is None or "validation" not in session.problem.data:
            return lambda: False
        judged = session.problem.judge.family
        chosen = measuring.variants(
            session.config, self.index, session.problem.family, config.modes[:1], objective=judged.objective
        )
        at_once = self.stage.training.task_chunk or self.stage.training.tasks_per_step
        measure = evaluation.make_measure(chosen, judged, at_once, self.key.ndim)
        keys = evaluation.episode_keys(config.seed, "validation", config.episodes)

        def validate() -> bool:
            weights = jax.device_put(self.state.weights, session.devices[0])
            values = measure(weights, session.problem.data["validation"], keys)
            learners = [evaluation.of_learner(values, position) for position in self.positions]
            return self.note_validation(config.modes[0], [evaluation.summarise(each) for each in learners])

        return validate

    def note_validation(self, mode: str, summaries: list[dict[str, Any]]) -> bool:
        """A line of metrics.jsonl for every learner; whether they are, adapted and on average, the best so far."""
        objective = self.session.problem.family.objective
        found = [validated_values(summary, mode) for summary in summaries]
        end = {"seconds": round(self.facts.seconds, 3)}
        self.session.run.metrics.append(
            {**self.head(position, "validation"), "step": self.facts.step, "mode": mode} | values | end
            for position, values in zip(self.positions, found, strict=True)
        )
        values = {name: sum(each[name] for each in found) / len(found) for name in found[0]}
        logger.info("%s step %d, validation %s", self.stage.name, self.facts.step, values)
        value, before = values[objective.selection], self.facts.best
        better = before is None or (value > before if objective.higher_is_better else value < before)
        best = better and not math.isnan(value)
        if best:
            self.facts = replace(self.facts, best=value)
        self.session.progress.validated(self.stage.name, self.facts.step, values, best)
        return best

    def divergence(self, step: int, finite: np.ndarray) -> errors.DivergedError:
        """What to say when a step is not finite; `finite` says of which learners it is, [replica, member]."""
        self.saved.wait()
        good = self.saved.newest_valid()
        kept = f"the checkpoint of step {good.step} is intact" if good else "there is no checkpoint yet"
        which = self.of_which(finite.ravel().tolist())
        return errors.DivergedError(
            f"the loss or the update is not finite in stage {self.stage.name}, step {step}{which}",
            f"{self.session.run.path} ({kept})",
            "lower algorithm.inner_lr or training.optimizer.learning_rate, or set training.clip_value or clip_norm",
        )

    def of_which(self, finite: list[bool]) -> str:
        """`, of replica 1 (seed 3) member 2 (1 of 6)`: the learners that are not finite; nothing of a single one."""
        pairs = zip(self.positions, finite, strict=True)
        diverged = [self.spoken(position) for position, flag in pairs if position and not flag]
        named = ", ".join([*diverged[:NAMED], *["…"] * (len(diverged) > NAMED)])
        return f", of {named} ({len(diverged)} of {len(self.positions)})" if diverged else ""

    def spoken(self, position: population.Position) -> str:
        """`replica 2 (seed 2) member 0`."""
        words = [f"{axis} {place}" for axis, place in position.items()]
        if "replica" in position:
            words[0] += f" (seed {self.session.config.seed + position['replica']})"
        return " ".join(words)


def validated_values(summary: dict[str, Any], mode: str) -> dict[str, float]:
    """What a line of metrics.jsonl says of a validation."""
    adapted, unadapted = summary[f"{mode}/adapted"], summary.get(f"{mode}/unadapted", {})
    values = {name: part["mean"] for name, part in adapted.items()}
    values |= {f"{name}_ci95": part["ci95"] for name, part in adapted.items()}
    return values | {f"unadapted_{name}": part["mean"] for name, part in unadapted.items()}


def read_facts(checkpoint: Checkpoint) -> Facts:
    """What a checkpoint recorded beside the state.

    Raises:
      CheckpointError: it was written by a version that recorded something else.
    """
    facts = dict(checkpoint.facts)
    if isinstance(facts.get("best"), str):  # JSON has no infinity: "inf"
        facts["best"] = float(facts["best"])
    try:
        return Facts(**facts)
    except TypeError as error:
        raise errors.CheckpointError(
            f"the checkpoint records other facts than this version of metarun: {error}",
            str(checkpoint.path),
            "use the version in the run's environment.json, or train again",
        ) from error
