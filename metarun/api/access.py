"""What is done with one trained run: load it, measure it, export it. Each imports jax only when it is called."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarun.api.call_options import Overrides, Place, list_overrides, quiet

if TYPE_CHECKING:
    from metarun.api.views import Result
    from metarun.exported.exporter import Written
    from metarun.exported.loader import ExportedLearner
    from metarun.finished.prediction import TrainedRun
    from metarun.progress import Progress


def load(path: Place, **choice: Any) -> "TrainedRun":
    """A trained run, ready to adapt: `metarun.load(run).adapt((inputs, targets)).predict(queries)`.

    Args:
      path: a run, or one checkpoint of it.
      choice: stage, mode, inner_steps, replica, member, overrides, allow_older; see `metarun.finished.prediction.load`.

    Raises:
      MetarunError: what is wrong with the run or with the choice, and what to do.
    """
    from metarun.finished import prediction

    with quiet():
        return prediction.load(Path(path), **choice)


def evaluate(
    run: Place,
    overrides: Overrides = None,
    *,
    stage: str | None = None,
    split: str | None = None,
    allow_older: bool = False,
    progress: "Progress | None" = None,
    **keys: Any,
) -> "Result":
    """Measure a run on its frozen episodes, and return what result.json would have: `metarun eval`. Writes nothing.

    Args:
      run: a run, or one checkpoint of it.
      overrides, keys: of the evaluation and accelerator sections.
      stage: None: all stages.
      split: train, validation or test; None: as the run evaluates.
      allow_older: whether an older checkpoint may stand in for one that is damaged or gone; "skipped" then names both.

    Raises:
      MetarunError: what is wrong, and what to do.
    """
    from metarun.api.views import Result
    from metarun.finished.finished_run import find_run
    from metarun.progress import Progress

    texts = list_overrides(overrides, keys)
    finished = find_run(Path(run), texts, stage=stage, split=split, allow_older=allow_older)
    from metarun.finished import remeasurement

    with quiet():
        return Result(remeasurement.measure(finished, progress or Progress()))


def export(
    run: Place,
    out: Place,
    *,
    ways: int | None = None,
    shots: int | None = None,
    platforms: Sequence[str] = (),
    **choice: Any,
) -> "Written":
    """Write adapt and predict of a run, with its weights, into one file that runs without metarun: `metarun export`.

    Args:
      ways, shots, platforms: see `metarun.exported.exporter.write`.
      choice: stage, mode, inner_steps, replica, member, overrides and allow_older, as of `load`.

    Raises:
      MetarunError: what is wrong, and what to do.
    """
    from metarun.exported import exporter

    exporter.require_packages()
    trained = load(run, **choice)
    with quiet():
        return exporter.write(trained, Path(out), ways=ways, shots=shots, platforms=platforms)


def load_exported(path: Place) -> "ExportedLearner":
    """Return the learner in a file that `export` wrote, as the loader inside the file does.

    Raises:
      metarun.exported.loader.ExportError: the file is missing, damaged, or of another format.
    """
    from metarun.exported import loader

    return loader.load(path)
