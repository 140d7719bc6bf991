"""Where the file of weights lies now that a run on features was trained on."""

from pathlib import Path

from metarun.config import plain_values
from metarun.errors import UsageError
from metarun.finished.finished_run import find_run


def takes_weights(run: Path) -> bool:
    """Return whether a run needs a file of weights to read its data. Raises what is wrong with the run."""
    return "weights" in getattr(find_run(run).config.task.config, "data_places", ())


def place_weights(run: Path, weights: Path | None) -> list[str]:
    """Return the override that says where the file of weights of a run lies now; [] without a file.

    Raises:
      UsageError: the run has the weights in its checkpoints, and takes no file.
      MetarunError: what is wrong with the run.
    """
    if weights is None:
        return []
    if not takes_weights(run):
        raise refuse(weights, [run])
    return [plain_values.format_override("task.weights", str(weights))]


def refuse(weights: Path, runs: list[Path]) -> UsageError:
    """Return what to say of a file of weights that none of the runs takes."""
    what = "the network of this run is in its checkpoints, and it takes no file of weights"
    where = f"--weights {weights} beside {', '.join(map(str, runs))}"
    return UsageError(what, where, "leave --weights out, or name a run on features")
