"""Pooled pre-training: one network learns all training classes, or all training tasks, at once.

With φ the body of the model and (W, b) a last layer of its own, the outer objective is the plain supervised loss of all
examples of an episode, support and query alike:

    classification    cross-entropy of W·φ(x) + b over ALL training classes, facts["class"] of the family
    regression        squared error of W·φ(x) + b, as if all tasks were one

This is the first stage of the "Baseline" of Chen et al. 2019, arXiv 1904.04232, and of Tian et al. 2020, 2003.11539.
Later stages (`finetune`, `logistic`, `centroid`) name it and adapt what it has learned. By itself it answers with the
nearest mean of the support's features (Euclidean), and in a regression with W·φ(x) + b, whatever the support is.

Deviation: the papers draw batches of examples; here a batch is the episodes of a step. Batch statistics are those of
one episode, so that an episode of many ways is nearer to the papers than one of few.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax

from metarun import base, trees
from metarun.blocks import backbone, metric_space, networks, outer_loss, target_kinds

EXAMPLE = base.Example(ignores_support=("numbers",))


@dataclass(frozen=True)
class Config:
    """There is nothing to choose: the model and the training section say everything."""


class Learner(NamedTuple):
    """The pre-trained network, and the class means of the support's features."""

    trained: base.PyTree
    reference: base.PyTree  # the support's inputs
    means: base.PyTree  # [way, feature]; () in a regression


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions. No earlier stage is needed.

    Returns:
      An algorithm that trains {"body", "head"}. Its loss metrics are those of the pooled problem: `accuracy` is over
      all training classes.

    Raises:
      ValueError: the family is a classification that does not number its training classes.
    """
    refuse_unnumbered_classes(problem)
    classifies, ways = problem.spec.targets == "classes", problem.spec.output_size

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        body_key, head_key = jax.random.split(key)
        inputs = trees.first(episodes.support.inputs)
        body = backbone.init_body(model, body_key, inputs)
        outputs = problem.training_classes or problem.spec.output_size
        head = networks.init_dense(head_key, backbone.count_features(model, body, inputs), outputs)
        return base.Weights({"body": body, base.HEAD: head})

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
        features = model.embed(weights.trained["body"], examples.inputs)
        outputs = networks.dense(weights.trained[base.HEAD], features)
        return outer_loss.judge(problem.objective, outputs, examples)

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
