"""Many supports in one call of `metarun predict`, true classes from a list, and dark or light ground."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import metarun
from helpers import drawings
from metarun import base, errors
from metarun.data import picture_files
from metarun.finished import own_episodes, own_pictures
from metarun.runs import picture_range

pytestmark = pytest.mark.usefixtures("own_place", "shared_programs")


@pytest.fixture
def episodes(tmp_path) -> Path:
    """episodes/{a,b,c}: supports of 1, 3, 2 and 2 drawings, with 2, 3 and 8 queries."""
    for name, first, count in (("a", 0, 2), ("b", 3, 3), ("c", 6, 8)):
        for label, shots in enumerate([1, 3, 2, 2]):
            for index in range(first, first + shots):
                ink = drawings.make_split()["images"][label, index]
                drawings.write_picture(
                    tmp_path / "episodes" / name / "support" / f"class {label}" / f"{index}.png", ink
                )
        for index in range(count):
            ink = drawings.make_split()["images"][index % 4, 12 + index // 4]
            folder = tmp_path / "episodes" / name / "query" / f"class {index % 4}"
            drawings.write_picture(folder / f"{index}.png", ink)
    return tmp_path / "episodes"


def test_many_episodes_in_one_call_are_answered_as_in_calls_of_their_own(picture_run, episodes, metarun_):
    said = metarun_("predict", picture_run, "--episodes", episodes, "--json", "--csv", "all.csv")
    together = json.loads(said.out[0])
    assert [section["episode"] for section in together["episodes"]] == ["a", "b", "c"]
    pairs = [
        word
        for name in "abc"
        for word in ("--support", episodes / name / "support", "--query", episodes / name / "query")
    ]
    paired = json.loads(metarun_("predict", picture_run, *pairs, "--json").out[0])
    accuracies = []
    for name, section, other in zip("abc", together["episodes"], paired["episodes"], strict=True):
        own = ["--support", episodes / name / "support", "--query", episodes / name / "query"]
        alone = json.loads(metarun_("predict", picture_run, *own, "--json").out[0])
        for one, two, three in zip(
            section["predictions"], alone["predictions"], other["predictions"], strict=True
        ):
            assert one["input"] == two["input"] == three["input"]
            assert one["probabilities"] == pytest.approx(two["probabilities"], abs=1e-6)
            assert one["probabilities"] == three["probabilities"]
        assert section["support"] == alone["support"] and section["shots"] == [1, 3, 2, 2]
        accuracies.append(alone["accuracy"])
    assert together["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert together["accuracy"]["episodes"] == 3
    rows = list(csv.reader(Path("all.csv").read_text().splitlines()))
    assert rows[0][:4] == ["episode", "input", "class", "probability"] and len(rows) == 1 + 2 + 3 + 8


def test_episodes_of_one_shape_are_compiled_once(picture_run, episodes):
    run = metarun.load(picture_run)
    programs = run.programs(4)
    compiled = programs.adapt, programs.answer, programs.leave_out
    before = [program._cache_size() for program in compiled]  # perhaps those of earlier tests
    assert len(list(own_episodes.answer_all(run, own_episodes.list_episodes(episodes)))) == 3
    after = [program._cache_size() for program in compiled]
    assert all(size > 0 for size in after)
    assert all(now - then <= 1 for then, now in zip(before, after, strict=True))


def test_each_episode_has_a_line_and_the_last_one_their_mean(picture_run, episodes, metarun_):
    said = metarun_("predict", picture_run, "--episodes", episodes)
    assert said.code == 0 and len(said.out) == 1 + 3 + 1
    assert said.out[2].startswith("b") and "4 ways, 1 to 3 shots; support: " in said.out[2]
    assert said.out[-1].startswith("3 episodes; stage maml") and "over 3 episodes" in said.out[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "nothing to adapt to"),
        (["--episodes", "gone"], 4, "no such folder"),
        (["--episodes", "episodes/a"], 4, "no episodes"),
        (["--episodes", "torn"], 4, "no query"),
        (["--episodes", "episodes", "--support", "episodes/a/support"], 2, "--episodes"),
        (["--support", "a", "--support", "b", "--query", "c"], 2, "2 supports and 1 queries"),
        (["--episodes", "episodes", "--sheet", "sheet.png"], 2, "one episode"),
        (
            ["--support", "episodes/a/support", "--query", "episodes/a/query", "--polarity", "up"],
            2,
            "polarity up",
        ),
        (
            ["--support", "episodes/a/support", "--query", "episodes/a/query", "--truth", "l.csv"],
            4,
            "none of the",
        ),
    ],
)
def test_what_cannot_be_asked_is_three_plain_lines(picture_run, episodes, metarun_, arguments, code, words):
    (episodes.parent / "torn" / "one" / "support").mkdir(parents=True)
    (episodes.parent / "l.csv").write_text("file,label\nelsewhere.png,cat\n")
    said = metarun_("predict", picture_run, *arguments)
    assert said.code == code and len(said.err) == 3 and said.out == [], said
    assert words in " ".join(said.err)


def test_true_classes_may_come_from_a_list_of_some_of_the_queries(picture_run, episodes, metarun_):
    command = ["predict", picture_run, "--support", episodes / "b" / "support", "--json", "--query"]
    queries = episodes / "b" / "query"
    answered = json.loads(metarun_(*command, queries).out[0])["predictions"]
    names = [Path(one["input"]).relative_to(queries) for one in answered]
    wrong = "class 0" if answered[1]["class"] != "class 0" else "class 1"
    rows = [f"{names[0]},{answered[0]['class']}", f"{names[1]},{wrong}", f"{names[2]},"]
    (queries / "truth.csv").write_text("file,label\n" + "\n".join(rows) + "\n")
    judged = json.loads(metarun_(*command, queries, "--truth", queries / "truth.csv").out[0])
    assert (judged["accuracy"], judged["judged"]) == (0.5, 2)
    several = ["predict", picture_run, "--episodes", episodes, "--truth", queries / "truth.csv"]
    sections = json.loads(metarun_(*several, "--json").out[0])["episodes"]
    assert ["accuracy" in section for section in sections] == [False, True, False]


def write_strokes(folder: Path, is_dark: bool) -> Path:
    """Write class folders with drawings of a stroke: on light paper, or bright on dark ground."""
    for label in range(2):
        for index in range(3):
            ink = np.zeros((28, 28), np.uint8)
            ink[5:23, 8 + 6 * label + index : 11 + 6 * label + index] = 255
            path = folder / f"class {label}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ink if is_dark else 255 - ink).save(path)
    return folder


def test_the_ground_is_told_by_the_border_and_not_where_pictures_differ():
    random = np.random.default_rng(0)
    ink = np.zeros((10, 28, 28, 1), np.float32)
    ink[:, :, 12:15] = 1  # a stroke over the whole height, so that it runs over the border
    assert picture_range.find_ground(ink) == "dark" and picture_range.find_ground(1 - ink) == "light"
    mixed = np.concatenate([ink[:5], 1 - ink[:5]])
    assert picture_range.find_ground(mixed) is None
    assert picture_range.find_ground(random.random((20, 16, 16, 3), np.float32)) is None
    colours = np.repeat(ink, 3, axis=-1)
    assert picture_range.find_ground(colours) == "dark"


def test_photographs_are_never_turned_into_negatives(tmp_path):
    picture_range.write(tmp_path, picture_range.PictureRange((0.5, 0.9), (0.1, 0.4), "light"))
    reader = own_pictures.PictureReader((16, 16, 3), base.Pictures(), tmp_path)
    things = np.zeros((5, 16, 16, 3), np.float32)  # on a dark table, after a training on white paper
    things[:, 4:12, 4:12] = 0.9
    assert reader.has_other_ground(things)
    things[:, 4:12, 4:12, 2] = 0.1
    assert picture_range.find_ground(things) == "dark" and not reader.has_other_ground(things)


@pytest.mark.parametrize("noted", [False, True])
def test_bright_ink_on_dark_ground_gives_the_answers_of_dark_ink_on_paper(
    picture_run, tmp_path, metarun_, monkeypatch, noted
):
    ground = picture_range.PictureRange((0.0, 0.3), (0.1, 0.4), "dark") if noted else None
    monkeypatch.setattr(picture_range, "read", lambda run: ground)
    paper, dark = write_strokes(tmp_path / "paper", False), write_strokes(tmp_path / "dark", True)

    def predict(folder: Path, *options: str) -> tuple[list[dict], list[str]]:
        said = metarun_("predict", picture_run, "--support", folder, "--query", folder, "--json", *options)
        assert said.code == 0, said.err
        shares = [one["probabilities"] for one in json.loads(said.out[0])["predictions"]]
        return shares, [line for line in said.err if "turned over" in line]

    expected, warnings = predict(paper)
    assert warnings == [] and predict(paper, "--polarity", "keep") == (expected, [])
    turned, warnings = predict(dark)
    assert turned == expected and len(set(warnings)) == 1 and "bright things on dark ground" in warnings[0]
    assert predict(dark, "--polarity", "invert") == (expected, [])
    assert predict(dark, "--polarity", "keep")[0] != expected


def test_a_run_reads_a_picture_from_python_as_it_does_for_predict(picture_run, tmp_path):
    write_strokes(tmp_path, True)
    run, file = metarun.Run(picture_run), tmp_path / "class 0" / "0.png"
    pixels = picture_files.read_picture(file, 16, 1)
    np.testing.assert_array_equal(run.read_picture(file), (255 - pixels).astype(np.float32) / 255)
    np.testing.assert_array_equal(run.read_picture(file, inverted=True), pixels.astype(np.float32) / 255)
    files = sorted(tmp_path.glob("*/*.png"))
    np.testing.assert_array_equal(
        run.learner().read_pictures(files)[0], run.read_picture(file, inverted=True)
    )


def test_pictures_in_another_form_than_values_from_0_to_1_have_no_inverse(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    form = base.Pictures(read=lambda files: -np.ones((len(files), 2, 2, 1)))
    reader = own_pictures.PictureReader((2, 2, 1), form, tmp_path)
    assert reader.read([tmp_path / "a.png"], "auto").inverted is False
    with pytest.raises(errors.UsageError, match="another form"):
        reader.read([tmp_path / "a.png"], "invert")
