"""YAML to frozen dataclasses, without jax: a wrong configuration is refused here, before the slow imports.

`load(path, overrides)` gives a RunConfig or raises ConfigError; `to_yaml` writes it back.
"""

from metarun.config.run_file import document, load, to_yaml
from metarun.config.schema import Accelerator, Checkpoint, Evaluation, Hosts, RunConfig, Stage, Training
from metarun.config.selection import Selection

__all__ = [
    "Accelerator",
    "Checkpoint",
    "Evaluation",
    "Hosts",
    "RunConfig",
    "Selection",
    "Stage",
    "Training",
    "document",
    "load",
    "to_yaml",
]
