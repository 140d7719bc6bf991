"""Which pictures a run leaves: the curves of every stage, and one test episode as the family draws it.

And the contact sheet of a prediction, which goes where its user says.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from metarun import base, building, evaluation, measuring
from metarun.assessment import Trained
from metarun.runs import metrics, pictures
from metarun.stages import Session

SHEET_COLUMNS = 10  # pictures in a row of a contact sheet
SHEET_PICTURES = 300  # of a block of a contact sheet; the rest is left out, and that is said
CAPTION_LETTERS = 20  # of a line of a caption


class Block(NamedTuple):
    """Pictures of a contact sheet, each with its caption."""

    pictures: np.ndarray  # float32 [example, height, width, channel] in [0, 1]
    captions: list[str]  # [example]
    right: list[bool] | None = None  # [example], whether a prediction is; None: not known


class Sheet(NamedTuple):
    """A contact sheet."""

    support: Block  # with their classes
    query: Block  # with the predicted classes
    inverted: bool  # whether 1 is black


def write(session: Session, trained: dict[str, Trained]) -> None:
    """Write `<run>/pictures/<stage>-curves.png` and `<stage>-episode.png`."""
    folder = session.run.path / "pictures"
    rows = metrics.read(session.run.metrics.path)
    selection = session.problem.family.objective.selection
    for index, stage in enumerate(session.config.stages):
        own = rows_of(stage.name, rows)
        pictures.write_figure(
            folder / f"{stage.name}-curves.png",
            functools.partial(pictures.draw_curves, rows=own, selection=selection),
            size=pictures.curves_size(own, selection),
        )
        write_episode(session, index, trained[stage.name].weights, folder / f"{stage.name}-episode.png")


def rows_of(stage: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that are of a stage: of its replica 0 and member 0."""
    return [row for row in rows if row["stage"] == stage and row["replica"] == row.get("member", 0) == 0]


def write_episode(session: Session, index: int, weights: base.Weights, path: Path) -> None:
    """The first episode of the evaluated split, with the learner after different numbers of inner steps."""
    wanted, family = session.config.evaluation, session.problem.judge.family
    draw = family.draw
    if draw is None:
        return
    key = evaluation.episode_keys(wanted.seed, wanted.split, 1)[0]
    episode = jax.jit(family.sample)(session.problem.judge.data[wanted.split], key)
    predictors = make_predictors(session, index, weights, episode.support)
    pictures.write_figure(path, lambda figure: draw(figure, jax.device_get(episode), predictors))


def make_predictors(session: Session, index: int, weights: base.Weights, support: base.Examples) -> dict:
    """{inner steps: predict}; algorithms without inner steps have one predictor, at None."""
    wanted = session.config.evaluation
    named = {"unadapted": 0, "adapted": building.adapted_steps(session.config, index)}
    chosen = measuring.variants(
        session.config,
        index,
        session.problem.family,
        wanted.modes[:1],
        wanted.inner_steps,
        session.problem.judge.family.objective,
    )
    predictors = {}
    for variant, algorithm in chosen.items():
        name = variant.split("/")[1]
        steps = named[name] if name in named else int(name)
        learner = jax.jit(algorithm.adapt)(weights, support)
        predict = jax.jit(algorithm.predict)
        predictors[steps] = lambda inputs, p=predict, state=learner: jax.device_get(p(state, inputs))
    return dict(sorted(predictors.items()))


def write_sheet(path: Path, sheet: Sheet) -> None:
    """A PNG file of the pictures as the learner saw them: the support, then the queries; wrong ones in red."""
    rows = [
        -(-min(len(block.captions), SHEET_PICTURES) // SHEET_COLUMNS)
        for block in (sheet.support, sheet.query)
    ]
    size = (1.1 * SHEET_COLUMNS, 1.4 * sum(rows) + 0.8)

    def draw(figure) -> None:
        upper, lower = figure.subplots(2, 1, height_ratios=rows)
        draw_block(upper, sheet.support, sheet.inverted, "support with its classes")
        draw_block(lower, sheet.query, sheet.inverted, "query with predicted class and probability")

    pictures.write_figure(path, draw, size)


def draw_block(axes, block: Block, inverted: bool, title: str) -> None:
    """Pictures in rows of SHEET_COLUMNS, each in a cell one wide and 1.35 high, with its caption below."""
    shown = min(len(block.captions), SHEET_PICTURES)
    for index in range(shown):
        row, column = divmod(index, SHEET_COLUMNS)
        picture = 1 - block.pictures[index] if inverted else block.pictures[index]
        place = (column + 0.04, column + 0.96, 1.35 * row + 0.96, 1.35 * row + 0.04)
        grey = picture.shape[-1] == 1
        axes.imshow(picture[:, :, 0] if grey else picture, cmap="gray", vmin=0, vmax=1, extent=place)
        wrong = block.right is not None and not block.right[index]
        color = "crimson" if wrong else "black"
        left, right, bottom, top = place
        frame = {"color": color, "linewidth": 2.0} if wrong else {"color": "silver", "linewidth": 0.5}
        axes.plot([left, right, right, left, left], [bottom, bottom, top, top, bottom], **frame)
        caption = "\n".join(shortened(line) for line in block.captions[index].split("\n"))
        caption = caption.replace("$", r"\$")  # no mathematics
        axes.text(column + 0.5, 1.35 * row + 1.0, caption, ha="center", va="top", fontsize=6, color=color)
    left_out = f" (first {shown} of {len(block.captions)})" if shown < len(block.captions) else ""
    axes.set_title(title + left_out, loc="left", fontsize=9)
    axes.set(xlim=(0, SHEET_COLUMNS), ylim=(1.35 * -(-shown // SHEET_COLUMNS), 0), aspect="equal")
    axes.axis("off")


def shortened(text: str) -> str:
    """At most CAPTION_LETTERS letters, the middle left out: names often differ at their ends."""
    if len(text) <= CAPTION_LETTERS:
        return text
    half = CAPTION_LETTERS // 2
    return f"{text[: half - 1]}…{text[-half:]}"
