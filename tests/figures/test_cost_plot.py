"""The picture of a metric against a cost: who is in it, how its axes lie, and that every number is explained."""

import pytest
from matplotlib.figure import Figure

from metarun.figures import cost_plot
from metarun.finished.costs import Cost


def draw(
    costs: list[float | None], means: list[float], against: str = "flops", higher: bool = True
) -> Figure:
    ranking = [
        {
            "label": f"learner-{place}",
            "mean": mean,
            "ci95": 0.002,
            "behind": {"mean": mean - means[0], "ci95": 0.001} if place else None,
            "cost": Cost(7, 2.0, 1.0, 12, 68, flops=cost)._asdict(),
        }
        for place, (cost, mean) in enumerate(zip(costs, means, strict=True))
    ]
    figure = Figure()
    cost_plot.draw(figure, {"metric": "accuracy", "higher_is_better": higher, "ranking": ranking}, against)
    return figure


def test_every_point_has_its_number_and_every_number_its_learner():
    figure = draw([1e9, 3e9, 2e9], [0.99, 0.98, 0.97])
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3"]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend[1] == "2  learner-1  0.9800 ± 0.0020"
    assert axes.get_xlabel() == "FLOPs of training, with the stages it stands on"


@pytest.mark.parametrize(("costs", "scale"), [([1e9, 4e9], "linear"), ([1e9, 4e10], "log")])
def test_costs_that_lie_far_apart_are_on_a_logarithmic_scale(costs, scale):
    assert draw(costs, [0.9, 0.8]).axes[0].get_xscale() == scale


def test_a_learner_beyond_the_leaders_is_an_arrow_at_the_edge():
    (axes,) = draw([1e9] * 5, [0.99, 0.985, 0.98, 0.975, 0.2]).axes
    assert axes.get_ylim()[0] > 0.9
    assert [line.get_marker() for line in axes.lines].count("v") == 1


def test_learners_without_a_recorded_cost_are_named_and_not_drawn():
    figure = draw([1e9, None, 2e9], [0.99, 0.98, 0.97])
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "3"]
    assert figure.get_supxlabel().endswith("not recorded, or not finite: learner-1")
    assert draw([None, None], [0.9, 0.8]).axes[0].get_legend() is None


@pytest.mark.parametrize(
    ("higher", "stairs"), [(True, [(1.0, 0.5), (3.0, 0.9)]), (False, [(1.0, 0.5), (2.0, 0.4)])]
)
def test_the_stairs_lead_through_those_that_no_cheaper_one_equals(higher, stairs):
    points = [(3.0, 0.9), (1.0, 0.5), (2.0, 0.4)]
    figure = Figure()
    axes = figure.subplots()
    cost_plot.draw_stairs(axes, points, higher)
    (line,) = axes.lines
    assert [tuple(point) for point in zip(*line.get_data(), strict=True)] == stairs
