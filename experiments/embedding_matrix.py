"""Try every source of a task's vector with every use of it, in one run on the mixture of five curves.

    python experiments/embedding_matrix.py [--run DIR] [--steps N] [--seeds N] [--markdown FILE] [--plot PNG]

The run has a stage for the base network, one for each source, one for each cell (a conditioned learner that uses the
vector for its start, its step sizes or its layers, or for all three), a row whose encoder is trained together with the
learner, and MAML with as many steps as base network and learner together. Every stage answers the same frozen episodes.
The script prints a table of the cells, and draws it as a picture. A finished run is taken as it is, and one that was
stopped goes on.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from metarun.figures import canvas
from metarun.finished import comparison
from metarun.runs import files
from metarun.sweeps.control_runs import find_difference

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
INNER = {"inner_steps": 5, "inner_lr": 0.005}
LEARNER_CLIP = {"inner_clip_norm": 10.0}
CONTROL_CLIP = {"inner_clip_norm": 100.0}  # a clip at 10 harms MAML on these tasks (docs/findings.md)
BASE_STEPS, ENCODER_STEPS = 10000, 5000


class Cell(NamedTuple):
    """One conditioned learner."""

    mean: float
    ci95: float
    gain: float  # the control's error minus that of the cell
    differ: bool  # whether the two can be told apart, by paired tests of all cells together (Holm)


def main() -> int:
    """Train what is not trained yet, print the table, and draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/embedding-matrix"), help="where the run is")
    parser.add_argument("--steps", type=int, default=2000, help="outer steps of every cell")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of every stage, side by side")
    parser.add_argument("--markdown", type=Path, help="write the table to a file too")
    parser.add_argument("--plot", type=Path, help="write the picture as PNG")
    options = parser.parse_args()
    if not (options.run / "result.json").exists():
        code = train(options.run, options.steps, options.seeds)
        if code:
            return code
    control, cells = read_cells(options.run)
    text = format_markdown(control, cells)
    print(text)
    if options.markdown is not None:
        files.write_text(options.markdown, f"{text}\n")
    if options.plot is not None:
        write_picture(options.plot, control, cells)
    return 0


def train(run: Path, steps: int, seeds: int) -> int:
    """Write the config beside the run, train it, and return the exit code of `metarun train`."""
    run.parent.mkdir(parents=True, exist_ok=True)
    path = run.parent / f"{run.name}.yaml"
    path.write_text(json.dumps(make_config(steps, seeds), indent=1), encoding="utf-8")  # JSON is YAML
    resume = ["--resume"] if run.exists() else []
    command = [sys.executable, "-m", "metarun", "train", str(path), "--run-dir", str(run), *resume]
    return subprocess.run(command, stdout=subprocess.DEVNULL).returncode


def make_config(steps: int, seeds: int) -> dict[str, Any]:
    """Make the config of the run."""
    learned = {"steps": steps, "tasks_per_step": 25, "clip_norm": 10.0, "optimizer": ADAM}
    fitted = {"steps": 1, "tasks_per_step": 512, "task_chunk": 32}
    encoded = {"steps": ENCODER_STEPS, "tasks_per_step": 32, "optimizer": ADAM}
    # Without a bound on the inner steps, as the sources' own steps have none.
    based = {"steps": BASE_STEPS, "tasks_per_step": 25, "optimizer": ADAM}
    stages = [make_stage("base", {"name": "maml", **INNER}, based)]
    for source, options in SOURCES.items():
        base = {} if source in ENCODERS else {"pretrained": "base"}
        algorithm = {"name": "task_embedding", "source": source, **base, **options}
        stages.append(make_stage(source, algorithm, encoded if source in ENCODERS else fitted))
    for source in [*SOURCES, TOGETHER]:
        for name, uses in USES.items():
            embedding = None if source == TOGETHER else source
            algorithm = {"name": "conditioned", "embedding": embedding, "uses": uses, **INNER, **LEARNER_CLIP}
            stages.append(make_stage(name_cell(source, name), algorithm, learned, "attention" in uses))
    longer = learned | {"steps": BASE_STEPS + steps}
    stages.append(make_stage(CONTROL, {"name": "maml", **INNER, **CONTROL_CLIP}, longer))
    return {
        "task": {"name": "mixture", "shots": 10, "queries": 10},
        "stages": stages,
        "evaluation": {"episodes": 600, "queries": 100},
        "replicas": seeds,
        "seed": 0,
    }


def make_stage(
    name: str, algorithm: dict[str, Any], training: dict[str, Any], modulated: bool = False
) -> dict[str, Any]:
    """Make the config of a stage. A modulated network takes the vector of a task."""
    model = {"name": "mlp", "hidden": [40, 40]} | ({"modulation": "features"} if modulated else {})
    return {"name": name, "model": model, "algorithm": algorithm, "training": training}


def name_cell(source: str, use: str) -> str:
    """Return the name of the stage of a cell."""
    return f"{source.replace(' ', '-')}-{use}"


def read_cells(run: Path) -> tuple[dict[str, Any], dict[str, dict[str, Cell]]]:
    """Return the control's entry in the ranking, and the cells as {source: {use: cell}}."""
    compared = comparison.compare([run], comparison.Choice())
    ranked = {entry["stage"]: entry for entry in compared["ranking"]}
    control = ranked[CONTROL]
    stages = [name_cell(source, use) for source in [*SOURCES, TOGETHER] for use in USES]
    own = [find_difference(compared, control["label"], ranked[stage]["label"]) for stage in stages]
    gains = {line["minus"]: (line["mean"], line["differ"]) for line in comparison.judge_together(own)}
    cells = {
        source: {use: make_cell(ranked[name_cell(source, use)], gains) for use in USES}
        for source in [*SOURCES, TOGETHER]
    }
    return control, cells


def make_cell(entry: dict[str, Any], gains: dict[str, tuple[float, bool]]) -> Cell:
    """Return a cell from its entry in the ranking and its gain over the control."""
    return Cell(entry["mean"], entry["ci95"], *gains[entry["label"]])


def format_markdown(control: dict[str, Any], cells: dict[str, dict[str, Cell]]) -> str:
    """Return a row a source and a column a use: the error, in bold if it is told to be lower than MAML's."""
    lines = [["source", *USES], ["---"] * (1 + len(USES))]
    for source, row in cells.items():
        lines.append([source, *map(format_cell, row.values())])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\nMAML with as many steps as base and learner: {control['mean']:.2f} ± {control['ci95']:.2f}"


def format_cell(cell: Cell) -> str:
    """Return the error of a cell, in bold if it is told to be lower than the control's."""
    text = f"{cell.mean:.2f} ± {cell.ci95:.2f}"
    return f"**{text}**" if cell.differ and cell.gain > 0 else text


def write_picture(path: Path, control: dict[str, Any], cells: dict[str, dict[str, Cell]]) -> None:
    """Write the matrix as PNG."""
    size = (7.5, 0.8 + 0.5 * len(cells))
    canvas.write_figure(path, lambda figure: draw(figure, control, cells), size)


def draw(figure, control: dict[str, Any], cells: dict[str, dict[str, Cell]]) -> None:
    """Draw the matrix in colours: the share of the control's error in each cell."""
    shares = [[cell.mean / control["mean"] for cell in row.values()] for row in cells.values()]
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="RdYlGn_r", vmin=0, vmax=2, aspect="auto")
    for row, source in enumerate(cells.values()):
        for column, cell in enumerate(source.values()):
            mark = "" if cell.differ else "\nnot told apart"
            words = f"{cell.mean:.2f} ± {cell.ci95:.2f}{mark}"
            colour = "white" if abs(shares[row][column] - 1) > 0.8 else "black"
            axes.text(column, row, words, ha="center", va="center", fontsize=8, color=colour)
    axes.set(
        xticks=range(len(USES)), xticklabels=list(USES), yticks=range(len(cells)), yticklabels=list(cells)
    )
    axes.set(xlabel="what the vector is used for", ylabel="where it comes from")
    axes.set_title(
        f"squared error on 600 test tasks; MAML: {control['mean']:.2f} ± {control['ci95']:.2f}", fontsize=10
    )
    figure.colorbar(image, ax=axes, label="share of MAML's error")


if __name__ == "__main__":
    raise SystemExit(main())
