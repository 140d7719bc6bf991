"""The sinks by name, and whether what they need is installed."""

import importlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path

from metarun import errors
from metarun.sinks.contract import Opening, Sink

# Each sink: its module, and the packages of the extra of its name.
SINKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "tensorboard": ("tensorboard_files", ("tensorboardX",)),
    "wandb": ("wandb_run", ("wandb",)),
    "mlflow": ("mlflow_store", ("mlflow", "sqlalchemy", "alembic")),
}


def refuse_missing(names: Iterable[str], error: type[errors.MetarunError], where: str) -> None:
    """Raise `error` for the first sink that needs a package which is not installed. Imports none of them."""
    for name in names:
        if absent := [package for package in SINKS[name][1] if not is_installed(package)]:
            raise error(
                f"the sink {name} needs {' and '.join(absent)}, which is not installed",
                where,
                f"pip install 'metarun[{name}]'",
            )


def is_installed(package: str) -> bool:
    """Return whether a package can be imported. A mere folder of this name, such as W&B leaves, is none."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def open_sink(name: str, opening: Opening) -> Sink:
    """Open a sink for one run."""
    module = importlib.import_module(f"metarun.sinks.{SINKS[name][0]}")
    if opening.folder is not None:
        with_folder(opening.folder)
    return module.open_sink(opening)


def with_folder(folder: Path) -> None:
    """Create the folder that somebody named."""
    from metarun.runs import files

    with files.storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
