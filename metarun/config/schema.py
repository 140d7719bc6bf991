"""What a configuration says, once it has been found right: the types that the rest of metarun reads.

A combination that cannot work is a ValueError here, with what is wrong and, if there is more to say, a
remedy; the binder adds file and line. What depends on the data or the devices is checked by those parts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from metarun.config.optimizers import Adam
from metarun.config.selection import Kind, Selection
from metarun.ranges import Above, AtLeast, Between

Count = Annotated[int, AtLeast(1)]
LAST_SEED = 2**32 - 1
Seed = Annotated[int, Between(0, LAST_SEED)]
Mode = Literal["inductive", "transductive"]  # which examples' batch statistics normalise the query:
# the support's, or its own
# Groups of parts; each is updated by the gradient at what those before it have become, on the same tasks.
Turns = tuple[tuple[str, ...], ...]
ADAM = Selection("adam", Adam())


def _refuse_repeats(key: str, values: Sequence[object]) -> None:
    repeated = next((value for index, value in enumerate(values) if value in values[:index]), None)
    if repeated is not None:
        raise ValueError(f"{key} has {repeated} twice", "name each once")


@dataclass(frozen=True)
class PartRate:
    """A learning rate of its own, for a part of what a stage trains."""

    part: str  # a key of the outermost level of what the algorithm trains
    factor: Annotated[float, Above(0)]  # times the optimizer's learning rate


@dataclass(frozen=True)
class Training:
    """The outer loop of one stage."""

    steps: Count  # outer steps
    tasks_per_step: Count = 32  # tasks in one outer step
    optimizer: Annotated[Selection, Kind("optimizer")] = ADAM
    clip_norm: Annotated[float, Above(0)] | None = None  # largest norm of the outer gradient; null: any
    clip_value: Annotated[float, Above(0)] | None = None  # largest entry of the outer gradient; null: any
    part_rates: tuple[PartRate, ...] = ()  # parts that learn slower or faster than the rest; empty: none
    turns: Turns = ()  # groups of parts that are updated one after the other; empty: all at once
    mode: Mode = "inductive"  # what normalises the query during training
    task_chunk: Count | None = None  # tasks computed at once on a device, divides tasks_per_step; null: all
    chunk: Count | None = None  # steps between two returns to the host, never changes results;
    # null: as many as take about a second; at most 1,000

    def __post_init__(self) -> None:
        if self.task_chunk and self.tasks_per_step % self.task_chunk:
            raise ValueError(
                f"task_chunk {self.task_chunk} does not divide tasks_per_step {self.tasks_per_step}"
            )
        parts, in_turns = [each.part for each in self.part_rates], sum(self.turns, ())
        _refuse_repeats("part_rates", parts)
        _refuse_repeats("turns", in_turns)
        if not all(self.turns):
            raise ValueError("turns has a group without parts", "leave it out")
        if self.turns and (strange := [part for part in parts if part not in in_turns]):
            raise ValueError(f"part_rates has {strange[0]}, which has no turn", "name it in turns, too")
        warmup_steps = getattr(self.optimizer.config.schedule.config, "warmup_steps", 0)
        if warmup_steps and warmup_steps >= self.steps:
            raise ValueError(f"the schedule warms up for {warmup_steps} steps, the training has {self.steps}")


@dataclass(frozen=True)
class Stage:
    """One training, whose weights later stages may use."""

    name: str  # unique; a letter, then letters, digits, _ and -, in lower case: it names files and keys
    model: Annotated[Selection, Kind("model")]
    algorithm: Annotated[Selection, Kind("algorithm")]
    training: Training
    copies: Count | None = None  # members trained side by side, with other random numbers; null: one learner
    draws_as: str | None = None  # an earlier stage whose random numbers this one has; null: its own.
    # The same tasks then and, of the same model, the same first weights: the two are a pair

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z][a-z0-9_-]{0,63}", self.name):
            raise ValueError(
                f"the stage name {self.name!r} cannot name files and keys",
                "begin with a letter, then lower-case letters, digits, _ and -; at most 64",
            )


@dataclass(frozen=True)
class Evaluation:
    """The frozen list of episodes, and how they are measured."""

    every: Count | None = None  # steps between two validations; null: only at the end
    episodes: Annotated[int, AtLeast(2)] = 600  # two or more, to have a confidence interval
    seed: Seed = 0  # of the list of episodes, apart from the run's seed
    split: Literal["train", "validation", "test"] = (
        "test"  # of the final evaluation; selection sees validation
    )
    modes: tuple[Mode, ...] = ("inductive",)  # each is measured; the first one selects
    adapted_steps: Count | None = None  # inner steps of the adapted learner; null: as in training
    inner_steps: tuple[Annotated[int, AtLeast(0)], ...] = ()  # points of the adaptation curve; empty: none
    ways: Count | None = None  # null: as in training
    shots: Count | None = None  # null: as in training
    queries: Count | None = None  # null: as in training
    checkpoint: Literal["last", "best"] = "last"  # whose weights are measured at the end; best on validation

    def __post_init__(self) -> None:
        if not self.modes:
            raise ValueError("modes is empty", "give inductive, transductive, or both")
        _refuse_repeats("modes", self.modes)
        _refuse_repeats("inner_steps", self.inner_steps)


@dataclass(frozen=True)
class Checkpoint:
    """When the state is saved."""

    every: Count | None = None  # steps; null: about once a minute; always at the end
    keep: Count = 3  # newest checkpoints that stay, beside the best


@dataclass(frozen=True)
class Accelerator:
    """Where it is computed."""

    platform: Literal["auto", "cpu", "gpu", "tpu"] = "auto"  # auto: the fastest there is
    devices: Count | None = None  # null: all
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"  # of matrix products


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What both forms of a file share."""

    task: Annotated[Selection, Kind("task")]
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    accelerator: Accelerator = Accelerator()
    seed: Seed = 0  # every random number of the run follows from it
    replicas: Count = 1  # seeds trained side by side: replica r is the single run with seed + r

    def __post_init__(self) -> None:
        if self.seed + self.replicas > LAST_SEED + 1:
            raise ValueError(
                f"the last of {self.replicas} replicas has the seed {self.seed + self.replicas - 1}",
                f"choose seed and replicas so that no seed is above {LAST_SEED}",
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig(_Run):
    """A run, and the file with a list of `stages`."""

    stages: tuple[Stage, ...]  # at least one; each may use those before it

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stages:
            raise ValueError("stages is empty", "give at least one {name, model, algorithm, training}")
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
    """The file with one stage, which is called as its algorithm."""

    model: Annotated[Selection, Kind("model")]
    algorithm: Annotated[Selection, Kind("algorithm")]
    training: Training
    copies: Count | None = None  # as in a stage

    def run(self) -> RunConfig:
        stage = Stage(self.algorithm.name, self.model, self.algorithm, self.training, self.copies)
        shared = {name: getattr(self, name) for name in _Run.__dataclass_fields__}
        return RunConfig(stages=(stage,), **shared)
