"""All that the page says about one run."""

import base64
import datetime
import statistics
from typing import Any, NamedTuple

from metarun import errors
from metarun.finished import ceiling, costs
from metarun.reports import learning_curves, outcome_tables, repetition
from metarun.reports.charts import Chart, to_number
from metarun.reports.outcome_tables import Table
from metarun.reports.run_record import RunRecord, get_object, get_stage_name, list_stages
from metarun.runs import manifest
from metarun.runs.metric_rows import index_learners


class Picture(NamedTuple):
    """A picture of the run inside the page."""

    caption: str
    address: str  # `data:image/png;base64,…`


class Section(NamedTuple):
    """What the template needs to know of one run."""

    identity: str  # the beginning of its anchors, such as `run-1`
    name: str
    record: RunRecord
    left_out: list[str]  # what the page leaves out although the run has it, or could have had
    asked: list[str]  # sentences
    headline: str  # what came out, in a sentence; "" if there is no result
    outcome: Table | None
    groups: Table | None
    charts: dict[str, Chart]  # {the name of its place: curves}
    group_charts: dict[str, Chart]
    curves_note: str
    pictures: list[Picture]  # curves as the run drew them, for readers without scripts
    episodes: list[Picture]
    environment: list[tuple[str, str]]
    cost: Table
    notes: list[tuple[str, str]]  # time and memory
    commands: list[repetition.Command]


def make_section(record: RunRecord, identity: str) -> Section:
    """Return what the page says about a run."""
    result = record.result
    return Section(
        identity,
        record.name,
        record,
        list_left_out(record),
        describe_request(record),
        outcome_tables.describe_headline(result) if result else "",
        outcome_tables.make_outcome_table(result, ceiling.describe(record.path, result)) if result else None,
        outcome_tables.make_groups_table(result) if result else None,
        list_charts(record, identity),
        list_group_charts(record, identity),
        describe_bands(record),
        list_pictures(record, "-curves.png", "the curves as the run drew them"),
        list_pictures(record, "-episode.png", "one episode of the evaluation, before and after adaptation"),
        describe_environment(record.environment),
        tabulate_cost(record),
        describe_time(record),
        repetition.list_commands(record),
    )


def describe_request(record: RunRecord) -> list[str]:
    """Return what was asked, one sentence for the task and one for each stage."""
    document = record.config
    if not document:
        return []
    task, seed, replicas = get_object(document, "task"), document.get("seed"), document.get("replicas", 1)
    shape = [f"{task[key]} {key}" for key in ("ways", "shots", "queries") if task.get(key) is not None]
    seeds = f"seed {seed}" if replicas == 1 else f"{replicas} replicas, from seed {seed} on"
    sentences = [f"Tasks of {task.get('name')} ({', '.join([*shape, seeds])})."]
    for stage in list_stages(document):
        training = get_object(stage, "training")
        optimizer = get_object(training, "optimizer")
        sentences.append(
            f"Stage {get_stage_name(stage)}: {stage['algorithm']['name']} with the model "
            f"{get_object(stage, 'model').get('name')}, {count(training.get('steps'))} outer steps, "
            f"{count(training.get('tasks_per_step'))} tasks a step, {optimizer.get('name')} "
            f"with learning rate {optimizer.get('learning_rate')} "
            f"({get_object(optimizer, 'schedule').get('name')})."
        )
    return sentences


def list_left_out(record: RunRecord) -> list[str]:
    """Return what this page leaves out, one sentence each. What is missing or damaged is in `record.gaps`."""
    sentences = []
    for stage in record.stage_names:
        steps = set(record.rows.where(stage=stage).list_values("step"))
        if len(steps) < 2:
            what = "one step of it" if steps else "no step of it"
            sentences.append(f"Stage {stage} has no curves: {what} is written down.")
        if f"{stage}-episode.png" not in record.pictures:
            sentences.append(f"Stage {stage} has no picture of an episode.")
    drawn = learning_curves.PANELS
    sentences.append(f"At most {drawn} metrics of a stage are drawn; all of them are in metrics.jsonl.")
    sentences.append("The values of single episodes, the log and the weights stay in the run directory.")
    return sentences


def count(value: Any) -> str:
    """Return `70,000` for a number, and anything else as it is."""
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def list_charts(record: RunRecord, identity: str) -> dict[str, Chart]:
    """Return the curves of every stage, then the metric after each number of inner steps."""
    charts: dict[str, Chart] = {}
    stages = record.stage_names
    for stage in stages:
        for chart in learning_curves.make_charts(record, stage):
            title = f"{stage}: {chart.title}" if len(stages) > 1 else chart.title
            charts[f"{identity}-{len(charts)}"] = chart._replace(title=title)
    sections = outcome_tables.list_sections(record.result) if record.result else {}
    named = {f"{stage}, {mode}": section for (stage, mode), section in sections.items()}
    if (steps := learning_curves.make_steps_chart(named)) is not None:
        charts[f"{identity}-{len(charts)}"] = steps
    return charts


def list_group_charts(record: RunRecord, identity: str) -> dict[str, Chart]:
    """Return a chart for each stage and mode with groups of tasks."""
    sections = outcome_tables.list_sections(record.result) if record.result else {}
    charts = {
        f"{identity}-groups-{number}": learning_curves.make_groups_chart(f"{stage}, {mode}", section)
        for number, ((stage, mode), section) in enumerate(sections.items())
    }
    return {name: chart for name, chart in charts.items() if chart is not None}


def describe_bands(record: RunRecord) -> str:
    """Return what the bands of the curves are."""
    learners, _ = index_learners(record.rows)
    if len(learners) > 1:
        band = f"the bands reach from the lowest to the highest of {len(learners)} learners (replicas and members)"
    else:
        band = "the bands of validation are 95 % intervals over episodes"
    return (
        f"Lines are means; {band}. Training is drawn as means of equal parts. "
        "Tap a name above a plot to hide its curve."
    )


def list_pictures(record: RunRecord, ending: str, what: str) -> list[Picture]:
    """Return the pictures of one kind, inlined, in the order of the stages."""
    names = {stage: f"{stage}{ending}" for stage in record.stage_names}
    return [
        Picture(f"Stage {stage}: {what}", inline(record.pictures[name]))
        for stage, name in names.items()
        if name in record.pictures
    ]


def inline(content: bytes) -> str:
    """Return a PNG file as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def describe_environment(environment: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) of the machine and the versions."""
    cpu, git = get_object(environment, "cpu"), get_object(environment, "git")
    versions = ", ".join(f"{name} {version}" for name, version in get_object(environment, "versions").items())
    memory = environment.get("memory_bytes")
    lines = [
        ("devices", ", ".join(map(str, environment.get("devices") or []))),
        ("processor", f"{cpu.get('model')}, {cpu.get('usable')} of {cpu.get('count')} cores" if cpu else ""),
        ("memory of the machine", format_bytes(memory)),
        ("system", environment.get("platform")),
        ("versions", versions),
    ]
    for name in ("metarun", "cwd"):
        commit = get_object(git, name)
        changed = " with changes that no commit has" if commit.get("dirty") else ""
        folder = "metarun" if name == "metarun" else "the working folder"
        lines.append((f"commit of {folder}", f"{commit['commit']}{changed}" if commit.get("commit") else ""))
    variables = get_object(environment, "variables")
    lines.append(("variables", " ".join(f"{name}={value}" for name, value in variables.items())))
    return [(name, str(value)) for name, value in lines if value]


def format_bytes(value: Any) -> str:
    """Return `25.3 GB`; "" for nothing."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def tabulate_cost(record: RunRecord) -> Table:
    """Return what each stage took, from its last checkpoint."""
    rows = []
    for stage in record.stage_names:
        steps = [
            step
            for path in record.path.glob(f"checkpoints/{stage}/*")
            if (step := manifest.parse_step(path.name)) is not None
        ]
        if not steps:
            continue
        try:
            cost = costs.read_cost(record.path, stage, max(steps), 0.0, count_learners(record, stage))
        except errors.CheckpointError:  # one of the gaps of the record
            continue
        seconds = cost.seconds
        pace = cost.steps / seconds if seconds and cost.steps else None
        rows.append(
            [
                stage,
                f"{cost.steps:,}",
                "" if seconds is None else format_duration(seconds),
                "" if pace is None else f"{pace:,.1f}",
                "" if cost.parameters is None else f"{cost.parameters:,}",
                format_bytes(cost.state_bytes),
            ]
        )
    header = ["stage", "outer steps", "training", "steps a second", "parameters of a learner", "state"]
    return Table(header, rows)


def count_learners(record: RunRecord, stage: str) -> int:
    """Return how many learners a stage has: replicas times members."""
    learners, _ = index_learners(record.rows.where(stage=stage))
    return max(1, len(learners))


def describe_time(record: RunRecord) -> list[tuple[str, str]]:
    """Return (name, value) of how the run stands, when it began and ended, its speed, and its memory."""
    standing, began = record.standing, record.environment.get("time")
    place = f", step {count(standing.step)} of stage {standing.stage}" if standing.step is not None else ""
    speeds = list(record.rows.where(split="speed"))
    pace = [value for row in speeds if (value := to_number(row.get("tasks_per_second"))) > 0]
    peaks = [row["memory_peak_bytes"] for row in speeds if "memory_peak_bytes" in row]
    lines = [
        ("status", standing.state + place),
        ("message", standing.message),
        ("begun, or last resumed", began),
        ("last heard of", standing.updated),
        ("between the two, with compiling and measuring", format_elapsed(began, standing.updated)),
        ("tasks a second, median of training", f"{statistics.median(pace):,.4g}" if pace else None),
        ("peak of memory in use, of the device or the process", format_bytes(max(peaks, default=None))),
        ("size on the disk", format_bytes(measure_size(record))),
    ]
    return [(name, str(value)) for name, value in lines if value]


def format_elapsed(began: Any, ended: Any) -> str:
    """Return the time between two times; "" if one is not known."""
    try:
        elapsed = datetime.datetime.fromisoformat(ended) - datetime.datetime.fromisoformat(began)
    except (ValueError, TypeError):
        return ""
    return format_duration(elapsed.total_seconds())


def measure_size(record: RunRecord) -> int:
    """Return the bytes of all files of a run. A file may go while it is written."""
    total = 0
    for path in record.path.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def format_duration(seconds: float) -> str:
    """Return `2 h 05 min`, `3 min 07 s` or `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
