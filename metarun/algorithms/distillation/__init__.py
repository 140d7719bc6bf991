"""Distillation: a student learns from teachers that were trained before it, and then adapts by its own algorithm.

Hinton, Vinyals, Dean 2015, arXiv 1503.02531. Teachers t_m and student s adapt to the support of an episode, each by its
own algorithm, and answer its query. With the share α of matching in the loss, and L_s the student's own outer loss,

    loss = (1 − α) L_s + α D,

    matches: outputs     D = T² KL(mean_m softmax(t_m / T) ‖ softmax(s / T)); for numbers |mean_m t_m − s|²
    matches: features    D = 1/n² ‖G_s − G_t‖², G the similarities of the n queries' last features (Tung, Mori 2019,
                         1907.09682), for which student and teacher may be of different widths
    matches: both        D = outputs + `feature_weight` · features

What is distilled is what the algorithms of the named stages do, so that teacher and student may be of different
algorithms and models. `teachers` with several stages, or one stage with copies, are an ensemble, whose probabilities
are averaged at the temperature T. `student` is an earlier stage: with `start: fresh` the student begins anew as that
stage did, with `start: trained` where it ended. That stage is thus the control, the same student after as many steps
without a teacher; with `draws_as: student` in this stage both have the same first weights and the same tasks.
Born-again networks (Furlanello et al. 2018, 1805.04770) are a chain of stages: each has the one before as `teachers`
and the first as `student`.

With `student_shots` the teachers adapt to the whole support and the student to fewer examples: evaluate it with
`evaluation.shots`. With `share: 0` nothing is distilled, which is the control of such a student. The control of what
the teachers know is `answers: shuffled`: in every loss the teachers' answers to the queries change places at random, so
that they are as soft and as many as before and say nothing about the query that they stand beside.

The model of this stage is not used: that of the stage `student` is the student's.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax

from metarun import base, errors, trees
from metarun.algorithms.distillation import student_support, teacher_distance
from metarun.blocks import earlier_stages, ensemble, outer_loss
from metarun.ranges import Above, AtLeast, Between

SHUFFLE = 1  # folded into the key of a loss, which the student's own loss uses, too
EXAMPLE = base.Example(("maml", "cavia"), {"teachers": ("maml",), "student": "cavia"})


@dataclass(frozen=True)
class Config:
    """Who teaches whom, and what is matched."""

    teachers: tuple[str, ...] = ("teacher",)  # earlier stages; several are an ensemble
    student: str = "student"  # the earlier stage whose algorithm and model are the student's
    # The student's first weights: as its stage began, or as it ended.
    start: Literal["fresh", "trained"] = "fresh"
    matches: Literal["outputs", "features", "both"] = "outputs"  # what is compared on the query
    # T, by which logits are divided before they are compared.
    temperature: Annotated[float, Between(1e-3, 1e5)] = 1.0
    # α, weight of the matching; the student's own loss has the rest.
    share: Annotated[float, Between(0, 1)] = 0.5
    # matches: both: weight of the features beside the outputs.
    feature_weight: Annotated[float, Above(0)] = 1.0
    # Which query the teachers answer beside each query of the student: the same, or a control's, any of the episode.
    answers: Literal["own", "shuffled"] = "own"
    # Support examples of a class (without classes: in all) that the student sees; null: all.
    student_shots: Annotated[int, AtLeast(1)] | None = None

    def __post_init__(self):
        if not self.teachers:
            raise ValueError("there are no teachers", "name one earlier stage or more")


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions: those of the student, with another loss.

    Returns:
      An algorithm that trains what the student's does, over the frozen {"student", "teachers"}. Its init raises
      ConfigError if that is nothing, if the support is smaller than `student_shots`, or if features are
      matched and a learner has no last layer.

    Raises:
      ValueError: a stage is not there.
    """
    teachers = earlier_stages.find_all("teachers", config.teachers, earlier)
    student = earlier_stages.find("student", config.student, earlier)
    measure = teacher_distance.make_distance(config, teachers, student, problem)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        start = student.init(key, episodes, earlier)
        refuse_nothing_to_train(config, start.trained)
        if config.start == "trained":
            refuse_copies(config, student, key, episodes, earlier)
            start = earlier[config.student]
        teacher_weights = ensemble.stack(teachers, key, episodes, earlier)
        weights = base.Weights(start.trained, {"student": start.frozen, "teachers": teacher_weights})
        jax.eval_shape(loss, weights, trees.first(episodes), key, 0.0)  # refuses what cannot be matched
        return weights

    def adapt(weights: base.Weights, support: base.Examples):
        return student.adapt(extract_student(weights), support)

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        query, shots, ways = episode.query, config.student_shots, problem.spec.ways
        few = student_support.take_shots(episode.support, shots, ways)
        learner = adapt(weights, few)
        _, metrics = outer_loss.judge(problem.objective, student.predict(learner, query.inputs), query)
        distance = own_loss = 0.0
        if config.share > 0:
            learners = ensemble.adapt(teachers, weights.frozen["teachers"], episode.support)
            teacher_inputs = shuffle(key, query) if config.answers == "shuffled" else query.inputs
            distance = measure(learner, learners, query, teacher_inputs)
            metrics = metrics | {"matching_loss": distance}
        if config.share < 1:
            own_loss, _ = student.loss(extract_student(weights), episode._replace(support=few), key, progress)
        return (1 - config.share) * own_loss + config.share * distance, metrics

    def update(weights: base.Weights, learner, support: base.Examples):
        return student.update(extract_student(weights), learner, support)  # type: ignore[misc]

    return base.Algorithm(init, loss, adapt, student.predict, update if student.update else None)


def shuffle(key, query: base.Examples) -> base.PyTree:
    """Return the inputs of a query in an order at random."""
    count = jax.tree.leaves(query.inputs)[0].shape[0]
    order = jax.random.permutation(jax.random.fold_in(key, SHUFFLE), count)
    return jax.tree.map(lambda leaf: leaf[order], query.inputs)


def extract_student(weights: base.Weights) -> base.Weights:
    """Return the weights as the student's own algorithm knows them."""
    return base.Weights(weights.trained, weights.frozen["student"])


def refuse_copies(config: Config, student: base.Algorithm, key, episodes: base.Episode, earlier) -> None:
    """Refuse a student whose stage ended with several sets of weights.

    Raises:
      ConfigError: it did.
    """
    if ensemble.has_copies(config.student, student, key, episodes, earlier):
        raise errors.ConfigError(
            f"the stage {config.student} has copies, and the student is one",
            "algorithm.student",
            "set start: fresh, or name a stage without copies",
        )


def refuse_nothing_to_train(config: Config, trained: base.PyTree) -> None:
    """Refuse a student in which a teacher could change nothing.

    Raises:
      ConfigError: nothing is trained.
    """
    if not jax.tree.leaves(trained):
        raise errors.ConfigError(
            f"the student {config.student} trains nothing",
            "algorithm.student",
            "name a stage whose algorithm has parameters of its own",
        )
