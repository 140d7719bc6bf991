"""Distillation: a student learns from teachers that were trained before it, and then adapts by its own algorithm.

Hinton, Vinyals, Dean 2015, arXiv 1503.02531. Teachers t_m and student s adapt to the support of an episode, each by its
own algorithm, and answer its query. With the share α of matching in the loss, and L_s the student's own outer loss,

    loss = (1 − α) L_s + α D,

    matches: outputs     D = T² KL(mean_m softmax(t_m / T) ‖ softmax(s / T)); of numbers |mean_m t_m − s|²
    matches: features    D = 1/n² ‖G_s − G_t‖², G the similarities of the n queries' last features (Tung, Mori 2019,
                         1907.09682), for which student and teacher may be of different widths
    matches: both        D = outputs + `feature_weight` · features

What is distilled is what the algorithms of the named stages do, so that teacher and student may be of different
algorithms and models. `teachers` with several stages, or one that has copies, are an ensemble, whose probabilities
are averaged at the temperature T. `student` is an earlier stage: with `start: fresh` the student begins anew as that
stage did, with `start: trained` where it ended. That stage is thus the control, the same student after as many steps
without a teacher; with `draws_as: student` in this stage both have the same first weights and the same tasks.
Born-again networks (Furlanello et al. 2018, 1805.04770) are a chain of stages, each with the one before as `teachers`
and the first as `student`.

With `student_shots` the teachers adapt to the whole support and the student to a part of it: evaluate it with
`evaluation.shots`. With `share: 0` nothing is distilled, which is the control of such a student.

The model of this stage plays no part: that of the stage `student` is the student's.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax

from metarun import base, errors, trees
from metarun.algorithms import _ensemble, _inner, _last_layer, _teaching
from metarun.ranges import Above, AtLeast, Between


@dataclass(frozen=True)
class Config:
    """Who teaches whom, and what is matched."""

    teachers: tuple[str, ...] = ("teacher",)  # earlier stages; several are an ensemble
    student: str = "student"  # the earlier stage whose algorithm and model are the student's
    start: Literal["fresh", "trained"] = (
        "fresh"  # the student's weights at first: as its stage began, or ended
    )
    matches: Literal["outputs", "features", "both"] = "outputs"  # of the query
    temperature: Annotated[float, Between(1e-3, 1e5)] = 1.0  # T, of logits
    share: Annotated[float, Between(0, 1)] = 0.5  # α of the matching; the rest is the student's own loss
    feature_weight: Annotated[float, Above(0)] = 1.0  # of the features beside the outputs, with matches: both
    student_shots: Annotated[int, AtLeast(1)] | None = (
        None  # support examples of a class (without classes: in all) that the student sees; null: all
    )

    def __post_init__(self):
        if not self.teachers:
            raise ValueError("there are no teachers", "name one earlier stage or more")


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions: those of the student, with another loss.

    Returns:
      An algorithm that trains what the student's does, over the frozen {"student", "teachers"}. Its init raises
      ConfigError where that is nothing, the support is smaller than `student_shots`, or features have no last layer to
      be found by.

    Raises:
      ValueError: a stage is not there.
    """
    teachers = _ensemble.choose("teachers", config.teachers, earlier)
    student = _ensemble.choose("student", (config.student,), earlier)[config.student]
    distance = make_distance(config, teachers, student, objective)

    def own(weights: base.Weights) -> base.Weights:
        return base.Weights(weights.trained, weights.frozen["student"])

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        start = student.init(key, episodes, earlier)
        refuse_nothing_to_train(config, start.trained)
        if config.start == "trained":
            refuse_copies(config, student, key, episodes, earlier)
            start = earlier[config.student]
        taught = _ensemble.stack(teachers, key, episodes, earlier)
        weights = base.Weights(start.trained, {"student": start.frozen, "teachers": taught})
        jax.eval_shape(loss, weights, trees.first(episodes), key)  # refuses what cannot be matched
        return weights

    def adapt(weights: base.Weights, support: base.Examples):
        return student.adapt(own(weights), support)

    def loss(weights: base.Weights, episode: base.Episode, key, *done):
        query, few = episode.query, _teaching.few(episode.support, config.student_shots, objective.ways)
        learner = adapt(weights, few)
        _, metrics = _inner.query_loss(objective, student.predict(learner, query.inputs), query)
        matching = own_loss = 0.0
        if config.share > 0:
            learners = _ensemble.adapt(teachers, weights.frozen["teachers"], episode.support)
            matching = distance(learner, learners, query)
            metrics = metrics | {"matching_loss": matching}
        if config.share < 1:
            own_loss, _ = student.loss(own(weights), episode._replace(support=few), key, *done)
        return (1 - config.share) * own_loss + config.share * matching, metrics

    def update(weights: base.Weights, learner, support: base.Examples):
        return student.update(own(weights), learner, support)  # type: ignore[misc]

    goes_on = update if student.update else None
    return base.Algorithm(init, loss, adapt, student.predict, student.annealed, goes_on)


def make_distance(
    config: Config, teachers: _ensemble.Algorithms, student: base.Algorithm, objective: base.Objective
):
    """(student's learner, teachers' learners, query) -> D."""

    def of_outputs(learner, learners, query: base.Examples):
        taught = _ensemble.predict(teachers, learners, query.inputs)
        answered = student.predict(learner, query.inputs)
        return _teaching.output_distance(objective, answered, taught, query.targets, config.temperature)

    def of_features(learner, learners, query: base.Examples):
        taught = [
            jax.vmap(
                lambda each, stage=stage, algorithm=algorithm: _last_layer.features(
                    algorithm.predict, each, query.inputs, stage
                )
            )(learners[stage])
            for stage, algorithm in teachers.items()
        ]
        found = _last_layer.features(student.predict, learner, query.inputs, config.student)
        return _teaching.feature_distance(found, taught)

    def of_both(*arguments):
        return of_outputs(*arguments) + config.feature_weight * of_features(*arguments)

    return {"outputs": of_outputs, "features": of_features, "both": of_both}[config.matches]


def refuse_copies(config: Config, student: base.Algorithm, key, episodes: base.Episode, earlier) -> None:
    """Raise ConfigError where the student's stage ended with several sets of weights."""
    if _ensemble.has_copies(config.student, student, key, episodes, earlier):
        raise errors.ConfigError(
            f"the stage {config.student} has copies, and the student is one",
            "algorithm.student",
            "set start: fresh, or name a stage without copies",
        )


def refuse_nothing_to_train(config: Config, trained: base.PyTree) -> None:
    """Raise ConfigError where there is nothing that a teacher could change."""
    if not jax.tree.leaves(trained):
        raise errors.ConfigError(
            f"the student {config.student} trains nothing",
            "algorithm.student",
            "name a stage whose algorithm has parameters of its own",
        )
