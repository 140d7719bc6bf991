"""NaN and infinity in data, weights and gradients, at a random step: exit code 7, the learner, and a sound checkpoint.

The run that goes on without the fault ends as one that never had it.
"""

import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fault.share import seed, share
from helpers.runs import SINGLE, assert_same_run, last_checkpoints, read_arrays, read_json, train
from metarun import assembly, errors
from metarun.runs import metrics
from metarun.training import loop

VALUES = [float("nan"), float("inf"), float("-inf")]
STEPS, EVERY, REPLICAS = 24, 8, 3
OVERRIDES = (f"replicas={REPLICAS}", "evaluation.every=null", "evaluation.episodes=4")


def poison(tree: Any, hit: Any, value: float) -> Any:
    """Return a tree with the value in the first place of its first array, where `hit` says so."""
    leaves, structure = jax.tree.flatten(tree)
    flat = jnp.ravel(leaves[0])
    leaves[0] = jnp.where(hit, flat.at[0].set(value), flat).reshape(leaves[0].shape)
    return structure.unflatten(leaves)


def replace_steps(patch: pytest.MonkeyPatch, where: str, at: int, learner: int, value: float) -> None:
    """Let a value come up in a step of one learner: in its weights before the step, or in its gradient."""
    keys: list[np.ndarray] = []

    def make_step(made: loop.Loop, make: Callable = loop.make_step) -> Callable:
        assert made.stage is not None
        with jax.ensure_compile_time_eval():
            keys.append(np.asarray(jax.random.key_data(made.stage.make_keys())))

        def is_hit(key: Any, step: Any) -> Any:
            return (step == at) & (jax.random.key_data(key) == keys[-1][learner]).all()

        def outer_step(state: loop.State, data: Any, key: Any, step: Any):
            hit = is_hit(key, step)
            if where == "weights":
                weights = state.weights._replace(trained=poison(state.weights.trained, hit, value))
                return make(made)(state._replace(weights=weights), data, key, step)
            step_of = made.optimizer.step

            def step_poisoned(differentiate_at: Callable, *rest: Any) -> Any:
                def differentiate_badly(trained: Any) -> Any:
                    gradient, *others = differentiate_at(trained)
                    return poison(gradient, hit, value), *others

                return step_of(differentiate_badly, *rest)

            return make(made._replace(optimizer=made.optimizer._replace(step=step_poisoned)))(
                state, data, key, step
            )

        return outer_step

    patch.setattr(loop, "make_step", make_step)


def replace_data(patch: pytest.MonkeyPatch, at: int, learner: int, value: float) -> None:
    """Let a value come up in the targets of one task, which one learner meets in one step."""

    def build(selection: Any, kept: Any, build_family: Callable = assembly.build_family):
        family = build_family(selection, kept)

        def sample(data: Any, key: Any):
            root = jax.random.fold_in(jax.random.key(np.uint32(learner)), 0)  # as in Stage.make_keys
            task, _ = jax.random.split(loop.make_task_keys(root, at, jnp.arange(1))[0])
            hit = (jax.random.key_data(key) == jax.random.key_data(task)).all()
            episode = family.sample(data, key)
            targets = poison(episode.support.targets, hit, value)
            return episode._replace(support=episode.support._replace(targets=targets))

        return family._replace(sample=sample)

    patch.setattr(assembly, "build_family", build)


def describe_fault(path: Any, error: errors.DivergedError, at: int, learner: int) -> str | None:
    """Return what is wrong with how a run ended at a number that is not finite; None: nothing."""
    if error.exit_code != 7 or f"replica {learner} (seed {learner}) (1 of {REPLICAS})" not in error.what:
        return f"another learner: {error}"
    if f"step {at + 1}," not in error.what:
        return f"another step: {error}"
    newest = last_checkpoints(path).get("maml") if (path / "checkpoints").is_dir() else None
    if (newest.step if newest else 0) != at // EVERY * EVERY:
        return f"the newest checkpoint is {newest and newest.step}"
    if newest and not all(np.isfinite(array).all() for array in read_arrays(newest).values()):
        return "a checkpoint is not finite"
    if read_json(path / "status.json")["status"] != "diverged":
        return "the status is another one"
    return None


@pytest.mark.parametrize("where", ["data", "weights", "gradient"])
def test_a_number_that_is_not_finite_ends_the_run_and_spoils_nothing(tmp_path, attack, where):
    draws = random.Random(f"{seed()} {where}")
    reference = train(tmp_path / "reference", SINGLE, *OVERRIDES)
    for number in range(share(3)):
        at, learner, value = draws.randrange(1, STEPS), draws.randrange(REPLICAS), draws.choice(VALUES)
        what, path = f"{value} in the {where} of replica {learner} at step {at}", tmp_path / str(number)
        attack.tries += 1
        with pytest.MonkeyPatch.context() as patch:
            if where == "data":
                replace_data(patch, at, learner, value)
            else:
                replace_steps(patch, where, at, learner, value)
            try:
                train(path, SINGLE, *OVERRIDES, fresh=True)
                attack.fail(f"{what}: the run went on")
                continue
            except errors.DivergedError as error:
                fault = describe_fault(path, error, at, learner)
        if fault:
            attack.fail(f"{what}: {fault}")
        assert metrics.read(path / "metrics.jsonl")[-1]["step"] <= STEPS
        try:
            assert_same_run(train(path, SINGLE, *OVERRIDES, resume=True), reference)
        except (AssertionError, errors.MetarunError) as difference:
            attack.fail(f"{what}: the resumed run differs: {difference}")
