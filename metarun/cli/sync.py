"""`metarun sync`."""

from pathlib import Path
from typing import Annotated

import typer

from metarun.cli.arguments import Json, RunPath


def sync(
    run: RunPath,
    to: Annotated[list[str], typer.Option(help="tensorboard, wandb or mlflow; give it again for another.")],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--dir", help="Where to write. Default: RUN/tensorboard, RUN/wandb, ./mlflow.db or what is set."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy the metrics of a run to TensorBoard, Weights & Biases or MLflow.

    What a sink has already, from the training or from an earlier call, is not copied again.
    """
    from metarun import errors
    from metarun.runs import catalogue, strict_json
    from metarun.sinks import registry, transfer

    for name in to:
        if name not in registry.SINKS:
            remedy = f"use one of {', '.join(registry.SINKS)}"
            raise errors.UsageError(f"there is no sink {name}", "--to", remedy)
    registry.refuse_missing(to, errors.UsageError, "--to")
    path = catalogue.resolve(run)
    for name in to:
        with transfer.open_copy(path, name, folder) as copy:
            rows = copy.copy_new() + copy.copy_result()
            place = copy.sink.place
        if as_json:
            typer.echo(strict_json.encode({"sink": name, "rows": rows, "place": place}))
        else:
            typer.echo(f"{name}: {rows} new rows in {place}")
