"""What a file of weights holds, as the options of a model, and the parameter tree that it gives.

A model's `Config` asks here before jax is imported, so this module imports no jax; see `plugins.JAX_FREE`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from metarun import folders
from metarun.backbones import key_map, resnet_layouts, safetensors_file, vit_layouts
from metarun.backbones.safetensors_file import WeightFile
from metarun.errors import DataError, MetarunError

KINDS: dict[str, Any] = {"vit": vit_layouts, "resnet": resnet_layouts}  # by the name of the model
# What has gone wrong where a compiled program read a file: it goes on with NaN, because of an error jax would keep the
# text alone.
FAILURES: list[MetarunError] = []


def find_model(path: Path) -> str:
    """Return which model can read a file: vit or resnet.

    Raises:
      DataError: the file is damaged, or holds no network that is known here.
    """
    file = safetensors_file.open_file(path)
    found = [model for model, layouts in KINDS.items() if layouts.find_layout(file)]
    if not found:
        raise _refuse_unknown(file, "vit or resnet")
    return found[0]


def fill(model: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a model with those that are null filled in: from its file of weights, or from the defaults.

    A file is read only if an option is null. So a finished run, whose config has all of them, opens without it.

    Args:
      given: all options of the model; `weights` is the path of the file or None.
      defaults: of the options that may be null, for a network without a file.

    Raises:
      DataError: the file is damaged, or holds another network than the options say.
      ValueError: the file does not say an option.
    """
    if all(given[name] is not None for name in defaults):
        return {"weights": given["weights"]} | {name: given[name] for name in defaults}
    if given["weights"] is None:
        return {"weights": None} | {
            name: default if given[name] is None else given[name] for name, default in defaults.items()
        }
    path = folders.expand_home(given["weights"]).absolute()
    file = safetensors_file.open_file(path)
    layout, prefix = _find_layout(file, model, given["layout"])
    found = KINDS[model].describe(file, layout, prefix)
    options = {name: found[name] if given[name] is None else given[name] for name in defaults}
    unknown = [name for name, value in options.items() if value is None]
    if unknown:
        what = f"{path.name} does not say {', '.join(unknown)}, and no published network has its width"
        raise ValueError(what, f"set model.{unknown[0]}")
    _check(file, model, options, prefix)
    return {"weights": str(path), **options}


def read_tree(
    model: str,
    options: Mapping[str, Any],
    grid: tuple[int, int] | None,
    place: Callable[[np.ndarray], Any] = key_map.keep,
) -> dict[str, Any]:
    """Read the parameters of a network but for its head, as a tree of float32 arrays.

    Args:
      options: of the model, all filled in.
      grid: the rows and columns of the positions that an input has; None: those of the file.
      place: what becomes of each array before the next one is read.

    Raises:
      DataError: the file is gone or damaged, or holds another network than the options say.
    """
    file = safetensors_file.open_file(Path(options["weights"]))
    _, prefix = _find_layout(file, model, options["layout"])
    return key_map.read_tree(file, _check(file, model, dict(options), prefix, grid), place)


@contextmanager
def raise_failures() -> Iterator[None]:
    """Raise what went wrong where a compiled program read a file, and not what its NaN led to.

    Raises:
      DataError: as of `read_tree`.
    """
    FAILURES.clear()
    try:
        yield
    finally:
        if FAILURES:
            raise FAILURES[0] from None


def _check(
    file: WeightFile,
    model: str,
    options: dict[str, Any],
    prefix: str,
    grid: tuple[int, int] | None = None,
) -> dict[key_map.Path, key_map.Piece]:
    """Return where the arrays lie, in a file that has all of them and no others."""
    layouts = KINDS[model]
    pieces: dict[key_map.Path, key_map.Piece] = layouts.make_pieces(file, prefix, options, grid)
    key_map.check(file, options["layout"], pieces, layouts.make_ignored(options["layout"], prefix))
    return pieces


def _find_layout(file: WeightFile, model: str, layout: str | None) -> tuple[str, str]:
    found: tuple[str, str] | None = KINDS[model].find_layout(file, layout)
    if found is None:
        raise _refuse_unknown(file, f"{model} of the layout {layout}" if layout else model)
    return found


def _refuse_unknown(file: WeightFile, kind: str) -> DataError:
    names = key_map.list_first(list(file.entries))
    what = f"{file.path.name} holds no {kind} that is known here: {names or 'it is empty'}"
    return DataError(what, str(file.path), "take a file of a network that docs/backbones.md lists")


def count_places(file: WeightFile, model: str, options: Mapping[str, Any]) -> int:
    """Return the rows of the grid of positions in a file that fits the options; 0 if the network has no positions."""
    _, prefix = _find_layout(file, model, options["layout"])
    pieces = KINDS[model].make_pieces(file, prefix, dict(options), None)
    tables = [piece for path, piece in pieces.items() if path[-1] == "positions"]
    if not tables:
        return 0
    (shape,) = tables[0].sources.values()
    return int(shape[-2] ** 0.5)  # with the class token or without
