"""A figure as a PNG file, written as one step."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metarun.runs import files

DOTS_PER_INCH = 120


def write_figure(
    path: Path,
    draw: Callable[[Any], None],
    size: tuple[float, float] = (8.0, 4.5),
    root: Path | None = None,
) -> None:
    """Draw a figure of `size` inches and write it as PNG.

    Args:
      root: the run that the picture belongs to, in which no link is followed; None: a user has named the path.
    """
    # Imported here: no training waits for it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    content = io.BytesIO()
    with warnings.catch_warnings():
        # A letter that the font does not have, such as one of Chinese, is a box: nothing that a user can mend.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ ")
        figure.savefig(content, format="png")
    if root is not None:
        files.make_folder(path.parent, root)
        files.write_bytes(path, content.getvalue())
        return
    with files.storage_errors(path):
        path.parent.mkdir(exist_ok=True)
    files.write_output(path, content.getvalue())
