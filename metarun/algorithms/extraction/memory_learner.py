"""The learner of `extraction` that keeps the support in a key-value memory, beside a base model that stays."""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from metarun import base, trees
from metarun.algorithms.extraction import key_value_memory
from metarun.base import PyTree
from metarun.blocks import backbone, networks, outer_loss, pretrained_body, target_kinds

if TYPE_CHECKING:
    from metarun.algorithms.extraction import Config

GATE = 2.0  # the gate λ is the sigmoid of a trained number that begins here: 0.88


class Learner(NamedTuple):
    """The base model, what is remembered of one task, and the inputs that normalise its queries."""

    body: PyTree
    head: PyTree  # () in a classification
    memory: PyTree  # the trained weights, and what was written: {"keys", "gate", "written"}
    reference: PyTree


def build(config: "Config", model: base.Model, problem: base.Problem) -> base.Algorithm:
    """Build the four functions.

    Returns:
      An algorithm that trains {"keys", "gate"}, over the frozen {"body", "head"}.
    """
    classifies, outputs = problem.spec.targets == "classes", problem.spec.output_size

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs, weights = trees.first(episodes.support.inputs), earlier[config.pretrained]
        network = pretrained_body.extract_network(config.pretrained, weights, model, problem.spec, inputs)
        keys = key_value_memory.init(
            key, backbone.count_features(model, network["body"], inputs), config.width
        )
        return base.Weights({"keys": keys, "gate": jnp.full((), GATE)}, {base.HEAD: ()} | network)

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        trained, body, head = weights.trained, weights.frozen["body"], weights.frozen[base.HEAD]
        features = model.embed(body, support.inputs, reference=support.inputs)
        values = target_kinds.as_numbers(problem.spec, support.targets, outputs)
        if not classifies:
            values = values - networks.dense(head, features)
        written = key_value_memory.write(trained["keys"], features, values)
        return Learner(body, head, {"written": written, **trained}, support.inputs)

    def predict(learner: Learner, inputs):
        features, memory = model.embed(learner.body, inputs, reference=learner.reference), learner.memory
        gate = jax.nn.sigmoid(memory["gate"]) if config.inner_steps else 0.0
        values = jnp.zeros((features.shape[0], outputs), features.dtype)
        if config.inner_steps:
            values = key_value_memory.read(memory["keys"], memory["written"], features, config.inner_steps)
        if classifies:
            return jnp.log((1 - gate) / outputs + gate * values)
        return networks.dense(learner.head, features) + gate * values

    loss = outer_loss.make_query_loss(adapt, predict, problem.objective)
    return base.Algorithm(init, loss, adapt, predict)
