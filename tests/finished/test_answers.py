"""`metarun predict`: a run's answers to somebody's own pictures, tables and sentences."""

import csv
import io
import json
import operator
import os
import shutil
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import metarun
from helpers import builders, drawings, opened_runs
from metarun import base, errors
from metarun.data import examples
from metarun.data.sets import omniglot_files
from metarun.evaluation import episodes
from metarun.evaluation.episodes import FrozenEpisodes
from metarun.evaluation.measurement import make_measurement
from metarun.evaluation.variants import Variant
from metarun.finished import answers
from metarun.finished.finished_run import find_run
from metarun.finished.opened_run import open_run
from metarun.finished.prediction import TrainedRun
from metarun.runs import picture_range

pytestmark = pytest.mark.usefixtures("own_place", "shared_programs")

# Pictures


@pytest.mark.parametrize("mode", ["inductive", "transductive"])
def test_the_files_of_an_episode_are_classified_exactly_as_evaluation_classifies_the_episode(
    tmp_path, picture_run, mode
):
    run = metarun.load(picture_run, mode=mode)
    opened = open_run(find_run(picture_run), outline=True)
    family, algorithm = opened.tasks.family, opened.stage.build_algorithm(mode)
    frozen = FrozenEpisodes(family, "test", drawings.put_split(), episodes.make_keys(0, "test", 6))
    measure = make_measurement({"adapted": Variant(algorithm)}, frozen, 2)
    measured = measure(run.weights)["adapted"]["accuracy"]
    sampled = jax.device_get(jax.jit(jax.vmap(family.sample, (None, 0)))(drawings.put_split(), frozen.keys))
    accuracies = []
    for index in range(6):
        folder = tmp_path / str(index)
        drawings.write_episode(folder, jax.tree.map(operator.itemgetter(index), sampled))
        answered = answers.answer(run, folder / "support", [folder / "query"])
        accuracies.append(answered.facts["accuracy"])
    assert len(set(accuracies)) > 1
    np.testing.assert_allclose(accuracies, measured, atol=1e-6)


def read_originals(data_root: Path, places: list[tuple[int, int]]) -> list[np.ndarray]:
    """Return the ink of some drawings (class, drawing) of Omniglot, 255 = black, as the archives hold them."""
    archives = [zipfile.ZipFile(source.path(data_root)) for source in omniglot_files.SOURCES]
    members = [(file, name) for file in archives for name in sorted(file.namelist()) if name.endswith(".png")]
    originals = []
    for label, drawing in places:
        file, name = members[20 * label + drawing]
        originals.append(255 - np.asarray(Image.open(file.open(name)).convert("L")))
    for file in archives:
        file.close()
    return originals


@pytest.mark.slow
def test_an_original_drawing_becomes_the_pixels_of_the_data_set(tmp_path, data_root):
    places = [(80 * index, index) for index in range(20)]
    files = [tmp_path / f"{index}.png" for index in range(20)]
    for file, ink in zip(files, read_originals(data_root, places), strict=True):
        assert ink.shape == (omniglot_files.ORIGINAL_SIZE, omniglot_files.ORIGINAL_SIZE)
        drawings.write_picture(file, ink)
    inputs = examples.read_pictures(files, (28, 28, 1), inverted=True)
    small = omniglot_files.load(data_root, 28).images
    expected = np.stack([small[place] for place in places])
    np.testing.assert_array_equal(inputs[..., 0], expected.astype(np.float32) / 255)


@pytest.fixture
def folders(tmp_path) -> Path:
    """support/<class>/ with 1, 3, 2 and 2 pictures, and query/<class>/ with two of each."""
    drawings.write_classes(tmp_path, [1, 3, 2, 2])
    for label in range(4):
        for index in (8, 9):
            ink = drawings.make_split()["images"][label, index]
            drawings.write_picture(tmp_path / "query" / f"class {label}" / f"{index}.png", ink)
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
    answered = json.loads("\n".join(said.out))
    with (folders / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert answered["classes"] == [f"class {label}" for label in range(4)] and answered["shots"] == [
        1,
        3,
        2,
        2,
    ]
    assert answered["mode"] == "inductive" and answered["step"] == 1 and answered["inner_steps"] == 2
    assert [row["input"] for row in rows] == [str(file) for file in files]
    for row, record in zip(rows, answered["predictions"], strict=True):
        best = max(record["probabilities"], key=record["probabilities"].__getitem__)
        assert row["class"] == record["class"] == best
        assert float(row["probability"]) == pytest.approx(record["probability"], abs=1e-6)
        assert float(row[f"probability of {best}"]) == pytest.approx(record["probability"], abs=1e-6)
    hits = [Path(record["input"]).parent.name == record["class"] for record in answered["predictions"]]
    assert answered["accuracy"] == pytest.approx(np.mean(hits))


def test_without_class_folders_no_accuracy_is_claimed(picture_run, folders, metarun_):
    drawings.write_picture(folders / "mine.png", drawings.make_split()["images"][0, 12])
    command = ["predict", picture_run, "--support", folders / "support", folders / "mine.png", "--json"]
    answered = json.loads(metarun_(*command).out[0])
    assert "accuracy" not in answered and len(answered["predictions"]) == 1


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
    answered = json.loads(said.out[0])
    assert (answered["mode"], answered["inner_steps"]) == ("transductive", 0)
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
    """Make one thing wrong, and return (support, queries)."""
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


def test_a_transductive_run_answers_one_query_alone_as_it_does_among_many(
    picture_run, folders, metarun_, tmp_path
):
    shutil.copytree(picture_run, tmp_path / "transductive")
    file = tmp_path / "transductive" / "config.yaml"
    file.write_text(file.read_text().replace("[inductive, transductive]", "[transductive]"))
    command = ["predict", tmp_path / "transductive", "--support", folders / "support", "--json"]
    many = json.loads(metarun_(*command, "--query", folders / "query").out[0])
    assert many["mode"] == "inductive"
    for record in many["predictions"][:2]:
        (alone,) = json.loads(metarun_(*command, "--query", record["input"]).out[0])["predictions"]
        assert alone["probabilities"] == pytest.approx(record["probabilities"], abs=1e-5)


def test_the_last_line_says_how_well_the_support_is_told_apart(picture_run, folders, metarun_):
    command = ["predict", picture_run, "--support", folders / "support", "--query", folders / "query"]
    run, own = metarun.load(picture_run), drawings.make_examples([1, 3, 2, 2])
    right = 0
    for place in range(1, 8):  # the first class has one drawing alone
        others = np.delete(np.arange(8), place)
        learner = run.adapt((own.inputs[others], own.targets[others]))
        right += learner.predict(own.inputs[place : place + 1]).argmax() == own.targets[place]
    assert f"; support: {right} of 7 told apart, left out one by one; " in metarun_(*command).out[-1]


def test_pictures_unlike_those_of_the_training_are_warned_of(picture_run, folders, metarun_, tmp_path):
    run = shutil.copytree(picture_run, tmp_path / "noted")
    known = picture_range.measure_range({"images": drawings.make_split()["images"]})
    picture_range.write(run, known)
    command = ["predict", run, "--support", folders / "support", "--query"]
    assert metarun_(*command, folders / "query").err == []
    drawings.write_picture(tmp_path / "paper.png", np.zeros((16, 16), np.uint8))
    (line,) = metarun_(*command, tmp_path / "paper.png").err
    assert line.startswith("warning: 1 of 1 inputs of the queries lie outside what the run was trained on")


# Tables


def curve(path: Path, header: str = "") -> Path:
    """Write a table of five points of a sine."""
    path.write_text(header + "".join(f"{x},{np.sin(x)}\n" for x in (-2.0, -1.0, 0.5, 1.5, 3.0)))
    return path


@pytest.mark.parametrize("header", ["", "time,height\n", "\ufefftime, height \r\n"])
def test_a_table_is_answered_as_the_arrays_in_it(single, tmp_path, metarun_, header):
    (tmp_path / "query.csv").write_text("0.2\n\n-1.75\n")
    support = curve(tmp_path / "support.csv", header)
    command = ["predict", single, "--support", support, "--query", tmp_path / "query.csv"]
    said = metarun_(*command, "--json", "--csv", tmp_path / "answers.csv")
    answered = json.loads(said.out[0])
    x = np.array([-2.0, -1.0, 0.5, 1.5, 3.0])[:, None]
    expected = metarun.load(single).adapt((x, np.sin(x))).predict(np.array([[0.2], [-1.75]]))
    outputs = np.array([record["output"] for record in answered["predictions"]])
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)
    assert [record["input"] for record in answered["predictions"]] == [[0.2], [-1.75]]
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
def test_bad_tables_are_three_plain_lines(single, tmp_path, metarun_, support, query, what):
    for name, content in (("support.csv", support), ("query.csv", query)):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    paths = ["--support", tmp_path / "support.csv", "--query", tmp_path / "query.csv"]
    said = metarun_("predict", single, *paths)
    assert said.code == 4 and len(said.err) == 3 and what in said.err[0], said.err


def test_a_folder_is_no_table_and_a_table_has_no_contact_sheet(single, tmp_path, metarun_, monkeypatch):
    query = tmp_path / "query.csv"
    query.write_text("1\n")
    assert metarun_("predict", single, "--support", tmp_path, "--query", query).code == 4
    command = ["predict", single, "--support", curve(tmp_path / "support.csv"), "--query", query]
    monkeypatch.setattr(answers, "answer", lambda *_: pytest.fail("computed"))
    said = metarun_(*command, "--sheet", tmp_path / "sheet.png")
    assert said.code == 2 and not (tmp_path / "sheet.png").exists() and said.out == []


def test_a_table_beyond_the_training_is_warned_of(single, tmp_path, metarun_):
    (tmp_path / "query.csv").write_text("0.2\n9\n")
    command = ["predict", single, "--support", curve(tmp_path / "support.csv"), "--query"]
    said = metarun_(*command, tmp_path / "query.csv", "--json")
    (line,) = said.err
    assert line.startswith("warning: 1 of 2 inputs of the queries lie outside") and line.endswith("is 9 here")
    assert json.loads(said.out[0])["outside"]["queries"]["outside"] == 1


def test_a_table_with_names_of_classes_is_classified(tmp_path):
    def make(problem: base.Problem) -> base.Algorithm:
        def predict(learner, inputs):
            return -jnp.square(inputs[:, None] - learner[None]).sum(axis=-1)

        return base.Algorithm(
            lambda *_: base.Weights(()), lambda *_: (0.0, {}), lambda _, support: support.inputs, predict
        )

    run = opened_runs.open_learner("nearest", builders.blobs(), make)
    (tmp_path / "support.csv").write_text("a,b,c,d,kind\n0,0,0,0,apple\n9,9,9,9,pear\n")
    (tmp_path / "query.csv").write_text("8,8,9,9\n1,0,0,0\n")
    answered = answers.answer(run, tmp_path / "support.csv", [tmp_path / "query.csv"])
    assert [record["class"] for record in answered.records] == ["pear", "apple"]
    assert answered.facts["shots"] == [1, 1]
    (tmp_path / "support.csv").write_text("0,0,0,0,apple\n9,9,9,9,apple\n")
    with pytest.raises(errors.DataError, match="only one class, apple"):
        answers.answer(run, tmp_path / "support.csv", [tmp_path / "query.csv"])


# Sentences


def letters() -> TrainedRun:
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

    def make(problem: base.Problem) -> base.Algorithm:
        def adapt(weights, support):
            return support.targets[0, 0] - support.inputs[0, 0]

        return base.Algorithm(
            lambda *_: base.Weights(()), lambda *_: (0.0, {}), adapt, lambda shift, inputs: inputs + shift
        )

    spec = base.Spec((4,), 256, "tokens", vocabulary=256)
    family = builders.blobs()._replace(problem=builders.make_problem(spec), form=form)
    return opened_runs.open_learner("shift", family, make)


def test_sentences_of_stdin_are_translated(tmp_path, monkeypatch):
    (tmp_path / "pairs.tsv").write_text("aaaa\tbbbb\n\ncccc\tdddd\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hall\n\nword\n")))
    answered = answers.answer(letters(), tmp_path / "pairs.tsv", [])
    assert answered.rows == [["hall", "ibmm"], ["word", "xpse"]]
    assert answered.facts == {"shots": 2}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hall\n")))
    monkeypatch.setattr(examples, "MOST_BYTES", 4)
    with pytest.raises(errors.DataError, match="more than 4 bytes"):
        answers.read_text(answers.STDIN)


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
        answers.answer(letters(), tmp_path / "pairs.tsv", [tmp_path / "text"])
