"""`metarun report`: a strict reading of the page, hostile names, damaged runs, and the page in a browser."""

import json
import os
import shutil
import subprocess
import webbrowser
from pathlib import Path

import numpy as np
import pytest

from helpers.commands import assert_three_lines
from helpers.finished_runs import COUNT, make_run
from helpers.html_pages import Page
from metarun import errors
from metarun.cli import report as command_file
from metarun.reports import page
from metarun.runs import run_status

pytest.importorskip("jinja2", reason="the extra `report` is not installed")
pytest.importorskip("bokeh", reason="the extra `report` is not installed")
pytestmark = pytest.mark.usefixtures("own_place")

SECTIONS = ("outcome", "missing", "curves", "episodes", "groups", "config", "cost", "environment", "repeat")
BROWSER = next(
    filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome", "chrome"))), None
)
HOSTILE = "</script><script>document.title='broken'</script>$$x$$"
POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> list[Path]:
    """Two finished runs that were never trained, with curves, and names that want to be scripts."""
    folder = tmp_path_factory.mktemp("pair")
    generator = np.random.default_rng(0)
    runs = []
    for number in range(2):
        run = make_run(folder / f"run <b>{number}", generator.normal(3, 1, COUNT))
        rows = [
            {"stage": "maml", "replica": replica, "split": "train", "step": step, "loss": 1 / step + replica}
            for step in range(1, 31)
            for replica in range(2)
        ]
        rows += [
            {
                "stage": "maml",
                "replica": replica,
                "split": "validation",
                "step": 30,
                "loss": "nan",
                "loss_ci95": 1.0,
            }
            for replica in range(2)
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        content = {"argv": ["/some/where/metarun", "train", f"{HOSTILE}.yaml"], "versions": {"jax": HOSTILE}}
        (run / "environment.json").write_text(json.dumps(content))
        (run / "config.yaml").write_text(f"seed: {number}  # {HOSTILE}\n")
        runs.append(run)
    return runs


def read_page(path: Path = Path("report.html")) -> Page:
    """Read a page strictly, and check that it asks nobody for anything."""
    page = Page(path.read_text("utf-8"))
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert page.handlers == []
    assert not any(sign in style for style in page.styles for sign in ("url(", "@import"))
    policies = [meta for meta in page.metas if meta.get("http-equiv") == "Content-Security-Policy"]
    assert [policy["content"] for policy in policies] == [POLICY]
    return page


def test_the_page_of_a_trained_run_has_all_sections_and_its_numbers(metarun_, both):
    said = metarun_("report", both)
    assert (said.code, said.out) == (0, ["report.html"])
    page = read_page()
    assert {f"run-1-{name}" for name in SECTIONS} <= set(page.identities)
    result = json.loads((both / "result.json").read_text())
    interval = result["stages"]["other"]["inductive"]["adapted"]["loss"]
    assert f"{interval['mean']:.4f} ± {interval['ci95']:.4f} (± {interval['seeds']['ci95']:.4f})" in page.text
    config = (both / "config.yaml").read_text()
    assert " ".join(config.split()) in page.text
    assert f"metarun train {both / 'config.yaml'}" in page.text
    assert "Stage base: maml with the model mlp, 8 outer steps" in page.text
    assert "from the lowest to the highest of" in page.text
    assert len(page.scripts) == 3  # the library, the plots, and whether they were drawn


def test_several_runs_are_ranked_and_their_configs_compared(metarun_, pair):
    assert metarun_("report", *pair, "--out", "both.html").code == 0
    page = read_page(Path("both.html"))
    assert {"together", "run-1-outcome", "run-2-outcome"} <= set(page.identities)
    assert "minus the best" in page.text and "differences by pairs" in page.text


def test_runs_of_other_episodes_stand_in_no_common_ranking(metarun_, tmp_path, pair):
    values = np.arange(float(COUNT))
    others = [make_run(tmp_path / name, values, digest="other") for name in ("c", "d")]
    assert metarun_("report", *pair, *others).code == 0
    page = read_page()
    assert page.text.count("minus the best") == 2
    assert "measured on different episodes cannot be ranked together" in page.text


def test_every_text_is_escaped(metarun_, pair):
    """The names reach the title, tables, commands, the config and the data of the plots."""
    assert metarun_("report", *pair).code == 0
    source = Path("report.html").read_text("utf-8")
    page = read_page()
    assert HOSTILE not in source
    assert "document.title='broken'" not in "".join(page.scripts)
    assert page.text.count("<script>document.title='broken'</script>") >= 4
    library = page.scripts[0]  # bokeh's own, which knows of elements
    assert library in source and "<b>" not in source.replace(library, "")
    assert "run <b>0" in page.text


def cut_result(run: Path) -> str:
    text = (run / "result.json").read_text()
    (run / "result.json").write_text(text[: len(text) // 2])
    return "result.json cannot be used"


def empty_result(run: Path) -> str:
    (run / "result.json").write_text(
        json.dumps({"stages": {"maml": 3}, "modes": [[]], "split": 1, "episodes": 2, "higher_is_better": 0})
    )
    return "result.json cannot be used"


def remove_result(run: Path) -> str:
    (run / "result.json").unlink()
    return "There is no result yet"


def cut_metrics(run: Path) -> str:
    file = run / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-10])
    return "The last line of metrics.jsonl is half written"


def damage_metrics(run: Path) -> str:
    lines = (run / "metrics.jsonl").read_bytes().split(b"\n")
    lines[1:4] = [b"\xff\x00", b"[1]", b'{"stage": [], "step": 1, "split": "train"}']
    (run / "metrics.jsonl").write_bytes(b"\n".join(lines))
    return "3 damaged lines of metrics.jsonl left out"


def keep_one_step(run: Path) -> str:
    file = run / "metrics.jsonl"
    file.write_bytes(file.read_bytes().split(b"\n")[0] + b"\n")
    return "Stage maml has no curves: one step of it is written down."


def remove_everything(run: Path) -> str:
    for path in run.iterdir():
        if path.name not in ("config.yaml", "lock"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return "metrics.jsonl is missing"


def damage_small_files(run: Path) -> str:
    (run / "config.yaml").write_bytes(b"\xff\xfe")
    (run / "status.json").write_text("[1]")
    (run / "environment.json").write_text('{"versions": 3, "variables": null, "argv": 2, "git": []')
    (run / "pictures").mkdir()
    (run / "pictures" / "maml-episode.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    return "maml-episode.png is no whole PNG file"


DAMAGES = (
    cut_result,
    empty_result,
    remove_result,
    cut_metrics,
    damage_metrics,
    keep_one_step,
    remove_everything,
    damage_small_files,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_run_gives_a_page_that_says_what_is_missing(metarun_, tmp_path, pair, damage):
    run = shutil.copytree(pair[0], tmp_path / "damaged")
    sentence = damage(run)
    said = metarun_("report", run)
    assert (said.code, said.err) == (0, [])
    page = read_page()
    assert sentence in page.text
    assert {f"run-1-{name}" for name in SECTIONS} <= set(page.identities)


def test_time_memory_and_cost_come_from_the_run(metarun_, pair, tmp_path):
    run = shutil.copytree(pair[0], tmp_path / "run")
    speed = {"stage": "maml", "replica": 0, "split": "speed", "tasks_per_second": 12.5}
    with (run / "metrics.jsonl").open("a") as file:
        for step, peak in ((10, 2_000_000), (30, 1_000_000)):
            file.write(json.dumps({**speed, "step": step, "memory_peak_bytes": peak}) + "\n")
    (run / "environment.json").write_text('{"time": "2026-01-01T00:00:00+00:00", "memory_bytes": 8e9}')
    status = {"status": "done", "stage": "maml", "step": 7, "updated": "2026-01-01T01:05:09+00:00"}
    (run / "status.json").write_text(json.dumps(status))
    assert metarun_("report", run).code == 0
    text = read_page().text
    assert "between the two, with compiling and measuring 1 h 05 min" in text
    assert "tasks a second, median of training 12.5" in text
    assert "peak of memory in use, of the device or the process 2 MB" in text
    # The manifest has 2.5 s, 12 trained numbers of two replicas, and 17 float32 in all.
    assert "maml 7 2.5 s 2.8 6 68 B" in text
    assert "memory of the machine 8 GB" in text


def test_what_is_no_run_is_refused(metarun_, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_three_lines(metarun_("report", tmp_path / "empty"), 5, "there is no run here")
    assert not Path("report.html").exists()


def test_a_report_replaces_a_report_and_no_other_file(metarun_, pair):
    assert metarun_("report", pair[0]).code == 0
    assert metarun_("report", pair[0]).code == 0
    Path("report.html").write_text("<html>mine</html>")
    assert_three_lines(metarun_("report", pair[0]), 2, "a file that is no report")
    assert Path("report.html").read_text() == "<html>mine</html>"


def test_a_place_that_cannot_be_written_is_refused(metarun_, pair, tmp_path):
    assert_three_lines(metarun_("report", pair[0], "--out", "no/page.html"), 2, "there is no such folder")
    assert_three_lines(metarun_("report", pair[0], "--out", tmp_path), 8, "a folder is there")


def test_nothing_is_written_to_the_run(metarun_, pair):
    before = {path: path.stat().st_mtime_ns for path in pair[0].rglob("*")}
    metarun_("report", pair[0])
    assert {path: path.stat().st_mtime_ns for path in pair[0].rglob("*")} == before


def test_a_watched_page_is_renewed_until_the_run_ends(metarun_, monkeypatch, tmp_path, pair):
    run = shutil.copytree(pair[0], tmp_path / "watched")
    (run / "result.json").rename(run / "later")
    states = iter(["running", "running", "done"])
    monkeypatch.setattr(
        "metarun.reports.run_record.read_status", lambda path: run_status.RunStatus(next(states), "maml", 7)
    )
    pages = []

    def wait(seconds: float) -> None:
        pages.append(read_page())
        if len(pages) == 2:
            (run / "later").rename(run / "result.json")

    monkeypatch.setattr(command_file.time, "sleep", wait)
    said = metarun_("report", run, "--watch")
    assert (said.code, said.out) == (0, ["report.html"])
    renewing = [
        any(meta.get("http-equiv") == "refresh" for meta in page.metas) for page in [*pages, read_page()]
    ]
    assert renewing == [True, True, False]
    assert "No result yet: the run goes on" in pages[1].text
    assert "No result yet" not in read_page().text


def test_the_page_is_opened_if_that_is_wanted(metarun_, monkeypatch, pair):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address))
    said = metarun_("report", pair[0], "--open")
    assert opened == [Path("report.html").resolve().as_uri()]
    assert said.err == ["no browser was found: open the file by hand"]


def test_a_missing_extra_is_named_before_anything_is_read(metarun_, monkeypatch, pair):
    monkeypatch.setattr("metarun.reports.page.PACKAGES", ("jinja2", "no_such_package"))
    assert_three_lines(metarun_("report", pair[0]), 2, "no_such_package", "metarun[report]")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no headless Chromium is installed here")
def test_a_browser_without_a_network_draws_every_plot(metarun_, pair):
    metarun_("report", *pair)
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]
    command += ["--virtual-time-budget=20000", "--dump-dom", Path("report.html").resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    plots = Path("report.html").read_text("utf-8").count('class="plot"')
    assert plots == 3  # the ranking, and the curve of each run; validation is not finite
    assert f'data-plots="{plots} of {plots}"' in done.stdout
    assert "broken" not in done.stdout.partition("</title>")[0].rpartition("<title>")[2]


def test_a_pipe_and_a_file_that_is_open_take_a_report_and_are_not_read_first(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    page.check_place(tmp_path / "pipe")
    with (tmp_path / "text").open("w") as file:
        file.write("no report")
        file.flush()
        page.check_place(Path(f"/dev/fd/{file.fileno()}"))
        with pytest.raises(errors.UsageError, match="no report"):
            page.check_place(tmp_path / "text")
