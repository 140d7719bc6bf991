"""A finished run that adapts to somebody's own examples, and answers their queries.

    learner = metarun.load("runs/...").adapt((inputs, labels))
    probabilities = learner.predict(queries)

The data that the run was trained on is not needed if the task family has an outline (`assembly.outline_tasks`).
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from metarun import base, errors
from metarun.base import PyTree
from metarun.finished import body_features, opened_run, own_examples, own_pictures
from metarun.finished.finished_run import FinishedRun, find_run
from metarun.finished.learner_choice import MODES, choose_inner_steps, choose_mode, choose_position
from metarun.finished.learner_programs import (
    Programs,
    count_examples,
    make_programs,
    take_batch,
    trace_shapes,
)
from metarun.finished.opened_run import OpenedRun
from metarun.stages import Position, config_errors

AT_ONCE = 256  # queries that are answered at once, if they do not normalise one another


class TrainedRun:
    """One stage of a run, ready to adapt. Make it with `load`.

    Attributes:
      path: the run directory.
      stage, step: which weights these are.
      weights: of one learner.
      skipped: the checkpoints, damaged or gone, that an older one stands in for.
      names: of its task, its model and its algorithm, {"task": "sinusoid"}.
      mode: "inductive", if the support normalises the queries, or "transductive", if they do it themselves.
      inner_steps: of the inner loop; None: the algorithm has none.
      problem, form: how examples look, and how files of them are read.
      tasks: the task family; its data may be shapes alone.
      input_range: the lowest and the highest inputs of the training, once `training_inputs` has measured them.
    """

    @classmethod
    def take_first(cls, opened: OpenedRun) -> "TrainedRun":
        """Take the first learner of a stage, in the first mode and with the inner steps that the run evaluates."""
        stage, evaluation = opened.stage, opened.run.config.evaluation
        return cls(opened, stage.positions[0], evaluation.modes[0], stage.adapted_steps)

    def __init__(self, opened: OpenedRun, position: Position, mode: str, inner_steps: int | None) -> None:
        trained = opened_run.take_trained(opened, position)
        self.path, self.stage, self.step = opened.run.path, opened.stage.name, trained.step
        self.weights, self.skipped = trained.weights, opened.skipped
        settings = opened.stage.settings
        parts = {"task": opened.run.config.task, "model": settings.model, "algorithm": settings.algorithm}
        self.names = {kind: selection.label for kind, selection in parts.items()}
        self.mode, self.inner_steps = mode, inner_steps
        self.problem, self.form = opened.tasks.family.problem, opened.tasks.family.form
        self.tasks = opened.tasks
        self._stage = opened.stage
        self.input_range: tuple[np.ndarray, np.ndarray] | None = None
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
            self._programs[ways] = make_programs(algorithm, self.form, ways, self.mode == "transductive")
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

    def predict(self, learner: PyTree, inputs: PyTree, ways: int, fill: int | None = None) -> np.ndarray:
        """Return the answers of a learner for inputs [example, ...]; see `AdaptedLearner.predict`.

        Args:
          fill: in inductive mode inputs are filled up to so many, AT_ONCE at most, so that different numbers of them
            are answered by one compiled program.
        """
        count, answer = count_examples(inputs), self.programs(ways).answer
        size = AT_ONCE if count > AT_ONCE else min(max(fill or 0, count), AT_ONCE)
        if self.mode == "transductive" or count == size:
            batches = [answer(learner, inputs)]
        else:
            batches = [answer(learner, take_batch(inputs, start, size)) for start in range(0, count, size)]
        answers = np.concatenate([np.asarray(batch) for batch in batches])[:count]
        self.refuse_not_finite(answers)
        return answers

    def answer_left_out(self, support: base.Examples, places: np.ndarray) -> np.ndarray:
        """Return the answers to some examples of a support, each by a learner that has adapted to all others.

        In transductive mode the inputs of the whole support normalise it, as the queries do one another.

        Args:
          support: as of `adapt`, checked.
          places: int [place], of examples whose class has others.

        Returns:
          [place, way] as of `AdaptedLearner.predict`.

        Raises:
          ConfigError: the learner cannot take a support that is smaller by one example.
          DivergedError: a learner gives numbers that are not finite.
        """
        ways = int(np.max(support.targets)) + 1
        smaller = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((len(leaf) - 1, *leaf.shape[1:]), leaf.dtype), support
        )
        self.check(smaller, ways)
        answers = np.asarray(self.programs(ways).leave_out(self.weights, support, places.astype(np.int32)))
        self.refuse_not_finite(answers)
        return answers

    def refuse_not_finite(self, answers: np.ndarray) -> None:
        """Raise DivergedError for answers that are not finite."""
        if not np.isfinite(answers).all():
            raise errors.DivergedError(
                "the adapted learner gives numbers that are not finite",
                f"stage {self.stage} of {self.path}, adapted to the support",
                "take fewer inner steps, and look for examples that are far from those of the training",
            )

    @functools.cached_property
    def embed(self) -> Callable | None:
        """What gives features of inputs by the stage's network; see `body_features.make_embed`."""
        return body_features.make_embed(self._stage, self.weights, self.mode)

    @property
    def pictures(self) -> own_pictures.PictureReader:
        """What reads picture files as the run reads them.

        Raises:
          UsageError: the run takes no pictures.
        """
        takes_files = isinstance(self.form, base.Pictures) and (
            self.form.read or len(self.spec.input_shape) == 3
        )
        if not takes_files:
            what = f"the run takes inputs {self.spec.input_shape}, and no pictures"
            raise errors.UsageError(what, str(self.path), "give arrays, or take a run on pictures")
        assert isinstance(self.form, base.Pictures)  # for type checkers
        return own_pictures.PictureReader(self.spec.input_shape, self.form, self.path)

    def read_pictures(self, paths: Sequence[Path | str], polarity: str = "auto") -> np.ndarray:
        """Return picture files as inputs of the run, float32 [example, height, width, channel].

        Args:
          polarity: see `own_pictures`; auto: by these pictures, which should be a whole support.

        Raises:
          DataError: a picture cannot be read.
          UsageError: the run takes no pictures, or there is no such polarity.
        """
        own_pictures.refuse_other_polarity(polarity)
        return self.pictures.read([Path(path) for path in paths], polarity).inputs


class AdaptedLearner(NamedTuple):
    """What `TrainedRun.adapt` returns."""

    run: TrainedRun
    state: PyTree  # the algorithm's learner
    ways: int  # classes of the support; 0 if no classes are predicted

    def __repr__(self) -> str:
        """Return what has adapted, in a line."""
        return f"<adapted {repr(self.run)[1:-1]}{f', {self.ways} ways' * bool(self.ways)}>"

    def predict(self, inputs: PyTree, *, fill: int | None = None) -> np.ndarray:
        """Return the answers for inputs [example, ...], shaped as those of the support.

        Args:
          fill: see `TrainedRun.predict`.

        Returns:
          Classes: float32 [example, way], the probability of each class of the support; its argmax is the label.
          Outputs of the network beyond these classes are left out. Numbers: float32 [example, feature].
          Sentences: int32 [example, token], which `form.spell` turns into text.

        Raises:
          DataError: the array has another shape, or numbers that are not finite.
          DivergedError: the adapted learner gives numbers that are not finite.
        """
        checked = own_examples.check_inputs(self.run.problem.spec, self.run.form, inputs, "the query")
        return self.run.predict(self.state, checked, self.ways, fill)


def load(
    path: Path | str | FinishedRun,
    *,
    stage: str | None = None,
    mode: str | None = None,
    inner_steps: int | None = None,
    replica: int = 0,
    member: int = 0,
    overrides: tuple[str, ...] | list[str] = (),
    allow_older: bool = False,
) -> TrainedRun:
    """Open a run, or one checkpoint of it, to adapt it. Writes nothing to it.

    Args:
      path: a run directory, RUN/checkpoints/<stage>/<step>, or another name of a run; see `catalogue.resolve`. Or
        what `find_run` has found; then `stage`, `overrides` and `allow_older` are those that it was found with.
      stage: which stage of the run; None: the last one, or that of the checkpoint.
      mode: "inductive" or "transductive", what normalises the queries; None: inductive, so that the answer to a query
        does not depend on the others, unless an override sets evaluation.modes.
      inner_steps: of the inner loop; None: as the run evaluates its adapted learner.
      replica, member: which of the learners that were trained side by side, if there are several; from 0.
      overrides: `key=value` of the evaluation and accelerator sections, such as "accelerator.platform=cpu".
      allow_older: whether an older checkpoint may stand in for one that is damaged or gone; see `TrainedRun.skipped`.

    Raises:
      MetarunError: what is wrong with the run or with the choice, and what to do.
    """
    run = path
    if not isinstance(run, FinishedRun):
        run = find_run(run, overrides, stage=stage, allow_older=allow_older)
    if mode is not None and mode not in MODES:
        raise errors.UsageError(f"there is no mode {mode}", "mode", f"use one of {', '.join(MODES)}")
    mode = mode or choose_mode(run, overrides)
    position = choose_position(run, replica, member)
    steps = choose_inner_steps(run, inner_steps)
    opened = opened_run.open_run(run, outline=True)
    return TrainedRun(opened, position, mode, steps)
