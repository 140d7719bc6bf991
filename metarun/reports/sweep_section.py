"""What the page says about a sweep: its ranking, how much each key matters, and the winner."""

import json
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from metarun.evaluation import wording
from metarun.finished.run_names import format_value
from metarun.reports.charts import Chart, Dot, Dots, to_number
from metarun.reports.outcome_tables import Table, format_interval
from metarun.reports.repetition import Command
from metarun.reports.run_record import get_object, read_object, read_picture_files
from metarun.runs import regular_files

SWEEP, RANKING, WINNER = "sweep.json", "ranking.json", "winner.yaml"
BASE = "sweep.yaml"  # what the reader saves the config as
SHOWN = 40  # settings in the plot; the table has all of them


class SweepSection(NamedTuple):
    """What the template needs to know of one sweep."""

    identity: str  # the beginning of its anchors, such as `sweep-1`
    name: str
    asked: list[str]  # sentences
    headline: str  # the winner, in a sentence; "" if there is none yet
    ranking: Table | None  # None: the sweep has not ended
    note: str  # what the numbers of the ranking are
    charts: dict[str, Chart]
    pictures: dict[str, bytes]
    config: str  # what all settings share, as JSON, which is YAML
    winner: str  # the config of the winner
    commands: list[Command]
    gaps: list[str]  # what is missing or damaged, one sentence each

    @property
    def may_go_on(self) -> bool:
        """Whether the sweep has no ranking yet."""
        return self.ranking is None


def is_sweep(path: Path) -> bool:
    """Return whether a directory is that of a sweep."""
    return (path / SWEEP).is_file()


def read_sweep(path: Path, identity: str) -> SweepSection:
    """Read what is there of a sweep; all but the directory may be missing or damaged."""
    gaps: list[str] = []
    request, ranking = read_object(path / SWEEP, gaps), read_object(path / RANKING, gaps)
    pictures = read_picture_files(sorted(path.glob("*.png")), gaps)
    section = SweepSection(
        identity,
        path.resolve().name,
        describe_request(path, request, ranking),
        "",
        None,
        "",
        {},
        pictures,
        json.dumps(get_object(request, "config"), indent=1, ensure_ascii=False),
        read_winner(path / WINNER, gaps),
        list_commands(path, request),
        gaps,
    )
    try:
        return add_ranking(section, ranking) if ranking else section
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        gaps.append("ranking.json cannot be used: its layout is not that of metarun.")
        return section


def read_winner(file: Path, gaps: list[str]) -> str:
    """Return the config of the winner; "" if there is none, or it cannot be read."""
    try:
        return regular_files.read_text(file)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        gaps.append(f"{file.name} cannot be read: {error}.")
        return ""


def describe_request(path: Path, request: dict[str, Any], ranking: dict[str, Any]) -> list[str]:
    """Return what was asked, and how far the sweep is."""
    config = get_object(request, "config")
    task, model = get_object(config, "task").get("name"), get_object(config, "model").get("name")
    algorithm = get_object(config, "algorithm").get("name")
    sentences = [f"Tasks of {task}: {algorithm} with the model {model}."] if task and algorithm else []
    keys = ranking.get("keys")
    if isinstance(keys, list):
        sentences.append(f"Swept: {', '.join(map(str, keys))}; search: {ranking.get('search')}.")
    programs = [folder for folder in path.glob("programs/*") if folder.is_dir()]
    done = sum((folder / "run" / "result.json").is_file() for folder in programs)
    return [*sentences, f"Programs done: {done} of {len(programs)} that were begun."]


def add_ranking(section: SweepSection, ranking: dict[str, Any]) -> SweepSection:
    """Return the section with all that ranking.json says."""
    lines, metric = ranking["ranking"], ranking["metric"]
    names = [name_setting(line["setting"]) for line in lines]
    finite = [(name, line) for name, line in zip(names, lines, strict=True) if line["mean"] is not None]
    dots = [
        Dot(name, metric, to_number(line["mean"]), to_number(line["ci95"])) for name, line in finite[:SHOWN]
    ]
    charts: dict[str, Chart] = {}
    if dots:
        charts[f"{section.identity}-ranking"] = Dots("settings on validation, best first", metric, dots)
    return section._replace(
        headline=describe_winner(ranking),
        ranking=tabulate(ranking),
        note=describe_numbers(ranking),
        charts=charts,
    )


def name_setting(setting: dict[str, Any]) -> str:
    """Return `inner_lr=0.1 learning_rate=0.001`."""
    return " ".join(f"{key.rpartition('.')[2]}={format_value(value)}" for key, value in setting.items())


def tabulate(ranking: dict[str, Any]) -> Table:
    """Return a line for each setting, best first."""
    keys = ranking["keys"]
    rows = [
        [
            str(place),
            *(format_value(line["setting"][key]) for key in keys),
            format_interval(line) if line["mean"] is not None else "diverged",
            format_interval(line["behind"]),
            "" if line["steps"] is None else f"{line['steps']:,}",
            line["state"],
        ]
        for place, line in enumerate(ranking["ranking"], start=1)
    ]
    return Table(["", *keys, ranking["metric"], "minus the best", "steps", "state"], rows)


def describe_numbers(ranking: dict[str, Any]) -> str:
    """Return what the numbers of the ranking are."""
    better = "higher" if ranking["higher_is_better"] else "lower"
    seeds = len(ranking["seeds"])
    crossed = any("episodes" in line for line in ranking["ranking"])  # an older version did not cross the two
    over = wording.describe_spread(seeds if seeds > 1 else 0, crossed=crossed)
    importance = get_object(ranking, "importance")
    why = f" Importance: {importance.get('method') or importance.get('reason')}." if importance else ""
    return (
        f"{ranking['metric']}: {better} is better; {ranking['mode']}; {ranking['episodes']['count']} validation "
        f"episodes, mean ± 95 % interval {over}, differences by pairs. "
        f"Settings are chosen on the validation split alone.{why}"
    )


def describe_winner(ranking: dict[str, Any]) -> str:
    """Return what the winner reaches on the test split; "" if it was not measured."""
    winner = get_object(ranking, "winner")
    if not winner:
        return ""
    test = winner["test"]
    columns = test["stages"][ranking["stage"]][ranking["mode"]]["adapted"]
    reached = format_interval(columns[ranking["metric"]])
    return (
        f"The winner is {name_setting(winner['setting'])}: {ranking['metric']} {reached} on "
        f"{test['episodes']['count']} test episodes, which no other setting was measured on."
    )


def list_commands(path: Path, request: dict[str, Any]) -> list[Command]:
    """Return the commands that train the winner, repeat the whole sweep, and write this page."""
    commands = []
    if (path / WINNER).is_file():
        line = f"metarun train {shlex.quote(str(path / WINNER))}"
        commands.append(Command("the winner, trained alone", line))
    if arguments := list_arguments(request):
        line = shlex.join(["metarun", "sweep", BASE, *arguments])
        commands.append(Command(f"the whole sweep, after the config below is saved as {BASE}", line))
    return [*commands, Command("this page again", f"metarun report {shlex.quote(str(path))}")]


def list_arguments(request: dict[str, Any]) -> list[str]:
    """Return the arguments of `metarun sweep` behind the config; none if sweep.json does not have them."""
    try:
        arguments = [f"{key}={format_axis(**axis)}" for key, axis in request["axes"].items()]
        if request["config"].get("replicas", 1) == 1:  # else the config says which seeds
            arguments.append(f"seed={','.join(map(str, request['seeds']))}")
        options = {name: request[name] for name in ("search", "trials", "halve") if request[name] is not None}
    except (KeyError, TypeError, AttributeError, IndexError):
        return []
    return [*arguments, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


def format_axis(scale: str, values: list[Any]) -> str:
    """Return the values of a key as the command line has them."""
    if scale == "choice":
        return ",".join(json.dumps(value) for value in values)
    return f"{scale}({json.dumps(values[0])},{json.dumps(values[-1])},{len(values)})"
