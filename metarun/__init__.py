"""metarun: a command-line experiment runner for meta-learning on JAX.

From Python, `metarun.train`, `evaluate`, `compare`, `sweep`, `export`, `classify`, `load` and `Run` do what the
commands do. Each is imported when it is first named, so that `import metarun` imports neither jax nor numpy.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarun.api.access import evaluate, export, load, load_exported
    from metarun.api.calls import compare, list_runs, sweep, train
    from metarun.api.few_labels import classify
    from metarun.api.run import Run
    from metarun.errors import MetarunError

__version__ = "0.2.0"

PLACES = {
    "access": ("evaluate", "export", "load", "load_exported"),
    "calls": ("compare", "list_runs", "sweep", "train"),
    "few_labels": ("classify",),
    "run": ("Run",),
}

__all__ = [
    "MetarunError",
    "Run",
    "classify",
    "compare",
    "evaluate",
    "export",
    "list_runs",
    "load",
    "load_exported",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "MetarunError":
        return importlib.import_module("metarun.errors").MetarunError
    for module, names in PLACES.items():
        if name in names:
            return getattr(importlib.import_module(f"metarun.api.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
