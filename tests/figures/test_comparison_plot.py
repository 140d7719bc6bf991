"""The picture of a comparison: its axis shows the leaders, and every learner has its number."""

import math

import pytest
from matplotlib.figure import Figure

from metarun.figures import comparison_plot
from metarun.figures.comparison_plot import count_leaders


def make_comparison(means: list[float], alike: int = 1, metric: str = "accuracy") -> dict:
    """Make a comparison of learners, best first, of which the first few may be the best."""
    ranking = [
        {
            "label": f"learner {place}",
            "mean": mean,
            "ci95": 0.002,
            "behind": {"mean": mean - means[0], "ci95": 0.001} if place else None,
        }
        for place, mean in enumerate(means)
    ]
    differences = [{"p": 0.5 if place < alike else 0.0} for place in range(1, len(means))]
    higher = metric == "accuracy"
    return {"metric": metric, "higher_is_better": higher, "ranking": ranking, "differences": differences}


def draw(comparison: dict) -> Figure:
    figure = Figure()
    comparison_plot.draw(figure, comparison)
    return figure


@pytest.mark.parametrize(
    ("distances", "leaders"),
    [
        ([0.0, 0.01, 0.02, 0.03, 0.04, 0.7, 0.8], 5),
        ([0.0, 0.01, 0.02, 0.03, 0.04], 5),
        ([0.0, 0.5], 2),
        ([0.0, 0.001, 0.5], 3),  # three are too few to leave one out
        ([0.0, 0.1, math.nan], 2),
        ([0.0, 0.0, 0.0, 0.0], 4),
    ],
)
def test_the_leaders_are_those_that_are_not_far_behind(distances, leaders):
    assert count_leaders(distances) == leaders


def test_the_axis_is_zoomed_on_the_leaders_and_says_who_lies_beyond():
    close = [0.99 - 0.005 * place for place in range(18)]
    left, right = (figure := draw(make_comparison([*close, 0.8, 0.55, 0.3, 0.21, 0.2]))).axes
    low, high = left.get_xlim()
    assert 0.85 < low < min(close) < max(close) < high < 1.05
    assert right.get_xlim()[0] > -0.15
    assert len([line for line in left.lines if line.get_marker() == "<"]) == 5
    assert "5 learners lie beyond" in figure.get_supxlabel()


def test_every_learner_has_its_number_on_both_sides():
    left, right = draw(make_comparison([0.99, 0.98, 0.2, math.nan])).axes
    numbers = [[text.get_text() for text in axes.texts] for axes in (left, right)]
    assert numbers[0] == ["not finite", "0.2000 ± 0.0020", "0.9800 ± 0.0020", "0.9900 ± 0.0020"]
    assert numbers[1][-1] == ""  # the best is not behind itself
    assert [label.get_text() for label in left.get_yticklabels()] == [f"learner {n}" for n in (3, 2, 1, 0)]


def test_those_that_may_be_the_best_have_its_colour():
    assert comparison_plot.choose_colors(make_comparison([0.9, 0.8, 0.7, 0.6], alike=2)) == [
        comparison_plot.MAY_BE_BEST,
        comparison_plot.MAY_BE_BEST,
        comparison_plot.OTHER,
        comparison_plot.OTHER,
    ]


def test_errors_of_the_leaders_that_lie_far_apart_are_on_a_logarithmic_scale():
    assert draw(make_comparison([0.01, 0.1, 1.0], metric="loss")).axes[0].get_xscale() == "log"
    assert draw(make_comparison([0.1, 0.2, 1.0], metric="loss")).axes[0].get_xscale() == "linear"


@pytest.mark.parametrize(
    ("mean", "half", "shown"),
    [
        (0.0058, 0.000752, "0.0058 ± 0.0008"),
        (0.9873, 0.0031, "0.9873 ± 0.0031"),
        (0.0005, 0.00002, "0.0005 ± 2e-05"),
        (1234.5, 0.0005, "1.23e+03 ± 0.0005"),
        (math.inf, 1.0, "not finite"),
    ],
)
def test_an_interval_has_the_digits_of_its_mean(mean, half, shown):
    assert comparison_plot.format_interval(mean, half) == shown
