"""The commands. Heavy imports happen inside them, so that --help and a wrong config answer at once."""

import logging
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

import metarun

application = typer.Typer(
    name="metarun",
    help="Meta-learning experiments from a YAML file: train, evaluate, compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_application = typer.Typer(no_args_is_help=True, help="Data sets: list, fetch, verify.")
application.add_typer(data_application, name="data")

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as training.steps=100.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def show_version(wanted: bool) -> bool:
    """Print the version and leave, if that is wanted."""
    if wanted:
        typer.echo(f"metarun {metarun.__version__}")
        raise typer.Exit
    return wanted


@application.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set up what all commands share."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    logging.getLogger("metarun").addHandler(handler)
    logging.getLogger("metarun").propagate = False
    logging.getLogger("absl").addHandler(
        logging.NullHandler()
    )  # Orbax prints tracebacks that we report ourselves
    logging.getLogger("absl").propagate = False


@application.command()
def train(
    config_file: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file.")],
    overrides: Overrides = None,
    run_dir: Annotated[Path | None, typer.Option(help="Default: runs/<config name>/<time>.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run directory, or the newest run of this config.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the config, build everything, and train nothing.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved config, and do nothing.")
    ] = False,
) -> None:
    """Meta-train, then evaluate. The last line of stdout is the run directory."""
    from metarun import config

    run_config = config.load(config_file, overrides or [])
    if print_config:
        typer.echo(config.to_yaml(run_config), nl=False)
        return
    from metarun.cli import showing, tables
    from metarun.data import watching
    from metarun.runs import directory

    name = config_name(config_file)
    path = run_dir or (resume and directory.newest(name)) or directory.new_path(name)
    from metarun import experiment

    if dry_run:
        typer.echo(experiment.dry_run(run_config))
        return
    with showing.progress() as progress, watching.watched_by(progress.preparing):
        outcome = experiment.train(run_config, path, resume, sys.argv, progress)
    tables.print_result(outcome.result)
    typer.echo(str(outcome.path))


def config_name(path: Path) -> str:
    """The name of a config in the runs folder: its path below a folder `configs`, with dashes, or its stem."""
    parts = path.with_suffix("").parts
    below = parts[::-1].index("configs") if "configs" in parts else 1
    parts = parts[len(parts) - below :]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(parts)).strip("-_") or "run"


@application.command("eval")
def evaluate(
    run: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="A run, or RUN/checkpoints/STAGE/STEP.")
    ],
    overrides: Overrides = None,
    stage: Annotated[str | None, typer.Option(help="Default: all of them.")] = None,
    split: Annotated[str | None, typer.Option(help="train, validation or test.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a run on its frozen episodes. Writes nothing to the run."""
    from metarun.cli import showing, tables
    from metarun.data import watching
    from metarun.runs import directory, strict_json

    whole = run.resolve()
    directory.read_config(whole.parents[2] if whole.parent.parent.name == "checkpoints" else run)
    from metarun import assessment

    with showing.progress() as progress, watching.watched_by(progress.preparing):
        outcome = assessment.evaluate(run, overrides or [], split, progress, stage)
    if as_json:
        typer.echo(strict_json.encode(outcome.result))
    else:
        tables.print_result(outcome.result)


@application.command()
def predict(
    run: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="A run, or RUN/checkpoints/STAGE/STEP.")
    ],
    support: Annotated[
        Path, typer.Option(help="Class folders of pictures; CSV of inputs and targets; TSV of sentences.")
    ],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[QUERY | KEY=VALUE]...", help="More queries; overrides as of eval."),
    ] = None,
    query: Annotated[
        list[Path] | None,
        typer.Option(help="Pictures or a folder of them; CSV of inputs; text, or - for stdin."),
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Default: the last one.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="inductive or transductive. Default: the first one of the evaluation.")
    ] = None,
    inner_steps: Annotated[
        int | None, typer.Option(help="Steps of adaptation. Default: as evaluated.")
    ] = None,
    replica: Annotated[int, typer.Option(help="Of a run with several seeds, from 0.")] = 0,
    member: Annotated[int, typer.Option(help="Of a stage with copies, from 0.")] = 0,
    as_json: Json = False,
    csv: Annotated[Path | None, typer.Option(help="Write the predictions as CSV.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet of pictures as PNG.")] = None,
) -> None:
    """Adapt a run to your own examples, and label others. Writes nothing to the run."""
    from metarun.runs import directory

    whole = run.resolve()
    directory.read_config(whole.parents[2] if whole.parent.parent.name == "checkpoints" else run)
    overrides = [text for text in more or [] if re.match(r"[\w.]+=", text)]
    queries = [*(query or []), *(Path(text) for text in more or [] if text not in overrides)]
    from metarun import prediction
    from metarun.cli import predict

    trained = prediction.load(
        run,
        stage=stage,
        mode=mode,
        inner_steps=inner_steps,
        replica=replica,
        member=member,
        overrides=overrides,
    )
    answers = predict.answer(trained, support, queries)
    predict.print_answers(trained, answers, as_json)
    if csv is not None:
        predict.write_csv(csv, answers)
    if sheet is not None:
        predict.write_sheet(sheet, answers)


@application.command()
def embed(
    run: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="A run, or RUN/checkpoints/STAGE/STEP.")
    ],
    overrides: Overrides = None,
    stage: Annotated[str | None, typer.Option(help="One that embeds tasks. Default: the last one.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, validation or test. Default: as evaluated.")
    ] = None,
    tasks: Annotated[int, typer.Option(min=2, max=10_000, help="How many frozen tasks.")] = 400,
    distance: Annotated[str, typer.Option(help="Of vectors: euclidean or cosine.")] = "euclidean",
    support: Annotated[
        Path | None, typer.Option(help="A support of your own, as of predict: which tasks is it like?")
    ] = None,
    nearest: Annotated[int, typer.Option(min=1, help="How many known tasks are named for --support.")] = 5,
    tsne: Annotated[bool, typer.Option("--tsne", help="Draw t-SNE too; needs metarun[embed].")] = False,
    out: Annotated[Path | None, typer.Option(help="A folder for the files. Default: RUN/embeddings.")] = None,
    as_json: Json = False,
) -> None:
    """Vectors of tasks: files, pictures, and whether the nearest tasks are of one kind."""
    from metarun.runs import directory, strict_json

    whole = run.resolve()
    directory.read_config(whole.parents[2] if whole.parent.parent.name == "checkpoints" else run)
    from metarun import embedding
    from metarun.cli import embed

    embed.refuse_distance(distance)
    found = embedding.embed(run, stage=stage, split=split, count=tasks, overrides=overrides or [])
    report = embed.report(found, distance)
    if support is not None:
        report |= embed.neighbours(run, found, support, nearest, distance, overrides or [])
    report |= {"files": embed.write(found, report, distance, out or found.path / "embeddings", tsne)}
    typer.echo(strict_json.encode(report)) if as_json else embed.print_report(report)


@application.command()
def online(
    run: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="A run, or RUN/checkpoints/STAGE/STEP.")
    ],
    overrides: Overrides = None,
    times: Annotated[int, typer.Option(min=1, max=10_000, help="Times of a stream.")] = 30,
    speed: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Way from a task to an independent one in one time.")
    ] = 0.1,
    stage: Annotated[str | None, typer.Option(help="Default: the last one.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, validation or test. Default: as evaluated.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="inductive or transductive. Default: the first one of the evaluation.")
    ] = None,
    as_json: Json = False,
    plot: Annotated[Path | None, typer.Option(help="Write a picture as PNG.")] = None,
) -> None:
    """Follow tasks that drift: who keeps up, and by how much. Writes nothing to the run."""
    from metarun.runs import directory, strict_json

    whole = run.resolve()
    directory.read_config(whole.parents[2] if whole.parent.parent.name == "checkpoints" else run)
    from metarun import online
    from metarun.cli import online as showing

    stream = online.Stream(times, speed)
    found = online.measure(run, stream, stage=stage, split=split, mode=mode, overrides=overrides or [])
    typer.echo(strict_json.encode(found)) if as_json else showing.print_online(found)
    if plot is not None:
        showing.write_plot(plot, found)


@application.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished runs; every stage counts.")],
    mode: Annotated[
        str | None, typer.Option(help="inductive or transductive. Default: the first one of the first run.")
    ] = None,
    learner: Annotated[
        str, typer.Option(help="adapted, unadapted, or a number of inner steps that was measured.")
    ] = "adapted",
    metric: Annotated[str | None, typer.Option(help="Default: the first one that is not the loss.")] = None,
    as_json: Json = False,
    plot: Annotated[Path | None, typer.Option(help="Write a picture as PNG.")] = None,
) -> None:
    """Rank runs by paired differences on the same frozen episodes. Writes nothing to the runs."""
    from metarun.runs import directory, strict_json

    for run in runs:
        directory.read_config(run)
    from metarun import comparison
    from metarun.cli import compare

    found = comparison.compare(runs, comparison.Choice(mode, learner, metric))
    if as_json:
        typer.echo(strict_json.encode(found))
    else:
        compare.print_comparison(found)
    if plot is not None:
        compare.write_plot(plot, found)


@application.command("list")
def list_plugins(
    name: Annotated[str | None, typer.Argument(help="Show the options of one of them.")] = None,
) -> None:
    """Task families, models and algorithms, one line each."""
    from metarun.cli import tables

    tables.print_options(name) if name else tables.print_plugins()


@data_application.command("list")
def data_list() -> None:
    """The data sets, and whether their files are there."""
    from metarun.cli import data

    data.print_list()


@data_application.command("fetch")
def data_fetch(name: str) -> None:
    """Download a data set's public archives, checked."""
    from metarun.cli import data

    data.fetch(name)


@data_application.command("verify")
def data_verify(name: str) -> None:
    """Compare the content of a data set's files with the published digests."""
    from metarun.cli import data

    data.verify(name)


@application.command()
def doctor() -> None:
    """Versions, devices, caches, data, and a smoke run of ten steps."""
    from metarun.cli import doctor

    doctor.examine()
