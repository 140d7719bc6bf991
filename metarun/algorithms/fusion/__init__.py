"""Fusion: several members that were trained before become one model, which adapts to new tasks as a whole.

The members f_i are one earlier stage that has copies, or several stages. Their algorithms and models may differ where
only their outputs or features are used. Each member first adapts to the support by its own algorithm; then

    kind: average        f = 1/M Σ f_i
    kind: weighted       f = Σ w_i f_i, w the softmax of M trained numbers
    kind: per_task       the same with w_i = softmax_i(−L_i / τ), L_i the support's loss of an adapted member, τ trained
    kind: concatenate    f = W·[φ_1, …, φ_M] + b on the features before the last layers; W, b are a trained start

`outer_loss` is that of the weights: `fused` is L(f), `members` is Σ w_i L(f_i), `both` their sum. With
`mixes: probabilities` logits are averaged as log Σ w_i softmax(f_i). Or the members' weights become one set, which
adapts by the algorithm of the first member:

    kind: soup           their mean (Wortsman et al. 2022, arXiv 2203.05482)
    kind: greedy_soup    the mean of those that lower the loss of the first step's episodes (the same, recipe 1)
    kind: rebasin        their mean after the hidden units of each are put in the order of the first member's by weight
                         matching (Ainsworth et al. 2022, 2209.04836), for `mlp` and `conv4`

At last the fused model takes `fused_steps` gradient steps on the support: `adapts: fusion` changes w or (W, b),
`adapts: all` also what the members have made of the task. For `concatenate` the step size is divided by 1 + the mean of
‖φ‖² over the support, as in normalised least mean squares: features of many members are long, and a rate that one
member bears is too much for four.

Average, and the kinds that merge weights, have nothing to train, and need no `training`. The episodes that the greedy
soup is chosen by are training episodes: 32, or `training: {tasks_per_step: …}`. Deviation of `rebasin` with more than
two members: all are aligned with the first, where the paper's MergeMany aligns each with the others' mean in turn.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from metarun import base
from metarun.algorithms.fusion import concatenation, output_mixture, weight_merging
from metarun.blocks import earlier_stages
from metarun.ranges import Above, AtLeast

EXAMPLE = base.Example(("maml", "cavia"), {"members": ("maml", "cavia")})
Kind = Literal["average", "weighted", "per_task", "concatenate", "soup", "greedy_soup", "rebasin"]
MERGING = ("soup", "greedy_soup", "rebasin")  # the kinds that make one set of weights
MIXING = ("average", "weighted", "per_task")  # the kinds that average outputs


@dataclass(frozen=True)
class Config:
    """Who is fused, and how."""

    members: tuple[str, ...] = ("members",)  # one earlier stage with copies, or several
    # What is fused: outputs, with equal weights, with trained ones or with weights of the task; features; or weights.
    kind: Kind = "weighted"
    mixes: Literal["outputs", "probabilities"] = "outputs"  # average, weighted, per_task: what is averaged
    # weighted, per_task: the loss of the fused model, the weighted losses of the members, or the sum of both.
    outer_loss: Literal["fused", "members", "both"] = "fused"
    fused_steps: Annotated[int, AtLeast(0)] = 0  # gradient steps of the fused model on the support
    fused_lr: Annotated[float, Above(0)] = 0.1  # step size, for a loss that is the mean over the support
    adapts: Literal["fusion", "all"] = "fusion"  # what these steps change

    def __post_init__(self):
        if not self.members:
            raise ValueError("there are no members", "name one earlier stage with copies, or several")
        if self.kind in MERGING and self.fused_steps and self.adapts == "fusion":
            raise ValueError(f"a {self.kind} has nothing of its own to adapt", "set adapts: all")
        if self.outer_loss != "fused" and self.kind not in ("weighted", "per_task"):
            raise ValueError(f"{self.kind} trains no weights of members", "leave outer_loss out")
        if self.mixes != "outputs" and self.kind not in MIXING:
            raise ValueError(f"{self.kind} averages no outputs", "leave mixes out")

    @property
    def trains_nothing(self) -> bool:
        """Whether a stage has nothing to train, and so needs no `training`."""
        return self.kind == "average" or self.kind in MERGING


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions on the earlier stages `members`. The model of this stage is not used.

    Returns:
      An algorithm whose members' weights are frozen. Its init raises ConfigError if weights of different shapes
      should become one, or members have no features.

    Raises:
      ValueError: a stage is not there, or numbers should be averaged as probabilities.
    """
    algorithms = earlier_stages.find_all("members", config.members, earlier)
    if config.mixes == "probabilities" and problem.spec.targets != "classes":
        raise ValueError("this task family has no classes, and mixes is probabilities", "set mixes: outputs")
    if config.kind in MERGING:
        return weight_merging.build(config, algorithms, problem.objective)
    if config.kind == "concatenate":
        return concatenation.build(config, algorithms, problem.objective)
    return output_mixture.build(config, algorithms, problem.objective)
