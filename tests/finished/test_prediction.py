"""`metarun.load`: a run that adapts to somebody's own arrays, and answers their queries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metarun
from helpers import builders, compiled, drawings, opened_runs, processes, trees
from metarun import assembly, base, errors, plugins
from metarun.config import Selection
from metarun.finished import prediction
from metarun.finished.finished_run import find_run
from metarun.finished.opened_run import open_run
from metarun.testing import small_problems

pytestmark = pytest.mark.usefixtures("own_place", "shared_programs")

# The run


def test_a_run_on_pictures_is_loaded_without_its_data_set(picture_run, monkeypatch, tmp_path):
    monkeypatch.setenv("METARUN_DATA", str(tmp_path / "nowhere"))
    run = metarun.load(picture_run)
    assert (run.stage, run.step, run.mode, run.inner_steps) == ("maml", 1, "inductive", 2)
    assert run.targets == "classes"


@pytest.mark.parametrize("name", plugins.list_names("task"))
def test_the_outline_of_a_family_has_the_episodes_and_the_spec_of_the_family(name):
    module = plugins.load("task", name)
    if not hasattr(module, "outline"):
        pytest.skip(f"{name} is built without files, or not without them")
    built, selection = builders.build_task(name), Selection(name, small_problems.make_example_config(name))
    outline = assembly.make_family(module.outline, selection, built.kept)
    assert outline.problem.spec == built.problem.spec and type(outline.form) is type(built.form)
    assert outline.data.keys() == built.data.keys()
    for split, data in built.data.items():
        shapes = [
            jax.eval_shape(built.sample, arrays, jax.random.key(0)) for arrays in (data, outline.data[split])
        ]
        assert trees.kind_of(shapes[0]) == trees.kind_of(shapes[1])


def test_the_last_stage_is_meant_unless_another_one_is_named(several):
    first, second = (metarun.load(several, stage=name) for name in ("first", "second"))
    last, one = metarun.load(several), metarun.load(several / "checkpoints" / "first" / "24")
    trees.assert_equal(last.weights, second.weights)
    trees.assert_equal(one.weights, first.weights)
    assert not np.array_equal(*(jax.tree.leaves(run.weights)[0] for run in (first, second)))
    with pytest.raises(errors.UsageError, match="no stage third"):
        metarun.load(several, stage="third")
    with pytest.raises(errors.UsageError, match="not of stage second"):
        metarun.load(several / "checkpoints" / "first" / "24", stage="second")


def test_the_weights_are_those_that_evaluation_measures(single):
    measured = open_run(find_run(single)).trained["maml"]
    trees.assert_equal(metarun.load(single).weights, measured.weights)


def test_importing_metarun_imports_no_jax():
    code = "import sys, metarun; metarun.load; print(*sorted({'jax', 'flax', 'numpy'} & set(sys.modules)))"
    assert processes.run_code(code).split() == []


def test_inner_steps_are_refused_where_there_are_none():
    run = opened_runs.make_run(opened_runs.make_stage("prototypes", builders.blobs().problem))
    assert prediction.choose_inner_steps(run, None) is None
    with pytest.raises(errors.UsageError, match="prototypes has no inner steps"):
        prediction.choose_inner_steps(run, 3)


# Classes


def test_shots_may_be_unequal_and_ways_fewer_than_the_outputs(picture_run):
    run, support, query = (
        metarun.load(picture_run),
        drawings.make_examples([3, 1, 5]),
        drawings.make_examples([4, 4, 4], first=8).inputs,
    )
    probabilities = run.adapt(support).predict(query)
    algorithm = open_run(find_run(picture_run), outline=True).stage.build_algorithm("inductive")
    logits = compiled.answer(algorithm, run.weights, support, query)
    assert logits.shape == (12, 4) and probabilities.shape == (12, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    exponentials = np.exp(np.asarray(logits, np.float64))[:, :3]
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-3, atol=1e-6)


def test_more_ways_than_outputs_are_refused_before_a_picture_is_read(picture_run, tmp_path, metarun_):
    for label in range(5):
        (tmp_path / "support" / str(label)).mkdir(parents=True)
        (tmp_path / "support" / str(label) / "no picture.png").write_text("nothing")
    (tmp_path / "q.png").write_text("nothing")
    said = metarun_("predict", picture_run, "--support", tmp_path / "support", "--query", tmp_path / "q.png")
    assert said.code == 3 and len(said.err) == 3
    assert "4 outputs and cannot tell 5 classes apart" in said.err[0]
    assert "give at most 4 classes, or train with task.ways=5" in said.err[2]


def test_an_algorithm_without_an_output_a_class_follows_the_ways_of_the_support():
    def make(problem: base.Problem) -> base.Algorithm:
        def adapt(weights, support):
            members = jax.nn.one_hot(support.targets, problem.spec.ways).T
            return members @ support.inputs / members.sum(axis=1, keepdims=True)

        def predict(prototypes, inputs):
            return -jnp.square(inputs[:, None] - prototypes[None]).sum(axis=-1)

        return base.Algorithm(lambda *_: base.Weights(()), lambda *_: (0.0, {}), adapt, predict)

    run = opened_runs.open_learner("prototypes", builders.blobs(), make)
    centres = np.float32(10 * np.eye(7, 4) + np.arange(7)[:, None])
    probabilities = run.adapt((np.repeat(centres, 2, axis=0), np.repeat(np.arange(7), 2))).predict(centres)
    assert probabilities.shape == (7, 7) and probabilities.argmax(axis=1).tolist() == list(range(7))


def test_what_an_algorithm_cannot_take_is_explained_before_anything_is_computed():
    def make(problem: base.Problem) -> base.Algorithm:
        def adapt(weights, support):
            if support.targets.shape[0] != 12:
                raise ValueError("the network reads 12 examples", "give 4 shots of 3 classes")
            return ()

        return base.Algorithm(lambda *_: base.Weights(()), lambda *_: (0.0, {}), adapt, lambda learner, x: x)

    run = opened_runs.open_learner("reader", builders.blobs(), make)
    with pytest.raises(errors.ConfigError, match="reads 12 examples") as caught:
        run.adapt((np.zeros((2, 4)), np.arange(2)))
    assert caught.value.remedy == "give 4 shots of 3 classes"


def test_queries_are_independent_in_inductive_mode_and_not_in_transductive_mode(picture_run):
    support, query = (
        drawings.make_examples([2, 2, 2, 2]),
        drawings.make_examples([3, 3, 3, 3], first=8).inputs,
    )
    for mode, independent in (("inductive", True), ("transductive", False)):
        learner = metarun.load(picture_run, mode=mode).adapt(support)
        together, alone = learner.predict(query), learner.predict(query[:1])
        assert np.allclose(together[:1], alone, atol=1e-5) == independent


def test_many_queries_are_answered_in_parts_as_they_are_together(picture_run, monkeypatch):
    learner = metarun.load(picture_run).adapt(drawings.make_examples([2, 2, 2, 2]))
    query = drawings.make_examples([3, 3, 3, 2], first=8).inputs
    together = learner.predict(query)
    monkeypatch.setattr(prediction, "AT_ONCE", 4)
    np.testing.assert_allclose(learner.predict(query), together, rtol=1e-4, atol=1e-6)


def test_without_inner_steps_the_support_is_not_learned_from(picture_run):
    support, query = (
        drawings.make_examples([2, 2, 2, 2]),
        drawings.make_examples([3, 3, 3, 3], first=8).inputs,
    )
    swapped = support._replace(targets=3 - support.targets)
    for steps, same in ((0, True), (1, False)):
        run = metarun.load(picture_run, inner_steps=steps)
        answers = [run.adapt(examples).predict(query) for examples in (support, swapped)]
        assert run.inner_steps == steps and np.array_equal(*answers) == same


@pytest.mark.parametrize(
    ("inputs", "targets", "what"),
    [
        (np.zeros((2, 16, 16)), [0, 1], r"shape \(2, 16, 16\)"),
        (np.zeros((0, 16, 16, 1)), [], "no example"),
        (np.full((2, 16, 16, 1), np.nan), [0, 1], "not finite"),
        (np.full((2, 16, 16, 1), 255, np.uint8), [0, 1], "values from 255 to 255"),
        (np.zeros((2, 16, 16, 1)), [0.0, 1.0], "type float64"),
        (np.zeros((2, 16, 16, 1)), [0, 1, 1], r"shape \(3,\)"),
        (np.zeros((2, 16, 16, 1)), [0, 0], "labels are 0"),
        (np.zeros((2, 16, 16, 1)), [0, 2], "labels are 0, 2"),
        (np.zeros((2, 16, 16, 1)), [-1, 0], "labels are -1, 0"),
    ],
)
def test_arrays_that_are_no_support_are_refused(picture_run, inputs, targets, what):
    with pytest.raises(errors.DataError, match=what):
        metarun.load(picture_run).adapt((inputs, targets))


def test_a_learner_that_runs_away_is_an_error_and_no_answer(single):
    learner = metarun.load(single, inner_steps=3).adapt(
        (np.linspace(-1e4, 1e4, 9)[:, None], np.full((9, 1), 1e30))
    )
    with pytest.raises(errors.DivergedError, match="not finite"):
        learner.predict(np.zeros((2, 1)))
