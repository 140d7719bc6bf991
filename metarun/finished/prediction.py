"""A finished run that adapts to somebody's own examples, and answers their queries.

    learner = metarun.load("runs/...").adapt((inputs, labels))
    probabilities = learner.predict(queries)

The data that the run was trained on is not needed if the task family has an outline (`assembly.outline_tasks`).
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from metarun import assembly, base, errors
from metarun.base import PyTree
from metarun.finished import opened_run, own_examples
from metarun.finished.finished_run import FinishedRun, find_run
from metarun.finished.opened_run import OpenedRun
from metarun.stages import Position, config_errors

AT_ONCE = 256  # queries that are answered at once, if they do not normalise one another
MODES = ("inductive", "transductive")


class Programs(NamedTuple):
    """What adapts to a number of classes and answers in it; all are jitted."""

    adapt: Any  # (weights, support) -> learner
    predict: Any  # (weights, support) -> outputs for the support's own inputs; only ever traced
    answer: Any  # (learner, inputs) -> answers


class TrainedRun:
    """One stage of a run, ready to adapt. Make it with `load`.

    Attributes:
      path: the run directory.
      stage, step: which weights these are.
      weights: of one learner.
      names: of its task, its model and its algorithm, {"task": "sinusoid"}.
      mode: "inductive", if the support normalises the queries, or "transductive", if they do it themselves.
      inner_steps: of the inner loop; None: the algorithm has none.
      problem, form: how examples look, and how files of them are read.
      tasks: the task family; its data may be shapes alone.
    """

    @classmethod
    def take_first(cls, opened: OpenedRun) -> "TrainedRun":
        """Take the first learner of a stage, in the first mode and with the inner steps that the run evaluates."""
        stage, evaluation = opened.stage, opened.run.config.evaluation
        return cls(opened, stage.positions[0], evaluation.modes[0], stage.adapted_steps)

    def __init__(self, opened: OpenedRun, position: Position, mode: str, inner_steps: int | None) -> None:
        trained = opened_run.take_trained(opened, position)
        self.path, self.stage, self.step = opened.run.path, opened.stage.name, trained.step
        self.weights = trained.weights
        settings = opened.stage.settings
        parts = {"task": opened.run.config.task, "model": settings.model, "algorithm": settings.algorithm}
        self.names = {kind: selection.label for kind, selection in parts.items()}
        self.mode, self.inner_steps = mode, inner_steps
        self.problem, self.form = opened.tasks.family.problem, opened.tasks.family.form
        self.tasks = opened.tasks
        self._stage = opened.stage
        self._programs: dict[int, Programs] = {}

    def __repr__(self) -> str:
        """Return what adapts, in a line."""
        names, steps = self.names, "" if self.inner_steps is None else f", {self.inner_steps} inner steps"
        return (
            f"<metarun learner of {self.path}: {names['algorithm']} on {names['task']}, stage {self.stage}, "
            f"step {self.step}, {self.mode}{steps}>"
        )

    @property
    def spec(self) -> base.Spec:
        """The shapes of inputs and outputs."""
        return self.problem.spec

    @property
    def takes_usual_steps(self) -> bool:
        """Whether it takes the inner steps of the adapted learner that the run evaluates."""
        return self.inner_steps == self._stage.adapted_steps

    @property
    def targets(self) -> str:
        """What is predicted: "classes", "numbers" or "tokens"."""
        return self.problem.spec.targets

    def programs(self, ways: int) -> Programs:
        """Return the functions for `ways` classes, 0 if none are predicted; each is compiled at its first use."""
        if ways not in self._programs:
            problem = self.problem
            if ways:  # an algorithm without an output for each class follows the number of classes
                problem = problem._replace(spec=problem.spec._replace(output_size=ways))
            algorithm = self._stage.build_algorithm(self.mode, self.inner_steps, problem)

            def predict(weights, support):
                return algorithm.predict(algorithm.adapt(weights, support), support.inputs)

            answer = make_answer(self.form, algorithm, ways)
            self._programs[ways] = Programs(jax.jit(algorithm.adapt), jax.jit(predict), jax.jit(answer))
        return self._programs[ways]

    def adapt(self, support: base.Examples | tuple[Any, Any]) -> "AdaptedLearner":
        """Adapt to labelled examples, in any number, and not the same for every class.

        Args:
          support: (inputs, targets). Inputs are float32 [example, *input_shape]; pictures are in [0, 1].
            Targets are labels from 0, whole numbers [example], or float32 [example, feature]. For sentences give what
            `form.encode` makes of them.

        Raises:
          DataError: the arrays have other shapes, numbers that are not finite, or a class without an example.
          ConfigError: the learner cannot take as many classes or examples.
        """
        inputs = own_examples.check_inputs(self.problem.spec, self.form, support[0], "the support")
        targets = own_examples.check_targets(self.problem.spec, support[1], count_examples(inputs))
        ways = int(targets.max()) + 1 if self.targets == "classes" else 0
        examples = base.Examples(inputs, targets)
        self.check(trace_shapes(examples), ways)
        return AdaptedLearner(self, self.programs(ways).adapt(self.weights, examples), ways)

    def check(self, support: base.Examples, ways: int) -> None:
        """Refuse a support that the learner cannot take. Computes nothing: arrays may be `jax.ShapeDtypeStruct`.

        Args:
          support: Examples as for `adapt`.
          ways: how many classes there are; 0 if no classes are predicted.

        Raises:
          ConfigError: what the learner can take, and what to do.
        """
        with config_errors("the support"):
            outputs = self.programs(ways).predict.eval_shape(self.weights, support)  # traced once a shape
        if ways and outputs.shape[-1] < ways:
            size = outputs.shape[-1]
            raise errors.ConfigError(
                f"the learner has {size} outputs and cannot tell {ways} classes apart",
                f"the support, for stage {self.stage} of {self.path}",
                f"give at most {size} classes, or train with task.ways={ways}",
            )

    def check_shapes(self, count: int, targets: np.ndarray, ways: int) -> None:
        """Refuse a support of `count` inputs that the learner cannot take, before the inputs are read; see `check`."""
        inputs = jax.ShapeDtypeStruct((count, *self.spec.input_shape), np.float32)
        self.check(base.Examples(inputs, targets), ways)

    def predict(self, learner: PyTree, inputs: PyTree, ways: int) -> np.ndarray:
        """Return the answers of a learner for inputs [example, ...]; see `AdaptedLearner.predict`."""
        count, answer = count_examples(inputs), self.programs(ways).answer
        if self.mode == "transductive" or count <= AT_ONCE:
            batches = [answer(learner, inputs)]
        else:
            batches = [answer(learner, take_batch(inputs, start)) for start in range(0, count, AT_ONCE)]
        answers = np.concatenate([np.asarray(batch) for batch in batches])[:count]
        if not np.isfinite(answers).all():
            raise errors.DivergedError(
                "the adapted learner gives numbers that are not finite",
                f"stage {self.stage} of {self.path}, adapted to the support",
                "take fewer inner steps, and look for examples that are far from those of the training",
            )
        return answers


class AdaptedLearner(NamedTuple):
    """What `TrainedRun.adapt` returns."""

    run: TrainedRun
    state: PyTree  # the algorithm's learner
    ways: int  # classes of the support; 0 if no classes are predicted

    def __repr__(self) -> str:
        """Return what has adapted, in a line."""
        return f"<adapted {repr(self.run)[1:-1]}{f', {self.ways} ways' * bool(self.ways)}>"

    def predict(self, inputs: PyTree) -> np.ndarray:
        """Return the answers for inputs [example, ...], shaped as those of the support.

        Returns:
          Classes: float32 [example, way], the probability of each class of the support; its argmax is the label.
          Outputs of the network beyond these classes are left out. Numbers: float32 [example, feature].
          Sentences: int32 [example, token], which `form.spell` turns into text.

        Raises:
          DataError: the array has another shape, or numbers that are not finite.
          DivergedError: the adapted learner gives numbers that are not finite.
        """
        checked = own_examples.check_inputs(self.run.problem.spec, self.run.form, inputs, "the query")
        return self.run.predict(self.state, checked, self.ways)


def load(
    path: Path | str | FinishedRun,
    *,
    stage: str | None = None,
    mode: str | None = None,
    inner_steps: int | None = None,
    replica: int = 0,
    member: int = 0,
    overrides: tuple[str, ...] | list[str] = (),
) -> TrainedRun:
    """Open a run, or one checkpoint of it, to adapt it. Writes nothing to it.

    Args:
      path: a run directory, RUN/checkpoints/<stage>/<step>, or another name of a run; see `catalogue.resolve`. Or
        what `find_run` has found; then `stage` and `overrides` are those that it was found with.
      stage: which stage of the run; None: the last one, or that of the checkpoint.
      mode: "inductive" or "transductive", what normalises the queries; None: inductive, so that the answer to a query
        does not depend on the others, unless an override sets evaluation.modes.
      inner_steps: of the inner loop; None: as the run evaluates its adapted learner.
      replica, member: which of the learners that were trained side by side, if there are several; from 0.
      overrides: `key=value` of the evaluation and accelerator sections, such as "accelerator.platform=cpu".

    Raises:
      MetarunError: what is wrong with the run or with the choice, and what to do.
    """
    run = path if isinstance(path, FinishedRun) else find_run(path, overrides, stage=stage)
    if mode is not None and mode not in MODES:
        raise errors.UsageError(f"there is no mode {mode}", "mode", f"use one of {', '.join(MODES)}")
    mode = mode or choose_mode(run, overrides)
    position = choose_position(run, replica, member)
    steps = choose_inner_steps(run, inner_steps)
    opened = opened_run.open_run(run, outline=True)
    return TrainedRun(opened, position, mode, steps)


def choose_mode(run: FinishedRun, overrides: Iterable[str]) -> str:
    """Return the first mode that the overrides name, or inductive if they name none."""
    is_named = any(re.match(r"evaluation(\.modes)?\s*=.*(in|trans)ductive", text) for text in overrides)
    return run.config.evaluation.modes[0] if is_named else MODES[0]


def choose_position(run: FinishedRun, replica: int, member: int) -> Position:
    """Return the place of a learner on the axes that the chosen stage has. Reads no weights.

    Raises:
      UsageError: there is no such replica or member.
    """
    axes, places = assembly.name_axes(run.config, run.stage_settings), {"replica": replica, "member": member}
    for axis, place in places.items():
        size = axes.get(axis, 1)
        if not 0 <= place < size:
            what = f"there is no {axis} {place}"
            raise errors.UsageError(what, f"stage {run.chosen_stage}", f"give a number from 0 to {size - 1}")
    return {axis: places[axis] for axis in axes}


def choose_inner_steps(run: FinishedRun, inner_steps: int | None) -> int | None:
    """Return how many inner steps the learner takes; None: its algorithm has no inner loop. Reads no weights.

    Raises:
      UsageError: steps are asked for, and there are none, or their number is negative.
    """
    adapted_steps = assembly.choose_adapted_steps(run.config, run.stage_settings)
    if inner_steps is None:
        return adapted_steps
    if adapted_steps is None:
        what = f"{run.stage_settings.algorithm.label} has no inner steps"
        raise errors.UsageError(what, f"stage {run.chosen_stage}", "leave the inner steps out")
    if inner_steps < 0:
        raise errors.UsageError(f"{inner_steps} inner steps cannot be taken", "inner steps", "take 0 or more")
    return inner_steps


def make_answer(
    form: base.Pictures | base.Sentences | None, algorithm: base.Algorithm, ways: int
) -> Callable:
    """Make (learner, inputs) -> the answers, see `AdaptedLearner.predict`; jittable."""

    def answer(learner: PyTree, inputs: PyTree):
        def predict(inputs):
            return algorithm.predict(learner, inputs)

        if isinstance(form, base.Sentences):
            return form.decode(predict, inputs)
        outputs = predict(inputs)
        return jax.nn.softmax(outputs[:, :ways]) if ways else outputs

    return answer


def count_examples(inputs: PyTree) -> int:
    """Return how many examples there are."""
    return int(jax.tree.leaves(inputs)[0].shape[0])


def take_batch(inputs: PyTree, start: int) -> PyTree:
    """Return the next AT_ONCE examples; the last batch is filled with the first example, so that all have one shape."""
    chosen = np.arange(start, start + AT_ONCE)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[np.where(chosen < len(leaf), chosen, 0)], inputs)


def trace_shapes(tree: PyTree) -> PyTree:
    """Return the shapes and dtypes of a tree."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
