"""`metarun compare --steps-curve`: how many inner steps each run needs."""

import json

import pytest
from PIL import Image

from helpers.commands import assert_three_lines
from metarun.evaluation.statistics import Interval
from metarun.finished.adaptation import Curve, count_needed_steps

pytestmark = pytest.mark.usefixtures("own_place", "shared_programs")


def make_run(path, curve, digest="abc", stage="maml"):
    """Make a run whose last stage has these means of loss after 0, 1, ... inner steps; one mean: a level."""
    values = {str(steps): make_metrics(mean) for steps, mean in enumerate(curve)}
    section = {"adapted": make_metrics(curve[-1])} | ({"inner_steps": values} if len(curve) > 1 else {})
    result = {
        "modes": ["inductive"],
        "split": "test",
        "higher_is_better": ["accuracy"],
        "episodes": {"count": 30, "hash": digest},
        "stages": {"base": {"step": 7}, stage: {"step": 7, "inductive": section}},
    }
    path.mkdir()
    (path / "config.yaml").write_text("seed: 0\n")
    (path / "result.json").write_text(json.dumps(result))
    return path


def make_metrics(mean):
    return {"loss": {"mean": mean, "ci95": 0.1}, "accuracy": {"mean": 1 - mean, "ci95": 0.05}}


@pytest.fixture
def runs(tmp_path):
    slow, quick = make_run(tmp_path / "slow", [0.9, 0.6, 0.3]), make_run(tmp_path / "quick", [0.9, 0.5, 0.4])
    return [slow, quick, make_run(tmp_path / "level", [0.6], stage="centroid")]


def test_the_steps_that_are_needed_are_the_fewest_that_are_as_good():
    curve = Curve("", {0: Interval(0.9, 0.0), 2: Interval(0.5, 0.0), 5: Interval(0.4, 0.0)})
    assert [count_needed_steps(curve, level, False) for level in (0.9, 0.7, 0.5, 0.4, 0.3)] == [
        0,
        2,
        2,
        5,
        None,
    ]
    assert count_needed_steps(curve, 0.95, True) is None


def test_the_curves_stand_below_each_other_and_the_first_says_what_the_others_need(metarun_, runs):
    said = metarun_("compare", *runs, "--steps-curve")
    assert said.code == 0, said
    assert said.out == [
        "slow (maml)",
        "    0 steps  0.1000 ± 0.0500; quick (maml) after 0; level (centroid) after 0",
        "    1 steps  0.4000 ± 0.0500; quick (maml) after 1; level (centroid) after 0",
        "    2 steps  0.7000 ± 0.0500; quick (maml) never; level (centroid) never",
        "quick (maml)",
        "    0 steps  0.1000 ± 0.0500",
        "    1 steps  0.5000 ± 0.0500",
        "    2 steps  0.6000 ± 0.0500",
        "level (centroid)",
        "    0 steps  0.4000 ± 0.0500",
        "accuracy: higher is better; mean ± 95 % confidence interval",
    ]


def test_the_json_has_the_same_numbers(metarun_, runs):
    said = metarun_("compare", *runs, "--steps-curve", "--metric", "loss", "--json")
    compared = json.loads(said.out[0])
    assert (compared["metric"], compared["higher_is_better"]) == ("loss", False)
    first, second, level = compared["curves"]
    assert first["points"][2] == {
        "inner_steps": 2,
        "mean": 0.3,
        "ci95": 0.1,
        "as_good": {"quick (maml)": None, "level (centroid)": None},
    }
    assert second["points"][1] == {"inner_steps": 1, "mean": 0.5, "ci95": 0.1}
    assert [point["inner_steps"] for point in level["points"]] == [0]


def test_one_run_shows_its_own_curve(metarun_, runs):
    assert metarun_("compare", runs[0], "--steps-curve").out[1] == "    0 steps  0.1000 ± 0.0500"


def test_the_curves_are_a_picture(metarun_, runs, tmp_path):
    assert metarun_("compare", *runs, "--steps-curve", "--plot", tmp_path / "curves.png").code == 0
    with Image.open(tmp_path / "curves.png") as picture:
        assert min(picture.size) > 200


def test_runs_on_other_episodes_are_refused(metarun_, runs, tmp_path):
    other = make_run(tmp_path / "other", [0.9, 0.5], digest="other")
    assert_three_lines(metarun_("compare", runs[0], other, "--steps-curve"), 2, "abc, other")


def test_a_metric_that_was_not_measured_is_refused(metarun_, runs):
    said = metarun_("compare", *runs, "--steps-curve", "--metric", "bleu")
    assert_three_lines(said, 2, "bleu", "loss, accuracy")


@pytest.mark.parametrize("choice", [("--mode", "inductive"), ("--learner", "5")])
def test_a_choice_that_the_curves_do_not_take_is_refused(metarun_, runs, choice):
    assert_three_lines(
        metarun_("compare", *runs, "--steps-curve", *choice), 2, "--mode, --learner and --baselines"
    )


def test_a_folder_that_is_no_run_is_refused(metarun_, tmp_path):
    assert_three_lines(metarun_("compare", tmp_path, "--steps-curve"), 5, str(tmp_path))
