"""From a config to tasks and stages: the mode around the model, what evaluation may change, and what is refused."""

import jax
import pytest

from helpers import trees
from helpers.assembled import assemble
from helpers.runs import BOTH, SEVERAL, SINGLE, load
from metarun import assembly, config, errors, plugins, stages

BATCH = "model.normalisation=batch"


def build_network(tmp_path, mode: str):
    """Build a model with batch normalisation."""
    run_config = load(tmp_path, SINGLE, BATCH)
    family = assembly.build_family(run_config.task)
    return stages.build_model(run_config.stages[0].model, family.problem.spec, mode)


@pytest.mark.parametrize("function", ["apply", "embed"])
def test_a_transductive_model_does_not_look_at_the_reference(tmp_path, function):
    inputs, reference = (jax.random.normal(jax.random.key(seed), (5, 1)) + seed for seed in (1, 3))
    inductive, transductive = (build_network(tmp_path, mode) for mode in ("inductive", "transductive"))
    params = inductive.init(jax.random.key(0), inputs)
    alone = getattr(inductive, function)(params, inputs, reference=None)
    hidden = getattr(transductive, function)(params, inputs, reference=reference)
    seen = getattr(inductive, function)(params, inputs, reference=reference)
    trees.assert_equal(hidden, alone)
    assert trees.differ(seen, alone)


def sample_one(family):
    """Return a batch of one episode."""
    return jax.tree.map(lambda leaf: leaf[None], family.sample((), jax.random.key(1)))


def test_an_algorithm_has_the_mode_that_its_stage_trains_in_unless_another_is_asked_for(tmp_path):
    overrides = (BATCH, "training.mode=transductive", "algorithm.inner_steps=0")
    built = assemble(tmp_path, SINGLE, *overrides)
    family = built.tasks.family
    support = family.sample((), jax.random.key(0)).support
    inputs = support.inputs + 2.0
    algorithms = {mode: built.stage.build_algorithm(mode) for mode in (None, "transductive", "inductive")}
    weights = algorithms[None].init(jax.random.key(0), sample_one(family), {})
    outputs = {
        mode: algorithm.predict(algorithm.adapt(weights, support), inputs)
        for mode, algorithm in algorithms.items()
    }
    trees.assert_equal(outputs[None], outputs["transductive"])
    assert trees.differ(outputs[None], outputs["inductive"])


def test_inner_steps_may_be_set_for_one_use_of_an_algorithm(tmp_path):
    built = assemble(tmp_path)
    support = built.tasks.family.sample((), jax.random.key(0)).support
    unadapted = built.stage.build_algorithm(inner_steps=0)
    weights = unadapted.init(jax.random.key(0), sample_one(built.tasks.family), {})
    trees.assert_equal(unadapted.adapt(weights, support).params, weights.trained)
    adapted = built.stage.build_algorithm().adapt(weights, support)
    assert trees.differ(adapted.params, weights.trained)


def test_an_evaluation_without_wishes_is_judged_on_the_task_of_training(tmp_path):
    run_config, tasks, _ = assemble(tmp_path)
    assert assembly.select_evaluated(run_config.task, run_config.evaluation) == run_config.task
    assert tasks.evaluated is tasks.family


def test_an_evaluation_sets_its_own_shots_and_queries(tmp_path):
    run_config = load(tmp_path, SINGLE, "evaluation.shots=3", "evaluation.queries=8")
    evaluated = assembly.select_evaluated(run_config.task, run_config.evaluation).config
    assert (evaluated.shots, evaluated.queries) == (3, 8)
    assert (run_config.task.config.shots, run_config.task.config.queries) == (5, 5)


def test_an_option_that_the_task_does_not_have_is_refused_by_its_name(tmp_path):
    run_config = load(tmp_path, SINGLE, "evaluation.ways=3")
    with pytest.raises(errors.ConfigError) as raised:
        assembly.select_evaluated(run_config.task, run_config.evaluation)
    assert raised.value.where == "evaluation.ways"
    assert "sinusoid has no ways" in raised.value.what


def test_a_value_that_the_task_refuses_is_an_error_of_the_evaluation(tmp_path):
    file = tmp_path / "omniglot.yaml"
    file.write_text(SINGLE.replace("{name: sinusoid, shots: 5, queries: 5}", "{name: omniglot}"))
    run_config = config.load(file, ["evaluation.shots=20"])
    with pytest.raises(errors.ConfigError) as raised:
        assembly.select_evaluated(run_config.task, run_config.evaluation)
    assert raised.value.where == "evaluation"
    assert "20 shots" in raised.value.what


def test_a_model_that_does_not_fit_the_task_is_an_error_that_names_its_stage(tmp_path):
    built = assemble(tmp_path, SEVERAL.replace("{name: mlp, hidden: [8]}", "{name: conv4}"))
    with pytest.raises(errors.ConfigError) as raised:
        built.stage.build_algorithm()
    assert "first" in raised.value.where or "second" in raised.value.where
    assert "pictures" in raised.value.what
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    ("error", "remedy"),
    [(ValueError("too few"), "change task in the config"), (ValueError("too few", "add some"), "add some")],
)
def test_a_refusal_of_a_plug_in_becomes_three_lines(error, remedy):
    with pytest.raises(errors.ConfigError) as raised, stages.config_errors("task"):
        raise error
    assert (raised.value.what, raised.value.where, raised.value.remedy) == ("too few", "task", remedy)


@pytest.fixture
def builds(monkeypatch) -> list[list[str]]:
    """The names of the earlier stages at each build of MAML."""
    seen: list[list[str]] = []
    module = plugins.load("algorithm", "maml")

    def build(options, model, problem, earlier=None, original=module.build):
        seen.append(sorted(earlier or {}))
        return original(options, model, problem, earlier)

    monkeypatch.setattr(module, "build", build)
    return seen


def test_the_earlier_stages_are_built_before_a_stage(tmp_path, builds):
    assemble(tmp_path, SEVERAL).stage.build_algorithm()
    assert builds == [[], ["first"]]


def test_the_same_arguments_give_the_same_algorithm_and_build_each_earlier_stage_once(tmp_path, builds):
    built = assemble(tmp_path, SEVERAL)
    algorithm = built.stage.build_algorithm()
    assert built.stage.build_algorithm() is algorithm
    assert built.stage.build_algorithm(problem=built.tasks.family.problem) is algorithm
    assert len(builds) == 2
    unadapted = built.stage.build_algorithm(inner_steps=0)
    assert built.stage.build_algorithm(inner_steps=0) is unadapted is not algorithm
    assert builds == [[], ["first"], ["first"]]  # the earlier stage takes its own inner steps
    built.stages[0].build_algorithm()
    assert len(builds) == 3


def test_a_stage_has_the_axes_that_its_config_asks_for(tmp_path):
    base, other = assemble(tmp_path, BOTH).stages
    assert list(base.axes.items()) == [("replica", 2), ("member", 3)]
    assert other.axes == {"replica": 2}
    assert base.positions[:2] == [{"replica": 0, "member": 0}, {"replica": 0, "member": 1}]
    assert len(base.positions) == 6
    assert [before.name for before in other.earlier] == ["base"]


def test_an_outline_has_shapes_in_place_of_the_data(tmp_path):
    file = tmp_path / "omniglot.yaml"
    file.write_text(SINGLE.replace("{name: sinusoid, shots: 5, queries: 5}", "{name: omniglot}"))
    tasks = assembly.outline_tasks(config.load(file))
    leaves = jax.tree.leaves(tasks.data)
    assert leaves and all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)


def test_a_family_that_keeps_nothing_is_built_whatever_was_kept_and_has_no_fingerprint(tmp_path):
    run_config = load(tmp_path, SINGLE)
    assert assembly.build_family(run_config.task, {"vocabulary": "x"}).kept is None
    with pytest.raises(errors.DataError, match="not those that the run was trained on"):
        assembly.build_tasks(run_config, jax.devices()[0], {"fingerprint": {"sha256": "x"}})


def test_each_of_many_stages_is_built_once_with_other_numbers(tmp_path, builds):
    stage = "{name: s%d, model: {name: mlp, hidden: [2]}, algorithm: {name: maml}, training: {steps: 1}}"
    text = f"task: {{name: sinusoid}}\nstages: [{', '.join(stage % place for place in range(12))}]\n"
    last = assemble(tmp_path, text).stages[-1]
    listed = last.list_numbers()
    assert {path.partition("/")[0] for path in listed} == {f"s{place}" for place in range(12)}
    assert not any(path.startswith("s0/training.") for path in listed)
    taken = last.take_numbers({"s0/algorithm.inner_lr": 0.5})
    taken.build_algorithm()
    assert len(builds) == 12
    assert all(stage.earlier == taken.earlier[: len(stage.earlier)] for stage in taken.earlier)
