"""A trained run that adapts to somebody's own examples, and answers their queries. Prints and writes nothing.

    learner = metarun.load("runs/...").adapt((inputs, labels))
    probabilities = learner.predict(queries)

The data that the run was trained on is not needed where the task family has an outline (`building.task_outline`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metarun import (
    assessment,
    base,
    building,
    config,
    differences,
    errors,
    measuring,
    parallel,
    population,
)
from metarun.base import PyTree
from metarun.runs import directory

PART = 256  # queries that are answered at once, where they do not normalise one another

Kind = Literal["classes", "numbers", "sentences"]


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
      mode: "inductive", where the support normalises the queries, or "transductive", where they do it themselves.
      inner_steps: of the inner loop; None of an algorithm without one.
      kind: what is predicted: "classes", "numbers" or "sentences".
      spec, form: how examples look, and how files of them are read.
    """

    def __init__(
        self,
        path: Path,
        stage: str,
        trained: assessment.Trained,
        family: base.TaskFamily,
        build: Callable[[base.Objective], base.Algorithm],
        mode: str,
        inner_steps: int | None,
    ) -> None:
        self.path, self.stage, self.step = path, stage, trained.step
        self.mode, self.inner_steps = mode, inner_steps
        self.spec, self.form = family.spec, family.form
        self.kind: Kind = kind_of(family)
        self.weights = trained.weights
        self._family, self._build = family, build
        self._programs: dict[int, Programs] = {}

    def programs(self, ways: int) -> Programs:
        """The functions for so many classes, 0 where no classes are predicted; each is compiled at its first use."""
        if ways not in self._programs:
            objective = self._family.objective
            if objective.ways is not None:
                objective = objective._replace(ways=ways)  # an algorithm without an output a class follows it
            algorithm = self._build(objective)

            def predict(weights, support):
                return algorithm.predict(algorithm.adapt(weights, support), support.inputs)

            answer = make_answer(self._family.form, algorithm, ways)
            self._programs[ways] = Programs(jax.jit(algorithm.adapt), jax.jit(predict), jax.jit(answer))
        return self._programs[ways]

    def adapt(self, support: base.Examples | tuple[Any, Any]) -> "AdaptedLearner":
        """Adapt to labelled examples, in any number, and not the same for every class.

        Args:
          support: (inputs, targets). Inputs are float32 [example, *spec.input_shape]; pictures are in [0, 1].
            Targets are labels from 0, whole numbers [example], or float32 [example, feature]. Sentences are what
            `form.encode` makes of them.

        Raises:
          DataError: the arrays have other shapes, numbers that are not finite, or a class without an example.
          ConfigError: the learner cannot take as many classes or examples.
        """
        inputs = self._inputs(support[0], "the support")
        targets = self._targets(support[1], count(inputs))
        ways = int(targets.max()) + 1 if self.kind == "classes" else 0
        examples = base.Examples(inputs, targets)
        self.check(abstract(examples), ways)
        return AdaptedLearner(self, self.programs(ways).adapt(self.weights, examples), ways)

    def check(self, support: base.Examples, ways: int) -> None:
        """Refuse a support that the learner cannot take. Computes nothing: arrays may be `jax.ShapeDtypeStruct`.

        Args:
          support: Examples as for `adapt`.
          ways: how many classes there are; 0 where no classes are predicted.

        Raises:
          ConfigError: what the learner can take, and what to do.
        """
        with building.refusals("the support"):
            shapes = self.programs(ways).predict.eval_shape(self.weights, support)  # traced once a shape
        if ways and shapes.shape[-1] < ways:
            size = shapes.shape[-1]
            raise errors.ConfigError(
                f"the learner has {size} outputs and cannot tell {ways} classes apart",
                f"the support, for stage {self.stage} of {self.path}",
                f"give at most {size} classes, or train with task.ways={ways}",
            )

    def predict(self, learner: PyTree, inputs: PyTree, ways: int) -> np.ndarray:
        """What the learner says of inputs [example, ...]; see `AdaptedLearner.predict`."""
        total, answer = count(inputs), self.programs(ways).answer
        if self.mode == "transductive" or total <= PART:
            parts = [answer(learner, inputs)]
        else:
            parts = [answer(learner, part_of(inputs, start)) for start in range(0, total, PART)]
        answers = np.concatenate([np.asarray(part) for part in parts])[:total]
        if not np.isfinite(answers).all():
            raise errors.DivergedError(
                "the adapted learner gives numbers that are not finite",
                f"stage {self.stage} of {self.path}, adapted to the support",
                "take fewer inner steps, and look for examples that are far from those of the training",
            )
        return answers

    def _inputs(self, inputs: PyTree, where: str) -> PyTree:
        """The inputs as the family's own, float32 [example, ...]."""
        if self.kind == "sentences":
            return inputs
        given = np.asarray(inputs)
        if given.ndim == 0 or given.shape[1:] != self.spec.input_shape or given.dtype.kind not in "fiu":
            what = f"inputs are numbers of shape {given.shape} and type {given.dtype}"
            raise errors.DataError(what, where, f"give shape (example, *{self.spec.input_shape})")
        if not len(given):
            raise errors.DataError("there is no example", where, "give at least one")
        array = given.astype(np.float32)
        if not np.isfinite(array).all():
            raise errors.DataError(
                "inputs have numbers that are not finite", where, "leave these examples out"
            )
        if isinstance(self.form, base.Pictures) and not (array.min() >= 0 and array.max() <= 1):
            what = f"pictures have values from {array.min():g} to {array.max():g}"
            raise errors.DataError(what, where, "give them in [0, 1]: divide bytes by 255")
        return array

    def _targets(self, targets: PyTree, examples: int) -> PyTree:
        """The targets as the family's own: int32 [example], or float32 [example, feature]."""
        if self.kind == "sentences":
            return targets
        given, where = np.asarray(targets), "the targets of the support"
        shape = (examples,) if self.kind == "classes" else (examples, self.spec.output_size)
        kinds, dtype = ("iu", np.int32) if self.kind == "classes" else ("fiu", np.float32)
        if given.shape != shape or given.dtype.kind not in kinds:
            what = f"targets have shape {given.shape} and type {given.dtype}"
            raise errors.DataError(what, where, f"give {np.dtype(dtype).name} of shape {shape}")
        if not np.isfinite(given).all():
            raise errors.DataError(
                "targets have numbers that are not finite", where, "leave these examples out"
            )
        if self.kind == "classes":
            present = np.unique(given)
            if len(present) < 2 or present.tolist() != list(range(len(present))):
                what = f"labels are {', '.join(map(str, present[:10]))}"
                raise errors.DataError(
                    what, where, "give two classes or more, with labels from 0 without gaps"
                )
        return given.astype(dtype)


class AdaptedLearner(NamedTuple):
    """What `TrainedRun.adapt` returns."""

    run: TrainedRun
    state: PyTree  # the algorithm's learner
    ways: int  # classes of the support; 0 where no classes are predicted

    def predict(self, inputs: PyTree) -> np.ndarray:
        """The answers for inputs [example, ...], shaped as those of the support.

        Returns:
          Classes: float32 [example, way], the probability of each class of the support; its argmax is the label.
          Outputs of the network beyond these classes are left out. Numbers: float32 [example, feature].
          Sentences: int32 [example, token], which `form.spell` turns into text.

        Raises:
          DataError: the array has another shape, or numbers that are not finite.
          DivergedError: the adapted learner gives numbers that are not finite.
        """
        return self.run.predict(self.state, self.run._inputs(inputs, "the query"), self.ways)


def load(
    path: Path | str,
    *,
    stage: str | None = None,
    mode: str | None = None,
    inner_steps: int | None = None,
    replica: int = 0,
    member: int = 0,
    overrides: tuple[str, ...] | list[str] = (),
) -> TrainedRun:
    """A run, or one checkpoint of it, ready to adapt. Writes nothing to it.

    Args:
      path: a run directory, or RUN/checkpoints/<stage>/<step>.
      stage: which stage of the run; None: the last one, or that of the checkpoint.
      mode: "inductive" or "transductive", what normalises the queries; None: the run's first evaluation mode.
      inner_steps: of the inner loop; None: as the run evaluates its adapted learner.
      replica, member: which of the learners that were trained side by side, where there are several; from 0.
      overrides: `key=value` of the evaluation and accelerator sections, such as "accelerator.platform=cpu".

    Raises:
      MetarunError: what is wrong with the run or with the choice, and what to do.
    """
    root, asked = assessment.split_path(Path(path))
    directory.read_config(root)
    run_config = config.load(root / directory.CONFIG, list(overrides))
    differences.refuse_other_changes(config.load(root / directory.CONFIG), run_config)
    index = assessment.stage_index(run_config, root, asked, stage)
    modes = {"inductive", "transductive"}
    chosen_mode = mode or run_config.evaluation.modes[0]
    if chosen_mode not in modes:
        raise errors.UsageError(
            f"there is no mode {chosen_mode}", "mode", f"use one of {', '.join(sorted(modes))}"
        )
    steps = inner_steps_of(run_config, index, inner_steps)
    position = position_of(run_config, index, replica, member)
    device = parallel.select(run_config.accelerator)[0]
    family = building.task_outline(run_config.task)
    problem = assessment.Problem(family, dict(family.data), measuring.Judge(family, {}, {}))
    trained = assessment.restore_stages(run_config, root, asked, problem, device, index + 1)
    name = run_config.stages[index].name
    chosen = trained[name]._replace(weights=population.take(trained[name].weights, position))

    def build(objective: base.Objective) -> base.Algorithm:
        return building.algorithm(run_config, index, family, chosen_mode, steps, objective)

    return TrainedRun(root, name, chosen, family, build, chosen_mode, steps)


def position_of(run_config: config.RunConfig, index: int, replica: int, member: int) -> population.Position:
    """Where the learner stands on the axes that the stage has.

    Raises:
      UsageError: there is no such replica or member.
    """
    sizes = population.sizes(run_config, index)
    asked = {"replica": replica, "member": member}
    for axis, place in asked.items():
        size = sizes.get(axis, 1)
        if not 0 <= place < size:
            what = f"there is no {axis} {place}"
            where = f"stage {run_config.stages[index].name}"
            raise errors.UsageError(what, where, f"give a number from 0 to {size - 1}")
    return {axis: asked[axis] for axis in sizes}


def inner_steps_of(run_config: config.RunConfig, index: int, given: int | None) -> int | None:
    """How many inner steps the learner of stage `index` takes; None of an algorithm without an inner loop.

    Raises:
      UsageError: steps were asked for, and there are none, or their number is negative.
    """
    adapted = building.adapted_steps(run_config, index)
    if given is None:
        return adapted
    stage = run_config.stages[index]
    if adapted is None:
        what = f"{stage.algorithm.name} has no inner steps"
        raise errors.UsageError(what, f"stage {stage.name}", "leave the inner steps out")
    if given < 0:
        raise errors.UsageError(f"{given} inner steps cannot be taken", "inner steps", "take 0 or more")
    return given


def kind_of(family: base.TaskFamily) -> Kind:
    """What the learners of a family predict: labels are whole numbers, one an example. Computes nothing."""
    if isinstance(family.form, base.Sentences):
        return "sentences"
    data = next(iter(family.data.values()))
    targets = jax.eval_shape(family.sample, data, jax.random.key(0)).support.targets
    return "classes" if jnp.issubdtype(targets.dtype, jnp.integer) else "numbers"


def make_answer(form: Any, algorithm: base.Algorithm, ways: int) -> Callable:
    """(learner, inputs) -> the answers, see `AdaptedLearner.predict`; jittable."""

    def answer(learner: PyTree, inputs: PyTree):
        def predict(inputs):
            return algorithm.predict(learner, inputs)

        if isinstance(form, base.Sentences):
            return form.decode(predict, inputs)
        outputs = predict(inputs)
        return jax.nn.softmax(outputs[:, :ways]) if ways else outputs

    return answer


def count(inputs: PyTree) -> int:
    """How many examples there are."""
    return int(jax.tree.leaves(inputs)[0].shape[0])


def part_of(inputs: PyTree, start: int) -> PyTree:
    """The next PART examples; the last part is filled with the first examples, so that all have one shape."""
    chosen = np.arange(start, start + PART)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[np.where(chosen < len(leaf), chosen, 0)], inputs)


def abstract(tree: PyTree) -> PyTree:
    """The shapes and dtypes of a tree."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
