"""A run, as Python sees it."""

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarun.api import access, views
from metarun.api.call_options import Overrides, Place
from metarun.finished import listed_run, run_names
from metarun.finished.finished_run import read_result, split_path
from metarun.runs import catalogue, directory, metrics, seals

if TYPE_CHECKING:
    from metarun.exported.exporter import Written
    from metarun.finished.prediction import TrainedRun


class Run:
    """A run directory: what came out of it, and what can be done with it. Reading it writes nothing to it.

    A Run may stand wherever a call takes the path of a run.

    Attributes:
      path: the run directory.
    """

    def __init__(self, path: Place = catalogue.LATEST) -> None:
        """Find a run.

        Args:
          path: a run directory, the name of a run, a unique beginning of it, or `latest`.

        Raises:
          CheckpointError: there is no such run.
          UsageError: there are several.
        """
        self.path = split_path(catalogue.resolve(Path(path)))[0]
        self._learners: dict[str, TrainedRun] = {}

    def __fspath__(self) -> str:
        """Return the path, so that `Path(run)` works."""
        return str(self.path)

    def __repr__(self) -> str:
        """Return how the run stands, and what came out, in a line."""
        line = self._read_line()
        step = "" if line.status.step is None else f", step {line.status.step}/{line.steps}"
        metric = listed_run.choose_headline(line)
        outcome = f", {metric} {views.format_interval(line.result[metric])}" if metric else ""
        return f"<metarun run {self.name}: {line.status.state}{step}{outcome}>"

    def _repr_markdown_(self) -> str:
        text = f"`{repr(self)[1:-1]}`"
        return f"{text}\n\n{self.result}" if (self.path / directory.RESULT).is_file() else text

    def _read_line(self) -> listed_run.ListedRun:
        now = datetime.datetime.now(datetime.UTC)
        return listed_run.read_line(catalogue.Folder(self.path), self.path, now)

    @property
    def name(self) -> str:
        """The name of the config and of the run."""
        whole = self.path.resolve()
        return f"{whole.parent.name}/{whole.name}" if directory.has_stamp(whole) else whole.name

    @property
    def status(self) -> str:
        """How the run stands: running, done, stopped, diverged, failed, killed or unknown."""
        return self._read_line().status.state

    @property
    def config(self) -> dict[str, Any]:
        """The whole config, {dotted key: value}; a stage stands under its name.

        Raises:
          ConfigError: it is damaged.
          CheckpointError: it is not the one that the run was trained with.
        """
        seals.check(self.path)
        return run_names.read_flat_config(self.path)

    @property
    def result(self) -> views.Result:
        """The final evaluation.

        Raises:
          CheckpointError: the run is not finished.
        """
        return views.Result(read_result(self.path))

    def metrics(self, split: str = "train", stage: str | None = None) -> views.Columns:
        """Return what the run has noted while it trained, as columns.

        Args:
          split: train, every outer step; validation; or speed, about one line a second.
          stage: None: the last one that has begun.

        Returns:
          {"step": [row], metric: [row]}; with replicas or members "replica" and "member" say whose row it is, and
          "mode" in validation which examples normalise the queries.

        Raises:
          DataError: the file is missing or damaged.
        """
        rows = metrics.read(self.path / directory.METRICS)
        stage = stage or (str(rows[-1]["stage"]) if rows else None)
        chosen = rows.where(split=split, stage=stage)
        alone = [name for name in ("replica", "member") if len(set(chosen.list_values(name))) < 2]
        return views.make_columns(chosen, ("stage", "split", *alone))

    @property
    def pictures(self) -> views.Gallery:
        """The pictures of the run, by their names: the curves and one episode of each stage."""
        files = sorted((self.path / "pictures").glob("*.png"))
        return views.Gallery({file.stem: views.Picture(file) for file in files})

    def learner(self, **choice: Any) -> "TrainedRun":
        """Return the trained learner, ready to adapt; see `metarun.load`. It is kept for the next call.

        Args:
          choice: stage, mode, inner_steps, replica, member.
        """
        name = repr(sorted(choice.items()))
        if name not in self._learners:
            self._learners[name] = access.load(self.path, **choice)
        return self._learners[name]

    def predict(self, support: tuple[Any, Any], inputs: Any, **choice: Any) -> np.ndarray:
        """Adapt to (inputs, targets), and answer other inputs; see `TrainedRun.adapt` and `AdaptedLearner.predict`.

        Args:
          choice: stage, mode, inner_steps, replica, member.
        """
        return self.learner(**choice).adapt(support).predict(inputs)

    def read_picture(self, path: Place, *, inverted: bool = False, **choice: Any) -> np.ndarray:
        """Return a picture file as the run reads it, float32 [height, width, channel], an input of `predict`.

        Args:
          inverted: turn dark and light over; a whole support tells by itself whether it must be: see
            `TrainedRun.read_pictures`.
          choice: stage, mode, inner_steps, replica, member.

        Raises:
          DataError: it cannot be read.
          UsageError: the run takes no pictures.
        """
        polarity = "invert" if inverted else "keep"
        picture: np.ndarray = self.learner(**choice).read_pictures([Path(path)], polarity)[0]
        return picture

    def evaluate(self, overrides: Overrides = None, **options: Any) -> views.Result:
        """Measure the run again; see `metarun.evaluate`."""
        return access.evaluate(self.path, overrides, **options)

    def export(self, out: Place, **options: Any) -> "Written":
        """Write adapt and predict into one file; see `metarun.export`."""
        return access.export(self.path, out, **options)
