"""The report of a sweep: what a reader sees, the command that repeats it, and what a damaged one gives."""

import json
from pathlib import Path

import pytest

from helpers.html_pages import Page
from helpers.runs import SINGLE
from metarun.reports import sweep_section
from metarun.sweeps import request

pytestmark = pytest.mark.usefixtures("own_place")

ARGUMENTS = [
    "algorithm.inner_lr=log(0.001,0.1,3)",
    "model.activation=relu,tanh",
    "algorithm.inner_steps=1..3",
]
INTERVAL = {"mean": 0.5, "ci95": 0.125}
LINE = {"number": 1, "state": "done", "steps": 24, "behind": None, **INTERVAL}
RANKING = {
    "metric": "loss",
    "higher_is_better": False,
    "mode": "inductive",
    "stage": "maml",
    "split": "validation",
    "episodes": {"count": 6, "hash": "x"},
    "keys": ["algorithm.inner_lr"],
    "seeds": [0, 1],
    "search": "grid",
    "halve": None,
    "ranking": [
        {**LINE, "setting": {"algorithm.inner_lr": 0.01}},
        {**LINE, "setting": {"algorithm.inner_lr": 0.1}, "behind": {"mean": 0.25, "ci95": 0.0625}},
        {**LINE, "setting": {"algorithm.inner_lr": 1.0}, "mean": None, "ci95": None, "state": "diverged"},
    ],
    "importance": {"method": None, "shares": {}, "reason": "no reason"},
    "winner": {
        "setting": {"algorithm.inner_lr": 0.01},
        "test": {
            "episodes": {"count": 6},
            "stages": {"maml": {"inductive": {"adapted": {"loss": INTERVAL}}}},
        },
    },
}


@pytest.fixture
def asked() -> request.Request:
    Path("base.yaml").write_text(SINGLE)
    return request.read(Path("base.yaml"), [*ARGUMENTS, "seed=0,1"], halve=2)


@pytest.fixture
def sweep(asked, tmp_path) -> Path:
    """A sweep that has ended, without its runs."""
    folder = tmp_path / "sweep <i>"
    (folder / "programs" / "one").mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps(asked.describe()))
    (folder / "ranking.json").write_text(json.dumps(RANKING))
    (folder / "winner.yaml").write_text("seed: 0  # <b>\n")
    return folder


def test_the_page_of_a_sweep_has_its_ranking_and_the_winner(metarun_, sweep):
    pytest.importorskip("jinja2", reason="the extra `report` is not installed")
    pytest.importorskip("bokeh", reason="the extra `report` is not installed")
    assert metarun_("report", sweep).code == 0
    page = Page(Path("report.html").read_text("utf-8"))
    assert "The winner is inner_lr=0.01: loss 0.5000 ± 0.1250 on 6 test episodes" in page.text
    assert "2 0.1 0.5000 ± 0.1250 0.2500 ± 0.0625 24 done" in page.text
    assert "3 1 diverged" in page.text
    assert {f"sweep-1-{name}" for name in ("outcome", "missing", "pictures", "repeat")} <= set(
        page.identities
    )
    assert all(address.startswith("#") for address in page.addresses)


def test_the_command_of_the_page_asks_for_the_same_sweep(sweep, asked):
    section = sweep_section.read_sweep(sweep, "sweep-1")
    Path(sweep_section.BASE).write_text(section.config)
    described = json.loads((sweep / "sweep.json").read_text())
    arguments = sweep_section.list_arguments(described)
    options = arguments.index("--search")
    assert arguments[options:] == ["--search", "grid", "--halve", "2"]
    repeated = request.read(Path(sweep_section.BASE), arguments[:options], "grid", halve=2)
    assert repeated.hash() == asked.hash()


def remove_ranking(folder: Path) -> str:
    (folder / "ranking.json").unlink()
    return "ranking.json is missing."


def cut_ranking(folder: Path) -> str:
    text = (folder / "ranking.json").read_text()
    (folder / "ranking.json").write_text(text[:99])
    return "ranking.json cannot be read"


def empty_line(folder: Path) -> str:
    (folder / "ranking.json").write_text(json.dumps({**RANKING, "ranking": [{}]}))
    return "ranking.json cannot be used"


def damage_request(folder: Path) -> str:
    (folder / "sweep.json").write_text('{"axes": 3, "config": []}')
    (folder / "importance.png").write_text("no picture")
    return "importance.png is no whole PNG file."


@pytest.mark.parametrize("damage", [remove_ranking, cut_ranking, empty_line, damage_request])
def test_a_damaged_sweep_says_what_is_missing(sweep, damage):
    sentence = damage(sweep)
    section = sweep_section.read_sweep(sweep, "sweep-1")
    assert any(gap.startswith(sentence) for gap in section.gaps)
    assert section.may_go_on == (damage is not damage_request)
