"""MAML whose start, step sizes or layers depend on a vector of the task: chosen, generated or modulated by it.

The vector e(S) of a support S comes from an earlier stage of `task_embedding`, standardised over the tasks that this
stage begins with, or with `embedding: null` from a set encoder (Deep Sets, arXiv 1703.06114) that is trained together
with the rest, as in MMAML (Vuorio et al. 2019, 1910.13616). The inner loop descends the support loss L_S,

    θ_0 = start(e),    θ_{k+1} = θ_k − α(e) ∘ ∇L_S(θ_k; e),

and the outer objective is the query loss L_Q(θ_K). What e does, in any combination (`uses`):

    initialisation  offset      θ_0 = θ + g(e)
                    mixture     θ_0 = Σ_c γ_c θ_c: a start for each cluster of tasks, with γ = softmax(−‖e − μ_c‖²)
                                of learned centres μ_c
    optimizer       layer       α(e) = a ∘ exp(g(e)), one for each array
                    parameter   the same, one for each number
    attention       modulation  every layer is scaled and offset by a linear map of g(e): FiLM (1709.07871), MMAML's τ
                    experts     each array of θ_0 gains Σ_m softmax_m(W e · k_m / √d) V_m, of a bank of parameters V

With a `graph` e is first smoothed over the known kinds of tasks and what these have in common, with learned edge
weights (see `_graph.py`), as ARML does (Yao et al. 2020, 2001.00745). A node is the mean vector of its kind: the loss
gains `memory_weight` times the squared distance of a task's vector from its kind's, which moves the node alone.

Each g is a perceptron with one hidden layer; a begins at `inner_lr`. With `uses: []` this is MAML, and with
`inner_steps: 0` the start is the learner. Neither e nor the maps of the modulation change in the inner loop.

Deviations from MMAML: its encoder of curves is recurrent, ours does not look at the order of the support; and it
generates the modulation of each layer from e directly, where ours has a g(e) that all layers share. In `mlp` a
modulation is feature-wise with `modulation: features`; with `inputs` g(e) stands beside the inputs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from metarun import base, trees
from metarun.algorithms import _conditioning, _experts, _inner, _network, _task_vector
from metarun.ranges import Above, AtLeast


@dataclass(frozen=True)
class Config:
    """Where the vector of a task comes from, what it is used for, and the inner loop."""

    embedding: str | None = (
        None  # name of the earlier stage whose learner has it; null: an encoder trained here
    )
    graph: str = (
        "none"  # that smooths it: none; family: of its kinds of tasks; or a CSV file of edges, a,b[,weight]
    )
    propagation_steps: Annotated[int, AtLeast(0)] = 2  # along the edges, before a task attends to the nodes
    memory_weight: Annotated[float, AtLeast(0)] = 1.0  # of the nodes' distance from their tasks in the loss
    uses: tuple[Literal["initialisation", "optimizer", "attention"], ...] = ("attention",)  # of the vector
    initialisation: Literal["offset", "mixture"] = (
        "offset"  # generated, or mixed from a start for each cluster
    )
    optimizer: Literal["layer", "parameter"] = "layer"  # step sizes, one for each array or for each number
    attention: Literal["modulation", "experts", "both"] = (
        "modulation"  # of every layer by e; over a bank by e
    )
    clusters: Annotated[int, AtLeast(1)] = 5  # starts of the mixture
    experts: Annotated[int, AtLeast(1)] = 5  # parameters of each array in the bank
    condition: Annotated[int, AtLeast(1)] = 32  # numbers that modulate the layers
    width: Annotated[int, AtLeast(1)] = 64  # units of the hidden layers of the encoder and of every g
    depth: Annotated[int, AtLeast(1)] = 2  # layers of the encoder that read each example, before their mean
    embed: Annotated[int, AtLeast(1)] = 32  # numbers of the vector of an encoder trained here
    inner_steps: Annotated[int, AtLeast(0)] = 1  # gradient steps on the support; 0: none follows the start
    inner_lr: Annotated[float, Above(0)] = 0.01  # α, or where a begins
    inner_clip_norm: Annotated[float, Above(0)] | None = None  # largest norm of an inner gradient; null: any
    order: Literal["second", "first"] = "second"  # of the outer gradient; first drops the Hessian
    loop: Literal["scan", "unroll"] = "unroll"  # of the inner steps: scan compiles faster, unroll runs faster
    rematerialise: bool = False  # recompute each inner step in the backward pass: less memory, more time

    def __post_init__(self):
        if len(set(self.uses)) < len(self.uses):
            raise ValueError("uses names one use twice", "name each once")
        if self.embedding is not None and not self.uses:
            raise ValueError("the embedding is not used", "set uses, or embedding: null")
        if self.graph != "none" and not self.uses:
            raise ValueError("the graph smooths a vector that is not used", "set uses, or graph: none")
        if self.graph not in ("family", "none"):  # the run's own config then names the same file anywhere
            object.__setattr__(self, "graph", str(Path(self.graph).expanduser().absolute()))


class Learner(NamedTuple):
    """The network adapted to one task, what modulates it, and the inputs that normalise its queries."""

    params: base.PyTree
    condition: base.PyTree  # [feature]; None without modulation
    reference: base.PyTree


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions, on the earlier stage `embedding` if there is one.

    Returns:
      An algorithm that trains {"params"} and, as far as they are used, {"encoder", "graph", "offset", "centres",
      "rates", "rate_generator", "condition", "bank"}; with the mixture "params" has a first axis [cluster]. The earlier
      stage and the edges of the graph are frozen. Its init raises ConfigError where the model takes no condition and is
      to be modulated.

    Raises:
      ValueError: there is no such stage, or an encoder is to read targets that are neither labels nor numbers, or the
        family has no kinds of tasks for a graph.
      DataError: the edge list of the graph is missing or wrong.
    """
    vectors = _task_vector.build(config, model, objective, earlier)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        model_key, vector_key, use_key = jax.random.split(key, 3)
        support = trees.first(episodes.support)
        params = init_params(config, model, model_key, support.inputs)
        if not config.uses:
            return base.Weights({"params": params})
        weights, size = vectors.init(vector_key, episodes, earlier)
        return weights._replace(
            trained=weights.trained | {"params": params} | init_uses(config, use_key, params, size)
        )

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        trained = weights.trained
        vector = vectors.read(weights, support) if config.uses else None
        params, condition = start(config, trained, vector), condition_of(trained, vector)

        def support_loss(params):
            outputs = model.apply(params, support.inputs, condition=condition, reference=support.inputs)
            return objective.loss(outputs, support.targets)

        rates = rates_of(config, trained, params, vector)
        params = _conditioning.descend(jax.grad(support_loss), params, rates, config)
        return Learner(params, condition, support.inputs)

    def predict(learner: Learner, inputs):
        return model.apply(learner.params, inputs, condition=learner.condition, reference=learner.reference)

    def loss(weights: base.Weights, episode: base.Episode, key):
        outputs = predict(adapt(weights, episode.support), episode.query.inputs)
        error, metrics = _inner.query_loss(objective, outputs, episode.query)
        if vectors.memory is None:
            return error, metrics
        memory = vectors.memory(weights, episode)
        return error + config.memory_weight * memory, metrics | {"memory_loss": jax.lax.stop_gradient(memory)}

    return base.Algorithm(init, loss, adapt, predict)


def uses(config: Config, use: str, form: str) -> bool:
    """Whether e is used so, in this form."""
    return use in config.uses and getattr(config, use) in (form, "both")


def init_params(config: Config, model: base.Model, key, inputs) -> base.PyTree:
    """The start that all tasks share, or one for each cluster, leaves [cluster, ...]."""
    condition = jnp.zeros(config.condition) if uses(config, "attention", "modulation") else None
    if not uses(config, "initialisation", "mixture"):
        return _conditioning.init_model(model, key, inputs, condition)
    keys = jax.random.split(key, config.clusters)
    return jax.vmap(lambda each: _conditioning.init_model(model, each, inputs, condition))(keys)


def init_uses(config: Config, key, params, size: int) -> dict[str, base.PyTree]:
    """What reads a vector of `size` numbers, for each use."""
    keys, parts = jax.random.split(key, 5), {}
    mixed = uses(config, "initialisation", "mixture")
    like = trees.first(params) if mixed else params
    if mixed:
        parts["centres"] = jax.random.normal(keys[0], (config.clusters, size))
    if uses(config, "initialisation", "offset"):
        parts["offset"] = _conditioning.init_generator(keys[1], size, config.width, trees.size(like))
    if "optimizer" in config.uses:
        rates = _conditioning.equal_rates(like, jnp.asarray(config.inner_lr))
        generated = rates if config.optimizer == "layer" else _conditioning.adapting(like)
        parts["rates"] = rates
        parts["rate_generator"] = _conditioning.init_generator(
            keys[2], size, config.width, trees.size(generated)
        )
    if uses(config, "attention", "modulation"):
        parts["condition"] = _conditioning.init_generator(keys[3], size, config.width, config.condition)
    if uses(config, "attention", "experts"):
        parts["bank"] = _experts.init(keys[4], size, like, config.experts)
    return parts


def start(config: Config, trained, vector) -> base.PyTree:
    """θ_0."""
    params = trained["params"]
    if "centres" in trained:
        params = _conditioning.mix(memberships(trained["centres"], vector), params)
    if "offset" in trained:
        params = _conditioning.add(params, _conditioning.generate(trained["offset"], vector, params))
    if "bank" in trained:
        params = _conditioning.add(params, _experts.attend(trained["bank"], vector))
    return params


def memberships(centres, vector):
    """γ, [cluster]: how much of each cluster a task is."""
    return jax.nn.softmax(-jnp.square(centres - vector[None]).sum(axis=-1))


def condition_of(trained, vector):
    """What modulates the layers, [feature]; None where nothing does."""
    return _network.perceptron(trained["condition"], vector) if "condition" in trained else None


def rates_of(config: Config, trained, params, vector) -> base.PyTree:
    """α of every array that adapts: one number, or as many as it has."""
    if "rates" not in trained:
        return _conditioning.equal_rates(params, config.inner_lr)
    rates = trained["rates"]
    like = rates if config.optimizer == "layer" else _conditioning.adapting(params)
    factors = _conditioning.generate(trained["rate_generator"], vector, like)
    return jax.tree.map(lambda rate, factor: rate * jnp.exp(factor), rates, factors)
