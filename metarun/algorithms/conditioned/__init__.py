"""MAML whose start, step sizes or layers depend on a vector of the task: chosen, generated or modulated by it.

The vector e(S) of a support S comes from an earlier stage of `task_embedding`, standardised over the training tasks
that the stage was fitted to (`statistics: true` there) or else over those that this stage begins with, or with
`embedding: null` from a set encoder (Deep Sets, arXiv 1703.06114) that is trained together with the rest, as in MMAML
(Vuorio et al. 2019, 1910.13616). The inner loop descends the support loss L_S,

    θ_0 = start(e),    θ_{k+1} = θ_k − α(e) ∘ ∇L_S(θ_k; e),

and the outer objective is the query loss L_Q(θ_K). `uses` says what e does, in any combination:

    initialisation  offset      θ_0 = θ + g(e)
                    mixture     θ_0 = Σ_c γ_c θ_c: a start for each cluster of tasks, with γ = softmax(−‖e − μ_c‖²)
                                of learned centres μ_c, which begin at random or at the clusters of the embedding
    optimizer       layer       α(e) = a ∘ exp(g(e)), one for each array
                    parameter   the same, one for each number
    attention       modulation  every layer is scaled and offset by a linear map of g(e): FiLM (1709.07871), MMAML's τ
                    experts     each array of θ_0 gains Σ_m softmax_m(W e · k_m / √d) V_m, of a bank of parameters V

With a `graph` e is first smoothed over the known kinds of tasks and over what these have in common, with learned edge
weights, as ARML does (Yao et al. 2020, 2001.00745); see `metarun/blocks/relation_graph.py`. A node is the mean vector
of its kind: the loss gains `memory_weight` times the squared distance of a task's vector from its kind's, which moves
the node alone.

With `vector: shuffled` e is that of another task, a control: all the weights, and nothing known of the task.

Each g is a perceptron with one hidden layer; a begins at `inner_lr`. With `uses: []` this is MAML, and with
`inner_steps: 0` the start is the learner. Neither e nor the maps of the modulation change in the inner loop.

Deviations from MMAML: its encoder of curves is recurrent, ours does not look at the order of the support; and it
generates the modulation of each layer from e directly, where ours has a g(e) that all layers share. In `mlp` a
modulation is feature-wise with `modulation: features`; with `inputs` g(e) stands beside the inputs.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from metarun import base, errors, trees
from metarun.algorithms.conditioned import expert_bank, vector_source
from metarun.blocks import inner_loop, modulation, networks, outer_loss, weight_generator
from metarun.blocks.inner_loop import Learner
from metarun.options import InnerLoop, RelationGraph, SetEncoder
from metarun.ranges import Above, AtLeast


@dataclass(frozen=True)
class Config(RelationGraph, InnerLoop, SetEncoder):
    """Where the vector of a task comes from, what it is used for, and the inner loop."""

    inner_lr: Annotated[float, Above(0)] = 0.01  # α, or the first value of a
    # Name of the earlier stage whose learner has the vector; null: an encoder is trained here.
    embedding: str | None = None
    # What the vector is used for, in any combination.
    uses: tuple[Literal["initialisation", "optimizer", "attention"], ...] = ("attention",)
    # offset: the vector generates an offset of the start; mixture: it mixes a start for each cluster.
    initialisation: Literal["offset", "mixture"] = "offset"
    # Generated step sizes: one for each array or for each number.
    optimizer: Literal["layer", "parameter"] = "layer"
    # modulation: the vector modulates every layer; experts: it attends over a bank of parameters.
    attention: Literal["modulation", "experts", "both"] = "modulation"
    clusters: Annotated[int, AtLeast(1)] = 5  # clusters of the mixture, each with a start
    # Where μ begins: at random, or at the k-means clusters of the stage `embedding`, as many as `clusters`.
    centres: Literal["random", "embedding"] = "random"
    # Whose vector conditions a task: its own, or that of another task (a control).
    vector: Literal["own", "shuffled"] = "own"
    experts: Annotated[int, AtLeast(1)] = 5  # experts in the bank, for each array of the model
    condition: Annotated[int, AtLeast(1)] = 32  # numbers that modulate the layers

    def __post_init__(self):
        if len(set(self.uses)) < len(self.uses):
            raise ValueError("uses names one use twice", "name each once")
        if self.embedding is not None and not self.uses:
            raise ValueError("the embedding is not used", "set uses, or embedding: null")
        if self.graph != "none" and not self.uses:
            raise ValueError("the graph smooths a vector that is not used", "set uses, or graph: none")
        if self.vector == "shuffled" and not self.uses:
            raise ValueError("the vector is not used, and cannot be shuffled", "set uses, or vector: own")
        mixes = "initialisation" in self.uses and self.initialisation == "mixture"
        if self.centres == "embedding" and (self.embedding is None or not mixes):
            raise ValueError(
                "there are no clusters to begin at, or no mixture that begins there",
                "name a stage in embedding and set initialisation: mixture, or centres: random",
            )
        super().__post_init__()


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Return the functions of the conditioned learner, on the earlier stage `embedding` if there is one.

    Returns:
      An algorithm that trains {"params"} and, as far as they are used, {"encoder", "graph", "offset", "centres",
      "rates", "rate_generator", "condition", "bank"}; with the mixture "params" has a first axis [cluster]. The earlier
      stage and the edges of the graph are frozen. Its learner is a `Learner`, with a condition where e modulates. Its
      init raises ConfigError if e is to modulate and the model takes no condition.

    Raises:
      ValueError: there is no such stage, or an encoder is to read targets that are neither labels nor numbers, or the
        family has no kinds of tasks for a graph.
      DataError: the edge list of the graph is missing or wrong.
    """
    support_loss = inner_loop.make_support_loss(model, problem.objective)
    predict = inner_loop.make_predict(model)
    source = vector_source.build(config, model, problem, earlier)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        model_key, vector_key, use_key = jax.random.split(key, 3)
        params = init_params(config, model, model_key, trees.first(episodes.support.inputs))
        if not config.uses:
            return base.Weights({"params": params})
        weights, size, centres = source.init(vector_key, episodes, earlier)
        trained = weights.trained | {"params": params} | init_uses(config, use_key, params, size)
        if config.centres == "embedding":
            trained["centres"] = check_centres(config, centres)
        return weights._replace(trained=trained)

    def adapt(weights: base.Weights, support: base.Examples, points: base.Points | None = None):
        trained = weights.trained
        vector = source.read(weights, support) if config.uses else None
        start, condition = make_start(trained, vector), make_condition(trained, vector)
        gradient = jax.grad(lambda params: support_loss(params, support, condition))
        rates = make_rates(config, trained, start, vector)

        def finish(params) -> Learner:
            return Learner(params, support.inputs, condition)

        return modulation.descend(config, gradient, start, rates, finish, points)

    query_loss = outer_loss.make_query_loss(adapt, predict, problem.objective)

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        error, metrics = query_loss(weights, episode, key, progress)
        if source.memory_loss is None:
            return error, metrics
        memory = source.memory_loss(weights, episode)
        return error + config.memory_weight * memory, metrics | {"memory_loss": jax.lax.stop_gradient(memory)}

    writes_start = bool({"initialisation", "attention"} & set(config.uses))
    return base.Algorithm(init, loss, adapt, predict, watch=adapt, writes_start=writes_start)


def check_centres(config: Config, centres) -> jax.Array:
    """Return the centres that the mixture begins at.

    Raises:
      ConfigError: the embedding has no clusters, or another number of them.
    """
    count = 0 if centres is None else len(centres)
    if count != config.clusters:
        raise errors.ConfigError(
            f"the stage {config.embedding} has {count} clusters, and the mixture {config.clusters}",
            "algorithm.clusters",
            f"set clusters: {config.clusters} in the stage {config.embedding}, or centres: random here",
        )
    return centres


def is_used(config: Config, use: str, form: str) -> bool:
    """Return whether e has this use, in this form."""
    return use in config.uses and getattr(config, use) in (form, "both")


def init_params(config: Config, model: base.Model, key, inputs: base.PyTree) -> base.PyTree:
    """Return the start that all tasks share, or one for each cluster, leaves [cluster, ...]."""
    condition = jnp.zeros(config.condition) if is_used(config, "attention", "modulation") else None
    if not is_used(config, "initialisation", "mixture"):
        return modulation.init_params(model, key, inputs, condition)
    keys = jax.random.split(key, config.clusters)
    return jax.vmap(lambda cluster_key: modulation.init_params(model, cluster_key, inputs, condition))(keys)


def init_uses(config: Config, key, params: base.PyTree, size: int) -> dict[str, base.PyTree]:
    """Return the weights that read a vector of `size` numbers, for each use."""
    centres_key, offset_key, rate_key, condition_key, bank_key = jax.random.split(key, 5)
    is_mixed = is_used(config, "initialisation", "mixture")
    like = trees.first(params) if is_mixed else params
    weights: dict[str, base.PyTree] = {}

    def init_generator(key, outputs: int):
        return weight_generator.init(key, size, config.width, outputs)

    if is_mixed:
        weights["centres"] = jax.random.normal(centres_key, (config.clusters, size))
    if is_used(config, "initialisation", "offset"):
        weights["offset"] = init_generator(offset_key, trees.size(like))
    if "optimizer" in config.uses:
        rates = modulation.repeat_rate(like, jnp.asarray(config.inner_lr))
        generated = rates if config.optimizer == "layer" else modulation.select_adapting(like)
        weights["rates"] = rates
        weights["rate_generator"] = init_generator(rate_key, trees.size(generated))
    if is_used(config, "attention", "modulation"):
        weights["condition"] = init_generator(condition_key, config.condition)
    if is_used(config, "attention", "experts"):
        weights["bank"] = expert_bank.init(bank_key, size, like, config.experts)
    return weights


def make_start(trained, vector) -> base.PyTree:
    """Return θ_0."""
    start = trained["params"]
    if "centres" in trained:
        shares = weigh_clusters(trained["centres"], vector)
        start = jax.tree.map(lambda leaf: jnp.tensordot(shares, leaf, axes=1), start)
    if "offset" in trained:
        offset = weight_generator.generate(trained["offset"], vector, start)
        start = jax.tree.map(jnp.add, start, offset)
    if "bank" in trained:
        start = jax.tree.map(jnp.add, start, expert_bank.attend(trained["bank"], vector))
    return start


def weigh_clusters(centres, vector):
    """Return γ, [cluster]: how much of each cluster a task is."""
    return jax.nn.softmax(-jnp.square(centres - vector[None]).sum(axis=-1))


def make_condition(trained, vector):
    """Return what modulates the layers, [feature]; None if nothing does."""
    return networks.perceptron(trained["condition"], vector) if "condition" in trained else None


def make_rates(config: Config, trained, params: base.PyTree, vector) -> base.PyTree:
    """Return α: for every array that adapts one number, or as many as it has."""
    if "rates" not in trained:
        return modulation.repeat_rate(params, config.inner_lr)
    rates = trained["rates"]
    like = rates if config.optimizer == "layer" else modulation.select_adapting(params)
    factors = weight_generator.generate(trained["rate_generator"], vector, like)
    return jax.tree.map(lambda rate, factor: rate * jnp.exp(factor), rates, factors)
