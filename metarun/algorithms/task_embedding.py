"""A task as a vector: `support → e` in R^d, from gradients, adapted weights, probes, encoders or pooled features.

With θ the network of the earlier stage `pretrained`, L_S the support loss and φ the network's body, `source` is

    gradient        ∇L_S(θ)
    fisher          diag F at θ_K, the network after a few steps on the support (Task2Vec: Achille et al. 2019,
                    arXiv 1902.03545); F is the Fisher information of the support's inputs
    adapted         θ_K − θ
    prototype       the mean of φ(x) over the support; for numbers y the means of φ(x), y and φ(x)·y
    collaborative   u in s_p ≈ b_p + σ u·v_p, where s_p is the log support loss of probe p, the network adapted to the
                    p-th of some training tasks; v is fitted to a matrix with gaps (Hu, Koren, Volinsky 2008)
    variational     the mean of q(e | S) = N(µ(S), σ(S)²), an encoder of the set (in the manner of Edwards and Storkey
                    2016, 1606.02185, and Garnelo et al. 2018, 1807.01622), trained by the bound
                    −log p(y | x, e) + β KL(q ‖ N(0, 1)) / |S ∪ Q|, a mean over S ∪ Q
    adversarial     the same encoder without deviations; a discriminator between its vectors and draws of N(0, 1) is in
                    the place of the divergence (Makhzani et al. 2015, 1511.05644)

The first five train nothing. Their `scaling` and PCA, the factorisation and k-means are fitted once, to the training
tasks of the first step: give such a stage `training: {steps: 1, tasks_per_step: 512, task_chunk: 32}`. It answers
queries as the earlier stage does. The encoders train from scratch, need no earlier stage, and answer by their decoder.

In a classification, gradients are of cosines with the class means (`head: means`), because the last layer's depend on
which class has which label; Task2Vec fits a last layer to the task for the same reason.

Deviations: Task2Vec estimates F by a variational bound or by samples, averages it over each filter and fits the last
layer alone; here the diagonal is exact, whole, and follows steps of all parameters. The probes of a new task are always
the first `observed`. The variational squared error is a Gaussian likelihood of variance ½; β stands for other ones.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from metarun import base, errors, trees
from metarun.algorithms import _collaborative, _embedding, _encoder, _features, _inner, _reduction, _transfer
from metarun.algorithms._embedding import Learner
from metarun.ranges import Above, AtLeast, AtMost

ENCODERS = ("variational", "adversarial")
REDUCED = ("gradient", "fisher", "adapted", "prototype")  # sources of long vectors


@dataclass(frozen=True)
class Config:
    """Where the vector comes from, and what is made of it."""

    source: Literal[
        "gradient", "fisher", "adapted", "prototype", "collaborative", "variational", "adversarial"
    ] = "gradient"  # see the head of this module
    pretrained: str = "maml"  # name of the earlier stage with the network; not for the encoders
    parameters: Literal["all", "head", "body"] = (
        "all"  # whose gradients, changes or information; head: last layer
    )
    head: Literal["own", "means"] | None = (
        None  # of L_S: the last layer, or class means; null: means for classes
    )
    adapted_steps: Annotated[int, AtLeast(1)] = 5  # K, gradient steps of adapted, fisher and the probes
    adapted_lr: Annotated[float, Above(0)] = 0.01  # of these steps
    scaling: Literal["none", "unit", "logarithm"] = "unit"  # of a long vector, before PCA; unit: length 1;
    # logarithm: sign(v)·log(1 + |v|/mean |v|)
    reduction: Literal["pca", "none"] = "pca"  # of long vectors, of gradient, fisher, adapted and prototype
    dimensions: Annotated[int, AtLeast(1), AtMost(4096)] = 16  # of the vector, except with reduction none
    variance: Annotated[float, Above(0), AtMost(1)] | None = None  # share that PCA keeps; null: all of it.
    # The components beyond are zero: a compiled program must know the length
    whiten: bool = False  # each principal component at a variance of 1
    clusters: Annotated[int, AtLeast(2)] | None = None  # of k-means on the vectors; null: none
    membership: Literal["soft", "hard"] = "soft"  # in the clusters
    probes: Annotated[int, AtLeast(2)] = 64  # training tasks whose adapted networks score other tasks
    observed: Annotated[int, AtLeast(1)] = 32  # probes that score a task: any in the fit, then the first ones
    ridge: Annotated[float, Above(0)] = 1.0  # λ of the factorisation, for scores of variance 1
    width: Annotated[int, AtLeast(1)] = 128  # units of the encoder's and decoder's layers
    depth: Annotated[int, AtLeast(1)] = 3  # layers of the encoder, and of the decoder
    divergence_weight: Annotated[float, AtLeast(0)] = 1.0  # β
    adversarial_weight: Annotated[float, AtLeast(0)] = 0.1  # of the encoder's part against the discriminator

    def __post_init__(self):
        if self.source in ENCODERS and self.clusters is not None:
            raise ValueError(
                f"clusters are fitted before the {self.source} encoder is trained", "set clusters: null"
            )
        if self.head == "means" and self.parameters == "head":
            raise ValueError(
                "class means have no parameters of a last layer", "set parameters to body or all"
            )
        if self.observed > self.probes:
            raise ValueError(f"{self.observed} of {self.probes} probes cannot be observed")


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions; except for the encoders on the earlier stage `pretrained`.

    Returns:
      An algorithm whose learner is a `Learner`: its `embedding` is the vector, float32 [embed]. Its init raises
      ConfigError where the earlier stage has another model, or where there are fewer training tasks than it needs.

    Raises:
      ValueError: there is no such stage, or targets are neither labels nor numbers, or have no class means.
    """
    labelled = _features.has_labels(objective)
    if config.head == "means" and not labelled:
        raise ValueError("numbers have no class means", "set head: own")
    if config.source in ENCODERS:
        return build_encoder(config, model, objective)
    _transfer.refuse_missing(config.pretrained, earlier)
    return build_fitted(config, model, objective, earlier[config.pretrained])


def build_fitted(
    config: Config, model: base.Model, objective: base.Objective, solver: base.Algorithm
) -> base.Algorithm:
    """A source on the network of an earlier stage, whose algorithm is `solver`. Trains nothing.

    What is frozen: the weights of that stage ("solver"), its network ("network"), and the fits.
    """
    vector, fit = make_source(config, model, objective)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs, weights = trees.first(episodes.support.inputs), earlier[config.pretrained]
        refuse_few(config, count(episodes))
        with_head = not uses_means(config, objective) and config.source != "prototype"
        network = _embedding.network_of(config.pretrained, weights, model, inputs, with_head)
        frozen = {"solver": weights, "network": network}
        source_key, cluster_key = jax.random.split(key)
        frozen |= fit(source_key, frozen, episodes.support)
        if config.clusters:
            vectors = batched(lambda support: vector(frozen, support), episodes.support)
            frozen["clusters"] = _reduction.fit_clusters(cluster_key, vectors, config.clusters)
        return base.Weights((), frozen)

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        frozen = weights.frozen
        embedding, cluster = vector(frozen, support), None
        if config.clusters:
            cluster = _reduction.membership(frozen["clusters"], embedding, config.membership == "hard")
        return Learner(embedding, cluster, solver.adapt(frozen["solver"], support))

    def predict(learner: Learner, inputs):
        return solver.predict(learner.solver, inputs)

    def loss(weights: base.Weights, episode: base.Episode, key):
        outputs = predict(adapt(weights, episode.support), episode.query.inputs)
        return _inner.query_loss(objective, outputs, episode.query)

    return base.Algorithm(init, loss, adapt, predict)


def make_source(config: Config, model: base.Model, objective: base.Objective):
    """(vector, fit): (frozen, support) -> [embed], and (key, frozen, supports [task]) -> more of `frozen`."""
    if config.source == "collaborative":
        return make_collaborative(config, model, objective)
    long = make_long(config, model, objective)

    def vector(frozen, support: base.Examples):
        whole = long(frozen["network"], support)
        return whole if config.reduction == "none" else _reduction.project(frozen["components"], whole)

    def fit(key, frozen, supports: base.Examples):
        if config.reduction == "none":
            return {}
        vectors = batched(lambda support: long(frozen["network"], support), supports)
        components = _reduction.fit_components(vectors, config.dimensions, config.variance, config.whiten)
        return {"components": components}

    return vector, fit


def make_long(config: Config, model: base.Model, objective: base.Objective):
    """(network, support) -> the scaled vector [feature] before any reduction."""
    labelled = _features.has_labels(objective)
    outputs, loss = make_loss(config, model, objective)
    descend = _embedding.make_adapt(loss, _embedding.Descent(config.adapted_steps, config.adapted_lr))

    def long(params, support: base.Examples):
        match config.source:
            case "gradient":
                whole = _embedding.gradient(loss, params, support, config.parameters)
            case "adapted":
                whole = _embedding.change(descend, params, support, config.parameters)
            case "fisher":
                adapted = descend(params, support)
                whole = _embedding.fisher(outputs, adapted, support, config.parameters, labelled)
            case _:
                whole = _embedding.pooled(model, params, support, labelled)
        return _embedding.scaled(whole, config.scaling)

    return long


def make_loss(config: Config, model: base.Model, objective: base.Objective):
    """(outputs, loss): (params, support) -> the outputs, and L_S."""
    outputs = _embedding.make_outputs(model, objective.ways if uses_means(config, objective) else None)

    def loss(params, support: base.Examples):
        return objective.loss(outputs(params, support), support.targets)

    return outputs, loss


def make_collaborative(config: Config, model: base.Model, objective: base.Objective):
    """As `make_source`. The fit computes the scores of every task by every probe, and hides all but `observed`."""
    _, loss = make_loss(config, model, objective)
    descend = _embedding.make_adapt(loss, _embedding.Descent(config.adapted_steps, config.adapted_lr))

    def scores(probes, support: base.Examples):
        losses = jax.vmap(loss, in_axes=(0, None))(probes, support)
        return jnp.log(losses + 1e-6)  # nats or squared units, far below any loss that noise leaves

    def vector(frozen, support: base.Examples):
        known = jax.tree.map(lambda leaf: leaf[: config.observed], frozen["probes"])
        return _collaborative.place(frozen["factors"], scores(known, support), config.ridge)

    def fit(key, frozen, supports: base.Examples):
        own = jax.tree.map(lambda leaf: leaf[: config.probes], supports)
        probes = batched(lambda support: descend(frozen["network"], support), own)
        matrix = batched(lambda support: scores(probes, support), supports)
        mask_key, start_key = jax.random.split(key)
        mask = _collaborative.draw_observed(mask_key, len(matrix), config.probes, config.observed)
        factors = _collaborative.factorise(start_key, matrix, mask, config.dimensions, config.ridge)
        return {"probes": probes, "factors": factors}

    return vector, fit


def build_encoder(config: Config, model: base.Model, objective: base.Objective) -> base.Algorithm:
    """The encoder and its decoder, and with source adversarial the discriminator."""
    variational = config.source == "variational"
    shape = _encoder.Shape(config.dimensions, config.width, config.depth, variational, objective.ways)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        trained = _encoder.init(key, shape, model, trees.first(episodes.support))
        if not variational:
            trained["discriminator"] = _encoder.init_discriminator(jax.random.fold_in(key, 1), shape)
        return base.Weights(trained)

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        mean, _ = _encoder.encode(shape, model, weights.trained, support)
        return Learner(mean, None, {"trained": weights.trained, "support": support})

    def predict(learner: Learner, inputs):
        solver = learner.solver
        return _encoder.decode(shape, model, solver["trained"], learner.embedding, solver["support"], inputs)

    def loss(weights: base.Weights, episode: base.Episode, key):
        support, whole = episode.support, _features.join(episode.support, episode.query)
        vector, deviation = _encoder.encode(shape, model, weights.trained, support)
        learner = Learner(vector, None, {"trained": weights.trained, "support": support})
        if variational:
            drawn = vector + deviation * jax.random.normal(key, vector.shape)
            learner, extra = learner._replace(embedding=drawn), _encoder.divergence(vector, deviation)
            penalty, noted = config.divergence_weight * extra / whole.targets.shape[0], {"divergence": extra}
        else:
            told_apart, taken = _encoder.contest(weights.trained["discriminator"], vector, key)
            penalty, noted = told_apart + config.adversarial_weight * taken, {"discriminator": told_apart}
        error, metrics = _inner.query_loss(objective, predict(learner, whole.inputs), whole)
        return error + penalty, metrics | noted

    return base.Algorithm(init, loss, adapt, predict)


def uses_means(config: Config, objective: base.Objective) -> bool:
    """Whether the outputs under L_S are cosines with class means."""
    return config.head == "means" or (config.head is None and objective.ways is not None)


def count(episodes: base.Episode) -> int:
    """How many tasks there are."""
    return int(jax.tree.leaves(episodes.support)[0].shape[0])


def batched(function, supports: base.Examples, at_once: int = 32):
    """The function of every task, some at a time: the gradients of hundreds of tasks need much memory at once."""
    return jax.lax.map(function, supports, batch_size=at_once)


def refuse_few(config: Config, tasks: int) -> None:
    """Raise ConfigError where there are fewer training tasks than clusters or probes, or one without variance."""
    reduced = config.source in REDUCED and config.reduction == "pca"
    needs = {
        f"{config.clusters} clusters": config.clusters or 0,
        f"{config.probes} probes": config.probes * (config.source == "collaborative"),
        "principal components": 2 * reduced,
    }
    for name, wanted in needs.items():
        if tasks < wanted:
            raise errors.ConfigError(
                f"{name} need at least {wanted} training tasks, and the stage is fitted to {tasks}",
                "training.tasks_per_step",
                f"set tasks_per_step of the stage to {wanted} or more, several times that if you can",
            )
