"""A contact sheet: the pictures of a prediction, as the learner saw them, with their labels."""

from pathlib import Path

from metarun.figures import canvas
from metarun.finished.answers import PictureBlock, Sheet

COLUMNS = 10  # pictures in a row
PICTURES = 300  # of a block; the rest is left out, and that is said
CAPTION_LETTERS = 20  # of a line of a caption


def write_sheet(path: Path, sheet: Sheet) -> None:
    """Write a PNG file of the pictures as the learner saw them: the support, then the queries; wrong ones in red."""
    rows = [-(-min(len(block.captions), PICTURES) // COLUMNS) for block in (sheet.support, sheet.query)]
    size = (1.1 * COLUMNS, 1.4 * sum(rows) + 0.8)

    def draw(figure) -> None:
        upper, lower = figure.subplots(2, 1, height_ratios=rows)
        draw_block(upper, sheet.support, sheet.inverted, "support with its classes")
        draw_block(lower, sheet.query, sheet.inverted, "query with predicted class and probability")

    canvas.write_figure(path, draw, size)


def draw_block(axes, block: PictureBlock, inverted: bool, title: str) -> None:
    """Draw pictures in rows of COLUMNS, each in a cell one wide and 1.35 high, with its caption below."""
    shown = min(len(block.captions), PICTURES)
    for index in range(shown):
        row, column = divmod(index, COLUMNS)
        picture = 1 - block.pictures[index] if inverted else block.pictures[index]
        place = (column + 0.04, column + 0.96, 1.35 * row + 0.96, 1.35 * row + 0.04)
        grey = picture.shape[-1] == 1
        axes.imshow(picture[:, :, 0] if grey else picture, cmap="gray", vmin=0, vmax=1, extent=place)
        wrong = block.right is not None and not block.right[index]
        color = "crimson" if wrong else "black"
        left, right, bottom, top = place
        frame = {"color": color, "linewidth": 2.0} if wrong else {"color": "silver", "linewidth": 0.5}
        axes.plot([left, right, right, left, left], [bottom, bottom, top, top, bottom], **frame)
        caption = "\n".join(shorten(line) for line in block.captions[index].split("\n"))
        caption = caption.replace("$", r"\$")  # no mathematics
        axes.text(column + 0.5, 1.35 * row + 1.0, caption, ha="center", va="top", fontsize=6, color=color)
    left_out = f" (first {shown} of {len(block.captions)})" if shown < len(block.captions) else ""
    axes.set_title(title + left_out, loc="left", fontsize=9)
    axes.set(xlim=(0, COLUMNS), ylim=(1.35 * -(-shown // COLUMNS), 0), aspect="equal")
    axes.axis("off")


def shorten(text: str) -> str:
    """Return at most CAPTION_LETTERS letters, the middle left out: names often differ at their ends."""
    if len(text) <= CAPTION_LETTERS:
        return text
    half = CAPTION_LETTERS // 2
    return f"{text[: half - 1]}…{text[-half:]}"
