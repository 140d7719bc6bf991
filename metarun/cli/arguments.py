"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from metarun.cli import completion

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Overrides, such as training.steps=100.",
        autocompletion=completion.complete_key,
    ),
]
EvaluationOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Overrides of the sections evaluation and accelerator, such as evaluation.shots=5.",
        autocompletion=completion.complete_measured_key,
    ),
]
RunPath = Annotated[
    Path,
    typer.Argument(
        metavar="RUN_OR_CHECKPOINT",
        help="A run by path, name, unique beginning or `latest`; or RUN/checkpoints/STAGE/STEP.",
        autocompletion=completion.complete_run,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Split = Annotated[
    str | None,
    typer.Option(
        help="train, validation or test. Default: as evaluated.",
        autocompletion=completion.complete_word("train", "validation", "test"),
    ),
]
Mode = Annotated[
    str | None,
    typer.Option(
        help="inductive or transductive. Default: the first one of the evaluation.",
        autocompletion=completion.complete_word("inductive", "transductive"),
    ),
]
Stage = Annotated[str | None, typer.Option(help="Default: the last one.")]
AllowOlder = Annotated[
    bool,
    typer.Option(
        "--allow-older",
        help="Let an older checkpoint stand in for one that is damaged or gone; the JSON names both.",
    ),
]
# Which learner of a run adapts to examples from elsewhere.
OwnMode = Annotated[
    str | None,
    typer.Option(
        help="inductive or transductive, which needs many queries. Default: inductive.",
        autocompletion=completion.complete_word("inductive", "transductive"),
    ),
]
InnerSteps = Annotated[int | None, typer.Option(help="Steps of adaptation. Default: as evaluated.")]
Replica = Annotated[int, typer.Option(help="Which replica of a run with replicas, from 0.")]
Member = Annotated[int, typer.Option(help="Which member of a stage with copies, from 0.")]
Plot = Annotated[Path | None, typer.Option(help="Write a picture as PNG.")]
# Pictures of somebody's own.
Truth = Annotated[
    Path | None,
    typer.Option(
        help="A CSV file `file,label` of the queries' true classes. Default: their folders, if they are."
    ),
]
Polarity = Annotated[
    str,
    typer.Option(
        help="For a run: dark on light or light on dark. auto (by the support), keep or invert.",
        autocompletion=completion.complete_word("auto", "keep", "invert"),
    ),
]
