"""metarun: a command-line experiment runner for meta-learning on JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from metarun.finished.prediction import TrainedRun

__version__ = "0.2.0"


def load(path: "Path | str", **choice: Any) -> "TrainedRun":
    """A trained run, ready to adapt: `metarun.load(run).adapt(support).predict(inputs)`.

    Imports jax only when it is called; see `metarun.finished.prediction.load` for the arguments.
    """
    from metarun.finished import prediction

    return prediction.load(path, **choice)
