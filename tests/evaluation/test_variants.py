"""Which learners are measured for a stage, how their values are laid out, and what is refused."""

from pathlib import Path

import jax
import numpy as np
import pytest

from helpers import builders, trees
from helpers.assembled import assemble
from helpers.runs import SINGLE
from metarun import config, errors, plugins
from metarun.assembly import Tasks
from metarun.config import Selection
from metarun.evaluation import episodes, results, variants
from metarun.evaluation.measurement import make_measurement
from metarun.evaluation.statistics import Values
from metarun.evaluation.variants import Variant
from metarun.stages import Stage


def measure_variants(folder: Path, *overrides: str, modes=("inductive",), curve=()) -> Values:
    """Return the values of every variant of a stage that was not trained."""
    run_config, tasks, (stage,) = assemble(folder, SINGLE, *overrides)
    weights = jax.jit(stage.make_start(tasks.family.sample))(tasks.data["train"], stage.make_keys(), {})
    chosen = variants.choose_variants(stage, tasks.evaluated.problem, modes, curve)
    return make_measurement(chosen, episodes.freeze(tasks, run_config.evaluation, count=5), 5)(weights)


def test_variants_that_share_one_adaptation_have_the_values_of_separate_ones(tmp_path):
    """Both modes take the learners of one adaptation to three steps, in whatever order the numbers stand."""
    overrides = ("model.normalisation=batch", "algorithm.inner_steps=2")
    run_config, tasks, (stage,) = assemble(tmp_path, SINGLE, *overrides)
    keys = stage.make_keys()
    weights = jax.jit(stage.make_start(tasks.family.sample))(tasks.data["train"], keys, {})
    curve, problem = (3, 1), tasks.evaluated.problem
    chosen = variants.choose_variants(stage, problem, ("inductive", "transductive"), curve)
    assert len({variant.watched for variant in chosen.values()}) == 1
    separate = {
        f"{mode}/{name}": Variant(stage.build_algorithm(mode, steps, problem))
        for mode in ("inductive", "transductive")
        for name, steps in {"unadapted": 0, "adapted": 2, "3": 3, "1": 1}.items()
    }
    frozen = episodes.freeze(tasks, run_config.evaluation, count=4)
    shared, apart = (make_measurement(group, frozen, 4)(weights) for group in (chosen, separate))
    assert list(shared) == list(apart)
    trees.assert_close(shared, apart, rtol=1e-5, atol=1e-6)


def test_unadapted_is_no_inner_step_and_adapted_is_as_many_as_configured(tmp_path):
    values = measure_variants(tmp_path, "algorithm.inner_steps=2", curve=(0, 2, 3))
    assert list(values) == [f"inductive/{name}" for name in ("unadapted", "adapted", "0", "2", "3")]
    trees.assert_equal(values["inductive/unadapted"], values["inductive/0"])
    trees.assert_equal(values["inductive/adapted"], values["inductive/2"])
    assert trees.differ(values["inductive/unadapted"], values["inductive/adapted"])
    assert trees.differ(values["inductive/2"], values["inductive/3"])


@pytest.mark.parametrize(("normalisation", "differ"), [("batch", True), ("none", False)])
def test_the_modes_differ_with_batch_statistics_and_only_then(tmp_path, normalisation, differ):
    both = ("inductive", "transductive")
    values = measure_variants(tmp_path, f"model.normalisation={normalisation}", modes=both)
    assert trees.differ(values["inductive/adapted"], values["transductive/adapted"]) == differ


def test_the_layout_has_modes_then_learners_then_the_curve(tmp_path):
    values = measure_variants(tmp_path, modes=("transductive", "inductive"), curve=(3,))
    layout = results.lay_out(values)
    assert list(layout) == ["transductive", "inductive"]
    assert list(layout["inductive"]) == ["unadapted", "adapted", "inner_steps"]
    assert list(layout["inductive"]["inner_steps"]) == ["3"]


def test_a_group_of_two_episodes_or_more_has_its_own_means():
    values = {"inductive/adapted": {"loss": np.array([1.0, 3.0, 9.0])}}
    layout = results.lay_out(values, ("pair", "single", "none"), np.array([0, 0, 1]))
    assert list(layout["inductive"]["groups"]) == ["pair"]
    assert layout["inductive"]["groups"]["pair"]["adapted"]["loss"]["mean"] == 2.0


def test_the_best_member_of_one_replica_is_a_number_that_is_not_nan():
    values = {"inductive/adapted": {"loss": np.array([[3.0, 3.0, 3.0], [1.0, 2.0, 3.0]])}}
    layout = results.lay_out_members(values, np.array(1))
    assert layout["best"]["member"] == 1
    assert layout["best"]["inductive"] == layout["members"][1]["inductive"]
    assert layout["inductive"]["adapted"]["loss"]["mean"] == 2.5
    assert "best" not in results.lay_out_members(values, None)


def make_classifier(family) -> Stage:
    """Make a stage of MAML on a perceptron with an output for each way of the family."""
    model = Selection("mlp", plugins.read_config_class("model", "mlp")(hidden=(8, 8)))
    algorithm = Selection("maml", plugins.read_config_class("algorithm", "maml")())
    settings = config.Stage("maml", model, algorithm, config.Training(steps=1))
    return Stage(settings, family.problem, (), {}, 0, 0, 1)


@pytest.mark.parametrize("ways", [4, 7])
def test_more_ways_than_the_learner_has_outputs_are_refused(ways):
    family, wide = builders.blobs(ways=3), builders.blobs(ways)
    stage = make_classifier(family)
    weights = stage.trace_weights(family.sample, (), {})
    with pytest.raises(errors.ConfigError) as raised:
        variants.check_ways(stage, Tasks(family, wide, {"test": ()}, {}), "inductive", weights)
    assert raised.value.where == "evaluation.ways"
    assert f"3 outputs and cannot tell {ways} classes" in raised.value.what
    same = Tasks(family, builders.blobs(ways=3), {"test": ()}, {})
    assert variants.check_ways(stage, same, "inductive", weights) is None


LOOPLESS = "algorithm={name: pretrain}"


@pytest.mark.parametrize("option", ["inner_steps=[1]", "adapted_steps=2"])
def test_a_curve_of_an_algorithm_without_inner_steps_is_refused(tmp_path, option):
    run_config, tasks, stages = assemble(tmp_path, SINGLE, LOOPLESS, f"evaluation.{option}")
    assert list(variants.choose_variants(stages[0], tasks.family.problem, ("inductive",))) == [
        "inductive/adapted"
    ]
    with pytest.raises(errors.ConfigError, match="pretrain has no inner steps") as raised:
        variants.refuse_steps_without_loop(stages, run_config.evaluation)
    assert raised.value.where == f"evaluation.{option.partition('=')[0]}"


def test_a_curve_is_allowed_if_one_stage_of_the_run_takes_inner_steps(tmp_path):
    run_config, _, (stage,) = assemble(tmp_path, SINGLE, "evaluation.inner_steps=[1]")
    _, _, (loopless,) = assemble(tmp_path, SINGLE, LOOPLESS)
    variants.refuse_steps_without_loop([loopless, stage], run_config.evaluation)


def test_the_unadapted_learner_of_a_written_start_is_the_mean_over_training_tasks(tmp_path):
    """It has not seen the support, and what the support begins with is the learner after 0 steps."""
    hybrid = "algorithm={name: hypernetwork, inner_steps: 2, width: 8, embed: 4}"
    run_config, tasks, (stage,) = assemble(tmp_path, SINGLE, hybrid)
    weights = jax.jit(stage.make_start(tasks.family.sample))(tasks.data["train"], stage.make_keys(), {})
    frozen = episodes.freeze(tasks, run_config.evaluation, count=5)
    chosen = variants.choose_variants(stage, tasks.evaluated.problem, ("inductive",), (0,))
    values = make_measurement(chosen, frozen, 5)(weights)
    assert trees.differ(values["inductive/unadapted"], values["inductive/0"])
    algorithm = stage.build_algorithm("inductive", 0)
    objective = tasks.evaluated.problem.objective

    @jax.jit
    def judge(weights):
        keys = jax.random.split(jax.random.key(variants.MEAN_SEED), variants.MEAN_TASKS)
        supports = jax.vmap(tasks.family.sample, in_axes=(None, 0))(tasks.data["train"], keys).support
        params = jax.vmap(algorithm.adapt, in_axes=(None, 0))(weights, supports).params
        mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), params)
        queries = jax.vmap(tasks.evaluated.sample, in_axes=(None, 0))(frozen.data, frozen.keys).query
        learner = algorithm.adapt(weights, jax.tree.map(lambda leaf: leaf[0], supports))._replace(params=mean)
        answers = jax.vmap(lambda inputs: algorithm.predict(learner, inputs))(queries.inputs)
        return jax.vmap(objective.loss)(answers, queries.targets)

    np.testing.assert_allclose(values["inductive/unadapted"]["loss"], judge(weights), rtol=1e-4)
    assert variants.describe_mean(stage, tasks.evaluated.problem) == {"training_tasks": 64, "seed": 0}


def test_the_unadapted_learner_keeps_what_normalises_its_own_queries():
    learner = {"params": np.zeros(2), "reference": np.ones(3)}
    mean = {"params": np.full(2, 5.0), "reference": np.full(3, 5.0)}
    found = variants.replace_start(learner, mean)
    np.testing.assert_array_equal(found["params"], [5, 5])
    np.testing.assert_array_equal(found["reference"], [1, 1, 1])


def test_learners_that_all_begin_alike_have_no_mean_start(tmp_path):
    _, tasks, (stage,) = assemble(tmp_path, SINGLE)
    assert variants.describe_mean(stage, tasks.evaluated.problem) is None
    chosen = variants.choose_variants(stage, tasks.evaluated.problem, ("inductive",))
    assert not any(variant.is_mean for variant in chosen.values())
