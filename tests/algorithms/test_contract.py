"""What every algorithm promises, run over the folder: a new file is tested with no other edit.

Each is tested on regression and on classification, as far as it accepts to be built for them.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import flatten_util

from helpers import builders, statistics, tracing, trees
from metarun import base, plugins

KEY = jax.random.key(0)
TASKS = 3
STEPS, TASKS_PER_STEP = 400, 8  # of the training

FAMILIES = {
    "regression": lambda: builders.build_task("sinusoid", shots=6, queries=6, amplitude=(1.0, 3.0)),
    "classification": builders.blobs,
}
every_algorithm = pytest.mark.parametrize(
    ("name", "family"), [(name, family) for name in plugins.list_names("algorithm") for family in FAMILIES]
)


class Tasks(NamedTuple):
    """A family with its compiled sampler and its compiled loss."""

    family: base.TaskFamily
    sample: Callable  # keys [task] -> episodes [task]
    judge: Callable  # outputs [task], targets [task] -> losses [task]


@functools.cache
def make_tasks(name: str) -> Tasks:
    family = FAMILIES[name]()
    sample = jax.jit(jax.vmap(functools.partial(family.sample, ())))
    return Tasks(family, sample, jax.jit(jax.vmap(family.problem.objective.loss)))


@functools.cache
def new_episodes(name: str) -> base.Episode:
    """Draw 200 tasks that no learner is trained on."""
    return make_tasks(name).sample(jax.random.split(jax.random.key(2), 200))


class Case:
    """An algorithm over a small perceptron, with weights and a few episodes, on the stages that it needs."""

    def __init__(self, family: str, algorithm: base.Algorithm, earlier: dict[str, "Case"]) -> None:
        tasks, self.family_name = make_tasks(family), family
        self.family, self.algorithm, self.earlier = tasks.family, algorithm, earlier
        self.episodes = tasks.sample(jax.random.split(KEY, TASKS))
        self.episode = one(self.episodes, 0)
        self.init = jax.jit(algorithm.init)
        self.weights = self.weights_on({name: case.weights for name, case in earlier.items()})
        self.traced = {name: tracing.Counted(getattr(algorithm, name)) for name in ("loss", "adapt")}
        self.adapt, self.predict = jax.jit(self.traced["adapt"]), jax.jit(algorithm.predict)
        self.answer = jax.jit(jax.vmap(self._answer, in_axes=(None, 0, 0)))
        self.differentiate = jax.jit(jax.value_and_grad(self._loss, has_aux=True))

    def _loss(self, trained, frozen, episode: base.Episode, key, progress):
        return self.traced["loss"](base.Weights(trained, frozen), episode, key, progress)

    def _answer(self, weights: base.Weights, support: base.Examples, inputs):
        return self.algorithm.predict(self.algorithm.adapt(weights, support), inputs)

    def loss(self, weights: base.Weights, episode: base.Episode, key):
        """Return the loss and the metrics of one task."""
        return self.differentiate(*weights, episode, key, 0.0)[0]

    def gradient(self, weights: base.Weights, episode: base.Episode, key):
        """Return ∂loss/∂trained of one task; the same program computes the loss."""
        return self.differentiate(*weights, episode, key, 0.0)[1]

    def weights_on(self, earlier: dict[str, base.Weights]) -> base.Weights:
        return self.init(KEY, self.episodes, earlier)


def one(batch, index: int):
    """One task of a batch of tasks."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[index], batch)


@functools.cache
def build(name: str, family: str) -> base.Algorithm | ValueError:
    """Build the algorithm for the family, or return why it refuses to be built."""
    problem = make_tasks(family).family.problem
    try:
        return builders.build_algorithm(name, builders.build_model("mlp", problem.spec), problem)
    except ValueError as refusal:
        return refusal


@functools.cache
def make_case(name: str, family: str) -> Case:
    earlier = {stage: make_case(stage, family) for stage in builders.example(name).earlier}
    return Case(family, build(name, family), earlier)


@pytest.fixture
def case(name: str, family: str) -> Case:
    if isinstance(refusal := build(name, family), ValueError):
        pytest.skip(f"{name} refuses {family}: {refusal}")
    return make_case(name, family)


@pytest.mark.parametrize("name", plugins.list_names("algorithm"))
def test_it_serves_regression_or_classification(name):
    assert any(not isinstance(build(name, family), ValueError) for family in FAMILIES)


@every_algorithm
def test_weights_and_loss_are_functions_of_their_keys(case):
    earlier = {name: before.weights for name, before in case.earlier.items()}
    trees.assert_equal(case.weights_on(earlier), case.weights)
    trees.assert_equal(*(case.loss(case.weights, case.episode, KEY) for _ in range(2)))


@every_algorithm
def test_the_loss_is_a_finite_number_with_finite_metrics(case):
    loss, metrics = case.loss(case.weights, case.episode, KEY)
    for value in (loss, *metrics.values()):
        assert value.shape == ()
        assert value.dtype == jnp.float32
        assert np.isfinite(value)


@every_algorithm
def test_an_outer_step_keeps_structure_shapes_and_dtypes_of_the_weights(case):
    def outer_step(weights, memory):
        gradient = case.gradient(weights, case.episode, KEY)
        updates, memory = optimizer.update(gradient, memory, weights.trained)
        return weights._replace(trained=optax.apply_updates(weights.trained, updates)), memory

    optimizer = optax.adam(1e-3)
    state = case.weights, optimizer.init(case.weights.trained)
    stepped = jax.eval_shape(outer_step, *state)
    assert trees.kind_of(stepped) == trees.kind_of(state)
    gradient = case.gradient(case.weights, case.episode, KEY)
    assert trees.kind_of(gradient) == trees.kind_of(case.weights.trained)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@every_algorithm
def test_every_trained_leaf_has_a_gradient(case):
    gradients = [case.gradient(case.weights, one(case.episodes, index), KEY) for index in range(TASKS)]
    for leaves in zip(*map(jax.tree.leaves, gradients), strict=True):
        assert any(np.abs(leaf).max() > 0 for leaf in leaves)


def grow(leaf):
    return leaf if leaf.dtype == jnp.int32 else np.asarray(leaf) * np.float32(1.5)


@every_algorithm
def test_new_values_need_no_new_trace(case):
    weights = case.weights
    for index in range(TASKS):
        episode = one(case.episodes, index)
        case.loss(weights, episode, jax.random.key(index))
        case.adapt(weights, episode.support)
        weights = jax.tree.map(grow, weights)
    assert {name: function.traces for name, function in case.traced.items()} == {"loss": 1, "adapt": 1}


@every_algorithm
def test_under_vmap_every_task_is_adapted_and_predicted_as_if_alone(case, family):
    episodes = new_episodes(family)
    support, inputs = episodes.support, episodes.query.inputs
    together = np.asarray(case.answer(case.weights, support, inputs))
    learners = [case.adapt(case.weights, one(support, index)) for index in range(TASKS)]
    alone = [case.predict(learner, one(inputs, index)) for index, learner in enumerate(learners)]
    np.testing.assert_allclose(together[:TASKS], np.stack(alone), rtol=1e-4, atol=1e-5)
    assert together.shape == (*episodes.query.targets.shape[:2], case.family.problem.spec.output_size)


@functools.cache
def training_episodes(name: str) -> base.Episode:
    """Draw the tasks of all steps of a training, [step, task, ...]: no learner compiles the sampler again."""
    keys = jax.random.split(jax.random.key(5), STEPS * TASKS_PER_STEP)
    return jax.tree.map(
        lambda leaf: np.asarray(leaf).reshape(STEPS, TASKS_PER_STEP, *leaf.shape[1:]),
        make_tasks(name).sample(keys),
    )


@functools.cache
def train(case: Case) -> base.Weights:
    """Take some steps of Adam, in one compiled loop; the earlier stages come first, each trained once for all tests."""
    optimizer = optax.adam(1e-2)
    weights = case.weights_on({name: train(before) for name, before in case.earlier.items()})
    if not weights.trained:
        return weights

    @jax.jit
    def run(weights, episodes, keys):
        flat, unravel = flatten_util.ravel_pytree(weights.trained)

        def mean_loss(flat, episodes, keys):
            loss = jax.vmap(case.algorithm.loss, in_axes=(None, 0, 0, None))
            return loss(base.Weights(unravel(flat), weights.frozen), episodes, keys, 0.0)[0].mean()

        def outer_step(state, tasks):
            flat, memory = state
            updates, memory = optimizer.update(jax.grad(mean_loss)(flat, *tasks), memory)
            return (flat + updates, memory), None

        (flat, _), _ = jax.lax.scan(outer_step, (flat, optimizer.init(flat)), (episodes, keys))
        return weights._replace(trained=unravel(flat))

    keys = jax.random.split(jax.random.key(3), (STEPS, TASKS_PER_STEP))
    return run(weights, training_episodes(case.family_name), keys)


@every_algorithm
def test_it_learns_to_learn(case, name, family):
    """On new tasks, by paired differences: better than before training, and than from another task's support.

    What trains nothing itself need not be better on features of the stage before it: these tasks need no features.
    """
    episodes = new_episodes(family)
    foreign = jax.tree.map(lambda leaf: np.roll(leaf, 1, axis=0), episodes.support)

    def query_loss(weights, support):
        outputs = case.answer(weights, support, episodes.query.inputs)
        return np.asarray(make_tasks(family).judge(outputs, episodes.query.targets))

    trained = train(case)
    learned = query_loss(trained, episodes.support)
    if case.weights.trained:
        before = query_loss(case.weights, episodes.support)
        assert statistics.interval(before - learned)[0] > 0
    if case.family.problem.spec.targets not in builders.example(name).ignores_support:
        misled = query_loss(trained, foreign)
        assert statistics.interval(misled - learned)[0] > 0
