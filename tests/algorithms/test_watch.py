"""One adaptation that is watched gives the learners of separate ones, and those of the other mode.

It runs over every algorithm with inner steps. What an algorithm does only with some of its options is tried by itself.
"""

import jax
import numpy as np
import pytest

from helpers import builders, trees
from metarun import base, plugins

pytestmark = pytest.mark.usefixtures("in_float64")

COUNTS = (0, 2, 3)  # the last one is beyond the separate adaptations: what it adds must not change them
SPEC = base.Spec((2,), 3, "classes")
PROBLEM = builders.make_problem(SPEC, training_classes=3)
WITH_STEPS = [
    name
    for name in plugins.list_names("algorithm")
    if any(field.name == "inner_steps" for field in plugins.list_fields("algorithm", name))
]
PLAIN = [(name, {}) for name in WITH_STEPS]
OPTIONS = [
    ("maml", {"learned_lr": "layer_and_step", "normalisation_per_step": True, "inner_optimizer": "momentum"}),
    ("reptile", {"inner_batch": 2, "inner_optimizer": "momentum"}),
    ("finetune", {"adapts": "all"}),
    ("preconditioned", {"order": "trajectory", "mask": True}),
    ("hypernetwork", {"writes": "head_and_modulation", "learned_lr": "layer"}),
    ("conditioned", {"uses": ("initialisation", "optimizer", "attention"), "attention": "both"}),
    ("imaml", {"tolerance": 0.1}),  # ends before its last step
    ("imaml", {"inner_lr": 1.0}),  # undoes its first steps
]


def examples(seed: int, count: int = 3) -> base.Examples:
    generator = np.random.default_rng(seed)
    return base.Examples(generator.standard_normal((count, 2)), np.arange(count, dtype=np.int32))


EPISODES = jax.tree.map(
    lambda *leaves: np.stack(leaves),
    *[
        base.Episode(examples(2 * index), examples(2 * index + 1), {"class": np.arange(3, dtype=np.int32)})
        for index in range(2)
    ],
)


def make_model() -> base.Model:
    """Make a small network whose batches normalise it."""
    return builders.build_model("mlp", SPEC, hidden=(4,), normalisation="batch", modulation="features")


def build(name: str, model: base.Model, **options) -> base.Algorithm:
    return builders.build_algorithm(name, model, PROBLEM, **{"loop": "scan", **options})


def trace_weights(name: str, model: base.Model, **options) -> base.Weights:
    """Return the shapes of the weights, on those of the stages before."""
    earlier = {stage: trace_weights(stage, model) for stage in builders.example(name).earlier}
    algorithm = build(name, model, inner_steps=2, **options)
    return jax.eval_shape(algorithm.init, jax.random.key(0), EPISODES, earlier)


def draw_weights(name: str, model: base.Model, **options) -> base.Weights:
    """Draw weights in double precision; to initialise them would take longer than the test."""
    generator = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: 0.3 * generator.standard_normal(leaf.shape), trace_weights(name, model, **options)
    )


@pytest.mark.parametrize(("name", "options"), PLAIN + OPTIONS)
def test_the_learners_that_are_watched_are_those_of_separate_adaptations_in_either_mode(name, options):
    model = make_model()
    separate = [build(name, model, **options, inner_steps=count) for count in COUNTS[:-1]]
    watching = build(name, builders.transductive(model), **options, inner_steps=1)

    @jax.jit
    def adapt(weights: base.Weights, support: base.Examples):
        learners = [algorithm.adapt(weights, support) for algorithm in separate]
        return watching.watch(weights, support, base.Points(COUNTS, lambda learner: learner)), learners

    support = jax.tree.map(lambda leaf: leaf[0], EPISODES.support)
    watched, learners = jax.device_get(adapt(draw_weights(name, model, **options), support))
    for place, learner in enumerate(learners):
        trees.assert_close(jax.tree.map(lambda leaf, p=place: leaf[p], watched), learner, 1e-12, 1e-13)
    assert trees.differ(*(jax.tree.map(lambda leaf, p=place: leaf[p], watched) for place in (0, -1)))


def test_every_algorithm_with_inner_steps_can_be_watched_but_a_memory_that_reads_in_predict():
    assert all(build(name, make_model()).watch for name in WITH_STEPS)
    assert build("extraction", make_model(), learner="memory").watch is None
