"""`metarun export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarun.cli.arguments import (
    AllowOlder,
    EvaluationOverrides,
    InnerSteps,
    Json,
    Member,
    OwnMode,
    Replica,
    RunPath,
    Stage,
)

if TYPE_CHECKING:
    from metarun.exported.exporter import Written


def export(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="The file to write, such as learner.metarun.")],
    overrides: EvaluationOverrides = None,
    stage: Stage = None,
    mode: OwnMode = None,
    inner_steps: InnerSteps = None,
    replica: Replica = 0,
    member: Member = 0,
    ways: Annotated[int | None, typer.Option(help="Classes of the support. Default: as trained.")] = None,
    shots: Annotated[
        int | None,
        typer.Option(help="Fix the support to so many examples. Default: any number where that is possible."),
    ] = None,
    platforms: Annotated[
        str | None, typer.Option(help="cpu, cuda, rocm, tpu, with commas between. Default: the one here.")
    ] = None,
    allow_older: AllowOlder = False,
    as_json: Json = False,
) -> None:
    """Write adapt and predict of a run, with its weights, into one file that runs without metarun.

    The file carries a loader that needs jax, numpy and flatbuffers: `python FILE` says what it takes. Before it is
    written it is compared with the run. Writes nothing to the run.
    """
    from metarun.cli import progress_display
    from metarun.finished.finished_run import find_run

    chosen = overrides or []
    finished = find_run(run, chosen, stage=stage, allow_older=allow_older)
    from metarun.exported import exporter
    from metarun.finished import prediction

    exporter.require_packages()
    with progress_display.show_preparation():
        trained = prediction.load(
            finished, mode=mode, inner_steps=inner_steps, replica=replica, member=member, overrides=chosen
        )
        names = platforms.split(",") if platforms else []
        written = exporter.write(trained, out, ways=ways, shots=shots, platforms=names)
    print_written(written, as_json)


def print_written(written: "Written", as_json: bool) -> None:
    """Print what the file takes, how it was checked, and how it is used; or one JSON object."""
    from metarun.exported import loader
    from metarun.runs import strict_json

    check = written.check
    if as_json:
        checked = None if check is None else check._asdict()
        content = {"file": str(written.path), "bytes": written.size, **written.header, "check": checked}
        typer.echo(strict_json.encode(content))
        return
    typer.echo(loader.describe(written.header))
    if check is None:
        typer.echo(
            "checked    not here: the programs are for another platform, or the run has no finite answer"
        )
    else:
        difference = (
            f"answers differ by at most {check.difference:.2g}, where the largest is {check.largest:.3g}"
        )
        typer.echo(f"checked    against the run: {difference}")
    typer.echo(f"{written.path}: {written.size:,} bytes; `python {written.path}` says what it takes")
