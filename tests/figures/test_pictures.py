"""The pictures of a run: that they are pictures, of the right size, whatever the numbers are."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from helpers.assembled import assemble
from helpers.runs import BOTH, SINGLE, train
from metarun import assembly
from metarun.figures import canvas, metric_curves, run_pictures
from metarun.runs import metrics


def assert_picture(path: Path, width: int, height: int) -> None:
    """Check that a PNG has that many pixels and something in it."""
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == (width, height)
        assert np.unique(np.asarray(image.convert("L"))).size > 10


def row(step: int, split: str = "train", **values) -> dict:
    return {"stage": "maml", "replica": 0, "split": split, "step": step, **values}


def validated(step: int, loss, half=0.1, **values) -> dict:
    return row(step, "validation", mode="inductive", loss=loss, loss_ci95=half, seconds=1.0, **values)


def draw(rows: list[dict], selection: str = "loss") -> Figure:
    """Return the figure of the curves."""
    figure = Figure()
    metric_curves.draw_curves(figure, rows, selection)
    return figure


def test_a_run_with_validation_leaves_curves_and_an_episode(tmp_path):
    folder = train(tmp_path / "run", SINGLE, "evaluation.inner_steps=[0, 3]", pictures=True) / "pictures"
    assert {path.name for path in folder.iterdir()} == {"maml-curves.png", "maml-episode.png"}
    assert_picture(folder / "maml-curves.png", 1080, 456)
    assert_picture(folder / "maml-episode.png", 960, 540)


def test_a_run_without_validation_leaves_the_curves_of_training(tmp_path, monkeypatch):
    def build_without_picture(selection, kept, build=assembly.build_family):
        return build(selection)._replace(draw=None)

    monkeypatch.setattr(assembly, "build_family", build_without_picture)
    folder = train(tmp_path / "run", SINGLE, "evaluation.every=null", pictures=True) / "pictures"
    assert [path.name for path in folder.iterdir()] == ["maml-curves.png"]  # and no episode of such a family
    assert_picture(folder / "maml-curves.png", 1080, 456)


def collect_predictors(path, monkeypatch, *overrides: str) -> dict:
    """Return what the picture of an episode is drawn with."""
    seen = {}

    def keep(*arguments, prepare=run_pictures.prepare_episode):
        episode, predictors = prepare(*arguments)
        seen.update(predictors)
        return episode, predictors

    monkeypatch.setattr(run_pictures, "prepare_episode", keep)
    train(path, SINGLE, *overrides, pictures=True)
    return seen


def test_predictors_are_sorted_by_their_inner_steps(tmp_path, monkeypatch):
    seen = collect_predictors(
        tmp_path / "run", monkeypatch, "training.steps=4", "evaluation.inner_steps=[10, 2]"
    )
    assert list(seen) == [0, 1, 2, 10]
    answers = [predict(np.ones((3, 1), np.float32)) for predict in seen.values()]
    assert all(answer.shape == (3, 1) for answer in answers)
    assert len({answer.tobytes() for answer in answers}) == 4


def test_a_learner_without_inner_steps_has_one_predictor_without_a_number(tmp_path, monkeypatch):
    seen = collect_predictors(tmp_path / "run", monkeypatch, "training.steps=1", "algorithm={name: pretrain}")
    assert list(seen) == [None]


@pytest.mark.slow
def test_every_stage_has_its_pictures(tmp_path):
    both = train(tmp_path / "run", BOTH, pictures=True)
    assert {file.name for file in (both / "pictures").iterdir()} == {
        f"{stage}-{kind}.png" for stage in ("base", "other") for kind in ("curves", "episode")
    }


def test_each_metric_of_validation_has_a_panel_the_selecting_one_first():
    rows = [row(1, loss=1.0, accuracy=0.2), validated(1, 1.1, accuracy=0.3, accuracy_ci95=0.1)]
    labels = [axes.get_ylabel() for axes in draw(rows, "accuracy").axes]
    assert labels == ["accuracy", "loss"]


def test_training_alone_shows_all_its_metrics():
    rows = [row(step, loss=1.0 / step, gradient_norm=2.0) for step in range(1, 5)]
    assert [axes.get_ylabel() for axes in draw(rows).axes] == ["loss", "gradient_norm"]


def test_many_metrics_have_panels_that_are_wide_enough_for_their_labels(tmp_path):
    """Eight members of a fusion: ten metrics. A layout that does not fit is a warning, and warnings are errors here."""
    values = {f"weight_{member}": 0.125 for member in range(8)}
    rows = [row(step, loss=1.0 / step, gradient_norm=2.0, **values) for step in range(1, 5)]
    path, size = tmp_path / "pictures/curves.png", metric_curves.measure_curves(rows, "loss")
    shown: list[Figure] = []

    def draw_curves(figure) -> None:
        shown.append(figure)
        metric_curves.draw_curves(figure, rows, "loss")

    canvas.write_figure(path, draw_curves, size)
    drawn = [axes for axes in shown[0].axes if axes.axison]
    assert len(drawn) == 10
    assert min(axes.get_position().width * size[0] for axes in drawn) > 1.5  # inches
    assert_picture(path, 1080, 4 * 456)


def test_of_very_many_metrics_the_first_are_drawn():
    names = [f"weight_{member}" for member in range(100)]
    assert len(draw([row(1, loss=1.0, **dict.fromkeys(names, 0.01))]).axes) == metric_curves.PANELS


def test_a_stage_of_one_step_shows_it():
    (line,) = draw([row(1, loss=0.5)]).axes[0].get_lines()
    assert line.get_marker() == "o"


@pytest.mark.parametrize("count", [1, 199, 200, 201, 250, 399, 400, 401, 1000])
def test_every_point_of_a_curve_is_the_mean_of_as_many_steps(count):
    steps = np.arange(1.0, count + 1)
    curve = metric_curves.Curve(steps, np.stack([steps, 2 * steps]))
    thinned, width = metric_curves.thin(curve), metric_curves.find_width(count)
    assert len(thinned.steps) == -(-count // width) <= metric_curves.POINTS
    np.testing.assert_allclose(thinned.values, [thinned.steps, 2 * thinned.steps])
    np.testing.assert_allclose(np.diff(thinned.steps)[:-1], width)
    assert thinned.steps[-1] == count - (width - 1) / 2
    assert (np.diff(thinned.steps) > 0).all()


def test_the_band_reaches_from_the_lowest_to_the_highest_learner():
    """A learner that has diverged, as a trial may, leaves the others their band."""
    rows = [
        row(step, loss=value * step) | {"replica": place}
        for step in (1, 2, 3)
        for place, value in enumerate((1, 3, 5))
    ]
    rows = [line for line in rows if (line["replica"], line["step"]) != (2, 3)]
    rows += [validated(2, 4.0) | {"replica": 0}, validated(2, 6.0) | {"replica": 1}]
    (axes,) = draw(rows).axes
    training, validation = axes.get_lines()
    np.testing.assert_allclose(training.get_ydata(), [3, 6, 6])
    np.testing.assert_allclose(validation.get_ydata(), [5])
    assert training.get_label() == "training, 3 learners"
    corners = axes.collections[0].get_paths()[0].vertices
    for step, low, high in ((1, 1, 5), (2, 2, 10), (3, 3, 9)):
        heights = corners[corners[:, 0] == step][:, 1]
        assert (heights.min(), heights.max()) == (low, high)


def test_the_band_of_one_learner_is_the_interval_over_episodes():
    (axes,) = draw([validated(2, 4.0, 0.5), validated(4, 3.0, 0.25)]).axes
    corners = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (corners.min(), corners.max()) == (2.75, 4.5)


def test_a_metric_without_a_finite_number_has_no_panel_and_one_step_is_no_curve():
    rows = [row(1, loss=0.5, rate=math.nan), row(2, loss=0.4, rate=math.nan)]
    assert [axes.get_ylabel() for axes in draw(rows).axes] == ["loss"]
    assert metric_curves.is_worth_drawing(rows, "loss")
    assert not metric_curves.is_worth_drawing(rows[:1], "loss")
    assert not metric_curves.is_worth_drawing([], "loss")


def test_the_title_of_trials_names_no_seed_because_each_has_its_own(tmp_path):
    trials = "trials={seeds: [5, 6], numbers: [{path: algorithm.inner_lr, values: [0.01, 0.1]}]}"
    stage = assemble(tmp_path, SINGLE, "replicas=2", trials).stage
    title = run_pictures.make_title(Path("runs/one/two"), "sinusoid", stage)
    assert title == "one/two\nstage maml · sinusoid · mlp · maml · 2 trials"


def test_the_title_names_config_run_and_stage(tmp_path, monkeypatch):
    written = {}
    monkeypatch.setattr(
        canvas, "write_figure", lambda path, draw, **size: written.setdefault(path.name, draw)
    )
    train(tmp_path / "maml" / "one", SINGLE, pictures=True)
    for name, draw_picture in written.items():
        figure = Figure()
        draw_picture(figure)
        expected = "maml/one\nstage maml · sinusoid · mlp · maml · seed 0"
        assert figure.get_suptitle() == expected, name
    assert set(written) == {"maml-curves.png", "maml-episode.png"}


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", math.nan, math.inf])
@pytest.mark.parametrize("everywhere", [False, True])
def test_numbers_that_are_not_finite_do_not_hinder_a_picture(tmp_path, value, everywhere):
    """As metrics.jsonl holds them: spelled as words."""
    good = value if everywhere else 0.5
    rows = [row(1, loss=good), row(2, loss=value), validated(2, value, value), validated(4, good, good)]
    rows += [row(3, loss=good), validated(6, good, value)]
    path = tmp_path / "pictures/curves.png"
    canvas.write_figure(path, lambda figure: metric_curves.draw_curves(figure, rows, "loss"))
    assert metric_curves.is_worth_drawing(rows, "loss") != everywhere
    if not everywhere:
        assert_picture(path, 960, 540)


def test_a_run_without_a_line_of_metrics_is_an_empty_figure(tmp_path):
    path = tmp_path / "pictures/curves.png"
    canvas.write_figure(path, lambda figure: metric_curves.draw_curves(figure, [], "loss"))
    assert path.is_file()


def test_only_the_lines_of_a_stage_and_none_about_speed_are_in_its_curves():
    rows = [
        row(number, loss=1.0) | {"stage": name} for number, name in enumerate(("first", "second", "first"))
    ]
    rows.append(row(7, metrics.SPEED) | {"stage": "first"})
    assert [line["step"] for line in run_pictures.select_rows("first", rows)] == [0, 2]
