"""Every source of a task's vector × every use of it, in one run on the mixture of five curves: a table and a picture.

    python scripts/embedding_matrix.py [--run DIR] [--steps N] [--markdown FILE] [--plot PNG]

The run has a stage for the base network, one for each source, one for each cell (a conditioned learner that uses the
vector for its start, its step sizes or its layers, or for all three), a row whose encoder is trained together with the
learner, and MAML with as many steps. Every stage answers the same frozen episodes. A finished run is taken as it is,
and one that was stopped goes on.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

from metarun import comparison
from metarun.runs import files

SOURCES: dict[str, dict[str, Any]] = {
    "prototype": {},
    "gradient": {"scaling": "none"},
    "fisher": {"adapted_lr": 0.005},
    "adapted": {"adapted_steps": 20, "adapted_lr": 0.005},
    "collaborative": {"adapted_steps": 20, "adapted_lr": 0.005},
    "variational": {"width": 64, "divergence_weight": 0.1},
    "adversarial": {"width": 64},
}
ENCODERS = ("variational", "adversarial")  # sources that are trained and need no base network
TOGETHER = "trained together"  # the row of the encoder that is no stage of its own
USES = {
    "start": ["initialisation"],
    "steps": ["optimizer"],
    "layers": ["attention"],
    "all": ["initialisation", "optimizer", "attention"],
}
CONTROL = "maml"  # the stage that knows nothing of tasks
ADAM = {"name": "adam", "learning_rate": 1.0e-3}
INNER = {"inner_steps": 5, "inner_lr": 0.005, "inner_clip_norm": 10.0}


class Cell(NamedTuple):
    """One conditioned learner."""

    mean: float
    ci95: float
    less: float  # than the control's error, by pairs of episodes
    less_ci95: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/embedding-matrix"), help="where the run is")
    parser.add_argument("--steps", type=int, default=2000, help="outer steps of every cell and of MAML")
    parser.add_argument("--markdown", type=Path, help="write the table to a file too")
    parser.add_argument("--plot", type=Path, help="write the picture as PNG")
    wanted = parser.parse_args()
    if not (wanted.run / "result.json").exists():
        code = train(wanted.run, wanted.steps)
        if code:
            return code
    control, cells = read(wanted.run)
    text = markdown(control, cells)
    print(text)
    if wanted.markdown is not None:
        files.write_text(wanted.markdown, f"{text}\n")
    if wanted.plot is not None:
        draw(control, cells, wanted.plot)
    return 0


def train(run: Path, steps: int) -> int:
    """The exit code of `metarun train` of the config that is left beside the run."""
    run.parent.mkdir(parents=True, exist_ok=True)
    path = run.parent / f"{run.name}.yaml"
    path.write_text(json.dumps(make_config(steps), indent=1), encoding="utf-8")  # JSON is YAML
    resume = ["--resume"] if run.exists() else []
    command = [sys.executable, "-m", "metarun", "train", str(path), "--run-dir", str(run), *resume]
    return subprocess.run(command, stdout=subprocess.DEVNULL).returncode


def make_config(steps: int) -> dict[str, Any]:
    """The run as a config."""
    learned = {"steps": steps, "tasks_per_step": 25, "clip_norm": 10.0, "optimizer": ADAM}
    fitted = {"steps": 1, "tasks_per_step": 512, "task_chunk": 32}
    encoded = {"steps": 5000, "tasks_per_step": 32, "optimizer": ADAM}
    plain = {
        "name": "maml",
        "inner_steps": 5,
        "inner_lr": 0.005,
    }  # the sources' own steps have no bound either
    stages = [stage("base", plain, {"steps": 10000, "tasks_per_step": 25, "optimizer": ADAM})]
    for source, options in SOURCES.items():
        base = {} if source in ENCODERS else {"pretrained": "base"}
        algorithm = {"name": "task_embedding", "source": source, **base, **options}
        stages.append(stage(source, algorithm, encoded if source in ENCODERS else fitted))
    for source in [*SOURCES, TOGETHER]:
        for name, uses in USES.items():
            embedding = None if source == TOGETHER else source
            algorithm = {"name": "conditioned", "embedding": embedding, "uses": uses, **INNER}
            stages.append(stage(cell_name(source, name), algorithm, learned, "attention" in uses))
    stages.append(stage(CONTROL, {"name": "maml", **INNER}, learned))
    return {
        "task": {"name": "mixture", "shots": 10, "queries": 10},
        "stages": stages,
        "evaluation": {"episodes": 600, "queries": 100},
        "seed": 0,
    }


def stage(name: str, algorithm: dict[str, Any], training: dict[str, Any], modulated=False) -> dict[str, Any]:
    model = {"name": "mlp", "hidden": [40, 40]} | ({"modulation": "features"} if modulated else {})
    return {"name": name, "model": model, "algorithm": algorithm, "training": training}


def cell_name(source: str, use: str) -> str:
    return f"{source.replace(' ', '-')}-{use}"


def read(run: Path) -> tuple[dict[str, Any], dict[str, dict[str, Cell]]]:
    """The control's entry in the ranking, and the cells as {source: {use: cell}}."""
    found = comparison.compare([run], comparison.Choice())
    ranked = {each["stage"]: each for each in found["ranking"]}
    control = ranked[CONTROL]
    less: dict[str, tuple[float, float]] = {}
    for each in found["differences"]:
        if each["of"] == control["label"]:
            less[each["minus"]] = each["mean"], each["ci95"]
        elif each["minus"] == control["label"]:
            less[each["of"]] = -each["mean"], each["ci95"]
    cells = {
        source: {use: make_cell(ranked[cell_name(source, use)], less) for use in USES}
        for source in [*SOURCES, TOGETHER]
    }
    return control, cells


def make_cell(entry: dict[str, Any], less: dict[str, tuple[float, float]]) -> Cell:
    return Cell(entry["mean"], entry["ci95"], *less[entry["label"]])


def markdown(control: dict[str, Any], cells: dict[str, dict[str, Cell]]) -> str:
    """A row a source and a column a use: the error, in bold where it is lower than the control's by pairs."""
    lines = [["source", *USES], ["---"] * (1 + len(USES))]
    for source, row in cells.items():
        shown = [f"{cell.mean:.2f} ± {cell.ci95:.2f}" for cell in row.values()]
        better = [cell.less > cell.less_ci95 for cell in row.values()]
        lines.append(
            [source, *(f"**{text}**" if bold else text for text, bold in zip(shown, better, strict=True))]
        )
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\nMAML with as many steps: {control['mean']:.2f} ± {control['ci95']:.2f}"


def draw(control: dict[str, Any], cells: dict[str, dict[str, Cell]], path: Path) -> None:
    """The matrix in colours: how much lower than the control's error."""
    shares = [[cell.mean / control["mean"] for cell in row.values()] for row in cells.values()]
    figure, axes = pyplot.subplots(figsize=(7.5, 0.8 + 0.5 * len(cells)), layout="constrained")
    drawn = axes.imshow(shares, cmap="RdYlGn_r", vmin=0, vmax=2, aspect="auto")
    for row, source in enumerate(cells.values()):
        for column, cell in enumerate(source.values()):
            mark = "" if abs(cell.less) > cell.less_ci95 else "\nas MAML"
            axes.text(
                column, row, f"{cell.mean:.2f} ± {cell.ci95:.2f}{mark}", ha="center", va="center", fontsize=8
            )
    axes.set(
        xticks=range(len(USES)), xticklabels=list(USES), yticks=range(len(cells)), yticklabels=list(cells)
    )
    axes.set(xlabel="what the vector is used for", ylabel="where it comes from")
    axes.set_title(
        f"squared error on 600 test tasks; MAML: {control['mean']:.2f} ± {control['ci95']:.2f}", fontsize=10
    )
    figure.colorbar(drawn, ax=axes, label="share of MAML's error")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
