"""What an algorithm promises, on a regression and on a classification, as far as it accepts to be built for them.

The weights are those of a small perceptron, and the training is 400 steps of Adam on 8 tasks.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import flatten_util

from metarun import base
from metarun.base import PyTree
from metarun.testing import small_problems
from metarun.testing.claims import (
    Counted,
    claim,
    claim_close,
    claim_equal,
    claim_finite,
    describe_kinds,
    find_interval,
)

TASKS = 3
STEPS, TASKS_PER_STEP = 400, 8  # of the training
NEW_TASKS = 200  # that no learner is trained on
FAMILIES = tuple(small_problems.FAMILIES)


class Tasks(NamedTuple):
    """A family with its compiled sampler and its compiled loss."""

    family: base.TaskFamily
    sample: Callable  # keys [task] -> episodes [task]
    judge: Callable  # outputs [task], targets [task] -> losses [task]


@functools.cache
def make_tasks(name: str) -> Tasks:
    """Return a family of `small_problems.FAMILIES`."""
    family = small_problems.FAMILIES[name]()
    sample = jax.jit(jax.vmap(functools.partial(family.sample, ())))
    return Tasks(family, sample, jax.jit(jax.vmap(family.problem.objective.loss)))


@functools.cache
def draw_new_episodes(name: str) -> base.Episode:
    """Draw tasks that no learner is trained on."""
    episodes: base.Episode = make_tasks(name).sample(jax.random.split(jax.random.key(2), NEW_TASKS))
    return episodes


@functools.cache
def draw_training_episodes(name: str) -> base.Episode:
    """Draw the tasks of all steps of a training, [step, task, ...]: no learner compiles the sampler again."""
    episodes = make_tasks(name).sample(jax.random.split(jax.random.key(5), STEPS * TASKS_PER_STEP))
    return jax.tree.map(
        lambda leaf: np.asarray(leaf).reshape(STEPS, TASKS_PER_STEP, *leaf.shape[1:]), episodes
    )


class Case:
    """An algorithm over a small perceptron, with weights and a few episodes, on the stages that it needs."""

    def __init__(self, name: str, family: str, algorithm: base.Algorithm, earlier: dict[str, "Case"]) -> None:
        tasks, self.name, self.family_name = make_tasks(family), name, family
        self.family, self.algorithm, self.earlier = tasks.family, algorithm, earlier
        self.key = jax.random.key(0)
        self.episodes = tasks.sample(jax.random.split(self.key, TASKS))
        self.episode = take(self.episodes, 0)
        self.init = jax.jit(algorithm.init)
        self.weights: base.Weights = self.draw_weights(
            {stage: case.weights for stage, case in earlier.items()}
        )
        # Larger programs are made of these three, too, so that each is traced once for all checks.
        self.traced = {part: Counted(getattr(algorithm, part)) for part in ("loss", "adapt")}
        self.judge, self.adapt = jax.jit(self.traced["loss"]), jax.jit(self.traced["adapt"])
        self.predict = jax.jit(algorithm.predict)
        self.answer = jax.jit(jax.vmap(self._answer, in_axes=(None, 0, 0)))
        self.differentiate = jax.jit(jax.value_and_grad(self._loss, has_aux=True))

    def _loss(self, trained: PyTree, frozen: PyTree, episode: base.Episode, key: Any, progress: Any) -> Any:
        return self.judge(base.Weights(trained, frozen), episode, key, progress)

    def _answer(self, weights: base.Weights, support: base.Examples, inputs: PyTree) -> PyTree:
        return self.predict(self.adapt(weights, support), inputs)

    def loss(self, weights: base.Weights, episode: base.Episode, key: Any) -> Any:
        """Return the loss and the metrics of one task."""
        return self.differentiate(*weights, episode, key, 0.0)[0]

    def gradient(self, weights: base.Weights, episode: base.Episode, key: Any) -> PyTree:
        """Return ∂loss/∂trained of one task; the same program computes the loss."""
        return self.differentiate(*weights, episode, key, 0.0)[1]

    def draw_weights(self, earlier: dict[str, base.Weights]) -> base.Weights:
        """Return the weights at the start."""
        weights: base.Weights = self.init(self.key, self.episodes, earlier)
        return weights


def take(batch: PyTree, index: int) -> PyTree:
    """Return one task of a batch of tasks."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[index], batch)


@functools.cache
def build(name: str, family: str) -> base.Algorithm | ValueError:
    """Build the algorithm for the family, or return why it refuses to be built."""
    problem = make_tasks(family).family.problem
    try:
        return small_problems.build_algorithm(name, small_problems.build_model("mlp", problem.spec), problem)
    except ValueError as refusal:
        return refusal


@functools.cache
def make_case(name: str, family: str) -> Case | ValueError:
    """Return the case, or why the algorithm refuses the family."""
    algorithm = build(name, family)
    if isinstance(algorithm, ValueError):
        return algorithm
    earlier: dict[str, Case] = {}
    for stage in small_problems.get_example(name).earlier:
        before = make_case(stage, family)
        assert isinstance(before, Case)  # else the algorithm could not have been built on it
        earlier[stage] = before
    return Case(name, family, algorithm, earlier)


def check_that_it_serves_a_family(name: str) -> None:
    """It is built for regression, for classification, or for both."""
    refusals = [build(name, family) for family in FAMILIES]
    claim(not all(isinstance(refusal, ValueError) for refusal in refusals), f"it refuses both: {refusals}")


def check_keys(case: Case) -> None:
    """Weights and loss are functions of their keys."""
    earlier = {name: before.weights for name, before in case.earlier.items()}
    claim_equal(case.draw_weights(earlier), case.weights, "the same key gives other weights")
    first, second = (case.loss(case.weights, case.episode, case.key) for _ in range(2))
    claim_equal(first, second, "the same key gives another loss")


def check_loss(case: Case) -> None:
    """The loss is a finite number with finite metrics."""
    loss, metrics = case.loss(case.weights, case.episode, case.key)
    for name, value in {"loss": loss, **metrics}.items():
        claim(value.shape == (), f"{name} has the shape {value.shape}, and is no scalar")
        claim(value.dtype == jnp.float32, f"{name} is {value.dtype}, not float32")
        claim_finite(value, f"{name} is {value}")


def check_outer_step(case: Case) -> None:
    """An outer step keeps structure, shapes and dtypes of the weights."""

    def outer_step(weights, memory):
        gradient = case.gradient(weights, case.episode, case.key)
        updates, memory = optimizer.update(gradient, memory, weights.trained)
        return weights._replace(trained=optax.apply_updates(weights.trained, updates)), memory

    optimizer = optax.adam(1e-3)
    state = case.weights, optimizer.init(case.weights.trained)
    stepped = jax.eval_shape(outer_step, *state)
    claim(describe_kinds(stepped) == describe_kinds(state), "a step changes shapes or dtypes of the weights")
    gradient = case.gradient(case.weights, case.episode, case.key)
    kinds = describe_kinds(gradient), describe_kinds(case.weights.trained)
    claim(kinds[0] == kinds[1], "the gradient has not the shapes and dtypes of the trained weights")
    claim_finite(gradient, "the gradient is not finite")


def check_gradients(case: Case) -> None:
    """Every trained leaf has a gradient."""
    gradients = [case.gradient(case.weights, take(case.episodes, index), case.key) for index in range(TASKS)]
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(gradients[0])]
    for path, *leaves in zip(paths, *map(jax.tree.leaves, gradients), strict=True):
        claim(any(np.abs(leaf).max() > 0 for leaf in leaves), f"trained{path} never has a gradient")


def grow(leaf: Any) -> Any:
    """Return other values of the same shape and dtype."""
    return leaf if leaf.dtype == jnp.int32 else np.asarray(leaf) * np.float32(1.5)


def check_traces(case: Case) -> None:
    """New values need no new trace."""
    weights = case.weights
    for index in range(TASKS):
        episode = take(case.episodes, index)
        case.loss(weights, episode, jax.random.key(index))
        case.adapt(weights, episode.support)
        weights = jax.tree.map(grow, weights)
    traces = {name: function.traces for name, function in case.traced.items()}
    claim(traces == {"loss": 1, "adapt": 1}, f"other values are traced again: {traces}")


def check_vmap(case: Case) -> None:
    """Under vmap every task is adapted and predicted as if alone."""
    episodes = draw_new_episodes(case.family_name)
    support, inputs = episodes.support, episodes.query.inputs
    together = np.asarray(case.answer(case.weights, support, inputs))
    learners = [case.adapt(case.weights, take(support, index)) for index in range(TASKS)]
    alone = [case.predict(learner, take(inputs, index)) for index, learner in enumerate(learners)]
    claim_close(together[:TASKS], np.stack(alone), "vmap is not the loop", rtol=1e-4, atol=1e-5)
    shape = (*episodes.query.targets.shape[:2], case.family.problem.spec.output_size)
    claim(together.shape == shape, f"the outputs have the shape {together.shape}, not {shape}")


@functools.cache
def train(case: Case) -> base.Weights:
    """Take some steps of Adam, in one compiled loop; the earlier stages come first, each trained once for all tests."""
    optimizer = optax.adam(1e-2)
    weights = case.draw_weights({name: train(before) for name, before in case.earlier.items()})
    if not weights.trained:
        return weights

    @jax.jit
    def run(weights, episodes, keys):
        flat, unravel = flatten_util.ravel_pytree(weights.trained)

        def mean_loss(flat, episodes, keys):
            loss = jax.vmap(case.judge, in_axes=(None, 0, 0, None))
            return loss(base.Weights(unravel(flat), weights.frozen), episodes, keys, 0.0)[0].mean()

        def outer_step(state, tasks):
            flat, memory = state
            updates, memory = optimizer.update(jax.grad(mean_loss)(flat, *tasks), memory)
            return (flat + updates, memory), None

        (flat, _), _ = jax.lax.scan(outer_step, (flat, optimizer.init(flat)), (episodes, keys))
        return weights._replace(trained=unravel(flat))

    keys = jax.random.split(jax.random.key(3), (STEPS, TASKS_PER_STEP))
    trained: base.Weights = run(weights, draw_training_episodes(case.family_name), keys)
    return trained


def check_learning(case: Case) -> None:
    """It learns to learn: on new tasks it is better than before training, and than from another task's support.

    By paired differences. What trains nothing itself need not be better on features of the stage before it: these
    tasks need no features.
    """
    episodes = draw_new_episodes(case.family_name)
    foreign = jax.tree.map(lambda leaf: np.roll(leaf, 1, axis=0), episodes.support)

    def query_loss(weights, support):
        outputs = case.answer(weights, support, episodes.query.inputs)
        return np.asarray(make_tasks(case.family_name).judge(outputs, episodes.query.targets))

    trained = train(case)
    learned = query_loss(trained, episodes.support)
    if case.weights.trained:
        gain = find_interval(query_loss(case.weights, episodes.support) - learned)
        claim(gain[0] > 0, f"training does not help: the loss falls by {gain[0]:.3g} to {gain[1]:.3g}")
    if case.family.problem.spec.targets not in small_problems.get_example(case.name).ignores_support:
        harm = find_interval(query_loss(trained, foreign) - learned)
        claim(harm[0] > 0, f"the support does not matter: another one costs {harm[0]:.3g} to {harm[1]:.3g}")


CHECKS = (
    check_keys,
    check_loss,
    check_outer_step,
    check_gradients,
    check_traces,
    check_vmap,
    check_learning,
)


def list_checks(name: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield every check on every family that the algorithm accepts, and that it accepts one."""
    yield "serves a family", functools.partial(check_that_it_serves_a_family, name)
    for family in FAMILIES:
        if isinstance(build(name, family), ValueError):
            continue
        for check in CHECKS:
            yield f"{family}-{check.__name__}", functools.partial(_run, check, name, family)


def _run(check: Callable[[Case], None], name: str, family: str) -> None:
    case = make_case(name, family)
    assert isinstance(case, Case)  # the family was accepted when the checks were listed
    check(case)
