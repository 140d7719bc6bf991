"""The types of a checked configuration, which the rest of metarun reads.

A combination of values that cannot work is a ValueError here; its arguments are what is wrong and, if there is more
to say, a remedy. The binder adds file and line. The code that reads the data or finds the devices checks what depends
on them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from metarun.config.control_section import Control
from metarun.config.machine import Accelerator
from metarun.config.optimizers import Adam
from metarun.config.schedules import LAST_STEP, LENGTH_SCHEDULES, Steps
from metarun.config.selection import Kind, Selection
from metarun.ranges import Above, AtLeast, Between

Count = Annotated[int, AtLeast(1)]  # at most ranges.LARGEST_COUNT
LAST_SEED = 2**32 - 1
MOST_STAGES = 100
Seed = Annotated[int, Between(0, LAST_SEED)]
# Whose batch statistics normalise the query: those of the support (inductive) or its own (transductive).
Mode = Literal["inductive", "transductive"]
# Groups of parts. The groups are updated in this order on the same tasks, each by the gradient at the values
# that the groups before it have after their updates.
Turns = tuple[tuple[str, ...], ...]
Sink = Literal["tensorboard", "wandb", "mlflow"]
ADAM = Selection("adam", Adam())
ACCELERATOR = Accelerator()


def _refuse_repeats(key: str, values: Sequence[object]) -> None:
    if len(set(values)) < len(values):
        repeated = next(value for index, value in enumerate(values) if value in values[:index])
        raise ValueError(f"{key} has {repeated} twice", "name each once")


@dataclass(frozen=True)
class PartRate:
    """A separate learning rate for a part of what a stage trains."""

    part: str  # a key at the outermost level of what the algorithm trains
    factor: Annotated[float, Above(0)]  # a factor on the optimizer's learning rate


@dataclass(frozen=True)
class Training:
    """The outer loop of one stage."""

    # The budget. At least one of the three is given, and the training ends with the first that is used up.
    steps: Steps | None = None  # outer steps; null: as many as the other two allow
    # Seconds of training, without compiling, validation and saving; null: any number. How many steps fit into them
    # differs from run to run.
    seconds: Annotated[float, Above(0)] | None = None
    # Floating-point operations of matrix products and convolutions, of all members of one replica; null: any number.
    # They are turned into steps before the training begins, and the run's own config has the number.
    flops: Annotated[float, Above(0)] | None = None
    tasks_per_step: Count = 32  # tasks in one outer step
    optimizer: Annotated[Selection, Kind("optimizer")] = ADAM
    clip_norm: Annotated[float, Above(0)] | None = None  # largest norm of the outer gradient; null: any
    clip_value: Annotated[float, Above(0)] | None = None  # largest entry of the outer gradient; null: any
    part_rates: tuple[PartRate, ...] = ()  # parts that learn more slowly or faster than the rest; empty: none
    turns: Turns = ()  # groups of parts that are updated one after another; empty: all at once
    mode: Mode = "inductive"  # whose statistics normalise the query during training
    # Tasks that a device computes at once; it must divide tasks_per_step; null: all. auto: on a CPU, as many as the
    # cache of a core holds; elsewhere all, if the memory holds them. The run's own config then has the number. If
    # a CPU does not compute all at once, its cores share them out, unless accelerator.devices says otherwise.
    task_chunk: Count | Literal["auto"] | None = "auto"
    # Steps between two returns to the host, which never changes results; null: as many as take about a second,
    # at most 1,000.
    chunk: Count | None = None

    def __post_init__(self) -> None:
        if isinstance(self.task_chunk, int) and self.tasks_per_step % self.task_chunk:
            raise ValueError(
                f"task_chunk {self.task_chunk} does not divide tasks_per_step {self.tasks_per_step}"
            )
        self._check_parts()
        self._check_budget()

    @property
    def last_step(self) -> Any:
        """The step with which the training ends at the latest; a whole number, traced where `steps` is."""
        return LAST_STEP if self.steps is None else self.steps

    def by_steps(self) -> "Training":
        """Return what a program knows of the training: its steps, and no other budget."""
        return replace(self, steps=self.last_step, seconds=None, flops=None)

    def _check_budget(self) -> None:
        if self.steps is self.seconds is self.flops is None:
            raise ValueError(
                "the training has no end: steps, seconds and flops are missing",
                "add steps, a whole number, at least 1; or seconds, or flops",
            )
        schedule = self.optimizer.config.schedule
        if self.steps is self.flops is None and schedule.name in LENGTH_SCHEDULES:
            raise ValueError(
                f"the schedule {schedule.name} needs the number of steps, which seconds do not tell",
                "add steps, the length of the schedule: the training then ends with the first of the two",
            )
        warmup_steps = getattr(schedule.config, "warmup_steps", 0)
        if warmup_steps and warmup_steps >= self.last_step:
            raise ValueError(f"the schedule warms up for {warmup_steps} steps, the training has {self.steps}")

    def _check_parts(self) -> None:
        rate_parts, turn_parts = [rate.part for rate in self.part_rates], sum(self.turns, ())
        _refuse_repeats("part_rates", rate_parts)
        _refuse_repeats("turns", turn_parts)
        if not all(self.turns):
            raise ValueError("turns has a group without parts", "leave it out")
        if self.turns and (absent := [part for part in rate_parts if part not in turn_parts]):
            raise ValueError(f"part_rates has {absent[0]}, which has no turn", "name it in turns, too")


@dataclass(frozen=True)
class Stage:
    """One training, whose weights later stages may use."""

    # The name of files and keys. It is unique: a letter, then letters, digits, _ and -, in lower case.
    name: str
    model: Annotated[Selection, Kind("model")]
    algorithm: Annotated[Selection, Kind("algorithm")]
    training: Training
    # Members that are trained side by side, each with its own random numbers; null: one learner.
    copies: Count | None = None
    # An earlier stage whose random numbers this one uses, too. Both then see the same tasks and, if their models
    # are the same, begin with the same weights, so that they are a pair; null: its own random numbers.
    draws_as: str | None = None
    # A stage of another run, RUN or RUN/STAGE, whose weights this one starts from; null: it starts anew.
    init_from: str | None = None
    # A stage of another run that this one is. All but its name is taken over, and it is not trained; null: it is
    # this run's own.
    taken_from: str | None = None

    def __post_init__(self) -> None:
        self._check_sources()
        if not re.fullmatch("[a-z][a-z0-9_-]{0,63}", self.name):
            raise ValueError(
                f"the stage name {self.name!r} cannot name files and keys",
                "begin with a letter, then lower-case letters, digits, _ and -; at most 64",
            )
        needed, optimizer = getattr(self.algorithm.config, "needs_optimizer", None), self.training.optimizer
        name = optimizer.name + (" with momentum" if getattr(optimizer.config, "momentum", None) else "")
        if needed is not None and name != needed:
            what = f"{self.algorithm.label} with these options does not train with the outer optimizer {name}"
            raise ValueError(what, f"set training.optimizer: {{name: {needed}}}")

    def _check_sources(self) -> None:
        if self.taken_from is not None and self.init_from is not None:
            raise ValueError(
                f"the stage {self.name} has both init_from and taken_from",
                "keep init_from to train it from those weights, or taken_from to use it as it is",
            )
        if self.taken_from is not None and self.draws_as is not None:
            raise ValueError(
                f"the stage {self.name} is taken from another run, and draws nothing", "leave draws_as out"
            )


@dataclass(frozen=True)
class Evaluation:
    """The frozen list of episodes, and how a learner is measured on them."""

    every: Steps | None = None  # steps between two validations; null: only at the end
    episodes: Annotated[int, AtLeast(2)] = 600  # at least two, for a confidence interval
    seed: Seed = 0  # seed of the list of episodes; it does not depend on the run's seed
    # The split of the final evaluation. The best checkpoint is always selected on validation.
    split: Literal["train", "validation", "test"] = "test"
    modes: tuple[Mode, ...] = ("inductive",)  # all are measured; the first one selects the best checkpoint
    adapted_steps: Count | None = None  # inner steps of the adapted learner; null: as in training
    # Numbers of inner steps at which the adaptation curve is measured; empty: no curve.
    inner_steps: tuple[Annotated[int, AtLeast(0)], ...] = ()
    ways: Count | None = None  # classes of an episode; null: as in training
    shots: Count | None = None  # support examples, of each class if there are classes; null: as in training
    queries: Count | None = None  # query examples, of each class if there are classes; null: as in training
    # The checkpoint whose weights are measured at the end: the last one, or the best one on validation.
    checkpoint: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        if not self.modes:
            raise ValueError("modes is empty", "give inductive, transductive, or both")
        _refuse_repeats("modes", self.modes)
        _refuse_repeats("inner_steps", self.inner_steps)


@dataclass(frozen=True)
class Checkpoint:
    """When the state of a training is saved."""

    # Steps between two checkpoints; null: about a minute. There is always one at the end.
    every: Steps | None = None
    keep: Count = 3  # the newest checkpoints that are kept, beside the best one


@dataclass(frozen=True)
class TrialNumber:
    """A number in which the trials of a run differ."""

    # The key of the number as an override writes it: algorithm.inner_lr, or stages.NAME.algorithm.inner_lr.
    path: str
    values: tuple[float, ...]  # one for each replica


@dataclass(frozen=True)
class Trials:
    """What the replicas of a run differ in: replica r is the single run with its seed and its numbers."""

    seeds: tuple[Seed, ...]  # one for each replica, in place of the run's own seed
    numbers: tuple[TrialNumber, ...] = ()  # empty: the replicas differ in their seeds alone

    def __post_init__(self) -> None:
        _refuse_repeats("trials.numbers", [number.path for number in self.numbers])

    def refuse_other_lengths(self, replicas: int) -> None:
        """Raise ValueError unless there is one seed and one value of every number for each replica."""
        lists = {"trials.seeds": self.seeds} | {number.path: number.values for number in self.numbers}
        for key, values in lists.items():
            if len(values) != replicas:
                raise ValueError(
                    f"{key} has {len(values)} values for {replicas} replicas", "give one for each"
                )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """The sections that both forms of a file share."""

    task: Annotated[Selection, Kind("task")]
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    accelerator: Accelerator = ACCELERATOR
    seed: Seed = 0  # seed of every random number of the run
    replicas: Count = 1  # seeds that are trained side by side; replica r is the single run with seed + r
    # Numbers and seeds in which the replicas differ; null: the replicas differ in their seeds alone, as said there.
    trials: Trials | None = None
    # What else shows the metrics while the run goes on, each by a process of its own; empty: nothing.
    sinks: tuple[Sink, ...] = ()
    # What `metarun compare --controls` trains beside the method, to show what it owes to what; empty: nothing.
    controls: tuple[Control, ...] = ()

    def __post_init__(self) -> None:
        _refuse_repeats("sinks", self.sinks)
        _refuse_repeats("controls", [control.name for control in self.controls])
        if self.trials is not None:
            self.trials.refuse_other_lengths(self.replicas)
            if self.evaluation.checkpoint == "best" and self.replicas > 1:
                raise ValueError(
                    "trials have no best checkpoint of their own: one checkpoint holds them all",
                    "set evaluation.checkpoint to last",
                )
            return
        if self.seed + self.replicas > LAST_SEED + 1:
            raise ValueError(
                f"the last of {self.replicas} replicas has the seed {self.seed + self.replicas - 1}",
                f"choose seed and replicas so that no seed is above {LAST_SEED}",
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig(_Run):
    """A run, which is also the form of a file with a list of `stages`."""

    stages: tuple[Stage, ...]  # at least one; each stage may use those before it

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stages:
            raise ValueError("stages is empty", "give at least one {name, model, algorithm, training}")
        if len(self.stages) > MOST_STAGES:
            raise ValueError(f"there are {len(self.stages)} stages", f"give at most {MOST_STAGES}")
        names = [stage.name for stage in self.stages]
        _refuse_repeats("stages", names)
        for index, stage in enumerate(self.stages):
            if stage.draws_as is not None and stage.draws_as not in names[:index]:
                raise ValueError(
                    f"the stage {stage.name} draws as {stage.draws_as}, which is no stage before it",
                    f"name one of {', '.join(names[:index])}" if index else "leave draws_as out",
                )


@dataclass(frozen=True, kw_only=True)
class SingleStage(_Run):
    """The form of a file with one stage, which has the name of its algorithm."""

    model: Annotated[Selection, Kind("model")]
    algorithm: Annotated[Selection, Kind("algorithm")]
    training: Training
    copies: Count | None = None  # as in a stage
    init_from: str | None = None  # as in a stage

    def to_run(self) -> RunConfig:
        """Return the run with this one stage."""
        name = self.algorithm.label
        stage = Stage(name, self.model, self.algorithm, self.training, self.copies, init_from=self.init_from)
        shared = {name: getattr(self, name) for name in _Run.__dataclass_fields__}
        return RunConfig(stages=(stage,), **shared)
