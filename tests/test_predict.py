"""`metarun predict` and `metarun.load`: a run's answers to somebody's own pictures, tables and sentences."""

import csv
import dataclasses
import io
import json
import os
from pathlib import Path
from typing import Any

import contracts
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_cli
from PIL import Image
from test_experiment import SEVERAL, SINGLE, load, train

import metarun
from metarun import (
    assessment,
    base,
    building,
    config,
    errors,
    evaluation,
    experiment,
    losses,
    optimizer,
    plugins,
    prediction,
    stages,
    training,
)
from metarun.cli import predict
from metarun.data import examples, pictures
from metarun.runs.checkpoints import Checkpoints

own_place, metarun_ = test_cli.own_place, test_cli.metarun_  # fixtures

PICTURES = """
task: {name: omniglot, ways: 4, shots: 2, queries: 3, counts: [8, 0, 8], size: 16, rotations: none}
model: {name: conv4, width: 4, depth: 2}
algorithm: {name: maml, inner_steps: 2, inner_lr: 0.5}
training: {steps: 1, tasks_per_step: 2}
evaluation: {modes: [inductive, transductive]}
accelerator: {platform: cpu, devices: 1}
"""


def drawings() -> dict[str, Any]:
    """What stands for a split of Omniglot: eight classes that noise tells apart more or less."""
    generator = np.random.default_rng(0)
    centres = generator.integers(0, 256, (8, 1, 16, 16))
    noisy = centres + generator.integers(-120, 121, (8, 20, 16, 16))
    numbers = np.arange(8, dtype=np.int32)
    return {"images": noisy.clip(0, 255).astype(np.uint8), "character": numbers, "alphabet": numbers}


def on_device() -> dict[str, Any]:
    """The same as the family samples it."""
    return jax.device_put(drawings())


@pytest.fixture(scope="module")
def picture_run(tmp_path_factory) -> Path:
    """A run with the weights that training begins with, made without any data set."""
    path = tmp_path_factory.mktemp("pictures") / "run"
    path.mkdir()
    run_config = load(path.parent, PICTURES)
    (path / "config.yaml").write_text(config.to_yaml(run_config))
    family = building.task_outline(run_config.task)
    algorithm = building.algorithm(run_config, 0, family)
    episodes = jax.vmap(family.sample, in_axes=(None, 0))(on_device(), jax.random.split(jax.random.key(1), 2))
    weights = algorithm.init(jax.random.key(0), episodes, {})
    state = training.State(weights, optimizer.build(run_config.stages[0].training).init(weights.trained))
    with Checkpoints(path / "checkpoints" / "maml") as saved:
        saved.save(1, state, dataclasses.asdict(stages.Facts(step=1)), False)
    return path


@pytest.fixture(scope="module")
def number_run(tmp_path_factory) -> Path:
    return train_quickly(tmp_path_factory.mktemp("numbers"), SINGLE)


def train_quickly(folder: Path, text: str) -> Path:
    """A finished run of four steps, without its pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment.pictures, "write", lambda session, trained: None)
        return train(folder / "run", text.replace("steps: 24", "steps: 4"), "evaluation.every=null")


def write_picture(path: Path, ink: np.ndarray) -> None:
    """Ink [height, width], 255 = black, on white paper."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(255 - ink).save(path)


def write_episode(folder: Path, episode: base.Episode) -> None:
    """support/<class>/*.png and query/<class>/*.png."""
    for part in ("support", "query"):
        of_part = getattr(episode, part)
        for index, label in enumerate(np.asarray(of_part.targets)):
            ink = np.round(255 * np.asarray(of_part.inputs[index, :, :, 0])).astype(np.uint8)
            write_picture(folder / part / f"class {label}" / f"{index:03}.png", ink)


def write_classes(folder: Path, counts: list[int], part: str = "support") -> None:
    """Class folders with so many drawings each."""
    for label, count in enumerate(counts):
        for index in range(count):
            write_picture(
                folder / part / f"class {label}" / f"{index}.png", drawings()["images"][label, index]
            )


def arrays(counts: list[int], first: int = 0) -> base.Examples:
    """So many drawings of each class, as the family has them."""
    pairs = [(label, index) for label, count in enumerate(counts) for index in range(first, first + count)]
    images = np.stack([drawings()["images"][pair] for pair in pairs])[..., None]
    return base.Examples(images.astype(np.float32) / 255, np.array([label for label, _ in pairs], np.int32))


# Equal to evaluation


@pytest.mark.parametrize("mode", ["inductive", "transductive"])
def test_the_files_of_an_episode_are_classified_exactly_as_evaluation_classifies_the_episode(
    tmp_path, picture_run, mode
):
    run = metarun.load(picture_run, mode=mode)
    run_config = config.load(picture_run / "config.yaml")
    family = building.task_outline(run_config.task)
    algorithm = building.algorithm(run_config, 0, family, mode)
    keys = evaluation.episode_keys(0, "test", 6)
    measure = evaluation.make_measure({"adapted": algorithm}, family, 2)
    measured = measure(run.weights, on_device(), keys)["adapted"]["accuracy"]
    accuracies = []
    for index, key in enumerate(keys):
        folder = tmp_path / str(index)
        write_episode(folder, family.sample(on_device(), key))
        accuracies.append(predict.answer(run, folder / "support", [folder / "query"]).facts["accuracy"])
    assert len(set(accuracies)) > 1
    np.testing.assert_allclose(accuracies, measured, atol=1e-6)


def test_an_original_drawing_becomes_the_pixels_of_the_data_set(tmp_path, data_root):
    from metarun.data.sets import omniglot

    original, small = (omniglot.load(data_root, size).images for size in (omniglot.ORIGINAL_SIZE, 28))
    files = [tmp_path / f"{index}.png" for index in range(20)]
    for index, file in enumerate(files):
        write_picture(file, original[80 * index, index])
    inputs = examples.read_pictures(files, (28, 28, 1), inverted=True)
    expected = np.stack([small[80 * index, index] for index in range(20)])
    np.testing.assert_array_equal(inputs[..., 0], expected.astype(np.float32) / 255)


# The run


def test_a_run_on_pictures_is_loaded_without_its_data_set(picture_run, monkeypatch, tmp_path):
    monkeypatch.setenv("METARUN_DATA", str(tmp_path / "nowhere"))
    run = metarun.load(picture_run)
    assert (run.kind, run.stage, run.step, run.mode, run.inner_steps) == (
        "classes",
        "maml",
        1,
        "inductive",
        2,
    )


@pytest.mark.parametrize("name", plugins.names("task"))
def test_the_outline_of_a_family_has_the_episodes_and_the_spec_of_the_family(name):
    module = plugins.load("task", name)
    if not hasattr(module, "outline"):
        pytest.skip(f"{name} is built without files, or not without them")
    built, outline = contracts.build_task(name), module.outline(module.Config())
    assert outline.spec == built.spec and outline.form == built.form
    assert outline.data.keys() == built.data.keys()
    for split, data in built.data.items():
        shapes = [
            jax.eval_shape(built.sample, part, jax.random.key(0)) for part in (data, outline.data[split])
        ]
        assert contracts.kind_of(shapes[0]) == contracts.kind_of(shapes[1])


def test_the_last_stage_is_meant_unless_another_one_is_named(tmp_path):
    path = train_quickly(tmp_path, SEVERAL)
    first, second = (metarun.load(path, stage=name) for name in ("first", "second"))
    last, one = metarun.load(path), metarun.load(path / "checkpoints" / "first" / "4")
    contracts.assert_equal(last.weights, second.weights)
    contracts.assert_equal(one.weights, first.weights)
    assert not np.array_equal(*(jax.tree.leaves(run.weights)[0] for run in (first, second)))
    with pytest.raises(errors.UsageError, match="no stage third"):
        metarun.load(path, stage="third")
    with pytest.raises(errors.UsageError, match="not of stage second"):
        metarun.load(path / "checkpoints" / "first" / "4", stage="second")


def test_the_weights_are_those_that_evaluation_measures(number_run):
    run_config = config.load(number_run / "config.yaml")
    problem = assessment.prepare(run_config, jax.devices()[0])
    trained = assessment.restore_stages(run_config, number_run, None, problem, jax.devices()[0], 1)["maml"]
    contracts.assert_equal(metarun.load(number_run).weights, trained.weights)


def test_importing_metarun_imports_no_jax():
    code = "import sys, metarun; metarun.load; print(*sorted({'jax', 'flax', 'numpy'} & set(sys.modules)))"
    assert contracts.in_subprocess(code).split() == []


def test_inner_steps_are_refused_where_there_are_none():
    @dataclasses.dataclass(frozen=True)
    class Config:
        width: int = 1

    selection = config.Selection("prototypes", Config())
    stage = config.Stage("only", selection, selection, config.Training(steps=1))
    run = config.RunConfig(task=selection, stages=(stage,))
    assert prediction.inner_steps_of(run, 0, None) is None
    with pytest.raises(errors.UsageError, match="prototypes has no inner steps"):
        prediction.inner_steps_of(run, 0, 3)


# Classes


def test_shots_may_be_unequal_and_ways_fewer_than_the_outputs(picture_run):
    run, support, query = metarun.load(picture_run), arrays([3, 1, 5]), arrays([4, 4, 4], first=8).inputs
    probabilities = run.adapt(support).predict(query)
    run_config = config.load(picture_run / "config.yaml")
    algorithm = building.algorithm(run_config, 0, building.task_outline(run_config.task), "inductive")
    logits = algorithm.predict(algorithm.adapt(run.weights, jax.device_put(support)), query)
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
    def build(objective: base.Objective) -> base.Algorithm:
        def adapt(weights, support):
            members = jax.nn.one_hot(support.targets, objective.ways).T
            return members @ support.inputs / members.sum(axis=1, keepdims=True)

        def predict(prototypes, inputs):
            return -jnp.square(inputs[:, None] - prototypes[None]).sum(axis=-1)

        return base.Algorithm(lambda *_: base.Weights(()), lambda *_: (0.0, {}), adapt, predict)

    family = contracts.blobs()._replace(objective=losses.classification(3))
    trained = assessment.Trained(1, base.Weights(()))
    run = prediction.TrainedRun(Path("run"), "prototypes", trained, family, build, "inductive", None)
    centres = np.float32(10 * np.eye(7, 4) + np.arange(7)[:, None])
    probabilities = run.adapt((np.repeat(centres, 2, axis=0), np.repeat(np.arange(7), 2))).predict(centres)
    assert probabilities.shape == (7, 7) and probabilities.argmax(axis=1).tolist() == list(range(7))


def test_what_an_algorithm_cannot_take_is_explained_before_anything_is_computed():
    def build(objective: base.Objective) -> base.Algorithm:
        def adapt(weights, support):
            if support.targets.shape[0] != 12:
                raise ValueError("the network reads 12 examples", "give 4 shots of 3 classes")
            return ()

        return base.Algorithm(lambda *_: base.Weights(()), lambda *_: (0.0, {}), adapt, lambda learner, x: x)

    trained = assessment.Trained(1, base.Weights(()))
    run = prediction.TrainedRun(Path("run"), "s", trained, contracts.blobs(), build, "inductive", None)
    with pytest.raises(errors.ConfigError, match="reads 12 examples") as caught:
        run.adapt((np.zeros((2, 4)), np.arange(2)))
    assert caught.value.remedy == "give 4 shots of 3 classes"


def test_queries_are_independent_in_inductive_mode_and_not_in_transductive_mode(picture_run):
    support, query = arrays([2, 2, 2, 2]), arrays([3, 3, 3, 3], first=8).inputs
    for mode, independent in (("inductive", True), ("transductive", False)):
        learner = metarun.load(picture_run, mode=mode).adapt(support)
        together, alone = learner.predict(query), learner.predict(query[:1])
        assert np.allclose(together[:1], alone, atol=1e-5) == independent


def test_many_queries_are_answered_in_parts_as_they_are_together(picture_run, monkeypatch):
    learner = metarun.load(picture_run).adapt(arrays([2, 2, 2, 2]))
    query = arrays([3, 3, 3, 2], first=8).inputs
    together = learner.predict(query)
    monkeypatch.setattr(prediction, "PART", 4)
    np.testing.assert_allclose(learner.predict(query), together, rtol=1e-4, atol=1e-6)


def test_without_inner_steps_the_support_is_not_learned_from(picture_run):
    support, query = arrays([2, 2, 2, 2]), arrays([3, 3, 3, 3], first=8).inputs
    swapped = support._replace(targets=3 - support.targets)
    for steps, same in ((0, True), (1, False)):
        run = metarun.load(picture_run, inner_steps=steps)
        answers = [run.adapt(given).predict(query) for given in (support, swapped)]
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


def test_a_learner_that_runs_away_is_an_error_and_no_answer(number_run):
    learner = metarun.load(number_run, inner_steps=3).adapt(
        (np.linspace(-1e4, 1e4, 9)[:, None], np.full((9, 1), 1e30))
    )
    with pytest.raises(errors.DivergedError, match="not finite"):
        learner.predict(np.zeros((2, 1)))


# Pictures on the command line


@pytest.fixture
def folders(tmp_path) -> Path:
    """support/<class>/ with 1, 3, 2 and 2 pictures, and query/<class>/ with two of each."""
    write_classes(tmp_path, [1, 3, 2, 2])
    for label in range(4):
        for index in (8, 9):
            ink = drawings()["images"][label, index]
            write_picture(tmp_path / "query" / f"class {label}" / f"{index}.png", ink)
    return tmp_path


def test_every_query_gets_a_class_with_its_probability_and_the_mode_is_said(picture_run, folders, metarun_):
    said = metarun_("predict", picture_run, "--support", folders / "support", "--query", folders / "query")
    assert said.code == 0 and said.err == []
    assert said.out[0].split() == ["input", "class", "probability"]
    assert len(said.out) == 1 + 8 + 1
    assert said.out[1].startswith(str(folders / "query" / "class 0" / "8.png"))
    last = said.out[-1]
    assert "4 ways, 1 to 3 shots" in last and "inductive mode (the support normalises)" in last
    assert "2 inner steps" in last and "accuracy" in last


def test_json_csv_and_table_say_the_same(picture_run, folders, metarun_):
    files = sorted((folders / "query").rglob("*.png"))
    command = ["predict", picture_run, "--support", folders / "support", "--query", *files]
    said = metarun_(*command, "--json", "--csv", folders / "answers.csv")
    answers = json.loads("\n".join(said.out))
    with (folders / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert answers["classes"] == [f"class {label}" for label in range(4)] and answers["shots"] == [1, 3, 2, 2]
    assert answers["mode"] == "inductive" and answers["step"] == 1 and answers["inner_steps"] == 2
    assert [row["input"] for row in rows] == [str(file) for file in files]
    for row, record in zip(rows, answers["predictions"], strict=True):
        best = max(record["probabilities"], key=record["probabilities"].__getitem__)
        assert row["class"] == record["class"] == best
        assert float(row["probability"]) == pytest.approx(record["probability"], abs=1e-6)
        assert float(row[f"probability of {best}"]) == pytest.approx(record["probability"], abs=1e-6)
    hits = [Path(record["input"]).parent.name == record["class"] for record in answers["predictions"]]
    assert answers["accuracy"] == pytest.approx(np.mean(hits))


def test_without_class_folders_no_accuracy_is_claimed(picture_run, folders, metarun_):
    write_picture(folders / "mine.png", drawings()["images"][0, 12])
    command = ["predict", picture_run, "--support", folders / "support", folders / "mine.png", "--json"]
    answers = json.loads(metarun_(*command).out[0])
    assert "accuracy" not in answers and len(answers["predictions"]) == 1


def test_overrides_and_options_reach_the_run(picture_run, folders, metarun_):
    command = [
        "predict",
        picture_run,
        "--support",
        folders / "support",
        "--query",
        folders / "query",
        "--json",
    ]
    said = metarun_(*command, "evaluation.modes=[transductive]", "--inner-steps", 0)
    answers = json.loads(said.out[0])
    assert (answers["mode"], answers["inner_steps"]) == ("transductive", 0)
    assert metarun_(*command, "task.ways=3").code == 3
    assert metarun_(*command, "--mode", "deductive").code == 2


def test_the_contact_sheet_is_a_picture_that_grows_with_the_queries(picture_run, folders, metarun_):
    command = ["predict", picture_run, "--support", folders / "support"]
    heights = []
    for count in (1, 3):
        queries = sorted((folders / "query").rglob("*.png")) * count
        said = metarun_(*command, "--query", *queries, "--sheet", folders / "sheet.png")
        assert said.code == 0, said.err
        with Image.open(folders / "sheet.png") as sheet:
            heights.append(sheet.height)
            assert sheet.width > 1000
    assert heights[1] > heights[0]


def test_a_sheet_in_no_folder_that_may_be_written_is_a_storage_error(picture_run, folders, metarun_):
    command = ["predict", picture_run, "--support", folders / "support", "--query", folders / "query"]
    assert metarun_(*command, "--csv", folders / "gone" / "answers.csv").code == 8


def spoil(folders: Path, how: str) -> tuple[Path, list[Path]]:
    """Make one thing wrong; (support, queries)."""
    support, queries = folders / "support", [folders / "query"]
    match how:
        case "no such folder":
            support = folders / "gone"
        case "a file":
            support = folders / "support" / "class 0" / "0.png"
        case "no class folders":
            support = folders / "support" / "class 0"
        case "only one class folder":
            for label in (1, 2, 3):
                (folders / "support" / f"class {label}").rename(folders / str(label))
        case "has no picture":
            (folders / "support" / "class 0" / "0.png").rename(folders / "support" / "class 0" / "notes.txt")
        case "no readable picture":
            (folders / "support" / "class 1" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        case "no picture to predict":
            (folders / "empty").mkdir()
            queries = [folders / "empty"]
        case "no such file or folder":
            queries = [folders / "gone.png"]
        case "nothing to predict":
            queries = []
        case "stdin is for sentences":
            queries = [Path("-")]
    return support, queries


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("no such folder", 4),
        ("a file", 4),
        ("no class folders", 4),
        ("only one class folder", 4),
        ("has no picture", 4),
        ("no readable picture", 4),
        ("no picture to predict", 4),
        ("no such file or folder", 4),
        ("nothing to predict", 2),
        ("stdin is for sentences", 2),
    ],
)
def test_bad_folders_are_three_plain_lines(picture_run, folders, metarun_, how, code):
    support, queries = spoil(folders, how)
    options = [word for path in queries for word in ("--query", path)]
    said = metarun_("predict", picture_run, "--support", support, *options)
    assert said.code == code and len(said.err) == 3 and said.out == []
    assert how in said.err[0] and said.err[2].startswith("to do: ")


def test_a_name_that_a_terminal_would_obey_is_printed_without_its_power(picture_run, folders, metarun_):
    name = os.fsdecode(b"\x1b[31m\xff.png")
    (folders / "query" / "class 0" / "8.png").rename(folders / "query" / name)
    command = ["predict", picture_run, "--support", folders / "support", "--query", folders / "query" / name]
    said = metarun_(*command, "--csv", folders / "answers.csv")
    assert said.code == 0 and "\x1b" not in "".join(said.out)
    assert "�[31m�.png" in (folders / "answers.csv").read_text()


# Tables


def curve(path: Path, header: str = "") -> Path:
    path.write_text(header + "".join(f"{x},{np.sin(x)}\n" for x in (-2.0, -1.0, 0.5, 1.5, 3.0)))
    return path


@pytest.mark.parametrize("header", ["", "time,height\n", "\ufefftime, height \r\n"])
def test_a_table_is_answered_as_the_arrays_in_it(number_run, tmp_path, metarun_, header):
    (tmp_path / "query.csv").write_text("0.2\n\n-1.75\n")
    support = curve(tmp_path / "support.csv", header)
    command = ["predict", number_run, "--support", support, "--query", tmp_path / "query.csv"]
    said = metarun_(*command, "--json", "--csv", tmp_path / "answers.csv")
    answers = json.loads(said.out[0])
    x = np.array([-2.0, -1.0, 0.5, 1.5, 3.0])[:, None]
    expected = metarun.load(number_run).adapt((x, np.sin(x))).predict(np.array([[0.2], [-1.75]]))
    got = np.array([record["output"] for record in answers["predictions"]])
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert [record["input"] for record in answers["predictions"]] == [[0.2], [-1.75]]
    rows = list(csv.reader(io.StringIO((tmp_path / "answers.csv").read_text())))
    assert [row[0] for row in rows[1:]] == ["0.2", "-1.75"]
    assert rows[0] == (["time", "height"] if header else ["input", "output"])
    np.testing.assert_allclose(np.array(rows[1:], float)[:, 1:], expected, rtol=1e-5)
    assert "5 shots; stage maml" in metarun_(*command).out[-1]


@pytest.mark.parametrize(
    ("support", "query", "what"),
    [
        ("1,2,3\n", "1\n", "line 1 has 3 columns, not 2"),
        ("x,y\n1,2\n1\n", "1\n", "line 3 has 1 column, not 2"),
        ("1,2\n", "1,2\n", "line 1 has 2 columns, not 1"),
        ("1,nan\n", "1\n", "line 1 has a number that is not finite"),
        ("1,2\n", "1\n\ninf\n", "line 3 has a number that is not finite"),
        ("1,2\n1e99,2\n", "1\n", "line 2 has a number that is not finite"),
        ("1,2\n3,four\n", "1\n", "line 2 has 'four' for a number"),
        ("x,2\n3,4\n", "1\n", "line 1 has 'x' for a number"),
        ("", "1\n", "the table has no row of numbers"),
        ("x,y\n", "1\n", "the table has no row of numbers"),
        ("1,2\n", "x\n", "the table has no row of numbers"),
        ('1,"2\n', "1\n", "is no CSV"),
        (b"1,2\n\xff,2\n", "1\n", "line 2 is not UTF-8"),
    ],
)
def test_bad_tables_are_three_plain_lines(number_run, tmp_path, metarun_, support, query, what):
    for name, content in (("support.csv", support), ("query.csv", query)):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    paths = ["--support", tmp_path / "support.csv", "--query", tmp_path / "query.csv"]
    said = metarun_("predict", number_run, *paths)
    assert said.code == 4 and len(said.err) == 3 and what in said.err[0], said.err


def test_a_folder_is_no_table_and_a_table_has_no_contact_sheet(number_run, tmp_path, metarun_):
    query = tmp_path / "query.csv"
    query.write_text("1\n")
    assert metarun_("predict", number_run, "--support", tmp_path, "--query", query).code == 4
    command = ["predict", number_run, "--support", curve(tmp_path / "support.csv"), "--query", query]
    said = metarun_(*command, "--sheet", tmp_path / "sheet.png")
    assert said.code == 2 and not (tmp_path / "sheet.png").exists()


def test_a_table_with_names_of_classes_is_classified(tmp_path):
    def build(objective: base.Objective) -> base.Algorithm:
        def predict(learner, inputs):
            return -jnp.square(inputs[:, None] - learner[None]).sum(axis=-1)

        return base.Algorithm(
            lambda *_: base.Weights(()), lambda *_: (0.0, {}), lambda _, given: given.inputs, predict
        )

    trained = assessment.Trained(1, base.Weights(()))
    run = prediction.TrainedRun(Path("run"), "nearest", trained, contracts.blobs(), build, "inductive", None)
    (tmp_path / "support.csv").write_text("a,b,c,d,kind\n0,0,0,0,apple\n9,9,9,9,pear\n")
    (tmp_path / "query.csv").write_text("8,8,9,9\n1,0,0,0\n")
    answers = predict.answer(run, tmp_path / "support.csv", [tmp_path / "query.csv"])
    assert [record["class"] for record in answers.records] == ["pear", "apple"]
    assert answers.facts["shots"] == [1, 1]
    (tmp_path / "support.csv").write_text("0,0,0,0,apple\n9,9,9,9,apple\n")
    with pytest.raises(errors.DataError, match="only one class, apple"):
        predict.answer(run, tmp_path / "support.csv", [tmp_path / "query.csv"])


# Sentences


def letters() -> prediction.TrainedRun:
    """Words of four letters, and a learner that adds to each letter what the first pair adds to its first one."""

    def encode(sources: list[str], targets: list[str]) -> base.Examples:
        if wrong := [text for text in sources if len(text) != 4]:
            raise ValueError(f"{wrong[0]!r} has not four letters", "write four letters")
        numbers = [
            np.array([[ord(x) for x in text or "????"] for text in texts]) for texts in (sources, targets)
        ]
        return base.Examples(*(array.astype(np.int32) for array in numbers))

    def spell(tokens: np.ndarray) -> list[str]:
        return ["".join(map(chr, row)) for row in tokens]

    form = base.Sentences(encode, lambda say, inputs: say(inputs), spell)

    def build(objective: base.Objective) -> base.Algorithm:
        def adapt(weights, support):
            return support.targets[0, 0] - support.inputs[0, 0]

        return base.Algorithm(
            lambda *_: base.Weights(()), lambda *_: (0.0, {}), adapt, lambda shift, inputs: inputs + shift
        )

    family = contracts.blobs()._replace(form=form)
    trained = assessment.Trained(1, base.Weights(()))
    return prediction.TrainedRun(Path("run"), "shift", trained, family, build, "inductive", None)


def test_sentences_of_stdin_are_translated(tmp_path, monkeypatch):
    (tmp_path / "pairs.tsv").write_text("aaaa\tbbbb\n\ncccc\tdddd\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hall\n\nword\n")))
    answers = predict.answer(letters(), tmp_path / "pairs.tsv", [])
    assert answers.rows == [["hall", "ibmm"], ["word", "xpse"]]
    assert answers.facts == {"shots": 2}


@pytest.mark.parametrize(
    ("pairs", "text", "what"),
    [
        ("aaaa bbbb\n", "word\n", "line 1 is not a source and a target"),
        ("aaaa\tbbbb\n\tcccc\n", "word\n", "line 2 is not a source and a target"),
        ("\n", "word\n", "there is no pair of sentences"),
        ("aaaa\tbbbb\n", "\n", "there is no sentence to translate"),
        ("aaaa\tbbbb\n", "words\n", "'words' has not four letters"),
    ],
)
def test_bad_sentences_are_data_errors(tmp_path, pairs, text, what):
    (tmp_path / "pairs.tsv").write_text(pairs)
    (tmp_path / "text").write_text(text)
    with pytest.raises(errors.DataError, match=what):
        predict.answer(letters(), tmp_path / "pairs.tsv", [tmp_path / "text"])


# One picture


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_a_picture_is_turned_as_its_orientation_says(tmp_path):
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    exif = Image.Exif()
    exif[274] = 6  # shown after a quarter turn clockwise
    path = saved(tmp_path / "a.png", Image.fromarray(values), exif=exif)
    np.testing.assert_array_equal(pictures.read_picture(path, (4, 3), 1)[..., 0], np.rot90(values, -1))


def test_transparent_pixels_are_white(tmp_path):
    values = np.zeros((2, 2, 4), np.uint8)
    values[0, :, 3] = 255
    path = saved(tmp_path / "a.png", Image.fromarray(values))
    assert pictures.read_picture(path, 2, 1)[..., 0].tolist() == [[0, 0], [255, 255]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    path = saved(tmp_path / "b.gif", palette, transparency=0)
    assert pictures.read_picture(path, (1, 2), 3).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_sixteen_bits_keep_their_upper_half(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(np.array([[0, 257, 65535]], np.uint16)))
    assert pictures.read_picture(path, (1, 3), 1).tolist() == [[[0], [1], [255]]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_white_is_white_in_every_mode_and_in_grey_and_colour(tmp_path, mode):
    path = saved(tmp_path / "a.tif", Image.new("RGB", (5, 4), "white").convert(mode))
    for channels in (1, 3):
        picture = pictures.read_picture(path, 8, channels)
        assert picture.shape == (8, 8, channels) and picture.dtype == np.uint8 and (picture == 255).all()


def test_of_an_animation_it_is_the_first_frame(tmp_path):
    frames = [Image.new("L", (4, 4), value) for value in (40, 200)]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (pictures.read_picture(path, 4, 1) == 40).all()


def test_a_picture_that_claims_too_many_pixels_is_refused_before_they_are_there(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", Image.new("1", (1000, 1000)))
    monkeypatch.setattr(pictures, "MOST_PIXELS", 999_999)
    monkeypatch.setattr(pictures, "_flattened", None)  # what would decode it
    with pytest.raises(errors.DataError, match=r"a\.png has 1000 × 1000 pixels"):
        pictures.read_picture(path, 8, 1)


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "pipe", "floats", "long"])
def test_a_file_that_is_no_good_picture_is_a_data_error_with_its_name(tmp_path, monkeypatch, damage):
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    match damage:
        case "empty":
            path.touch()
        case "cut":
            whole = saved(path, Image.fromarray(noise)).read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
        case "other":
            path.write_text("%!PS-Adobe-3.0 EPSF-3.0")
        case "pipe":
            os.mkfifo(path)
        case "floats":
            Image.fromarray(noise.astype(np.float32)).save(path, format="TIFF")
        case "long":
            saved(path, Image.fromarray(noise))
            monkeypatch.setattr(pictures, "MOST_BYTES", 100)
    with pytest.raises(errors.DataError) as caught:
        pictures.read_picture(path, 8, 1)
    assert caught.value.where == str(path) and caught.value.exit_code == 4
