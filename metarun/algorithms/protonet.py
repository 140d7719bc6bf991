"""Prototypical networks: a class is the mean of its support's features, and the nearest class wins.

Snell, Swersky, Zemel 2017, arXiv 1703.05175. With the features f and the support S_k of class k,

    c_k = 1/|S_k| Σ_{x in S_k} f(x),    p(y = k | x) = softmax_k(−d(f(x), c_k)),    loss = −log p(y | x) over the query;

d is the squared Euclidean distance or, with `distance: cosine`, −cos(f(x), c_k). `scale` is a factor of the logits, an
inverse temperature, which the paper does not have. Without such a factor no probability of cosines comes near 1.
Distances between many features begin large, and learning is faster with a scale below 1: after 400 steps on Omniglot
(20 ways, conv4 of width 32 with 128 flattened features) the accuracy on 5-way test episodes was 76.9 ± 1.3 % with 1 and
87.7 ± 1.0 % with 0.1, one seed.

The paper trains in more ways than it tests (60 for 5): `task.ways`, `task.shots` and `task.queries` set the training,
and `evaluation.ways`, `.shots` and `.queries` set every evaluation, validation too. No weight depends on them: the
model's last layer would have no gradient, and is not among the weights.

Where we differ: the authors' code normalises training episodes by the statistics of support and query together, and
evaluates with running averages of these. Here, in inductive mode, the support normalises both, in training as in
evaluation.
"""

from dataclasses import dataclass

from metarun import base, trees
from metarun.blocks import backbone, metric_space, outer_loss, prototypes, target_kinds
from metarun.options import Similarity


@dataclass(frozen=True)
class Config(Similarity):
    """How near a query is to a class."""


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions. Needs no earlier stage.

    Returns:
      An algorithm whose weights are the model's without its last layer, and whose outputs are logits [example, way].

    Raises:
      ValueError: the family is no classification.
    """
    ways = target_kinds.require_ways(problem, "protonet")

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        return base.Weights(backbone.init_body(model, key, trees.first(episodes.support.inputs)))

    def place_classes(weights: base.Weights, features, labels):
        return metric_space.class_means(features, labels, ways)

    adapt = prototypes.make_adapt(model, lambda weights: weights.trained, place_classes)
    predict = prototypes.make_predict(model, config)
    loss = outer_loss.make_query_loss(adapt, predict, problem.objective)
    return base.Algorithm(init, loss, adapt, predict)
