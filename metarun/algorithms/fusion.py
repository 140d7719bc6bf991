"""Fusion: several members that were trained before become one model, which adapts to new tasks as a whole.

The members f_i are one earlier stage that has copies, or several stages, whose algorithms and models may differ where
only their outputs or features are used. Each member first adapts to the support by its own algorithm; then

    kind: average        f = 1/M Σ f_i
    kind: weighted       f = Σ w_i f_i, w the softmax of M trained numbers
    kind: per_task       the same with w_i = softmax_i(−L_i / τ), L_i the support's loss of an adapted member, τ trained
    kind: concatenate    f = W·[φ_1, …, φ_M] + b on the features before the last layers; W, b are a trained start

`outer_loss` is that of the weights: `fused` is L(f), `members` is Σ w_i L(f_i), `both` their sum. With
`mixes: probabilities` logits are averaged as log Σ w_i softmax(f_i). Or the members' weights become one set, which
adapts by the algorithm of the first member:

    kind: soup           their mean (Wortsman et al. 2022, arXiv 2203.05482)
    kind: greedy_soup    the mean of those that lower the loss of the first step's episodes (the same, recipe 1)
    kind: rebasin        their mean after the hidden units of each are put in the order of the first member's by weight
                         matching (Ainsworth et al. 2022, 2209.04836), for `mlp` and `conv4`

At last the fused model takes `fused_steps` gradient steps on the support: `adapts: fusion` changes w or (W, b),
`adapts: all` also what the members have made of the task. Of `concatenate` the step size is divided by 1 + the mean of
‖φ‖² over the support, as in normalised least mean squares: features of many members are long, and a rate that one
member bears is too much for four.

Average, and the kinds that merge weights, have nothing to train: give them `training: {steps: 1}`. The episodes
that the greedy soup is chosen by are training episodes, `tasks_per_step` of them. Deviation of `rebasin` with more
than two members: all are aligned with the first, where the paper's MergeMany aligns each with the others' mean in turn.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metarun import base, errors, trees
from metarun.algorithms import _ensemble, _features, _inner, _last_layer, _network, _rebasin, _soup
from metarun.base import PyTree
from metarun.ranges import Above, AtLeast

MERGING = ("soup", "greedy_soup", "rebasin")  # the kinds that make one set of weights


@dataclass(frozen=True)
class Config:
    """Who is fused, and how."""

    members: tuple[str, ...] = ("members",)  # one earlier stage with copies, or several
    kind: Literal["average", "weighted", "per_task", "concatenate", "soup", "greedy_soup", "rebasin"] = (
        "weighted"  # see above
    )
    mixes: Literal["outputs", "probabilities"] = (
        "outputs"  # of average, weighted and per_task: what is averaged
    )
    outer_loss: Literal["fused", "members", "both"] = "fused"  # of weighted and per_task
    fused_steps: Annotated[int, AtLeast(0)] = 0  # gradient steps of the fused model on the support
    fused_lr: Annotated[float, Above(0)] = 0.1  # step size, for a loss that is the mean over the support
    adapts: Literal["fusion", "all"] = "fusion"  # what these steps change

    def __post_init__(self):
        if not self.members:
            raise ValueError("there are no members", "name one earlier stage with copies, or several")
        if self.kind in MERGING and self.fused_steps and self.adapts == "fusion":
            raise ValueError(f"a {self.kind} has nothing of its own to adapt", "set adapts: all")
        if self.outer_loss != "fused" and self.kind not in ("weighted", "per_task"):
            raise ValueError(f"{self.kind} trains no weights of members", "leave outer_loss out")
        if self.mixes != "outputs" and self.kind not in ("average", "weighted", "per_task"):
            raise ValueError(f"{self.kind} averages no outputs", "leave mixes out")


class Learner(NamedTuple):
    """The members adapted to one task, and what fuses them."""

    members: PyTree  # {stage: learner [member, ...]}
    fusion: PyTree  # log w [member], not yet normalised; or the head on all features


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions, on the earlier stages `members`. The model of this stage plays no part.

    Returns:
      An algorithm whose members' weights are frozen. Its init raises ConfigError where weights of different shapes
      should become one, or members have no features.

    Raises:
      ValueError: a stage is not there, or numbers should be averaged as probabilities.
    """
    algorithms = _ensemble.choose("members", config.members, earlier)
    if config.mixes == "probabilities" and objective.ways is None:
        raise ValueError("this task family has no classes, and mixes is probabilities", "set mixes: outputs")
    if config.kind in MERGING:
        return merged(config, algorithms, objective)
    if config.kind == "concatenate":
        return concatenated(config, algorithms, objective)
    return mixed(config, algorithms, objective)


def merged(config: Config, algorithms: _ensemble.Algorithms, objective: base.Objective) -> base.Algorithm:
    """One set of weights, frozen, which adapts by the algorithm of the first stage."""
    algorithm = algorithms[config.members[0]]

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        stacked = _ensemble.stack(algorithms, key, episodes, earlier)
        members = _ensemble.line_up(stacked, "take members of one algorithm and model, or kind: average")
        if config.kind == "greedy_soup":
            criterion = _soup.make_criterion(algorithm, objective, episodes)
            return base.Weights((), _soup.greedy(members, criterion))
        return base.Weights((), _soup.uniform(aligned(members) if config.kind == "rebasin" else members))

    def adapt(weights: base.Weights, support: base.Examples):
        learner = algorithm.adapt(weights.frozen, support)
        return refine(config, algorithm.predict, objective, learner, support)

    return with_query_loss(init, adapt, algorithm.predict, objective)


def aligned(members: base.Weights) -> base.Weights:
    """The members [member, ...], each with its hidden units in the order of the first's.

    Raises:
      ConfigError: their weights are no chain of layers.
    """
    if jax.tree.leaves(members.frozen):
        raise errors.ConfigError(
            "rebasin puts trained weights in order, and the members have frozen ones too",
            "algorithm.kind",
            "take members that train all of their weights, or another kind, such as average",
        )
    first = trees.first(members.trained)
    return members._replace(trained=jax.lax.map(lambda each: _rebasin.align(first, each), members.trained))


def mixed(config: Config, algorithms: _ensemble.Algorithms, objective: base.Objective) -> base.Algorithm:
    """The average of outputs, with weights that are equal, trained, or of the task."""

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        members = _ensemble.stack(algorithms, key, episodes, earlier)
        count = _ensemble.count(members)
        start = {"weighted": {"scores": jnp.zeros(count)}, "per_task": {"log_temperature": jnp.zeros(())}}
        return base.Weights(start.get(config.kind, ()), {"members": members})

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        members = _ensemble.adapt(algorithms, weights.frozen["members"], support)
        if config.kind == "weighted":
            scores = weights.trained["scores"]
        elif config.kind == "per_task":
            losses = losses_of(members, support)
            scores = -losses * jnp.exp(-weights.trained["log_temperature"])
        else:
            scores = jnp.zeros(_ensemble.count(weights.frozen["members"]))
        return refine(config, predict, objective, Learner(members, scores), support)

    def predict(learner: Learner, inputs):
        outputs = _ensemble.predict(algorithms, learner.members, inputs)
        return _ensemble.mix(outputs, jax.nn.log_softmax(learner.fusion), config.mixes == "probabilities")

    def losses_of(members, examples: base.Examples):
        outputs = _ensemble.predict(algorithms, members, examples.inputs)
        return jax.vmap(objective.loss, in_axes=(0, None))(outputs, examples.targets)

    def loss(weights: base.Weights, episode: base.Episode, key):
        learner, query = adapt(weights, episode.support), episode.query
        shares = jax.nn.softmax(learner.fusion)
        fused, metrics = _inner.query_loss(objective, predict(learner, query.inputs), query)
        metrics = metrics | {f"weight_{index}": share for index, share in enumerate(shares)}
        if config.outer_loss == "fused":
            return fused, metrics
        apart = jnp.sum(shares * losses_of(learner.members, query))
        return apart + (fused if config.outer_loss == "both" else 0.0), metrics

    return base.Algorithm(init, loss, adapt, predict)


def concatenated(
    config: Config, algorithms: _ensemble.Algorithms, objective: base.Objective
) -> base.Algorithm:
    """A new last layer on the features of all members."""

    def features(members, inputs):
        found = [
            jax.vmap(
                lambda each, stage=stage, algorithm=algorithm: _last_layer.features(
                    algorithm.predict, each, inputs, stage
                )
            )(members[stage])
            for stage, algorithm in algorithms.items()
        ]
        return jnp.concatenate([one for part in found for one in part], axis=-1)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        members = _ensemble.stack(algorithms, key, episodes, earlier)
        support = trees.first(episodes.support)

        def outputs(support):
            learners = _ensemble.adapt(algorithms, members, support)
            answers = _ensemble.predict(algorithms, learners, support.inputs)
            return features(learners, support.inputs), answers[0]

        wide, answers = jax.eval_shape(outputs, support)
        head = _network.init_dense(key, wide.shape[-1], answers.shape[-1])
        return base.Weights({_features.HEAD: head}, {"members": members})

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        members = _ensemble.adapt(algorithms, weights.frozen["members"], support)
        learner = Learner(members, weights.trained[_features.HEAD])
        length = jnp.square(features(members, support.inputs)).sum(axis=-1).mean()
        return refine(config, predict, objective, learner, support, config.fused_lr / (1 + length))

    def predict(learner: Learner, inputs):
        return _network.dense(learner.fusion, features(learner.members, inputs))

    return with_query_loss(init, adapt, predict, objective)


def with_query_loss(init, adapt, predict, objective: base.Objective) -> base.Algorithm:
    """The algorithm whose outer objective is the query loss after adaptation."""

    def loss(weights: base.Weights, episode: base.Episode, key):
        outputs = predict(adapt(weights, episode.support), episode.query.inputs)
        return _inner.query_loss(objective, outputs, episode.query)

    return base.Algorithm(init, loss, adapt, predict)


def refine(config: Config, predict, objective: base.Objective, learner, support: base.Examples, rate=None):
    """The learner after `fused_steps` steps on the support, of all its numbers but those of its `reference`.

    Args:
      rate: step size; None: `fused_lr`.
    """
    if config.fused_steps == 0:
        return learner
    leaves = jax.tree_util.tree_leaves_with_path(learner)
    numbers = {_inner.names(path) for path, leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}

    def moves(path: tuple[str, ...]) -> bool:
        own = config.adapts == "all" or path[0] == "fusion"
        return own and path in numbers and "reference" not in path

    fast, slow = _inner.partition(learner, moves)

    def support_loss(fast):
        return objective.loss(predict(_inner.merge(fast, slow), support.inputs), support.targets)

    rate = config.fused_lr if rate is None else rate
    step = _inner.make_step(jax.grad(support_loss), optax.identity(), rate, None, "second")
    (fast, _), _ = _inner.repeat(step, (fast, optax.EmptyState()), (), config.fused_steps, "scan")
    return _inner.merge(fast, slow)
