"""The page of `metarun fewshot`: one HTML file with small pictures, which needs no network and no script."""

import base64
import datetime
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from metarun import errors
from metarun.data import picture_files
from metarun.fewshot.outcome import Outcome, Prediction
from metarun.plain_text import escape
from metarun.reports import page

SIDE = 96  # pixels of the longer side of a small picture
QUALITY = 80  # of JPEG, from 0 to 95
MOST = 400  # queries that are shown with pictures
MOST_SUPPORT = 6  # pictures of a class
MOST_CLASSES = 40  # whose support is shown
WIDEST = 30  # classes of a confusion matrix


class Tile(NamedTuple):
    """A small picture with what is said about it."""

    address: str  # `data:image/jpeg;base64,…`; "" if the picture cannot be read any more
    name: str  # of the file, with its folder
    lines: list[str]
    kind: str  # "", "wrong" or "unknown"


class Block(NamedTuple):
    """Pictures below one heading."""

    title: str
    tiles: list[Tile]
    left_out: int  # pictures that the page does not show


def refuse_place(path: Path) -> None:
    """Raise UsageError if the page cannot be made, or may not be written there."""
    if importlib.util.find_spec("jinja2") is None:
        what = "a page needs jinja2, which is not installed"
        raise errors.UsageError(what, "--html", "pip install 'metarun[report]'")
    page.check_place(path)


def write(path: Path, outcome: Outcome) -> None:
    """Write the page as one step."""
    page.write_page(path, render(outcome))


def render(outcome: Outcome) -> str:
    """Return the HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=show,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    judgement = outcome.judgement
    text = environment.get_template("fewshot.html").render(
        generator=page.GENERATOR,
        made=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC",
        outcome=outcome,
        judgement=judgement,
        matrix=make_matrix(outcome),
        support=list_support(outcome),
        suggested=make_block("Label these next", outcome, outcome.next),
        answers=list_answers(outcome),
    )
    return str(text)


def show(value: Any) -> Any:
    """Return a text or a path without what no encoding takes; the page has other values as they are."""
    return escape(str(value)) if type(value) is str or isinstance(value, Path) else value


def make_matrix(outcome: Outcome) -> list[list[int]] | None:
    """Return the confusion matrix, a row for each true class; None: there is none, or it is too wide."""
    judgement, classes = outcome.judgement, outcome.classes
    if judgement is None or judgement.share is None or len(classes) > WIDEST:
        return None
    counts = {(entry["class"], entry["answered"]): entry["count"] for entry in judgement.confusions}
    return [[counts.get((name, other), 0) for other in classes] for name in classes]


def list_support(outcome: Outcome) -> list[Block]:
    """Return the first pictures of each of the first classes."""
    blocks = []
    for name in outcome.classes[:MOST_CLASSES]:
        own = [file for file, label in outcome.support if label == name]
        tiles = [make_tile(file, [], "") for file in own[:MOST_SUPPORT]]
        blocks.append(Block(name, tiles, len(own) - len(tiles)))
    return blocks


def list_answers(outcome: Outcome) -> list[Block]:
    """Return the queries by their answers: those of no class first, then class by class, the least sure first."""
    if outcome.judgement is None:
        return []
    unknown = [one for one in outcome.predictions if one.is_unknown]
    groups = {"Of no class of the support": unknown}
    for name in outcome.classes:
        groups[name] = [one for one in outcome.predictions if one.best[0][0] == name and not one.is_unknown]
    room, blocks = MOST, []
    for title, predictions in groups.items():
        if predictions:
            ordered = sorted(predictions, key=lambda one: one.best[0][1])
            shown = ordered[: max(0, min(room, MOST // max(1, len(groups)) + 12))]
            room -= len(shown)
            blocks.append(Block(title, [make_answer(one) for one in shown], len(ordered) - len(shown)))
    return blocks


def make_block(title: str, outcome: Outcome, chosen: Sequence[Path]) -> Block:
    """Return some of the queries."""
    known = {one.file: one for one in outcome.predictions}
    tiles = [make_answer(known[file]) if file in known else make_tile(file, [], "") for file in chosen]
    return Block(title, tiles, 0)


def make_answer(prediction: Prediction) -> Tile:
    """Return a query with its likeliest classes."""
    lines = [f"{name} {share:.2f}" for name, share in prediction.best[:2]]
    is_wrong = prediction.truth is not None and prediction.truth != prediction.best[0][0]
    if is_wrong:
        lines.append(f"truly {prediction.truth}")
    if prediction.copy_of is not None:
        lines.append("a copy of the support")
    kind = "unknown" if prediction.is_unknown else "wrong" if is_wrong else ""
    return make_tile(prediction.file, lines, kind)


def make_tile(file: Path, lines: list[str], kind: str) -> Tile:
    """Return a small picture of a file."""
    name = "/".join(file.parts[-2:])  # files of different folders are often called alike
    try:
        pixels = picture_files.read_picture(file, SIDE, 3, shape=shrink)
    except errors.DataError:
        return Tile("", name, lines, kind)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=QUALITY)
    encoded = base64.b64encode(content.getvalue()).decode()
    return Tile(f"data:image/jpeg;base64,{encoded}", name, lines, kind)


def shrink(picture: np.ndarray) -> np.ndarray:
    """Return uint8 [height, width, channel] with a longer side of SIDE pixels, in its own shape."""
    height, width = picture.shape[:2]
    longer = max(height, width)
    return picture_files.resize(picture, (max(1, SIDE * height // longer), max(1, SIDE * width // longer)))
