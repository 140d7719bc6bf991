"""A network writes the learner's weights from the support; with inner steps it is the hybrid, which finishes them.

Ha, Dai, Le 2016, HyperNetworks, arXiv 1609.09106: one network g writes the weights of another. Here g reads the support
S as a set (Deep Sets, Zaheer et al. 2017, 1703.06114), so that adaptation to a task is one forward pass:

    θ_0 = θ + g(S; φ),      the learner is the model with θ_0.

`writes` says which parameters of the model: all of a small one, or of a large one the head alone, or the head and the
modulation of every layer by a vector that g writes (Perez et al. 2018, FiLM, 1709.07871). What is not written is θ.

In a classification g reads the classes in the order of their labels. With `classes: exchangeable` it does not, because
the numbers of the classes are arbitrary: g gives a vector s_c of each class and from all of them a vector e, and writes
row c of the head from (s_c, e), and the rest, if `writes` says more than head, from e,

    head_c = row + g_row(s_c, e; φ),      θ_0 = θ + g(e; φ).

One learned row then serves all classes, so that relabelled classes give relabelled answers, and an evaluation may be in
other ways than the training. With `shares_body` g has no body of its own: it reads the features of the model, under a
condition of zeros if there is one.

The hybrid is the same with `inner_steps` above 0: g writes the start, gradient steps on the support loss L_S finish,

    θ_{k+1} = θ_k − α ∇L_S(θ_k),

and the outer objective is the query loss L_Q(θ_K). `order: second` differentiates through every inner step, into θ and
through the start into φ. α is `inner_lr`, or with `learned_lr` one trained number for each array.

One outer gradient at (θ, φ) updates both. The proposal that this follows updates in turns, φ by ∇_φ L_Q and then θ by
∇_θ L_Q at the new φ, for twice the work: `training.turns: [[encoder, generator], params]`. The two differ in θ's step
alone, by the product of both learning rates with ∂²L_Q/∂θ∂φ, which is of second order in the rates, as a test measures.
Each part may have a learning rate of its own: `training.part_rates: [{part: generator, factor: 0.1}]`; the parts are
"params", "encoder", "generator" and, with `learned_lr`, "rates"; with exchangeable classes also "row" and "rows".

Deviations from Ha et al.: one generator for all arrays, with one output a weight, where they have one that is called
for every layer with an embedding of the layer; θ is added, so that g may begin small: its last layer starts a tenth as
large as other layers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun import base, errors, trees
from metarun.blocks import (
    backbone,
    inner_loop,
    modulation,
    networks,
    outer_loss,
    set_encoder,
    target_kinds,
    weight_generator,
)
from metarun.blocks.inner_loop import Learner
from metarun.options import InnerLoop, SetEncoder
from metarun.ranges import Above, AtLeast


@dataclass(frozen=True)
class Config(InnerLoop, SetEncoder):
    """The network that writes, what it writes, and the steps that finish it."""

    inner_steps: Annotated[int, AtLeast(0)] = 0  # gradient steps on the support; 0: the hypernetwork alone
    inner_lr: Annotated[float, Above(0)] = 0.01  # α, or the first value of a learned α
    learned_lr: Literal["layer"] | None = None  # layer: α is learned, one for each array; null: α is fixed
    writes: Literal["all", "head", "head_and_modulation"] = "all"  # which parameters of the model g writes
    condition: Annotated[int, AtLeast(1)] = 16  # numbers that modulate the layers; head_and_modulation only
    # How g reads the classes of a classification: in the order of their labels, or as a set.
    classes: Literal["ordered", "exchangeable"] = "ordered"
    shares_body: bool = False  # g reads the features of the model; exchangeable classes only

    def __post_init__(self):
        if self.shares_body and self.classes == "ordered":
            raise ValueError("shares_body needs exchangeable classes", "set classes: exchangeable")


class Writer(NamedTuple):
    """How the start is written."""

    init: Callable  # (key, inputs of an example support) -> trained
    write: Callable  # (trained, support) -> (θ_0, condition or None)


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Return the functions of a hypernetwork or a hybrid. It needs no earlier stage.

    Returns:
      An algorithm that trains {"params", "encoder", "generator"}, and "rates" with `learned_lr`. Its learner is a
      `Learner`, with a condition if g writes one. Its init raises ConfigError if `writes` names a head or a
      modulation, and the model has no head or takes no condition.

    Raises:
      ValueError: the targets are neither labels nor numbers.
    """
    target_kinds.refuse_tokens(problem)
    if config.classes == "exchangeable":
        writer = make_exchangeable_writer(config, model, problem)
        model = open_head(model)
    else:
        writer = make_ordered_writer(config, model, problem)
    support_loss = inner_loop.make_support_loss(model, problem.objective)
    predict = inner_loop.make_predict(model)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        support = trees.first(episodes.support)
        trained = writer.init(key, support.inputs)
        if config.learned_lr:
            start, _ = jax.eval_shape(writer.write, trained, support)
            trained["rates"] = modulation.repeat_rate(start, jnp.asarray(config.inner_lr))
        return base.Weights(trained)

    def adapt(weights: base.Weights, support: base.Examples, points: base.Points | None = None):
        start, condition = writer.write(weights.trained, support)
        rates = weights.trained.get("rates", modulation.repeat_rate(start, config.inner_lr))
        gradient = jax.grad(lambda params: support_loss(params, support, condition))

        def finish(params) -> Learner:
            return Learner(params, support.inputs, condition)

        return modulation.descend(config, gradient, start, rates, finish, points)

    loss = outer_loss.make_query_loss(adapt, predict, problem.objective)
    return base.Algorithm(init, loss, adapt, predict, watch=adapt, writes_start=True)


def make_ordered_writer(config: Config, model: base.Model, problem: base.Problem) -> Writer:
    """Make the writer that reads classes in the order of their labels, and serves regression, too."""
    first_condition = make_first_condition(config)

    def init(key, inputs):
        model_key, encoder_key, generator_key = jax.random.split(key, 3)
        params = modulation.init_params(model, model_key, inputs, first_condition)
        refuse_missing_head(config, params)
        size = trees.size((select_written(config, params), first_condition))
        return {
            "params": params,
            "encoder": set_encoder.init(config, encoder_key, model, inputs, problem.spec),
            "generator": weight_generator.init(generator_key, config.embed, config.width, size),
        }

    def write(trained, support: base.Examples):
        vector = set_encoder.encode(trained["encoder"], model, support, problem.spec)
        written, others = trees.partition(trained["params"], lambda path: is_written(config, path))
        offset, condition = weight_generator.generate(
            trained["generator"], vector, (written, first_condition)
        )
        return trees.merge(jax.tree.map(jnp.add, written, offset), others), condition

    return Writer(init, write)


def make_exchangeable_writer(config: Config, model: base.Model, problem: base.Problem) -> Writer:
    """Make the writer that reads classes as a set. Its "params" are those of the body.

    Raises:
      ValueError: the family is no classification.
    """
    ways = target_kinds.require_ways(problem, "hypernetwork with exchangeable classes")
    first_condition = make_first_condition(config)

    def list_written(body: base.PyTree) -> Any:
        """Return what g writes beside the head, in the shapes of it."""
        return (body if config.writes == "all" else None, first_condition)

    def init(key, inputs):
        model_key, encoder_key, body_key, generator_key, rows_key = jax.random.split(key, 5)
        params = modulation.init_params(model, model_key, inputs, first_condition)
        refuse_missing_head(config, params)
        body = {name: layer for name, layer in params.items() if name != base.HEAD}
        features = params[base.HEAD][base.KERNEL].shape[0]
        row = {base.KERNEL: params[base.HEAD][base.KERNEL].mean(axis=1), base.BIAS: jnp.zeros(())}
        own_body, size = None, features
        if not config.shares_body:
            plain = set_encoder.is_vector(problem.spec)
            own_body = None if plain else backbone.init_body(model, body_key, inputs)
            size = problem.spec.input_shape[-1] if plain else features
        trained = {
            "params": body,
            "row": row,
            "encoder": set_encoder.init_exchangeable(config, encoder_key, size, own_body),
            "rows": weight_generator.init(
                rows_key, config.width + config.embed, config.width, trees.size(row)
            ),
        }
        if count := trees.size(list_written(body)):
            trained["generator"] = weight_generator.init(generator_key, config.embed, config.width, count)
        return trained

    def read(trained, inputs):
        if config.shares_body:
            return model.embed(trained["params"], inputs, reference=inputs, condition=first_condition)
        body = trained["encoder"].get("body")
        return inputs if body is None else model.embed(body, inputs, reference=inputs)

    def write(trained, support: base.Examples):
        features = read(trained, support.inputs)
        classes, vector = set_encoder.encode_exchangeable(trained["encoder"], features, support.targets, ways)
        rows = write_rows(trained, classes, vector)
        head = {base.KERNEL: rows[base.KERNEL].T, base.BIAS: rows[base.BIAS]}
        body, condition = trained["params"], None
        if "generator" in trained:
            like = list_written(body)
            offset, condition = weight_generator.generate(trained["generator"], vector, like)
            body = body if offset is None else jax.tree.map(jnp.add, body, offset)
        return {**body, base.HEAD: head}, condition

    return Writer(init, write)


def open_head(model: base.Model) -> base.Model:
    """Return the model with a last layer of as many classes as its parameters have."""

    def apply(params, inputs, *, condition=None, reference=None):
        features = model.embed(params, inputs, condition=condition, reference=reference)
        return networks.dense(params[base.HEAD], features)

    return model._replace(apply=apply)


def write_rows(
    trained: base.PyTree, classes: Float[Array, "way width"], vector: Float[Array, "embed"]
) -> base.PyTree:
    """Return the row of the head of each class, leaves [way, ...]."""

    def write_row(summary) -> base.PyTree:
        joined = jnp.concatenate([summary, vector])
        offset = weight_generator.generate(trained["rows"], joined, trained["row"])
        return jax.tree.map(jnp.add, trained["row"], offset)

    return jax.vmap(write_row)(classes)


def make_first_condition(config: Config) -> Float[Array, "feature"] | None:
    """Return a condition of zeros; None if g writes none."""
    return jnp.zeros(config.condition) if config.writes == "head_and_modulation" else None


def is_written(config: Config, path: tuple[str, ...]) -> bool:
    """Return whether g writes the parameters at a path."""
    return config.writes == "all" or path[:1] == (base.HEAD,)


def select_written(config: Config, params: base.PyTree) -> base.PyTree:
    """Return the parameters that g writes, with None in place of the others."""
    return trees.partition(params, lambda path: is_written(config, path))[0]


def refuse_missing_head(config: Config, params: base.PyTree) -> None:
    """Raise ConfigError if g has nothing to write."""
    if not jax.tree.leaves(select_written(config, params)):
        raise errors.ConfigError(
            f"the model has no last layer `{base.HEAD}` that could be written, and writes is {config.writes}",
            "algorithm.writes",
            f"set writes: all, or take a model with a layer `{base.HEAD}`",
        )
