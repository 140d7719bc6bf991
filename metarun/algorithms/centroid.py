"""The nearest class mean of frozen features: no training and no gradient, for each task an average.

With f the features from the body of the stage `pretrained`, and c_k the mean of those of class k in the support, the
logits of a query are −‖f(x) − c_k‖². Before that the features become (Wang et al. 2019, SimpleShot, arXiv 1911.04623)

    transform: none           f                            their UN
    transform: unit           f / ‖f‖                      their L2N
    transform: centred_unit   (f − m) / ‖f − m‖            their CL2N, m the mean of f over training examples

Deviation: m is the mean over the episodes of the stage's first step (`tasks_per_step` of them), not over the whole
training split.

The stage has nothing to train, and needs no `training`: the mean of features is over 32 training tasks, or over
`training: {tasks_per_step: …}`.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax

from metarun import base, trees
from metarun.blocks import earlier_stages, metric_space, outer_loss, pretrained_body, target_kinds

EXAMPLE = base.Example(earlier=("pretrain",))


@dataclass(frozen=True)
class Config:
    """The features."""

    pretrained: str = "pretrain"  # name of the earlier stage whose features are used
    # What happens to the features first: nothing, length 1, or the training mean taken off and then length 1.
    transform: Literal["none", "unit", "centred_unit"] = "centred_unit"

    @property
    def trains_nothing(self) -> bool:
        """Whether a stage has nothing to train, and so needs no `training`."""
        return True


class Learner(NamedTuple):
    """The frozen weights, and the class means of one task."""

    frozen: base.PyTree
    means: base.PyTree  # [way, feature]
    reference: base.PyTree  # the support's inputs


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions on the earlier stage `pretrained`.

    Returns:
      An algorithm that trains nothing: its weights are the frozen {"body", "mean"}. Its init raises ConfigError if
      that stage has another model.

    Raises:
      ValueError: there is no such stage, or the targets are no classes.
    """
    ways = target_kinds.require_ways(problem, "centroid")
    earlier_stages.find("pretrained", config.pretrained, earlier)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs, weights = trees.first(episodes.support.inputs), earlier[config.pretrained]
        body = pretrained_body.extract_body(config.pretrained, weights, model, inputs)
        if config.transform != "centred_unit":
            return base.Weights((), {"body": body, "mean": ()})
        features = jax.lax.map(lambda task: model.embed(body, task, reference=task), episodes.support.inputs)
        return base.Weights((), {"body": body, "mean": features.mean(axis=(0, 1))})

    def compute_features(frozen, inputs, reference):
        features = model.embed(frozen["body"], inputs, reference=reference)
        if config.transform == "none":
            return features
        if config.transform == "centred_unit":
            features = features - frozen["mean"][None]
        return metric_space.unit(features)

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        inputs = support.inputs
        features = compute_features(weights.frozen, inputs, inputs)
        return Learner(weights.frozen, metric_space.class_means(features, support.targets, ways), inputs)

    def predict(learner: Learner, inputs):
        features = compute_features(learner.frozen, inputs, learner.reference)
        return -metric_space.squared_distances(features, learner.means)

    loss = outer_loss.make_query_loss(adapt, predict, problem.objective)
    return base.Algorithm(init, loss, adapt, predict)
