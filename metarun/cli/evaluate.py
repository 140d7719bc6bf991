"""`metarun eval`."""

from typing import Annotated

import typer

from metarun.cli.arguments import AllowOlder, EvaluationOverrides, Json, RunPath


def evaluate(
    run: RunPath,
    overrides: EvaluationOverrides = None,
    stage: Annotated[str | None, typer.Option(help="Default: all of them.")] = None,
    split: Annotated[str | None, typer.Option(help="train, validation or test.")] = None,
    allow_older: AllowOlder = False,
    as_json: Json = False,
) -> None:
    """Measure a run on its frozen episodes. Writes nothing to the run."""
    from metarun.cli import progress_display, text_tables
    from metarun.data import observers
    from metarun.finished.finished_run import find_run

    finished = find_run(run, overrides or [], stage=stage, split=split, allow_older=allow_older)
    from metarun.finished import remeasurement

    with progress_display.show_progress() as progress, observers.report_to(progress.preparing):
        result = remeasurement.measure(finished, progress)
    text_tables.print_either(result, as_json, text_tables.print_result)
