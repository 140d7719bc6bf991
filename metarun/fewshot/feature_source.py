"""The network that turns pictures into features: what somebody has named, or else the best one at hand.

--weights FILE     a backbone from a file of weights
--run RUN          the network of a run; if that is a file of weights, --weights FILE says where it lies now
neither            a file in <data>/backbones/; else the newest finished run on pictures below runs/; else a network
                   with random weights, which is said wherever its answers are
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from metarun import base, config, folders
from metarun.errors import MetarunError, UsageError
from metarun.features import Extractor
from metarun.finished import moved_weights, prediction
from metarun.finished.prediction import TrainedRun
from metarun.runs import catalogue, directory

LOOKED_AT = 8  # of the newest runs, for one on pictures
FOLDER = "backbones"  # below the folder of data sets
ADVICE = (
    "features of {label}: a network that was trained on many photographs does much better. Put its file into {folder}, "
    "or give --weights FILE: model.safetensors of facebook/dinov2-small is a good one (docs/backbones.md)"
)


class Source(NamedTuple):
    """Where features come from."""

    kind: Literal["weights", "run", "random"]
    label: str  # what is shown
    backbone: Extractor | None = None
    run: TrainedRun | None = None
    notes: tuple[str, ...] = ()  # what somebody should know of the choice


def choose(
    weights: Path | None = None, run: Path | None = None, model: str | None = None, stage: str | None = None
) -> Source:
    """Return the source that is named, or the best one at hand.

    Args:
      weights: with a run, the place of the file that the run was trained on; its digest is compared.
      model: what `open_backbone` takes; without `weights` it asks for random ones.
      stage: of the run; None: the last one.

    Raises:
      UsageError: two sources are named, or the run takes no pictures, or no file of weights.
      MetarunError: what is wrong with the file or with the run.
    """
    if model is not None and run is not None:
        raise UsageError("features come from one place", "--run, --model", "name one of them")
    if run is not None:
        return open_run_source(
            prediction.load(run, stage=stage, overrides=moved_weights.place_weights(run, weights))
        )
    if weights is not None or model is not None:
        return open_backbone(weights, model)
    if stage is not None:
        raise UsageError("a stage is one of a run", "--stage", "name the run by --run")
    files = list_weights()
    if files:
        return open_backbone(files[0], None)
    newest = find_newest_run()
    source = open_run_source(newest) if newest else open_backbone(None, None)
    note = ADVICE.format(label=source.label, folder=find_folder())
    return source._replace(notes=(*source.notes, note))


def find_folder() -> Path:
    """Return the folder in which files of weights are looked for."""
    return folders.data_root() / FOLDER


def list_weights() -> list[Path]:
    """Return the files of weights at hand, sorted by name."""
    return sorted(find_folder().glob("*.safetensors"))


def open_backbone(weights: Path | None, model: str | None) -> Source:
    """Open a backbone; see `metarun.backbones`."""
    from metarun import backbones, hardware

    hardware.select(config.Accelerator())
    backbone = backbones.open_backbone(weights, model=model)
    return Source("random" if weights is None else "weights", backbone.label, backbone)


def open_run_source(run: TrainedRun) -> Source:
    """Take the network of a run.

    Raises:
      UsageError: the run takes no pictures, or predicts no classes.
    """
    if not is_of_pictures(run):
        remedy = "name a run on pictures, or leave --run out"
        raise UsageError(
            f"the run predicts {run.targets}, and not classes of pictures", str(run.path), remedy
        )
    names = run.names
    label = f"run {run.path} ({names['algorithm']} on {names['task']}, stage {run.stage})"
    return Source("run", label, None, run)


def is_of_pictures(run: TrainedRun) -> bool:
    """Return whether a run classifies pictures."""
    return isinstance(run.form, base.Pictures) and run.targets == "classes"


def find_newest_run() -> TrainedRun | None:
    """Return the newest finished run on pictures below runs/; None: there is none. Damaged runs are passed over."""
    for path in list_finished_runs()[:LOOKED_AT]:
        with contextlib.suppress(MetarunError):
            run = prediction.load(path)
            if is_of_pictures(run):
                return run
    return None


def list_finished_runs() -> Sequence[Path]:
    """Return the finished runs below runs/, the newest first."""
    found = [folder.path for folder in catalogue.list_folders() if folder.problem is None]
    finished = [path for path in found if (path / directory.RESULT).is_file()]
    return sorted(finished, key=catalogue.read_time, reverse=True)
