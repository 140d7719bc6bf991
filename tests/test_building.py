"""From names in a config to functions: the mode around the model, what evaluation may change, and refusals."""

import contracts
import jax
import pytest
from test_experiment import SEVERAL, SINGLE, load

from metarun import building, config, errors

BATCH = "model.normalisation=batch"


def network(tmp_path, mode: str):
    run_config = load(tmp_path, SINGLE, BATCH)
    family = building.task_family(run_config.task)
    return building.model(run_config.stages[0].model, family.spec, mode)


@pytest.mark.parametrize("function", ["apply", "embed"])
def test_a_transductive_model_does_not_look_at_the_reference(tmp_path, function):
    inputs, reference = (jax.random.normal(jax.random.key(seed), (5, 1)) + seed for seed in (1, 3))
    inductive, transductive = (network(tmp_path, mode) for mode in ("inductive", "transductive"))
    params = inductive.init(jax.random.key(0), inputs)
    alone = getattr(inductive, function)(params, inputs, reference=None)
    hidden = getattr(transductive, function)(params, inputs, reference=reference)
    seen = getattr(inductive, function)(params, inputs, reference=reference)
    contracts.assert_equal(hidden, alone)
    assert contracts.differ(seen, alone)


def test_an_algorithm_has_the_mode_that_its_stage_trains_in_unless_another_is_asked_for(tmp_path):
    overrides = (BATCH, "training.mode=transductive", "algorithm.inner_steps=0")
    run_config = load(tmp_path, SINGLE, *overrides)
    family = building.task_family(run_config.task)
    support = family.sample((), jax.random.key(0)).support
    inputs = support.inputs + 2.0
    built = {
        mode: building.algorithm(run_config, 0, family, mode) for mode in (None, "transductive", "inductive")
    }
    weights = built[None].init(jax.random.key(0), jax.tree.map(lambda x: x[None], one_episode(family)), {})
    outputs = {mode: a.predict(a.adapt(weights, support), inputs) for mode, a in built.items()}
    contracts.assert_equal(outputs[None], outputs["transductive"])
    assert contracts.differ(outputs[None], outputs["inductive"])


def one_episode(family):
    return family.sample((), jax.random.key(1))


def test_inner_steps_may_be_set_for_one_use_of_an_algorithm(tmp_path):
    run_config = load(tmp_path)
    family = building.task_family(run_config.task)
    episode = family.sample((), jax.random.key(0))
    unadapted = building.algorithm(run_config, 0, family, inner_steps=0)
    weights = unadapted.init(jax.random.key(0), jax.tree.map(lambda x: x[None], episode), {})
    contracts.assert_equal(unadapted.adapt(weights, episode.support).params, weights.trained)
    adapted = building.algorithm(run_config, 0, family).adapt(weights, episode.support)
    assert contracts.differ(adapted.params, weights.trained)


def test_an_evaluation_without_wishes_is_judged_on_the_task_of_training(tmp_path):
    run_config = load(tmp_path)
    assert building.judged_selection(run_config.task, run_config.evaluation) == run_config.task


def test_an_evaluation_sets_its_own_shots_and_queries(tmp_path):
    run_config = load(tmp_path, SINGLE, "evaluation.shots=3", "evaluation.queries=8")
    judged = building.judged_selection(run_config.task, run_config.evaluation).config
    assert (judged.shots, judged.queries) == (3, 8)
    assert (run_config.task.config.shots, run_config.task.config.queries) == (5, 5)


def test_an_option_that_the_task_does_not_have_is_refused_by_its_name(tmp_path):
    run_config = load(tmp_path, SINGLE, "evaluation.ways=3")
    with pytest.raises(errors.ConfigError) as raised:
        building.judged_selection(run_config.task, run_config.evaluation)
    assert raised.value.where == "evaluation.ways"
    assert "sinusoid has no ways" in raised.value.what


def test_a_value_that_the_task_refuses_is_an_error_of_the_evaluation(tmp_path):
    file = tmp_path / "omniglot.yaml"
    file.write_text(SINGLE.replace("{name: sinusoid, shots: 5, queries: 5}", "{name: omniglot}"))
    run_config = config.load(file, ["evaluation.shots=20"])
    with pytest.raises(errors.ConfigError) as raised:
        building.judged_selection(run_config.task, run_config.evaluation)
    assert raised.value.where == "evaluation"
    assert "20 shots" in raised.value.what


def test_a_model_that_does_not_fit_the_task_is_an_error_that_names_its_stage(tmp_path):
    wrong = SEVERAL.replace("{name: mlp, hidden: [8, 8]}", "{name: conv4}")
    run_config = load(tmp_path, wrong)
    family = building.task_family(run_config.task)
    with pytest.raises(errors.ConfigError) as raised:
        building.algorithm(run_config, 1, family)
    assert "first" in raised.value.where or "second" in raised.value.where
    assert "pictures" in raised.value.what
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    ("error", "remedy"),
    [(ValueError("too few"), "change task in the config"), (ValueError("too few", "add some"), "add some")],
)
def test_a_refusal_of_a_plug_in_becomes_three_lines(error, remedy):
    with pytest.raises(errors.ConfigError) as raised, building.refusals("task"):
        raise error
    assert (raised.value.what, raised.value.where, raised.value.remedy) == ("too few", "task", remedy)


def test_the_earlier_stages_are_built_before_a_stage(tmp_path, monkeypatch):
    run_config = load(tmp_path, SEVERAL)
    family = building.task_family(run_config.task)
    seen = []
    module = building.plugins.load("algorithm", "maml")
    original = module.build

    def build(options, model, objective, earlier=None):
        seen.append(sorted(earlier or {}))
        return original(options, model, objective, earlier)

    monkeypatch.setattr(module, "build", build)
    building.algorithm(run_config, 1, family)
    assert seen == [[], ["first"]]
