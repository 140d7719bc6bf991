"""How much each key of a sweep matters for what the settings reached."""

from pathlib import Path
from typing import Any

from metarun.figures import canvas


def write_importance(path: Path, ranking: dict[str, Any], title: str) -> None:
    """Write the importance of the keys as PNG."""
    height = 1.5 + 0.5 * len(ranking["keys"])
    canvas.write_figure(path, lambda figure: draw(figure, ranking, title), size=(8.0, height))


def draw(figure, ranking: dict[str, Any], title: str) -> None:
    """Draw a bar for each key, the most important on top, with its share."""
    importance = ranking["importance"]
    shares = sorted(importance["shares"].items(), key=lambda item: item[1])
    axes = figure.subplots()
    bars = axes.barh([key for key, _ in shares], [share for _, share in shares], color="tab:purple")
    axes.bar_label(bars, labels=[f"{100 * share:.0f} %" for _, share in shares], padding=4)
    axes.set(xlim=(0, 1.12), xticks=[0, 0.25, 0.5, 0.75, 1], xlabel="share of what the settings differ in")
    axes.spines[["top", "right"]].set_visible(False)
    after = "" if importance["steps"] is None else f" after {importance['steps']:,} steps"
    axes.set_title(f"{title}\n{ranking['metric']}{after}, {importance['method']}", fontsize=10)
