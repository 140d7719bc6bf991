"""Pooled pre-training: one network learns all training classes, or all training tasks, at once.

With φ the body of the model and (W, b) a last layer of its own, the outer objective is the plain supervised loss of all
examples of an episode, support and query alike:

    classification    cross-entropy of W·φ(x) + b over ALL training classes, facts["class"] of the family
    regression        squared error of W·φ(x) + b, as if all tasks were one

This is the first stage of the "Baseline" of Chen et al. 2019, arXiv 1904.04232, and of Tian et al. 2020, 2003.11539.
Later stages (`finetune`, `logistic`, `centroid`) name it and adapt what it has learned. By itself it answers with the
nearest mean of the support's features (Euclidean), and in a regression with W·φ(x) + b, whatever the support is.

With `teacher`, an earlier stage of this algorithm, the network begins anew and also learns the answers t of that one:

    loss = (1 − α) L + α T² KL(softmax(t / T) ‖ softmax(W·φ(x) + b)),     α = `share`, T = `temperature`

For numbers the second term is the squared error to t. A chain of such stages is the sequential self-distillation of
Tian et al. 2020, where each teaches the next; they take α = 0.5 and T = 4.

Deviation: the papers draw batches of examples; here a batch is the episodes of a step. Batch statistics are those of
one episode, so that an episode of many ways is nearer to the papers than one of few.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from metarun import base, errors, trees
from metarun.blocks import (
    backbone,
    earlier_stages,
    metric_space,
    networks,
    outer_loss,
    output_distance,
    pretrained_body,
    target_kinds,
)
from metarun.ranges import Above, Between

EXAMPLE = base.Example(ignores_support=("numbers",))


@dataclass(frozen=True)
class Config:
    """Who teaches, if anybody; the model and the training section say everything else."""

    teacher: str | None = None  # an earlier stage of this algorithm with the same model; null: no teacher
    share: Annotated[float, Between(0, 1)] = 0.5  # α, weight of the teacher's answers in the loss
    temperature: Annotated[float, Above(0)] = 4.0  # T, by which logits are divided before they are compared


class Learner(NamedTuple):
    """The pre-trained network, and the class means of the support's features."""

    trained: base.PyTree
    reference: base.PyTree  # the support's inputs
    means: base.PyTree  # [way, feature]; () in a regression


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions. No earlier stage is needed but the teacher, if there is one.

    Returns:
      An algorithm that trains {"body", "head"}, over the frozen {"body", "head"} of the teacher or over (). Its loss
      metrics are those of the pooled problem: `accuracy` is over all training classes. Its init raises ConfigError if
      the teacher has another model, or if there are several.

    Raises:
      ValueError: the family is a classification that does not number its training classes, or there is no such teacher.
    """
    if config.teacher is not None:
        earlier_stages.find("teacher", config.teacher, earlier)
    refuse_unnumbered_classes(problem)
    classifies, ways = problem.spec.targets == "classes", problem.spec.output_size

    def compute_outputs(network, inputs):
        return networks.dense(network[base.HEAD], model.embed(network["body"], inputs))

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        body_key, head_key = jax.random.split(key)
        inputs = trees.first(episodes.support.inputs)
        body = backbone.init_body(model, body_key, inputs)
        outputs = problem.training_classes or problem.spec.output_size
        head = networks.init_dense(head_key, backbone.count_features(model, body, inputs), outputs)
        trained = {"body": body, base.HEAD: head}
        if config.teacher is None:
            return base.Weights(trained)
        return base.Weights(
            trained, extract_teacher(config.teacher, earlier[config.teacher], trained, model, inputs)
        )

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        trained, inputs = weights.trained, support.inputs
        if not classifies:
            return Learner(trained, inputs, ())
        features = model.embed(trained["body"], inputs, reference=inputs)
        return Learner(trained, inputs, metric_space.class_means(features, support.targets, ways))

    def predict(learner: Learner, inputs):
        features = model.embed(learner.trained["body"], inputs, reference=learner.reference)
        if classifies:
            return -metric_space.squared_distances(features, learner.means)
        return networks.dense(learner.trained[base.HEAD], features)

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        examples = target_kinds.join(episode.support, episode.query)
        if classifies:
            examples = examples._replace(targets=episode.facts["class"][examples.targets])
        outputs = compute_outputs(weights.trained, examples.inputs)
        own_loss, metrics = outer_loss.judge(problem.objective, outputs, examples)
        if config.teacher is None:
            return own_loss, metrics
        answers = compute_outputs(weights.frozen, examples.inputs)[None]
        distance = output_distance.measure_output_distance(
            problem, outputs, answers, examples.targets, config.temperature
        )
        return (1 - config.share) * own_loss + config.share * distance, metrics | {"matching_loss": distance}

    return base.Algorithm(init, loss, adapt, predict)


def refuse_unnumbered_classes(problem: base.Problem) -> None:
    """Refuse a task family whose training examples cannot be pooled.

    Raises:
      ValueError: the targets are sentences, or are classes that the family does not number.
    """
    target_kinds.refuse_tokens(problem)
    if problem.spec.targets == "classes" and problem.training_classes is None:
        raise ValueError(
            "this task family does not number its training classes, and pretrain tells all of them apart",
            "choose another task family, or another algorithm",
        )


def extract_teacher(
    stage: str, weights: base.Weights, trained: dict[str, base.PyTree], model: base.Model, inputs: base.PyTree
) -> dict[str, base.PyTree]:
    """Return {"body", "head"} of the teacher.

    Args:
      trained: what this stage trains; the teacher's has the same shapes.

    Raises:
      ConfigError: it has not, or no last layer over the training classes.
    """
    body = pretrained_body.extract_body(stage, weights, model, inputs, "algorithm.teacher")
    head = weights.trained.get(base.HEAD)
    if jax.tree.map(jnp.shape, head) != jax.tree.map(jnp.shape, trained[base.HEAD]):
        what = f"the stage {stage} has no last layer over all training classes"
        raise errors.ConfigError(what, "algorithm.teacher", "name a stage whose algorithm is pretrain")
    return {"body": body, base.HEAD: head}
