"""YAML to frozen dataclasses, without jax: a wrong configuration is refused here, before the slow imports.

`load(path, overrides)` gives a RunConfig or raises ConfigError; `to_yaml` writes it back.
"""

from metarun.config.control_section import Control
from metarun.config.machine import Accelerator, Hosts
from metarun.config.run_file import document, load, make_trial_config, settle_trials, to_yaml
from metarun.config.schema import (
    Checkpoint,
    Evaluation,
    RunConfig,
    Stage,
    Training,
    TrialNumber,
    Trials,
)
from metarun.config.selection import Selection
from metarun.config.shipped import find_file

__all__ = [
    "Accelerator",
    "Checkpoint",
    "Control",
    "Evaluation",
    "Hosts",
    "RunConfig",
    "Selection",
    "Stage",
    "Training",
    "TrialNumber",
    "Trials",
    "document",
    "find_file",
    "load",
    "make_trial_config",
    "settle_trials",
    "to_yaml",
]
