"""bench/bench_growth.py: its points, its exponents and its report. The one point that is measured is tiny."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCH_FOLDER = Path(__file__).parents[2] / "bench"


@pytest.fixture(autouse=True)
def bench_folder(monkeypatch):
    """Let a test import the files of bench/, which is no package."""
    monkeypatch.setattr(sys, "path", [str(BENCH_FOLDER), *sys.path])


def make_row(value: int, seconds: list[float], temporary: float) -> dict:
    return {
        "net": "pictures",
        "axis": "inner_steps",
        "value": value,
        "device": "cpu",
        "devices": 2,
        "seconds": seconds,
        "compile_seconds": 3.0,
        "flops": 2e9,
        "temporary_bytes": temporary,
        "program_bytes": temporary,
        "process_bytes": 3e8,
    }


def test_the_exponent_of_a_power_is_its_exponent():
    import bench_growth

    values = [1, 3, 10, 40]
    slope = bench_growth.fit(values, [7 * value**1.5 for value in values], [0.0] * 4)
    assert slope.exponent == pytest.approx(1.5)
    assert slope.error == 0
    assert not slope.at_most_linear


def test_the_error_of_the_exponent_is_that_of_least_squares():
    import bench_growth

    values, errors = [1, 3, 10, 40], [0.1, 0.2, 0.05, 0.3]
    random = np.random.default_rng(0)
    noise = random.normal(size=(4000, 4)) * errors
    slopes = [bench_growth.fit(values, np.exp(row).tolist(), errors) for row in noise]
    assert np.std([slope.exponent for slope in slopes]) == pytest.approx(slopes[0].error, rel=0.05)


def test_growth_that_only_shows_at_large_numbers_is_seen():
    import bench_growth

    values = [1, 2, 5, 10, 25, 50]
    heights = [100 + value**2.0 for value in values]
    slope = bench_growth.fit_growth(values, heights, [0.0] * 6)
    assert bench_growth.fit(values, heights, [0.0] * 6).at_most_linear
    assert not slope.at_most_linear


def test_a_curve_of_noise_around_a_line_is_at_most_linear_and_one_above_it_is_not():
    import bench_growth

    def make_curve(exponent: float) -> list[dict]:
        return [make_row(value, [value**exponent, 1.1 * value**exponent], 2e6) for value in (1, 10, 100)]

    assert bench_growth.is_at_most_linear({"points": make_curve(1.06)})
    assert not bench_growth.is_at_most_linear({"points": make_curve(1.3)})


def test_memory_counts_where_there_is_much():
    import bench_growth

    little, much = ([make_row(value, [1.0], scale * value**2) for value in (1, 10)] for scale in (1e3, 1e6))
    assert bench_growth.fit_curve(little)["memory"] is None
    assert bench_growth.fit_curve(much)["memory"].exponent == pytest.approx(2)
    assert bench_growth.fit_curve(much[:1]) == {"time": None, "memory": None}


def test_every_curve_changes_one_number_and_devices_are_no_more_than_cores():
    import bench_growth

    points = list(bench_growth.list_points(bench_growth.AXES, cores=2))
    curves = {(point.net, point.axis) for point in points}
    assert len(curves) == 9  # the sinusoid has no ways
    for point in points:
        base = bench_growth.NETS[point.net]
        changed = {name for name in vars(base) if getattr(point.setting, name) != getattr(base, name)}
        assert changed <= {point.axis}
    assert {point.value for point in points if point.axis == "devices"} == {1, 2}
    assert {point.replicas for point in points if point.axis == "replicas"} == set(
        bench_growth.AXES["replicas"]
    )


def test_the_report_marks_a_curve_that_grows_too_fast(tmp_path):
    import bench_growth

    rows = [make_row(value, [1e-3 * value**2], 2e6 * value) for value in (1, 10)]
    report = {"machine": {"processor": "abacus", "cores": 2, "load": 0.0}, "points": rows}
    *_, last = bench_growth.format_report(report).splitlines()
    assert last == "| pictures | inner steps 1 to 10 | 2.00 ± 0.00 **more than linear** | 1.00 ± 0.00 |"
    bench_growth.draw(report, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 1000


def test_a_point_that_takes_too_long_is_left_out_and_named(capsys):
    import bench_growth

    point = next(bench_growth.list_points(bench_growth.AXES, cores=1))
    assert bench_growth.measure_point(point, limit=0.01) is None
    assert "sinusoid, tasks 8: took too long, left out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_point_is_measured_as_the_dry_run_measures_a_stage():
    import _bench_growth_worker
    import _bench_settings

    setting = _bench_settings.Setting("tiny", 2, 1, 1, 1, 0.1)
    row = _bench_growth_worker.measure(setting, replicas=2, devices=1)
    assert row["devices"] == 1
    assert all(seconds > 0 for seconds in row["seconds"])
    assert row["flops"] > 2 * 2 * 3 * 2 * 40 * 40  # a layer of both replicas, tasks and passes, at least
    assert row["process_bytes"] > row["program_bytes"] > row["temporary_bytes"] > 0
