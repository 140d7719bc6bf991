"""Outer optimizers: what the YAML may say. One dataclass per optax function, with optax's names and defaults.

The training builds them, because it has jax. A test compares every name and default here with optax's signature.
Options that YAML cannot hold (masks, dtypes) are left out.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

from metarun.config.schedules import Constant
from metarun.config.selection import Kind, Selection
from metarun.ranges import Above, AtLeast, Below

Positive = Annotated[float, Above(0)]
NotNegative = Annotated[float, AtLeast(0)]
Decay = Annotated[float, AtLeast(0), Below(1)]  # of a running mean: the weight of the past
CONSTANT = Selection("constant", Constant())


@dataclass(frozen=True)
class Optimizer:
    """The options of every optimizer."""

    learning_rate: Positive = 1e-3  # the highest rate; the schedule is a factor on it
    schedule: Annotated[Selection, Kind("schedule")] = CONSTANT


@dataclass(frozen=True)
class _Moments(Optimizer):
    """The options that Adam and its variants share."""

    b1: Decay = 0.9  # decay of the mean of gradients
    b2: Decay = 0.999  # decay of the mean of squared gradients
    eps: NotNegative = 1e-8  # added to the root of the second moment
    eps_root: NotNegative = 0.0  # added under the root


@dataclass(frozen=True)
class Adam(_Moments):
    """Kingma & Ba 2014, arXiv:1412.6980."""

    nesterov: bool = False  # look ahead, as Nadam does


@dataclass(frozen=True)
class Nadam(_Moments):
    """Dozat 2016: Adam with Nesterov momentum."""

    nesterov: bool = True  # look ahead; false makes it Adam


@dataclass(frozen=True)
class AdamW(Adam):
    """Loshchilov & Hutter 2017, arXiv:1711.05101: weight decay apart from the gradient."""

    weight_decay: NotNegative = 1e-4  # per step, times the learning rate


@dataclass(frozen=True)
class NadamW(Nadam):
    """Nadam with weight decay apart from the gradient."""

    weight_decay: NotNegative = 1e-4  # per step, times the learning rate


@dataclass(frozen=True)
class AMSGrad(_Moments):
    """Reddi et al. 2018, arXiv:1904.09237: Adam whose second moment never falls."""


@dataclass(frozen=True)
class AdaBelief(Adam):
    """Zhuang et al. 2020, arXiv:2010.07468: steps by the belief in the gradient."""

    eps: NotNegative = 1e-16  # added to the root of the second moment
    eps_root: NotNegative = 1e-16  # added under the root


@dataclass(frozen=True)
class RAdam(Adam):
    """Liu et al. 2019, arXiv:1908.03265: Adam with its early variance rectified."""

    threshold: NotNegative = 5.0  # rectify where the variance is at least this tractable


@dataclass(frozen=True)
class Lamb(_Moments):
    """You et al. 2019, arXiv:1904.00962: layer-wise Adam for large batches."""

    eps: NotNegative = 1e-6  # added to the root of the second moment
    weight_decay: NotNegative = 0.0  # per step, times the learning rate


@dataclass(frozen=True)
class AdaMax(Optimizer):
    """Kingma & Ba 2014, arXiv:1412.6980, section 7: Adam under the infinity norm."""

    b1: Decay = 0.9  # decay of the mean of gradients
    b2: Decay = 0.999  # decay of the largest gradient
    eps: NotNegative = 1e-8  # added to the denominator


@dataclass(frozen=True)
class Yogi(Optimizer):
    """Zaheer et al. 2018: Adam whose second moment grows additively."""

    b1: Decay = 0.9  # decay of the mean of gradients
    b2: Decay = 0.999  # decay of the mean of squared gradients
    eps: NotNegative = 1e-3  # added to the root of the second moment


@dataclass(frozen=True)
class Lion(Optimizer):
    """Chen et al. 2023, arXiv:2302.06675: the sign of a momentum; rates 3 to 10 times below Adam's."""

    b1: Decay = 0.9  # weight of the momentum in the update
    b2: Decay = 0.99  # decay of the momentum
    weight_decay: NotNegative = 1e-3  # per step, times the learning rate


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent."""

    momentum: Decay | None = None  # decay of the velocity; null: none
    nesterov: bool = False  # look ahead; needs momentum

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum is None:
            raise ValueError("nesterov needs momentum", "set momentum, or nesterov: false")


@dataclass(frozen=True)
class RMSProp(SGD):
    """Tieleman & Hinton 2012."""

    decay: Decay = 0.9  # decay of the mean of squared gradients
    eps: NotNegative = 1e-8  # added to the denominator
    initial_scale: NotNegative = 0.0  # first value of the mean
    centered: bool = False  # divide by the standard deviation, not by the root of the second moment


@dataclass(frozen=True)
class AdaGrad(Optimizer):
    """Duchi et al. 2011."""

    initial_accumulator_value: NotNegative = 0.1  # first value of the sum of squared gradients
    eps: NotNegative = 1e-7  # added to the denominator


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adabelief": AdaBelief,
    "adagrad": AdaGrad,
    "adam": Adam,
    "adamax": AdaMax,
    "adamw": AdamW,
    "amsgrad": AMSGrad,
    "lamb": Lamb,
    "lion": Lion,
    "nadam": Nadam,
    "nadamw": NadamW,
    "radam": RAdam,
    "rmsprop": RMSProp,
    "sgd": SGD,
    "yogi": Yogi,
}


def collect_options(config: Optimizer) -> dict[str, Any]:
    """Return the keyword arguments of the optax function of the same name, without `learning_rate`."""
    names = [field.name for field in dataclasses.fields(config)]
    return {name: getattr(config, name) for name in names if name not in ("learning_rate", "schedule")}
