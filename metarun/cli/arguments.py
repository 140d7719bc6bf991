"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as training.steps=100.")
]
EvaluationOverrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of the evaluation, such as evaluation.shots=5."),
]
RunPath = Annotated[
    Path, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="A run, or RUN/checkpoints/STAGE/STEP.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Split = Annotated[str | None, typer.Option(help="train, validation or test. Default: as evaluated.")]
Mode = Annotated[
    str | None, typer.Option(help="inductive or transductive. Default: the first one of the evaluation.")
]
Stage = Annotated[str | None, typer.Option(help="Default: the last one.")]
Plot = Annotated[Path | None, typer.Option(help="Write a picture as PNG.")]
