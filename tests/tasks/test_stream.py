"""Omniglot as one stream: what it holds, what is measured along it, who may follow it, and its picture."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from helpers import assembled, builders, compiled
from helpers.runs import train
from metarun import assembly, base, config, errors, losses
from metarun.config import Selection
from metarun.tasks import _classes, omniglot

KEY = jax.random.key(0)
LABELS = np.array([2, 0, 0, 1, 2, 1, 1, 0, 2], np.int32)  # three classes, each presented three times
CONFIG = """
task: {name: omniglot, ways: 2, presentations: 3, counts: [20, 10, 20]}
model: {name: conv4, depth: 1, width: 2, normalisation: layer, head: flatten}
algorithm: {name: memory, reader: slots, width: 4, slots: 8, reads: 1}
training: {steps: 2, tasks_per_step: 2}
evaluation: {episodes: 4, modes: [inductive]}
"""


def test_a_stream_is_all_presentations_of_its_classes_in_a_random_order():
    family = builders.build_task("omniglot", ways=3, presentations=4, counts=(30, 5, 30))
    episodes = jax.device_get(compiled.sample(family, KEY, 50, family.data["train"]))
    assert family.problem.stream
    assert family.drift is None
    for examples in (episodes.support, episodes.query):
        np.testing.assert_array_equal(np.sort(examples.targets, axis=1), [[0] * 4 + [1] * 4 + [2] * 4] * 50)
    np.testing.assert_array_equal(episodes.support.inputs, episodes.query.inputs)
    assert len({tuple(labels) for labels in episodes.query.targets.tolist()}) == 50
    pictures = episodes.query.inputs.reshape(50, 12, -1)
    assert all(len(np.unique(stream, axis=0)) == 12 for stream in pictures)  # no drawing comes twice


def test_the_accuracy_of_each_presentation_is_that_over_its_examples():
    objective = _classes.count_presentations(losses.classification(), 3)
    numbers = np.asarray(jax.jit(_classes.number_presentations, static_argnums=1)(jnp.asarray(LABELS), 3))
    np.testing.assert_array_equal(numbers, [1, 1, 2, 1, 2, 2, 3, 3, 3])
    answers = LABELS.copy()
    answers[[0, 3, 5]] = [0, 0, 0]  # wrong at two first presentations and at one second
    stream = base.Examples(jnp.zeros((9, 1)), jnp.asarray(LABELS))
    measure = jax.jit(lambda logits: objective.metrics(lambda _: logits, stream))
    found = {name: float(value) for name, value in measure(10 * jax.nn.one_hot(answers, 3)).items()}
    expected = {"accuracy": 6 / 9, "accuracy_1": 1 / 3, "accuracy_2": 2 / 3, "accuracy_3": 1.0}
    assert {name: pytest.approx(value) for name, value in expected.items()} == {
        name: found[name] for name in expected
    }
    assert set(objective.higher_is_better) == set(expected)


@pytest.mark.slow
def test_a_run_on_streams_reports_every_presentation_as_its_answers_give_it(tmp_path):
    run = train(tmp_path / "run", CONFIG, pictures=True)
    result = json.loads((run / "result.json").read_text())
    metrics = result["stages"][next(iter(result["stages"]))]["inductive"]["adapted"]
    names = ["accuracy", "accuracy_1", "accuracy_2", "accuracy_3"]
    means = {name: metrics[name]["mean"] for name in names}
    assert means["accuracy"] == pytest.approx(np.mean([means[name] for name in names[1:]]))
    assert list((run / "pictures").glob("*-episode.png"))


@pytest.mark.parametrize("algorithm", ["protonet", "maml"])
def test_an_algorithm_that_cannot_follow_a_stream_is_refused(tmp_path, algorithm):
    case = assembled.assemble(tmp_path, CONFIG, f"algorithm={{name: {algorithm}}}")
    with pytest.raises(errors.ConfigError, match="cannot answer a stream"):
        case.stage.build_algorithm()


def test_a_stream_is_not_evaluated_in_other_shots():
    task = Selection("omniglot", omniglot.Config(presentations=3))
    assert assembly.select_evaluated(task, config.Evaluation(ways=2)).config.ways == 2
    with pytest.raises(errors.ConfigError, match="has no shots"):
        assembly.select_evaluated(task, config.Evaluation(shots=5))


@pytest.mark.parametrize("option", ["shots", "queries"])
def test_shots_and_queries_beside_presentations_are_refused_unless_they_are_the_defaults(tmp_path, option):
    file = tmp_path / "stream.yaml"
    file.write_text(CONFIG)
    whole = config.load(file)  # a run's own config has all options, with their defaults
    file.write_text(config.to_yaml(whole))
    assert config.load(file) == whole
    with pytest.raises(errors.ConfigError, match=f"has presentations in place of {option}") as refusal:
        config.load(file, [f"task.{option}=5"])
    assert refusal.value.where == f"override task.{option}=5"
    assert refusal.value.exit_code == 3
    assert config.load(file, [f"task.{option}=5", "task.presentations=0"]).task.config.presentations == 0


def test_a_stream_does_not_tell_alphabets():
    with pytest.raises(ValueError, match="does not tell alphabets"):
        omniglot.Config(presentations=3, tells_alphabet=True)


def test_the_picture_of_a_stream_has_a_row_for_each_class_and_a_column_for_each_presentation():
    order = np.argsort(LABELS, kind="stable")
    inputs = np.zeros((9, 8, 8, 1), np.float32)
    stream = base.Examples(inputs, LABELS)
    wrong = LABELS.copy()
    wrong[5] = 0
    figure = Figure()
    _classes.draw_stream(figure, base.Episode(stream, stream), {None: lambda _: np.eye(3)[wrong]})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"{place + 1}: {wrong[place]}" for place in order]
    assert [axes.title.get_color() for axes in figure.axes].count("crimson") == 1
