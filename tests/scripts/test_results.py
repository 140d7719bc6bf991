"""scripts/results.py: the table of finished runs, beside their controls and the numbers of their papers."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.finished_runs import COUNT, make_run, make_seeded_run
from metarun.config import yaml_file
from metarun.finished.candidates import Candidate
from metarun.finished.costs import Cost

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("results", ROOT / "scripts" / "results.py")
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)

OMNIGLOT = "task: {name: omniglot, ways: 5, shots: 1}\nseed: 0\n"
PUBLISHED = """
settings:
  - name: omniglot-5way-1shot
    title: Omniglot, 5 ways, 1 shot
    task: {name: omniglot, ways: 5, shots: 1}
    metric: accuracy
    published:
      - {method: MAML, runs: [maml], mode: inductive, value: 0.9, ci95: 0.01, source: a paper, checked: true}
      - {method: SNAIL, runs: [snail], value: 0.99, source: another, checked: false}
      - {method: Reptile, runs: [reptile], value: 0.95, source: a third, checked: true}
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three runs that count, and one of a sweep and one control that do not."""
    values = 0.03 * np.random.default_rng(0).standard_normal(COUNT)
    runs = tmp_path / "runs"
    make_run(runs / "maml", values - 0.9, config=OMNIGLOT)
    make_run(runs / "snail", values - 0.6, config=OMNIGLOT)
    make_run(runs / "sweep" / "programs" / "1", values, config=OMNIGLOT)
    (runs / "sweep" / "sweep.json").write_text("{}")
    method = runs / "fused-0a1b2c3d" / "method"
    make_seeded_run(method, np.stack([values, values + 0.01]) - 0.95, (0, 1))
    (method / "config.yaml").write_text(OMNIGLOT)
    make_run(method.parent / "alone", values - 0.94, config=OMNIGLOT)
    (method.parent / "controls.json").write_text("{}")
    line = {
        "of": "method",
        "minus": "alone",
        "control": "alone",
        "mean": 0.012,
        "ci95": 0.034,
        "differ": False,
    }
    comparison = {"mode": "inductive", "differences": [line]}
    (method.parent / "comparison.json").write_text(json.dumps(comparison))
    (tmp_path / "published.yaml").write_text(PUBLISHED)
    return tmp_path


def make_page(folder: Path) -> list[list[str]]:
    """Run the script, and return the cells of the table."""
    out = folder / "results.md"
    arguments = [folder / "runs", "--out", out, "--published", folder / "published.yaml"]
    assert script.main([str(argument) for argument in arguments]) == 0
    lines = [line for line in out.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_method_is_a_row_with_its_seeds_its_controls_and_what_its_paper_reports(folder):
    header, _, *rows = make_page(folder)
    cells = {row[1]: dict(zip(header, row, strict=True)) for row in rows}
    assert list(cells) == ["fused", "maml", "snail", "Reptile"]
    assert [cells[name]["seeds"] for name in ("fused", "maml")] == ["2", "1"]
    assert cells["fused"]["controls"] == "inductive: alone: 1.2 ± 3.4"
    assert cells["maml"]["controls"] == "none run"
    assert cells["maml"]["published"] == "90.0 ± 1.0 [1]"  # as the source prints it
    assert cells["snail"]["published"] == "(99.0) [2]"
    assert "- [1] MAML, inductive, a paper\n- [2] SNAIL, another" in (folder / "results.md").read_text()
    assert [cells[name]["reached?"] for name in ("fused", "maml", "snail", "Reptile")] == [
        "", "yes", "no", "not tried"
    ]  # fmt: skip
    assert float(cells["maml"]["accuracy, %, inductive"].split(" ")[0]) == pytest.approx(90, abs=2)


def test_runs_of_shipped_configs_have_short_names_and_the_numbers_of_their_papers(folder):
    short, long = "5way-1shot-2000-steps", "omniglot-5way-1shot-2000-steps"
    for name in ("maml", "snail"):
        (folder / "runs" / name).rename(folder / "runs" / f"{long}-{name}")
    header, _, *rows = make_page(folder)
    cells = {row[1]: dict(zip(header, row, strict=True)) for row in rows}
    assert list(cells) == ["fused", "maml", "snail", "Reptile"]
    assert cells["maml"]["published"] == "90.0 ± 1.0 [1]"
    labels = [f"{long}-maml", f"{long}-transfer/centroid", "omniglot-5way-1shot-maml seed=1", "own-maml"]
    assert script.shorten_labels(labels) == [
        f"{short}/maml", "transfer/centroid", "5way-1shot/maml seed=1", "own-maml"
    ]  # fmt: skip


def test_a_run_that_cannot_be_read_is_left_out_and_said(folder, capsys):
    broken = folder / "runs" / "snail" / "result.json"
    broken.write_text("{}")
    assert [row[1] for row in make_page(folder)[2:4]] == ["fused", "maml"]
    assert capsys.readouterr().err.startswith(f"left out: {broken}: ")


def test_a_setting_is_that_of_the_evaluation_and_of_no_other_task(tmp_path):
    settings = yaml_file.read(ROOT / "docs" / "published.yaml").value["settings"]

    def name_setting(text: str) -> str:
        (tmp_path / "config.yaml").write_text(text)
        return script.choose_setting(tmp_path, settings).name

    omniglot = "task: {name: omniglot, ways: %d, shots: 1, within_alphabet: %s}\nevaluation: {ways: %s}\n"
    assert name_setting(omniglot % (5, "false", "null")) == "omniglot-5way-1shot"
    assert name_setting(omniglot % (60, "false", "5")) == "omniglot-5way-1shot"
    assert name_setting(omniglot % (5, "false", "20")) == "omniglot"
    assert name_setting(omniglot % (5, "true", "null")) == "omniglot"
    assert name_setting("task: {name: sinusoid, shots: 10, noise: 0.0}") == "sinusoid-10shot"
    assert name_setting("task: {name: sinusoid, shots: 10, noise: 1.0}") == "sinusoid"
    (tmp_path / "config.yaml").write_text("task: {name: image_folder, ways: 5, shots: 1}")
    assert script.choose_setting(tmp_path, []).title == "image_folder, 5 ways, 1 shot"


def test_a_stage_of_a_method_has_its_own_differences_alone(tmp_path):
    method = make_run(tmp_path / "fused-0a1b2c3d" / "method", np.zeros(COUNT), ("members", "average"))
    (method.parent / "controls.json").write_text("{}")
    lines = [
        {"of": f"method/{stage}", "control": control, "mean": 0.1, "ci95": 0.2, "differ": False}
        for stage, control in (("average", "one"), ("members", "other"), ("other-average", "third"))
    ]
    (method.parent / "comparison.json").write_text(json.dumps({"mode": "inductive", "differences": lines}))
    table = script.method_table.tabulate([method])
    told = {row.stage: script.describe_controls(row, table) for row in table.rows}
    assert told == {"average": "inductive: one: 10.0 ± 20.0", "members": "inductive: other: 10.0 ± 20.0"}
    assert script.name_learner("method/average", method) == "fused/average"
    assert script.name_learner("method name=members/average", method) == "fused/average"
    assert script.name_learner("method inner_steps=5", method) == "fused"
    assert script.name_learner("maml inner_steps=5", tmp_path / "maml") == "maml inner_steps=5"


def test_single_members_have_no_row_beside_what_is_made_of_them(tmp_path):
    def name_stages(*stages: tuple[str, int | None]) -> list[str]:
        cost = Cost(1, 1.0, None, 1, None)
        candidates = [
            Candidate(f"run/{name}", tmp_path / name, name, {}, {}, cost, member=member)
            for name, member in stages
        ]
        return [candidate.name for candidate in script.method_table.leave_out_members(candidates)]

    assert name_stages(("one", None), ("one", 0), ("one", 1)) == ["one"]
    assert name_stages(("one", 0), ("one", 1)) == ["one[0]", "one[1]"]
    assert name_stages(("one", 0), ("one", None), ("two", 0)) == ["one", "two[0]"]


def test_the_picture_shows_the_rows_of_the_table_and_tests_no_other_pairs(folder, monkeypatch):
    make_run(folder / "runs" / "fusion", np.linspace(0, 1, COUNT), ("members", "average"))

    def leave_out(candidates: list[Candidate]) -> list[Candidate]:
        return [candidate for candidate in candidates if candidate.stage != "members"]

    monkeypatch.setattr(script.method_table, "leave_out_members", leave_out)
    drawn = []
    monkeypatch.setattr(
        script.comparison_plot, "write_comparison", lambda path, compared: drawn.append(compared)
    )
    make_page(folder)
    (compared,) = drawn
    labels = [line["label"] for line in compared["ranking"]]
    assert sorted(labels) == ["fused", "fusion/average", "maml", "snail"]
    pairs = [(line["of"], line["minus"]) for line in compared["differences"]]
    assert len(pairs) == 6 and not any("members" in label for pair in pairs for label in pair)
    assert len({best for best, _ in pairs[:3]}) == 1  # the colours are by the first lines, those of the best


def test_the_page_keeps_what_is_not_between_the_markers_and_links_a_picture(folder):
    page = folder / "results.md"
    page.write_text(f"# Ours\n\nbefore\n\n{script.BEGIN}\nobsolete\n{script.END}\n\nafter\n")
    make_page(folder)
    text = page.read_text()
    assert text.startswith("# Ours\n\nbefore\n") and text.endswith("\n\nafter\n") and "obsolete" not in text
    assert "(pictures/results-omniglot-5way-1shot.png)" in text
    with Image.open(folder / "pictures" / "results-omniglot-5way-1shot.png") as picture:
        assert min(picture.size) > 200
    make_page(folder)
    assert page.read_text() == text


@pytest.mark.parametrize(
    ("metric", "numbers", "shown"),
    [
        ("accuracy", [0.9768, 0.0004], "97.68 ± 0.04"),
        ("accuracy", [0.995, 0.0026], "99.50 ± 0.26"),
        ("accuracy", [0.987], "98.7"),
        ("loss", [0.77], "0.77"),
    ],
)
def test_a_published_number_has_the_digits_of_its_source(metric, numbers, shown):
    assert script.format_exactly(numbers, script.MethodTable(metric, True, [], {}, [])) == shown


@pytest.mark.parametrize(
    ("mean", "ci95", "reached"),
    [(0.95, 0.001, "yes"), (0.885, 0.02, "yes"), (0.88, 0.005, "no"), (float("nan"), 0.1, "no")],
)
def test_a_number_is_reached_by_its_interval(mean, ci95, reached):
    row = script.Row("maml", Path(), "maml", 1, {"inductive": {"mean": mean, "ci95": ci95}}, {})
    table = script.MethodTable("accuracy", True, ["inductive"], {}, [row])
    assert script.judge(row, {"value": 0.9, "ci95": 0.01, "mode": "inductive"}, table) == reached
    assert script.judge(row, {"value": 0.9, "mode": "transductive"}, table).startswith("not tried")


def test_a_folder_without_runs_is_three_lines_and_an_exit_code(tmp_path, capsys):
    assert script.main([str(tmp_path), "--out", str(tmp_path / "out.md")]) == 2
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        "error",
        "where",
        "to do",
    ]


def test_the_published_numbers_name_their_paper_and_configs_that_exist():
    configs = {path.stem for path in (ROOT / "configs").rglob("*.yaml")}
    for setting in yaml_file.read(ROOT / "docs" / "published.yaml").value["settings"]:
        for entry in setting["published"]:
            assert "arXiv" in entry["source"] and isinstance(entry["checked"], bool)
            assert set(entry["runs"]) <= configs
            assert entry["value"] < 1 or setting["metric"] == "loss"
