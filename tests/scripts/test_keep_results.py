"""scripts/keep_results.py: what the tables need of finished runs, without their weights."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.finished_runs import COUNT, make_run, make_seeded_run

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def script():
    """The script, which imports its neighbour as it does from the command line."""
    sys.path.insert(0, str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("keep_results", SCRIPTS / "keep_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(SCRIPTS))
    del sys.modules["results"]


@pytest.fixture
def runs(tmp_path) -> Path:
    """A run with weights, and a method with its control; both results tell what the training has cost."""
    values = 0.03 * np.random.default_rng(0).standard_normal(COUNT)
    maml = make_run(tmp_path / "runs" / "maml", values - 0.9)
    tell_cost(maml)
    (maml / "checkpoints" / "maml").mkdir(parents=True, exist_ok=True)
    (maml / "checkpoints" / "maml" / "weights").write_text("large")
    (maml / "metrics.jsonl").write_text("{}\n" * 1000)
    method = make_seeded_run(
        tmp_path / "runs" / "fused-0a1b2c3d" / "method", np.stack([values, values + 0.01]), (0, 1)
    )
    tell_cost(method)
    make_run(method.parent / "alone", values)
    (method.parent / "controls.json").write_text("{}")
    line = {"of": "method", "control": "alone", "mean": 0.01, "ci95": 0.03, "differ": False}
    compared = {"mode": "inductive", "differences": [line]}
    (method.parent / "comparison.json").write_text(json.dumps(compared))
    return tmp_path / "runs"


def tell_cost(run: Path) -> None:
    """Add to a result what the training has cost, as today's version does."""
    own = {"steps": 7, "ended_by": "steps", "seconds": 2.5, "flops": 1e9, "parameters": 12}
    cost = {"own": own, "total": own, "adaptation": {"flops": 10}, "prediction": {"flops": 5}, "replicas": 1}
    result = json.loads((run / "result.json").read_text()) | {"costs": {"maml": cost}}
    result.pop("sha256", None)
    (run / "result.json").write_text(json.dumps(result))


def test_the_tables_are_the_same_from_what_is_kept_to_the_last_byte(script, runs, tmp_path):
    kept = tmp_path / "kept"
    assert script.main([str(runs), str(kept)]) == 0
    pages = [tmp_path / name / "results.md" for name in ("one", "other")]
    for folder, page in zip((runs, kept), pages, strict=True):
        page.parent.mkdir()
        assert script.results.main([str(folder), "--out", str(page)]) == 0
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert "alone: " in pages[0].read_text() and "| 7 | 2.5 | 1 |" in pages[0].read_text()
    pictures = [list((page.parent / "pictures").iterdir()) for page in pages]
    assert pictures[0] and [one.name for one in pictures[0]] == [one.name for one in pictures[1]]


def test_no_weights_no_metrics_and_no_controls_are_kept(script, runs, tmp_path):
    script.main([str(runs), str(tmp_path / "kept")])
    names = {
        path.relative_to(tmp_path / "kept").as_posix()
        for path in (tmp_path / "kept").rglob("*")
        if path.is_file()
    }
    folder = "fused-0a1b2c3d"
    assert {"maml/config.yaml", "maml/result.json", f"{folder}/method/result.json"} <= names
    assert {f"{folder}/controls.json", f"{folder}/comparison.json"} <= names
    assert not [name for name in names if "checkpoints" in name or "metrics" in name or "alone" in name]


def test_a_folder_without_runs_is_three_lines_and_an_exit_code(script, tmp_path, capsys):
    assert script.main([str(tmp_path), str(tmp_path / "kept")]) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in told] == ["error", "where", "to do"]
    assert not (tmp_path / "kept").exists()
