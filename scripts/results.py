"""Write the table of docs/results.md from finished runs: every method beside its controls and what its paper reports.

    python scripts/results.py RUNS_FOLDER --out docs/results.md

Every finished run below the folder is a row, in one table for each list of frozen episodes. Intervals are over seeds
and episodes (`metarun.evaluation.statistics`). A run with the controls of `metarun compare --controls` has their
differences in its row; sweeps and the controls themselves are left out. docs/published.yaml has the published numbers.
The text between the two markers is replaced, and nothing else; each table has a picture beside the page.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metarun import errors, folders
from metarun.cli.text_tables import format_count, format_markdown_table
from metarun.config import shipped, yaml_file
from metarun.config.control_section import METHOD
from metarun.evaluation import wording
from metarun.figures import comparison_plot
from metarun.finished import ceiling, method_table, run_names
from metarun.finished.comparison import Choice, compare
from metarun.finished.finished_run import read_result
from metarun.finished.method_table import MethodTable, Row
from metarun.runs import directory, files

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
CONTROLS, COMPARISON, SWEEP = "controls.json", "comparison.json", "sweep.json"  # in folders of several runs
LEGEND = """\
Intervals are 95 %, over seeds and episodes; with one seed they are over episodes alone, and say nothing about training
noise. Rows have the budgets that their columns say, and no common one: seconds and GFLOP are those of training, with
the stages before. Tasks a step and examples a task differ, too, and are in the configs: of a sinusoid the neural
processes, memories, SNAIL and Reptile see 50 points in training, the others 20. A control is the method minus its
control, paired by seed and episode, in bold where they can be told apart; "none run" says that a row has not been
measured against one. *Reached* is "yes" if ours is at least as good as the published number, or the two intervals, as
if they were independent, cannot tell them apart; else "no", and "not tried" without a run. Published numbers in
brackets are from memory or from another paper."""


class Setting(NamedTuple):
    """One table."""

    name: str
    title: str
    published: list[dict[str, Any]]


def find_runs(folder: Path) -> list[Path]:
    """Return the finished runs below a folder, without those of sweeps and without controls."""
    results = sorted(folder.rglob(directory.RESULT))
    runs = [result.parent for result in results if (result.parent / directory.CONFIG).is_file()]
    readable = [run for run in runs if can_be_read(run)]
    return [run for run in readable if not is_part_of_sweep(run, folder) and not is_control(run)]


def can_be_read(run: Path) -> bool:
    """Return whether the result of a run can be read; of one that is damaged or older the error stream says so."""
    try:
        read_result(run)
    except errors.MetarunError as error:
        print(f"left out: {error.where}: {error.what}", file=sys.stderr)
        return False
    return True


def is_part_of_sweep(run: Path, folder: Path) -> bool:
    """Return whether a run is one of the programs of a sweep."""
    above = run.parents[: len(run.relative_to(folder).parents)]
    return any((parent / SWEEP).is_file() for parent in above) or "trials" in read_result(run)


def is_control(run: Path) -> bool:
    """Return whether a run is the control of a method."""
    return (run.parent / CONTROLS).is_file() and run.name != METHOD


def is_method(run: Path) -> bool:
    """Return whether a run is a method that was trained with its controls."""
    return (run.parent / CONTROLS).is_file() and run.name == METHOD


def name_run(run: Path) -> str:
    """Return the name of the config that a run is of; that of a method with controls is in the name of its folder."""
    if is_method(run):
        return run.parent.name.rpartition("-")[0]
    return run_names.name_config(run)


def choose_setting(run: Path, settings: Sequence[dict[str, Any]]) -> Setting:
    """Return the setting that a run is of: a published one, or one that is named after its task.

    The task is that of the evaluation, which may have other ways and shots than the training.
    """
    flat = run_names.read_flat_config(run)
    task = {key.removeprefix("task."): value for key, value in flat.items() if key.startswith("task.")}
    measured = {key: flat.get(f"evaluation.{key}") for key in ("ways", "shots")}
    task |= {key: value for key, value in measured.items() if value is not None}
    for setting in settings:
        if all(task.get(key) == value for key, value in setting["task"].items()):
            return Setting(setting["name"], setting["title"], setting["published"])
    shape = [
        f"{task[key]} {key[: -1 if task[key] == 1 else None]}" for key in ("ways", "shots") if key in task
    ]
    return Setting(str(task.get("name")), ", ".join([str(task.get("name")), *shape]), [])


def write_section(table: MethodTable, setting: Setting, picture: str | None) -> str:
    """Return the heading, the table and the notes of one setting."""
    score = f"{table.metric}, %" if table.metric == "accuracy" else table.metric
    header = ["", "method", "seeds", *(f"{score}, {mode}" for mode in table.modes), "minus the best"]
    header += ["steps", "seconds", "GFLOP", "controls", "published", "reached?"]
    labels = shorten_labels([name_learner(row.label, row.run) for row in table.rows])
    rows = [
        make_cells(number, label, row, table, setting)
        for number, (label, row) in enumerate(zip(labels, table.rows, strict=True), start=1)
    ]
    rows += [make_optimum(table, len(header))] if find_optimum(table) else []
    rows += list_untried(table, setting, len(header))
    episodes = table.episodes
    note = f"{episodes['count']} {episodes['split']} episodes ({episodes['hash']}), {table.metric}: "
    note += f"{'higher' if table.higher_is_better else 'lower'} is better."
    if single := [label for label, row in zip(labels, table.rows, strict=True) if row.seeds == 1]:
        note += f" One seed: {', '.join(single)}."
    shown = f"\n\n![{setting.title}: every method with its interval, and how far behind the best]({picture})"
    parts = [f"### {setting.title}", format_markdown_table(header, rows), note, list_sources(setting)]
    return "\n\n".join(part for part in parts if part) + shown * bool(picture)


def make_cells(number: int, label: str, row: Row, table: MethodTable, setting: Setting) -> list[str]:
    """Return the cells of a learner."""
    first = row.scores.get(table.modes[0], {})
    seconds = row.cost["seconds"]
    flops = row.cost.get("flops")
    entry = find_published(row, setting)
    return [
        str(number),
        label,
        str(row.seeds),
        *(format_score(row.scores.get(mode), table) for mode in table.modes),
        format_score(first.get("behind"), table),
        format_count(row.cost["steps"]),
        format_count(None if seconds is None else seconds + (row.cost["earlier_seconds"] or 0.0)),
        "" if flops is None else f"{flops / 1e9:,.3g}",
        describe_controls(row, table),
        "" if entry is None else format_published(entry, table, setting),
        "" if entry is None else judge(row, entry, table),
    ]


def name_learner(label: str, run: Path) -> str:
    """Return the label of a learner; a method with controls is named as its config, and not by keys that differ."""
    if not is_method(run):
        return label
    _, slash, stage = label.partition("/")
    return f"{name_run(run)}{slash}{stage}"


def format_score(score: dict[str, Any] | None, table: MethodTable) -> str:
    """Return `98.7 ± 0.3` for accuracies and `0.0085 ± 0.0016` for all else; "" for None."""
    if score is None:
        return ""
    factor, digits = (100, 1) if table.metric == "accuracy" else (1, 4)
    interval = "" if score.get("ci95") is None else f" ± {factor * score['ci95']:.{digits}f}"
    return f"{factor * score['mean']:.{digits}f}{interval}"


def list_short_names() -> dict[str, str]:
    """Return {name of a shipped config in the runs folder: its path within the folder of its task}."""
    names = {name: name.partition("/")[2] or name for name in shipped.list_names()}
    return {folders.name_config(Path("configs", name)): short for name, short in names.items()}


def name_method(run: Path) -> str:
    """Return the name by which published.yaml knows the config of a run: that of its file."""
    name = name_run(run)
    return list_short_names().get(name, name).rpartition("/")[2]


def shorten_labels(labels: Sequence[str]) -> list[str]:
    """Return the labels with short names of shipped configs; the folder stays where two files have one name."""
    known = list_short_names()
    found = [max((name for name in known if is_begun(label, name)), key=len, default="") for label in labels]
    stems = Counter(known[name].rpartition("/")[2] for name in set(found) - {""})
    short = {
        name: path if stems[path.rpartition("/")[2]] > 1 else path.rpartition("/")[2]
        for name, path in known.items()
    }
    return [
        short[name] + label[len(name) :] if name else label for label, name in zip(labels, found, strict=True)
    ]


def is_begun(label: str, name: str) -> bool:
    """Return whether a label is a name, or begins with it and goes on with a stage or with keys."""
    return label == name or (label.startswith(name) and label[len(name)] in "/ ,[(")


def find_published(row: Row, setting: Setting) -> dict[str, Any] | None:
    """Return the published number of the method of a row; an earlier stage of a run has none."""
    last = list(read_result(row.run)["stages"])[-1]
    entries = [entry for entry in setting.published if name_method(row.run) in entry["runs"]]
    return entries[0] if entries and row.stage == last else None


def format_published(entry: dict[str, Any], table: MethodTable, setting: Setting) -> str:
    """Return the number, and the number of its source."""
    numbers = [number for number in (entry["value"], entry.get("ci95")) if number is not None]
    number = format_exactly(numbers, table)
    number = number if entry["checked"] else f"({number})"
    return f"{number} [{setting.published.index(entry) + 1}]"


def format_exactly(numbers: Sequence[float], table: MethodTable) -> str:
    """Return a published number, and its interval, with as many digits as its source has for the finer one."""
    factor = 100 if table.metric == "accuracy" else 1
    shown = [factor * number for number in numbers]
    exact = [digits for digits in range(1, 6) if all(abs(round(x, digits) - x) < 1e-9 for x in shown)]
    return " ± ".join(f"{number:.{min(exact, default=6)}f}" for number in shown)


def list_sources(setting: Setting) -> str:
    """Return a line for each published number: its method, mode, budget and source; "" if there is none."""
    lines = []
    for number, entry in enumerate(setting.published, start=1):
        words = [entry["method"], entry.get("mode"), entry.get("budget"), entry["source"]]
        lines.append(f"- [{number}] {', '.join(word for word in words if word)}")
    return "\n".join(["Published:", "", *lines]) if lines else ""


def judge(row: Row, entry: dict[str, Any], table: MethodTable) -> str:
    """Return whether the published number is reached, in the mode of the paper if we measured it."""
    mode = entry.get("mode") or max(row.scores, key=lambda name: sign(table) * row.scores[name]["mean"])
    score = row.scores.get(mode)
    if score is None:
        return f"not tried in the {mode} mode"
    lead = sign(table) * (score["mean"] - entry["value"])
    half = (score["ci95"] ** 2 + (entry.get("ci95") or 0.0) ** 2) ** 0.5
    return "yes" if lead + half >= 0 else "no"


def sign(table: MethodTable) -> int:
    """Return 1 if more is better, and −1 if less is."""
    return 1 if table.higher_is_better else -1


def describe_controls(row: Row, table: MethodTable) -> str:
    """Return the differences of a stage of a method to its controls; "none run" without them."""
    file = row.run.parent / COMPARISON
    if row.run.name != METHOD or not file.is_file():
        return "none run"
    compared = json.loads(file.read_text("utf-8"))
    several = len(read_result(row.run)["stages"]) > 1  # then a label ends with its stage
    lines = []
    for line in compared["differences"]:
        if several and not line["of"].endswith(f"/{row.stage}"):
            continue
        text = f"{line['control']}: {format_score(line, table)}"
        lines.append(f"**{text}**" if line["differ"] else text)
    return f"{compared['mode']}: {'; '.join(lines)}" if lines else "none run"


def find_optimum(table: MethodTable) -> dict[str, Any] | None:
    """Return what the best possible rule reaches in the metric of the table; None: it is not known."""
    run = table.rows[0].run
    reached = ceiling.describe(run, read_result(run))
    return None if reached is None else reached.get(table.metric)


def make_optimum(table: MethodTable, width: int) -> list[str]:
    """Return the cells of the best possible rule, which is one number in all modes."""
    scores = [format_score(find_optimum(table), table)] * len(table.modes)
    cells = ["", wording.BEST_POSSIBLE, "", *scores]
    return cells + [""] * (width - len(cells))


def list_untried(table: MethodTable, setting: Setting, width: int) -> list[list[str]]:
    """Return the cells of published methods without a run."""
    names = {name_method(row.run) for row in table.rows}
    entries = [entry for entry in setting.published if not names & set(entry["runs"])]
    blank = [""] * (width - 4)
    return [
        ["", entry["method"], *blank, format_published(entry, table, setting), "not tried"]
        for entry in entries
    ]


def draw(table: MethodTable, setting: Setting, out: Path) -> str | None:
    """Draw the learners of a table in the first mode that several measured, and return the path from the page."""
    paths = list(dict.fromkeys(row.run for row in table.rows if table.modes[0] in row.scores))
    if sum(table.modes[0] in row.scores for row in table.rows) < 2:
        return None
    place = Path("pictures") / f"results-{setting.name}.png"
    with files.storage_errors(out.parent):
        (out.parent / place.parent).mkdir(parents=True, exist_ok=True)
    compared = compare(paths, Choice(table.modes[0]))
    shown = {(row.run, row.stage) for row in table.rows}
    ranking = [line for line in compared["ranking"] if (Path(line["run"]), line["stage"]) in shown]
    names = {line["label"] for line in ranking}
    own = [line for line in compared["differences"] if {line["of"], line["minus"]} <= names]
    compared |= {"ranking": ranking, "differences": own}
    labels = shorten_labels([name_learner(line["label"], Path(line["run"])) for line in ranking])
    for line, label in zip(ranking, labels, strict=True):
        line["label"] = label
    comparison_plot.write_comparison(out.parent / place, compared)
    return place.as_posix()


def replace_generated(text: str, generated: str) -> str:
    """Return a page with other text between the markers; a page without markers gets them at its end."""
    if BEGIN not in text or END not in text:
        text = f"{text.rstrip()}\n\n## The table\n\n{BEGIN}\n{END}\n".lstrip()
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{generated}\n\n{END}{rest.partition(END)[2]}"


def make_tables(folder: Path, published: Path, out: Path) -> str:
    """Return the tables of all runs below a folder, and write their pictures beside the page.

    Raises:
      UsageError: there is no finished run.
    """
    settings = yaml_file.read(published).value["settings"]
    sections: dict[str, str] = {}
    for paths in method_table.group_by_episodes(find_runs(folder)):
        setting = choose_setting(paths[0], settings)
        if setting.name in sections:  # the same task on other episodes
            setting = setting._replace(name=f"{setting.name}-{read_result(paths[0])['episodes']['hash']}")
        table = method_table.tabulate(paths)
        sections[setting.name] = write_section(table, setting, draw(table, setting, out))
    if not sections:
        raise errors.UsageError(
            "there is no finished run", str(folder), "give the folder that `metarun table --runs` wrote"
        )
    return "\n\n".join([LEGEND, *sections.values()])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table, and return the exit code."""
    parser = argparse.ArgumentParser(description="Write the table of docs/results.md from finished runs.")
    parser.add_argument("runs", type=Path, help="the folder of the runs")
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"), help="the page to write")
    parser.add_argument("--published", type=Path, default=Path(__file__).parents[1] / "docs/published.yaml")
    asked = parser.parse_args(arguments)
    try:
        generated = make_tables(asked.runs, asked.published, asked.out)
        text = asked.out.read_text("utf-8") if asked.out.exists() else "# Results\n"
        files.write_text(asked.out, replace_generated(text, generated))
    except errors.MetarunError as error:
        print(f"error: {error.what}\nwhere: {error.where}\nto do: {error.remedy}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
