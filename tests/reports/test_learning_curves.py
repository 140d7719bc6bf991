"""The curves of a report: bands over learners, gaps, and parts of one width."""

import numpy as np
import pytest

from metarun.reports import charts, learning_curves
from metarun.reports.charts import Curves, Dot, Dots
from metarun.reports.learning_curves import POINTS


def make_rows(values, split="train", **more):
    """Return lines of metrics.jsonl from values [replica, step]."""
    return [
        {"stage": "s", "replica": replica, "split": split, "step": step, "loss": value, **more}
        for replica, column in enumerate(values)
        for step, value in enumerate(column, start=1)
    ]


def test_the_band_reaches_from_the_lowest_to_the_highest_replica():
    line = learning_curves.make_line(
        "x", learning_curves.collect_learners(make_rows([[1, 4], [3, 2], [5, 3]]), "loss")
    )
    np.testing.assert_array_equal(line.places, [1, 2])
    np.testing.assert_array_equal([line.low, line.means, line.high], [[1, 2], [3, 3], [5, 4]])


def test_the_band_of_one_learner_is_its_interval():
    rows = make_rows([[1.0, 4.0]], "validation", loss_ci95=0.5)
    line = learning_curves.make_validation_line(rows, "loss")
    np.testing.assert_array_equal([line.low, line.high], [[0.5, 3.5], [1.5, 4.5]])


@pytest.mark.parametrize("value", ["nan", "inf", None, [], "word"])
def test_what_is_no_finite_number_is_a_gap(value):
    steps, values = learning_curves.collect_learners(make_rows([[1.0, value], [2.0, 3.0]]), "loss")
    line = learning_curves.make_line("x", learning_curves.Learners(steps, values))
    np.testing.assert_array_equal(line.means, [1.5, np.nan])


@pytest.mark.parametrize("count", [1, POINTS, POINTS + 1, 3 * POINTS - 1, 1000, 70_001])
def test_training_is_drawn_as_means_of_one_width(count):
    steps = np.arange(1.0, count + 1)
    places, values = learning_curves.smooth(steps, np.stack([steps, -steps]))
    assert values.shape == (2, len(places)) and len(places) <= POINTS
    np.testing.assert_allclose(values, [places, -places])  # a mean of the steps is the middle of its part
    width = -(-count // POINTS)
    np.testing.assert_allclose(places[:-1], np.arange(len(places) - 1) * width + (width + 1) / 2)
    # The last part ends with the run.
    assert places[-1] * 2 - (len(places) - 1) * width - 1 == pytest.approx(count)


def test_smoothing_leaves_replicas_apart():
    """The band is that of smoothed replicas, and not of single steps."""
    noise = np.tile([1.0, -1.0], 2 * POINTS)
    _, values = learning_curves.smooth(np.arange(1.0, len(noise) + 1), np.stack([noise, 5 + noise]))
    np.testing.assert_allclose(values, np.stack([np.zeros(POINTS), np.full(POINTS, 5.0)]))


def test_a_stage_without_lines_has_no_charts():
    assert learning_curves.collect_learners([], "loss").values.shape == (0, 0)
    assert learning_curves.choose_metrics([]) == []
    assert learning_curves.make_rate_chart([]) == []


def test_only_a_learning_rate_that_changes_is_drawn():
    rows = [{"replica": 0, "split": "speed", "step": step, "learning_rate": 0.1} for step in (1, 2)]
    assert learning_curves.make_rate_chart(rows) == []
    rows[1]["learning_rate"] = 0.01
    (chart,) = learning_curves.make_rate_chart(rows)
    np.testing.assert_array_equal(chart.lines[0].means, [0.1, 0.01])


def test_the_metric_that_is_no_loss_comes_first():
    row = {
        "stage": "s",
        "split": "validation",
        "step": 1,
        "seconds": 2,
        "loss": 1,
        "loss_ci95": 1,
        "accuracy": 1,
    }
    assert learning_curves.choose_metrics([row]) == ["accuracy", "loss"]


def test_the_adaptation_curve_is_sorted_by_inner_steps():
    counts = {str(count): {"loss": {"mean": 10.0 - count, "ci95": 1.0}} for count in (10, 0, 5)}
    chart = learning_curves.make_steps_chart({"a": {"inner_steps": counts}, "b": {"adapted": {}}})
    (line,) = chart.lines
    np.testing.assert_array_equal([line.places, line.means, line.low], [[0, 5, 10], [10, 5, 0], [9, 4, -1]])


@pytest.mark.parametrize(("low", "wanted"), [(0.1, True), (1.0, False), (-0.1, False)])
def test_positive_values_far_apart_get_a_logarithmic_axis(low, wanted):
    dots = Dots("t", "loss", [Dot("a", "s", low, 0.05), Dot("b", "s", 10.0, 1.0)])
    assert charts.wants_logarithm(dots) == wanted
    values = np.array([low, 10.0])
    line = charts.Line("a", np.arange(2.0), values, values, values)
    assert charts.wants_logarithm(Curves("t", "step", "loss", [line])) == wanted
    gap = line._replace(means=np.full(2, np.nan), low=np.full(2, np.nan))
    assert not charts.wants_logarithm(Curves("t", "step", "loss", [gap]))
